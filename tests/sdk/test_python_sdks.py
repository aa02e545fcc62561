"""The official Python SDKs, unmodified, against the gateway."""

from __future__ import annotations

import anthropic
import openai
import pytest
from pydantic import BaseModel

TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "weather",
            "description": "The weather in a city",
            "parameters": {
                "type": "object",
                "properties": {"city": {"type": "string"}},
                "required": ["city"],
            },
        },
    }
]
ASK = [{"role": "user", "content": "Hello"}]


class Capital(BaseModel):
    city: str
    population: int


@pytest.fixture
def client(key):
    return openai.OpenAI(base_url=key.workspace.gateway.url + "/v1", api_key=key.key)


@pytest.fixture
def claude(key):
    return anthropic.Anthropic(base_url=key.workspace.gateway.url, api_key=key.key)


def test_openai_chat_plain(client):
    answer = client.chat.completions.create(model="gpt-6-luna", messages=ASK)
    assert answer.choices[0].message.content.startswith("This is the simulator's answer")
    assert answer.usage.total_tokens > 0


def test_openai_chat_streaming(client):
    chunks = list(client.chat.completions.create(model="gpt-6-luna", messages=ASK, stream=True))
    assert all(chunk.choices for chunk in chunks), "no usage chunk that was not asked for"
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
    assert text.startswith("This is the simulator's answer")
    with_usage = client.chat.completions.create(
        model="gpt-6-luna", messages=ASK, stream=True, stream_options={"include_usage": True}
    )
    assert list(with_usage)[-1].usage.total_tokens > 0


def test_openai_tools(client):
    answer = client.chat.completions.create(model="gpt-6-luna", messages=ASK, tools=TOOLS)
    call = answer.choices[0].message.tool_calls[0]
    assert (call.function.name, call.function.arguments) == ("weather", '{"city":"sample"}')
    turns = [
        *ASK,
        answer.choices[0].message,
        {"role": "tool", "tool_call_id": call.id, "content": "sunny"},
    ]
    second = client.chat.completions.create(model="gpt-6-luna", messages=turns, tools=TOOLS)
    assert second.choices[0].message.content


def test_openai_structured_output(client):
    answer = client.chat.completions.parse(
        model="gpt-6-luna", messages=ASK, response_format=Capital
    )
    assert answer.choices[0].message.parsed == Capital(city="sample", population=7)


def test_openai_responses(client):
    answer = client.responses.create(model="gpt-6-luna", input="Hello")
    assert answer.output_text.startswith("This is the simulator's answer")
    with client.responses.stream(model="gpt-6-luna", input="Hello") as stream:
        text = "".join(e.delta for e in stream if e.type == "response.output_text.delta")
        assert stream.get_final_response().output_text == text
    parsed = client.responses.parse(model="gpt-6-luna", input="Hello", text_format=Capital)
    assert parsed.output_parsed == Capital(city="sample", population=7)


def test_openai_embeddings_and_models(client):
    answer = client.embeddings.create(model="text-embedding-3-small", input=["a", "b"])
    assert [item.embedding for item in answer.data] == [[0.5, 0.25, -1.0]] * 2
    assert "gpt-6-luna" in [model.id for model in client.models.list()]


def test_openai_errors_arrive_as_the_sdk_s_own_exceptions(workspace, key):
    base = workspace.gateway.url + "/v1"

    def ask(key_text, model="gpt-6-luna", retries=0, **sim):
        client = openai.OpenAI(base_url=base, api_key=key_text, max_retries=retries)
        body = {"sim": sim} if sim else None
        return client.chat.completions.create(model=model, messages=ASK, extra_body=body)

    with pytest.raises(openai.AuthenticationError) as error:
        ask("tg_nonsense")
    assert error.value.code == "key_malformed"
    with pytest.raises(openai.PermissionDeniedError) as error:
        ask(workspace.key({"models": {"deny": ["gpt-6-*"]}}).key)
    assert error.value.code == "model_not_allowed"
    with pytest.raises(openai.RateLimitError) as error:
        limited = workspace.key({"requests_per_minute": 1})
        ask(limited.key)
        ask(limited.key)
    assert error.value.code == "rate_limited"
    assert int(error.value.response.headers["retry-after"]) >= 1
    with pytest.raises(openai.APIStatusError) as error:
        ask(workspace.key({"spend_caps": [{"window": "day", "limit_usd": "0.00001"}]}).key, retries=3)
    assert (error.value.status_code, error.value.code) == (402, "budget_exceeded")
    with pytest.raises(openai.BadRequestError):
        ask(key.key, status=400)
    with pytest.raises(openai.InternalServerError):
        ask(key.key, status=500)


def test_openai_s_own_retries_work(workspace, simulator):
    workspace.admin(
        "PUT",
        "/routes/once",
        {"targets": [{"provider": "openai", "model": "gpt-6-luna"}], "attempts": 1},
    )
    key = workspace.key()
    simulator.script({"status": 503}, {}, credential=workspace.credential)
    client = openai.OpenAI(base_url=workspace.gateway.url + "/v1", api_key=key.key, max_retries=2)
    assert client.chat.completions.create(model="once", messages=ASK).choices
    assert len(workspace.books()["entries"]) == 2


def test_anthropic_plain_and_streaming(claude):
    answer = claude.messages.create(model="claude-haiku-4-5", max_tokens=100, messages=ASK)
    assert answer.content[0].text.startswith("This is the simulator's answer")
    with claude.messages.stream(model="claude-haiku-4-5", max_tokens=100, messages=ASK) as stream:
        text = "".join(stream.text_stream)
        final = stream.get_final_message()
    assert final.content[0].text == text
    assert final.usage.output_tokens > 1


def test_anthropic_tools_and_token_count(claude):
    tools = [
        {
            "name": "weather",
            "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}},
        }
    ]
    answer = claude.messages.create(
        model="claude-haiku-4-5", max_tokens=100, messages=ASK, tools=tools
    )
    assert (answer.content[0].name, answer.content[0].input) == ("weather", {"city": "sample"})
    count = claude.messages.count_tokens(model="claude-haiku-4-5", messages=ASK)
    assert count.input_tokens > 0


def test_anthropic_errors_arrive_as_the_sdk_s_own_exceptions(workspace, key):
    def ask(key_text, **sim):
        client = anthropic.Anthropic(
            base_url=workspace.gateway.url, api_key=key_text, max_retries=0
        )
        body = {"sim": sim} if sim else None
        client.messages.create(
            model="claude-haiku-4-5", max_tokens=10, messages=ASK, extra_body=body
        )

    with pytest.raises(anthropic.AuthenticationError):
        ask("tg_nonsense")
    with pytest.raises(anthropic.PermissionDeniedError):
        ask(workspace.key({"models": {"deny": ["claude-*"]}}).key)
    with pytest.raises(anthropic.RateLimitError):
        limited = workspace.key({"requests_per_minute": 1})
        ask(limited.key)
        ask(limited.key)
    with pytest.raises(anthropic.APIStatusError) as error:
        ask(key.key, status=529)
    assert error.value.status_code == 529
