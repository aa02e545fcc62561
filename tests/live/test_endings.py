"""However a request ends, its hold is settled exactly once, and nothing stays held."""

from __future__ import annotations

import http.client
import json
import socket
import time
from decimal import Decimal
from urllib.parse import urlsplit

import pytest

FAST = {"attempts": 1, "first_byte_timeout_ms": 400, "idle_timeout_ms": 300}


def route(workspace, provider="openai", model="gpt-6-luna", **fields):
    targets = [{"provider": provider, "model": model}]
    workspace.admin("PUT", "/routes/fast", {"targets": targets, **FAST, **fields})


def settled_once(key, request_id):
    """The request's only event; and the key's counters are the sum of its events."""
    event = key.event(request_id)
    state = key.state()
    assert state["in_flight"] == 0, state
    assert state["events_charged_usd"] == state["spent_usd"]["lifetime"]
    return event


def read_stream(reply):
    """What came of a stream that may break off."""
    got = b""
    try:
        while chunk := reply.read1():
            got += chunk
        return got, True
    except (http.client.HTTPException, ConnectionError):
        return got, False


def open_stream(key, body):
    url = urlsplit(key.workspace.gateway.url)
    connection = http.client.HTTPConnection(url.hostname, url.port, timeout=20)
    headers = {"authorization": f"Bearer {key.key}", "content-type": "application/json"}
    path = "/v1/messages" if "max_tokens" in body else "/v1/chat/completions"
    connection.request("POST", path, json.dumps(body), headers)
    return connection, connection.getresponse()


def chat(**sim):
    return {
        "model": "fast",
        "stream": True,
        "messages": [{"role": "user", "content": "Hi"}],
        "sim": sim,
    }


@pytest.mark.parametrize("status", [400, 401, 403, 404, 422])
def test_a_provider_s_refusal_reaches_the_caller_as_it_came_and_costs_nothing(key, status):
    reply = key.chat(sim={"status": status})
    assert reply.status == status
    assert "simulator was asked" in reply.error["message"]
    event = settled_once(key, reply.id)
    assert (event["outcome"], event["charged"]) == ("provider_error", "0")
    assert event["attempts"][0]["status"] == status


@pytest.mark.parametrize("status", [429, 500, 503, 529])
def test_a_provider_s_failure_is_tried_again_and_then_passed_on(workspace, status):
    route(workspace, attempts=2)
    key = workspace.key()
    reply = key.chat(model="fast", sim={"status": status})
    assert reply.status == status
    event = settled_once(key, reply.id)
    assert [attempt["status"] for attempt in event["attempts"]] == [status, status]
    assert event["charged"] == "0"


def test_a_failure_that_passes_is_not_seen_by_the_caller(workspace, simulator):
    route(workspace, attempts=3)
    key = workspace.key()
    steps = [{"status": 503}, {"status": 429, "retry_after": 1}, {}]
    simulator.script(*steps, credential=workspace.credential)
    started = time.monotonic()
    reply = key.chat(model="fast")
    assert reply.status == 200
    assert time.monotonic() - started >= 1, "Retry-After is honoured"
    assert reply.headers["x-tallygate-attempts"] == "3"
    event = settled_once(key, reply.id)
    assert [attempt["status"] for attempt in event["attempts"]] == [503, 429, 200]


def test_the_next_target_answers_when_the_first_does_not(workspace):
    workspace.provider("openai", name="down")
    workspace.admin("PATCH", "/providers/down", {"base_url": "http://127.0.0.1:9/v1"})
    targets = [
        {"provider": "down", "model": "gpt-6-sol"},
        {"provider": "openai", "model": "gpt-6-luna"},
    ]
    workspace.admin("PUT", "/routes/best", {"targets": targets, "attempts": 1})
    key = workspace.key()
    reply = key.chat(model="best", sim={"input_tokens": 1000, "output_tokens": 10})
    assert reply.status == 200
    assert reply.headers["x-tallygate-model"] == "gpt-6-luna"
    event = settled_once(key, reply.id)
    assert [a.get("error") for a in event["attempts"]] == ["connection_failed", None]
    assert (event["requested_model"], event["model"]) == ("best", "gpt-6-luna")
    assert event["charged"] == "0.000105"


