"""Every request is answered as the provider answers it, and recorded with exact tokens and cost."""

from __future__ import annotations

import hashlib
import json
from decimal import Decimal

import pytest


def sse(reply) -> list[str]:
    return [line[6:] for line in reply.body.decode().split("\n") if line.startswith("data: ")]


def test_a_chat_is_answered_and_recorded_to_the_nanodollar(key):
    sim = {"input_tokens": 1000, "output_tokens": 200, "cached_tokens": 500, "reasoning_tokens": 50}
    reply = key.chat(sim=sim)
    assert reply.status == 200
    assert reply.json["object"] == "chat.completion"
    # 1000 x 0.1 + 500 x 0.01 + 250 x 0.5, per million.
    assert reply.headers["x-tallygate-cost-usd"] == "0.00023"
    assert reply.headers["x-tallygate-cost-input-usd"] == "0.0001"
    assert reply.headers["x-tallygate-cost-cache-read-usd"] == "0.000005"
    assert reply.headers["x-tallygate-cost-reasoning-usd"] == "0.000025"
    assert reply.headers["x-tallygate-provider"] == "openai"
    assert reply.headers["x-tallygate-attempts"] == "1"
    event = key.event(reply.id)
    assert event["outcome"] == "completed"
    assert event["usage"]["source"] == "reported"
    assert event["usage"]["tally"]["tokens"] == {
        "input": 1000,
        "cache_read": 500,
        "output": 200,
        "reasoning": 50,
    }
    assert event["cost"]["total"] == event["charged"] == "0.00023"
    assert (event["owner"], event["cost_centre"]) == ("ann", "cc-1")


def test_a_stream_passes_unchanged_and_its_cost_comes_in_a_last_comment(key):
    reply = key.chat(stream=True, sim={"chunks": 20, "input_tokens": 10, "output_tokens": 20})
    assert reply.status == 200
    assert reply.headers["content-type"].startswith("text/event-stream")
    events = sse(reply)
    assert events[-1] == "[DONE]"
    # The usage chunk that the gateway asked for is not passed on to a client that did not ask for it.
    assert all(json.loads(event)["choices"] for event in events[:-1])
    text = "".join(json.loads(e)["choices"][0]["delta"].get("content", "") for e in events[:-1])
    assert text.startswith("This is the simulator's answer")
    last = reply.body.decode().rstrip().split("\n")[-1]
    assert last == f": tallygate request_id={reply.id} cost_usd=0.000011"
    event = key.event(reply.id)
    assert event["usage"]["tally"]["tokens"] == {"input": 10, "output": 20}
    assert event["charged"] == "0.000011"


def test_a_client_that_asks_for_usage_gets_the_provider_s_bytes(key, simulator):
    body = {
        "model": "gpt-6-luna",
        "stream": True,
        "stream_options": {"include_usage": True},
        "messages": [{"role": "user", "content": "Hi"}],
        "sim": {"split_bytes": 7},
    }
    reply = key.post("/v1/chat/completions", body)
    direct = simulator.url + "/openai/v1/chat/completions"
    import urllib.request

    request = urllib.request.Request(direct, data=json.dumps(body).encode(), method="POST")
    request.add_header("authorization", "Bearer sk-sim-direct")
    with urllib.request.urlopen(request) as answer:
        expected = answer.read()
    passed = reply.body.split(b": tallygate")[0]

    def without_ids(text):
        return b"".join(part.split(b'"', 1)[-1] for part in text.split(b"chatcmpl_sim_"))

    assert without_ids(passed) == without_ids(expected)


@pytest.mark.parametrize("stream", [False, True])
def test_a_message_is_recorded_with_its_cache_buckets(key, stream):
    sim = {
        "input_tokens": 100,
        "cached_tokens": 1000,
        "cache_write_tokens": 200,
        "cache_write_1h_tokens": 300,
        "output_tokens": 50,
    }
    reply = key.messages(sim=sim, stream=stream)
    assert reply.status == 200
    event = key.event(reply.id)
    assert event["usage"]["tally"]["tokens"] == {
        "input": 100,
        "cache_read": 1000,
        "cache_write_5m": 200,
        "cache_write_1h": 300,
        "output": 50,
    }
    # 100x1 + 1000x0.1 + 200x1.25 + 300x2 + 50x5, per million.
    assert event["charged"] == "0.0013"


@pytest.mark.parametrize("stream", [False, True])
def test_a_response_is_recorded(key, stream):
    body = {
        "model": "gpt-6-sol",
        "input": "Hello",
        "stream": stream,
        "sim": {"input_tokens": 100, "cached_tokens": 20, "output_tokens": 30, "reasoning_tokens": 10},
    }
    reply = key.post("/v1/responses", body)
    assert reply.status == 200
    event = key.event(reply.id)
    assert event["usage"]["tally"]["tokens"] == {
        "input": 100,
        "cache_read": 20,
        "output": 30,
        "reasoning": 10,
    }
    assert event["charged"] == "0.000604"


