"""Agents that go round in circles are stopped, and it is stated what each had spent; ordinary traffic is not."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal

import jwt
import pytest
from conftest import new_workspace
from gateway import Gateway, call, new_secrets

SECRET = "an-actor-secret-of-at-least-32-bytes"
LOOK = {"name": "search", "arguments": {"query": "weather in Paris", "limit": 3}}
READ = {"name": "open", "arguments": {"page": 1}}


class Agent:
    """An agent with a session of its own under a key."""

    def __init__(self, workspace, policy=None, session="s-1", key=None):
        self.workspace = workspace
        self.key = key or workspace.key({"loop_breaker": policy or {}})
        self.session = session

    def post(self, path, body):
        claims = {"exp": self._now() + 600, "agent": "crawler", "session": self.session}
        token = jwt.encode(claims, SECRET, algorithm="HS256", headers={"kid": "main"})
        reply = self.key.post(path, body, x_tallygate_actor=token)
        if reply.status == 200:
            # The breaker hears of an answer with its settlement.
            self.key.event(reply.id)
        return reply

    def chat(self, messages, **fields):
        return self.post("/v1/chat/completions", {"model": "gpt-6-luna", "messages": messages, **fields})

    def say(self, text, **fields):
        return self.chat([{"role": "user", "content": text}], **fields)

    def loops(self):
        return self.key.admin("GET", "/loops")["data"]

    def spent(self):
        return Decimal(self.key.state()["spent_usd"]["lifetime"])

    def _now(self):
        status, clock = call("POST", f"{self.workspace.gateway.url}/_test/advance?ms=0")
        assert status == 200
        return clock["now"] // 1000


@pytest.fixture
def workspace(workspace):
    workspace.admin("POST", "/actor-secrets", {"kid": "main", "secret": SECRET})
    return workspace


def advance(workspace, seconds):
    call("POST", f"{workspace.gateway.url}/_test/advance?ms={seconds * 1000}")


def until_stopped(turn, at_most=100):
    """Takes turns until one is refused as a loop; returns that refusal and the turns before it."""
    for number in range(at_most):
        reply = turn(number)
        if reply.status != 200:
            assert (reply.status, reply.code) == (429, "loop_detected"), reply.body
            return reply, number
    raise AssertionError(f"it was not stopped in {at_most} turns")


def stated(agent, reply, kind, bound):
    """Checks what a refusal says, and that the money is that of the books and within the bound."""
    facts = reply.error["metadata"]
    assert facts["evidence"]["kind"] == kind
    assert (facts["agent"], facts["session"]) == ("crawler", agent.session)
    assert Decimal(facts["spent_usd"]) == agent.spent()
    assert Decimal(facts["spent_usd"]) <= Decimal(bound), facts
    assert int(reply.headers["retry-after"]) > 0
    print(f"{kind}: stopped after {facts['requests']} answers and {facts['spent_usd']} USD (bound {bound} USD)")
    return facts


def call_of(dialect, tool, number):
    """A tool call and its result, as the conversation carries them."""
    if dialect == "anthropic":
        used = {"type": "tool_use", "id": f"t{number}", "name": tool["name"], "input": tool["arguments"]}
        result = {"type": "tool_result", "tool_use_id": f"t{number}", "content": f"result {number}"}
        return [{"role": "assistant", "content": [used]}, {"role": "user", "content": [result]}]
    # Models write the same arguments in many ways.
    arguments = json.dumps(tool["arguments"], indent=number % 3, sort_keys=number % 2 == 0)
    if dialect == "responses":
        return [
            {"type": "function_call", "call_id": f"c{number}", "name": tool["name"], "arguments": arguments},
            {"type": "function_call_output", "call_id": f"c{number}", "output": f"result {number}"},
        ]
    function = {"name": tool["name"], "arguments": arguments}
    used = {"id": f"c{number}", "type": "function", "function": function}
    return [
        {"role": "assistant", "content": None, "tool_calls": [used]},
        {"role": "tool", "tool_call_id": f"c{number}", "content": f"result {number}"},
    ]


def test_the_same_request_again_and_again_is_stopped(workspace):
    agent = Agent(workspace)
    sim = {"input_tokens": 20_000, "output_tokens": 500}
    # White space and the time of day differ from turn to turn.
    reply, turns = until_stopped(
        lambda n: agent.say(f"It is 12:0{n % 10}:07.{'  ' * n} Book the flight", sim=sim)
    )
    facts = stated(agent, reply, "repeated_request", "0.10")
    assert turns == 10 and facts["evidence"]["times"] == 10
    assert len(workspace.books()["entries"]) == 10, "no provider was asked for what was refused"
    # It is in the books, and other sessions go on.
    agent.key.ring()
    events = workspace.admin("GET", "/requests?code=loop_detected")["data"]
    assert [(event["outcome"], event["actor"]["session"]) for event in events] == [("refused", "s-1")]
    assert Agent(workspace, session="s-2", key=agent.key).say("Book the flight").status == 200


@pytest.mark.parametrize("dialect", ["chat", "responses", "anthropic"])
def test_tools_that_play_ping_pong_are_stopped(workspace, dialect):
    agent = Agent(workspace)
    history = [{"role": "user", "content": "Plan my trip"}]
    sim = {"input_tokens": 20_000, "output_tokens": 500}

    def turn(number):
        if dialect == "anthropic":
            body = {"model": "claude-haiku-4-5", "max_tokens": 500, "messages": history, "sim": sim}
            reply = agent.post("/v1/messages", body)
        elif dialect == "responses":
            body = {"model": "gpt-6-luna", "input": history, "sim": sim}
            reply = agent.post("/v1/responses", body)
        else:
            reply = agent.chat(history, sim=sim)
        history.extend(call_of(dialect, (LOOK, READ)[number % 2], number))
        return reply

    reply, turns = until_stopped(turn)
    assert turns == 10
    facts = stated(agent, reply, "tool_cycle", "0.30")
    assert facts["evidence"] == {"kind": "tool_cycle", "calls": 10, "period": 2}


def test_a_context_that_never_shrinks_is_stopped(workspace):
    agent = Agent(workspace, {"context_tokens": 20_000})
    history = [{"role": "user", "content": "Read everything"}]

    def turn(number):
        history.append({"role": "user", "content": f"page {number} " + "word " * 500})
        return agent.chat(history, sim={"input_tokens": 700 * (number + 1), "output_tokens": 50})

    reply, turns = until_stopped(turn)
    facts = stated(agent, reply, "context_growth", "0.10")
    assert turns >= 20 and facts["evidence"]["input_tokens"] >= 20_000


def test_spending_that_leaps_past_its_own_baseline_is_stopped(workspace):
    agent = Agent(workspace, {"spend_floor_usd": "0.02"})
    for day in range(8):
        assert agent.say(f"task {day}", sim={"input_tokens": 1_000, "output_tokens": 100}).status == 200
        advance(workspace, 300)
    quiet = agent.spent()
    sim = {"input_tokens": 20_000, "output_tokens": 500}
    reply, _ = until_stopped(lambda n: agent.say(f"another {n}", sim=sim))
    facts = stated(agent, reply, "spend_leap", quiet + Decimal("0.06"))
    assert Decimal(facts["evidence"]["spent_usd"]) >= Decimal("0.02")
    assert Decimal(facts["evidence"]["spent_usd"]) == agent.spent() - quiet


def test_a_stopped_agent_cools_down_and_is_stopped_longer_when_it_goes_on(workspace):
    agent = Agent(workspace, {"repeats": 3})
    first, _ = until_stopped(lambda n: agent.say("again"))
    assert 55 <= int(first.headers["retry-after"]) <= 60
    assert agent.say("something else").code == "loop_detected", "all of the session waits"
    advance(workspace, 61)
    assert agent.say("again").status == 200, "one probe"
    second = agent.say("again")
    assert second.code == "loop_detected"
    assert 115 <= int(second.headers["retry-after"]) <= 120
    advance(workspace, 121)
    assert agent.say("something else").status == 200
    assert agent.say("yet another").status == 200
    (loop,) = agent.loops()
    assert (loop["state"], loop["trips_before"]) == ("half_open", 1)
    advance(workspace, 600)
    assert agent.loops() == [], "forgotten"
    assert until_stopped(lambda n: agent.say("again"))[1] == 3


def test_a_person_clears_a_loop(workspace):
    agent = Agent(workspace, {"repeats": 3})
    reply, _ = until_stopped(lambda n: agent.say("again"))
    (loop,) = agent.loops()
    assert loop["scope"] == reply.error["metadata"]["scope"]
    assert (loop["state"], loop["session"]) == ("open", "s-1")
    path = f"/keys/{agent.key.id}/loops/{loop['scope']}"
    assert workspace.admin("DELETE", path) == {"scope": loop["scope"], "cleared": True}
    assert workspace.admin("DELETE", path)["cleared"] is False
    assert agent.loops() == []
    assert workspace.admin("GET", "/audit")["data"][0]["act"] == "loop_cleared"
    assert until_stopped(lambda n: agent.say("again"))[1] == 3, "the count begins anew"


def test_a_batch_over_many_documents_goes_on(workspace):
    agent = Agent(workspace)

    def summarise(number):
        text = f"Summarise invoice {number} of 2026-11-20 12:00: " + f"line {number} " * 50
        return agent.say(text, sim={"input_tokens": 2_000, "output_tokens": 200}).status

    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(summarise, range(120))) == {200}


def test_retries_after_errors_go_on(workspace):
    agent = Agent(workspace)
    # The gateway tries twice itself, so each of these is two errors of the provider.
    for task in range(3):
        workspace.simulator.script(*[{"status": 503}] * 30, credential=workspace.credential)
        failed = [agent.say(f"Do task {task}") for _ in range(15)]
        assert {reply.status for reply in failed} == {503}, [reply.body for reply in failed]
        assert agent.say(f"Do task {task}").status == 200
    assert agent.loops() == []


def test_an_evaluation_run_goes_on(workspace):
    agent = Agent(workspace)

    def evaluate(prompt):
        fields = [{"seed": seed, "temperature": seed / 10} for seed in range(12)]
        # The same prompt with other settings one after the other, and alike many times in parallel.
        assert {agent.say(f"question {prompt}", **field).status for field in fields} == {200}
        with ThreadPoolExecutor(12) as pool:
            same = pool.map(
                lambda _: agent.say(f"sample {prompt}", sim={"latency_ms": 300}).status, range(12)
            )
            assert set(same) == {200}

    for prompt in range(3):
        evaluate(prompt)
    sessions = [Agent(workspace, session=f"run-{n}", key=agent.key) for n in range(12)]
    assert {session.say("the same question").status for session in sessions} == {200}


def test_a_job_that_polls_every_minute_goes_on(workspace):
    agent = Agent(workspace)
    for _ in range(30):
        assert agent.say("Is there any new mail?").status == 200
        advance(workspace, 60)


def test_requests_without_an_agent_are_watched_only_where_the_policy_says_so(workspace):
    key = workspace.key()
    assert {key.chat().status for _ in range(15)} == {200}
    watched = workspace.key({"loop_breaker": {"watch": "key", "repeats": 3}})

    def turn(_):
        reply = watched.chat()
        if reply.status == 200:
            watched.event(reply.id)
        return reply

    reply, turns = until_stopped(turn)
    assert (turns, reply.error["metadata"]["scope"]) == (3, "key")


def test_a_restart_keeps_a_loop_stopped(tmp_path, simulator):
    gateway = Gateway(home=tmp_path, settings=new_secrets() | {"TALLYGATE_FAULTS": "on"}).start()
    try:
        workspace = new_workspace(gateway, simulator)
        workspace.admin("POST", "/actor-secrets", {"kid": "main", "secret": SECRET})
        agent = Agent(workspace, {"repeats": 3})
        until_stopped(lambda n: agent.say("again"))
        gateway.kill()
        gateway.start()
        assert agent.say("something else").code == "loop_detected"
        assert [loop["state"] for loop in agent.loops()] == ["open"]
    finally:
        gateway.stop()