def test_a_provider_that_refuses_the_connection_is_a_502_and_costs_nothing(workspace):
    workspace.admin("PATCH", "/providers/openai", {"base_url": "http://127.0.0.1:9/v1"})
    route(workspace)
    key = workspace.key()
    reply = key.chat(model="fast")
    assert (reply.status, reply.error["code"]) == (502, "provider_unreachable")
    event = settled_once(key, reply.id)
    assert (event["outcome"], event["charged"]) == ("provider_unreachable", "0")


def test_a_provider_that_sends_no_headers_is_a_504(workspace):
    route(workspace)
    key = workspace.key()
    reply = key.chat(model="fast", sim={"latency_ms": 3000})
    assert (reply.status, reply.error["code"]) == (504, "provider_timeout")
    event = settled_once(key, reply.id)
    # The provider had the input and may bill it.
    assert event["outcome"] == "stalled"
    assert event["usage"]["source"] == "estimated"
    assert Decimal(event["charged"]) > 0


def test_a_stream_that_dies_is_seen_as_broken_and_settled_from_what_came(workspace):
    route(workspace)
    key = workspace.key()
    _, reply = open_stream(key, chat(chunks=10, chunk_delay_ms=20, die_after_chunks=4, output_tokens=100))
    got, whole = read_stream(reply)
    assert b"data: " in got and not whole
    event = settled_once(key, reply.headers["x-tallygate-request-id"])
    assert event["outcome"] == "provider_died"
    assert event["usage"]["source"] == "estimated"
    assert 0 < Decimal(event["charged"]) <= Decimal(event["hold"])


def test_a_message_stream_that_dies_keeps_the_reported_input(workspace):
    route(workspace, "anthropic", "claude-haiku-4-5")
    key = workspace.key()
    sim = {"input_tokens": 1234, "cached_tokens": 77, "chunk_delay_ms": 20, "die_after_chunks": 4}
    _, reply = open_stream(key, {**chat(**sim), "max_tokens": 100})
    read_stream(reply)
    event = settled_once(key, reply.headers["x-tallygate-request-id"])
    assert event["outcome"] == "provider_died"
    tokens = event["usage"]["tally"]["tokens"]
    assert (tokens["input"], tokens["cache_read"]) == (1234, 77)


def test_a_stream_that_falls_silent_is_cut(workspace):
    route(workspace)
    key = workspace.key()
    _, reply = open_stream(key, chat(chunks=10, stall_after_chunks=3))
    got, whole = read_stream(reply)
    assert b"data: " in got and not whole
    event = settled_once(key, reply.headers["x-tallygate-request-id"])
    assert event["outcome"] == "stalled"


def test_a_caller_who_leaves_is_billed_what_the_provider_bills(workspace):
    key = workspace.key()
    body = {**chat(chunks=20, chunk_delay_ms=20, input_tokens=500, output_tokens=200)}
    connection, reply = open_stream(key, {**body, "model": "gpt-6-luna"})
    request_id = reply.headers["x-tallygate-request-id"]
    reply.read1(10)
    connection.sock.shutdown(socket.SHUT_RDWR)
    connection.close()
    event = settled_once(key, request_id)
    assert event["outcome"] == "client_gone"
    assert event["usage"]["source"] == "reported"
    assert event["usage"]["tally"]["tokens"] == {"input": 500, "output": 200}
    assert event["charged"] == "0.00015"
    assert workspace.books()["cost_nanodollars"] == 150_000


@pytest.mark.parametrize("usage", ["absent", "garbage", "negative", "absurd"])
@pytest.mark.parametrize("stream", [False, True])
def test_a_report_that_cannot_be_used_is_estimated_and_marked(key, usage, stream):
    reply = key.chat(sim={"usage": usage}, stream=stream)
    assert reply.status == 200
    event = settled_once(key, reply.id)
    assert event["outcome"] == "completed"
    assert event["usage"]["source"] == "estimated"
    assert Decimal(event["charged"]) > 0