def test_embeddings_completions_and_moderations_are_recorded(key):
    reply = key.post(
        "/v1/embeddings",
        {"model": "text-embedding-3-small", "input": ["a", "b"], "sim": {"input_tokens": 1000}},
    )
    assert reply.headers["x-tallygate-cost-usd"] == "0.00002"
    assert len(reply.json["data"]) == 2
    reply = key.post("/v1/completions", {"model": "gpt-6-luna", "prompt": "Say", "max_tokens": 5})
    assert reply.json["object"] == "text_completion"
    assert key.event(reply.id)["outcome"] == "completed"
    reply = key.post("/v1/moderations", {"model": "omni-moderation-latest", "input": "x"})
    event = key.event(reply.id)
    assert (event["outcome"], event["charged"]) == ("completed", "0")
    reply = key.post(
        "/v1/messages/count_tokens",
        {"model": "claude-haiku-4-5", "messages": [{"role": "user", "content": "Hi"}]},
    )
    assert reply.json["input_tokens"] > 0
    assert key.event(reply.id)["charged"] == "0"


def test_the_body_reaches_the_provider_byte_for_byte(key):
    body = (
        b'{"model": "gpt-6-luna",\n "messages": [{"role":"user","content":"\xc3\xa4 \\u00e4"}],'
        b' "unknown_field": {"b": 1, "a": 1.50}, "sim": {"echo": true}}'
    )
    reply = key.post("/v1/chat/completions", body)
    seen = json.loads(reply.json["choices"][0]["message"]["content"])
    assert seen["body_sha256"] == hashlib.sha256(body).hexdigest()
    # Nothing of the caller's that is the gateway's business reaches the provider.
    assert not {"cookie", "x-forwarded-for", "cf-connecting-ip", "x-tallygate-actor"} & set(seen["headers"])


def test_the_models_are_listed_with_prices_and_only_those_the_key_may_use(workspace):
    key = workspace.key({"models": {"allow": ["gpt-6-*"], "deny": ["gpt-6-astra"]}})
    reply = key.get("/v1/models")
    models = {model["id"]: model for model in reply.json["data"]}
    assert "gpt-6-luna" in models and "gpt-6-astra" not in models and "gpt-5" not in models
    assert models["gpt-6-luna"]["pricing"]["tiers"]["standard"]["input"] == "0.1"


def test_usage_and_requests_reach_the_ledger_exactly_once(workspace):
    key = workspace.key()
    replies = [key.chat(sim={"input_tokens": 100, "output_tokens": 10}) for _ in range(5)]
    for _ in range(3):
        key.ring()
    usage = workspace.admin("GET", "/usage?group_by=model,key&bucket=day")["data"]
    assert [(u["model"], u["requests"], u["charged_usd"]) for u in usage] == [
        ("gpt-6-luna", 5, "0.000075")
    ]
    listed = workspace.admin("GET", f"/requests?key={key.id}&limit=3")
    assert len(listed["data"]) == 3
    rest = workspace.admin("GET", f"/requests?key={key.id}&limit=3&cursor={listed['next_cursor']}")
    ids = [event["id"] for event in listed["data"] + rest["data"]]
    assert ids == [reply.id for reply in reversed(replies)]
    one = workspace.admin("GET", f"/requests/{replies[0].id}")
    assert one["id"] == replies[0].id


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    "kind",
    ["mistral", "groq", "openrouter", "perplexity", "deepseek", "xai", "cohere", "gemini"],
)
def test_each_compatible_provider_s_usage_is_read_in_its_own_way(workspace, kind, stream):
    models = {
        "mistral": "mistral-large-4",
        "groq": "openai/gpt-oss-20b",
        "openrouter": "anthropic/claude-x",
        "perplexity": "sonar",
        "deepseek": "deepseek-flash",
        "xai": "grok-4.7",
        "cohere": "command-a-03-2025",
        "gemini": "gemini-3.8-flash",
    }
    workspace.provider(kind)
    key = workspace.key()
    sim = {"input_tokens": 1000, "output_tokens": 100, "reasoning_tokens": 40, "chunks": 3}
    reply = key.chat(model=f"{kind}/{models[kind]}", stream=stream, sim=sim)
    assert reply.status == 200, reply.body
    event = key.event(reply.id)
    assert event["usage"]["source"] == "reported", event
    tally = event["usage"]["tally"]
    assert tally["tokens"] == {"input": 1000, "output": 100, "reasoning": 40}
    assert "flags" not in tally
    stated = {"openrouter": "0.0051", "perplexity": "0.00614", "xai": "0.00284"}
    if kind in stated:
        assert event["charged"] == stated[kind]
    elif kind != "openrouter":
        assert Decimal(event["charged"]) > 0, event