@pytest.mark.parametrize("stream", [False, True])
def test_a_reported_zero_is_a_zero(key, stream):
    reply = key.chat(sim={"usage": "zero"}, stream=stream)
    event = settled_once(key, reply.id)
    assert event["usage"]["source"] == "reported"
    assert event["charged"] == "0"


def test_an_error_inside_a_stream_is_passed_on_and_recorded(key):
    reply = key.messages(stream=True, sim={"error_in_stream": True, "chunks": 6})
    assert b"overloaded_error" in reply.body
    event = settled_once(key, reply.id)
    assert (event["outcome"], event["code"]) == ("provider_error", "overloaded_error")


@pytest.mark.parametrize("kind", ["html", "garbage", "empty"])
def test_a_provider_that_answers_nonsense_is_passed_on_and_recorded(key, kind):
    reply = key.chat(sim={"error_body": kind})
    assert reply.status == 200
    if kind == "html":
        assert reply.body.startswith(b"<html>")
    event = settled_once(key, reply.id)
    assert event["usage"]["source"] != "reported"


def test_a_line_of_ten_megabytes_passes(key):
    reply = key.chat(stream=True, sim={"long_line_bytes": 10_000_000})
    assert reply.status == 200
    assert len(reply.body) > 10_000_000
    event = settled_once(key, reply.id)
    assert event["outcome"] == "completed"
    assert event["usage"]["source"] == "reported"


@pytest.mark.parametrize("split", [1, 3, 50])
def test_a_stream_cut_anywhere_is_read_alike(key, split):
    reply = key.chat(stream=True, sim={"split_bytes": split, "crlf": True, "output_tokens": 33})
    event = settled_once(key, reply.id)
    assert event["usage"]["source"] == "reported"
    assert event["usage"]["tally"]["tokens"]["output"] == 33


def test_bytes_that_are_no_utf8_pass(key):
    reply = key.chat(stream=True, sim={"invalid_utf8": True})
    assert b"\xff\xfe" in reply.body
    assert settled_once(key, reply.id)["outcome"] == "completed"


@pytest.mark.parametrize("place", ["panic-receive", "panic-forward"])
def test_a_panic_before_the_answer_costs_its_own_request_only(key, place):
    body = {"model": "gpt-6-luna", "messages": [{"role": "user", "content": "Hi"}]}
    reply = key.post("/v1/chat/completions", body, x_tallygate_fault=place)
    assert (reply.status, reply.error["code"]) == (500, "gateway_error")
    assert key.chat().status == 200
    assert key.state()["in_flight"] == 0


@pytest.mark.parametrize("place", ["panic-relay", "panic-settle"])
def test_a_panic_in_mid_stream_loses_neither_the_stream_nor_its_settlement(key, place):
    body = {**chat(chunks=30, input_tokens=500, output_tokens=100), "model": "gpt-6-luna"}
    reply = key.post("/v1/chat/completions", body, x_tallygate_fault=place)
    assert reply.status == 200 and b"[DONE]" in reply.body
    event = settled_once(key, reply.id)
    assert event["outcome"] == "completed"
    assert event["usage"]["source"] == "reported"
    assert event["charged"] == "0.0001"


def test_a_panic_elsewhere_leaves_streams_in_flight_whole(key):
    body = {**chat(chunks=30, chunk_delay_ms=10, input_tokens=500, output_tokens=100)}
    connection, reply = open_stream(key, {**body, "model": "gpt-6-luna"})
    first = reply.read1(10)
    other = {"model": "gpt-6-luna", "messages": [{"role": "user", "content": "Hi"}]}
    assert key.post("/v1/chat/completions", other, x_tallygate_fault="panic-receive").status == 500
    rest, whole = read_stream(reply)
    assert whole and b"[DONE]" in first + rest
    event = settled_once(key, reply.headers["x-tallygate-request-id"])
    assert event["usage"]["source"] == "reported"
    assert event["charged"] == "0.0001"
