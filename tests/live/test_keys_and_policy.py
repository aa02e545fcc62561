"""Keys, actors and policies: who may do what, from the next request on."""

from __future__ import annotations

import threading
import time

import jwt
import pytest

SECRET = "a-secret-of-at-least-thirty-two-bytes!"
ASK = {"model": "gpt-6-luna", "messages": [{"role": "user", "content": "Hello"}]}


def code_of(reply):
    return reply.status, reply.error.get("code")


@pytest.mark.parametrize("header", ["authorization", "x-api-key", "api-key", "x-goog-api-key"])
def test_the_key_is_taken_from_whichever_header_an_sdk_uses(key, header):
    value = f"Bearer {key.key}" if header == "authorization" else key.key
    headers = {"authorization": "", header.replace("-", "_"): value}
    assert key.post("/v1/chat/completions", ASK, **headers).status == 200


def test_a_missing_garbled_or_mistyped_key_is_told_apart(key):
    def ask(text):
        key.key, kept = text, key.key
        try:
            return code_of(key.chat())
        finally:
            key.key = kept

    assert ask("") == (401, "key_missing")
    assert ask("sk-proj-abc") == (401, "key_not_a_gateway_key")
    assert ask("tg_short") == (401, "key_malformed")
    wrong = "a" if key.key[-1] != "a" else "b"
    assert ask(key.key[:-1] + wrong) == (401, "key_checksum_mismatch")
    # Well formed, and of a key that nobody issued; and another key's secret under this key's name.
    stranger = "tg_0w3ge1r70w3ge1r7_VGg6T6GzGsOWl9HxB2EDOTw9wr3kieVtClf6GO6VWR7Pzwj1"
    assert ask(stranger) == (401, "key_invalid")


def test_a_key_is_shown_once_and_lives_through_its_life(workspace):
    key = workspace.key()
    shown = key.admin("GET")
    assert "key" not in shown and key.key not in str(workspace.admin("GET", "/keys"))
    assert key.chat().status == 200
    key.admin("POST", "/suspend")
    assert code_of(key.chat()) == (401, "key_suspended")
    key.admin("POST", "/resume")
    assert key.chat().status == 200
    key.admin("POST", "/revoke")
    assert code_of(key.chat()) == (401, "key_revoked")
    status, problem = workspace.raw("POST", f"/keys/{key.id}/resume")
    assert (status, problem["code"]) == (409, "key_revoked")


def test_a_rotation_overlaps_as_long_as_it_was_told(workspace):
    key = workspace.key()
    old = key.key
    new = key.admin("POST", "/rotate", {"overlap_seconds": 3600})["key"]
    assert new != old
    for text in (old, new):
        key.key = text
        assert key.chat().status == 200
    final = key.admin("POST", "/rotate")["key"]
    for text, expected in ((old, 401), (new, 401), (final, 200)):
        key.key = text
        assert key.chat().status == expected


def test_an_expired_key_is_refused(workspace):
    key = workspace.key(expires_at="2020-01-01T00:00:00Z")
    assert code_of(key.chat()) == (401, "key_expired")


def test_a_policy_change_holds_from_the_next_request_on(workspace):
    workspace.admin("PUT", "/policies/team", {})
    key = workspace.key("team")
    for _ in range(5):
        workspace.admin("PUT", "/policies/team", {"models": {"deny": ["gpt-6-luna"]}})
        assert code_of(key.chat()) == (403, "model_not_allowed")
        workspace.admin("PUT", "/policies/team", {})
        assert key.chat().status == 200


def token(claims, secret=SECRET, kid="main", **header):
    now = int(time.time())
    claims = {"exp": now + 600, **claims}
    return jwt.encode(claims, secret, algorithm="HS256", headers={"kid": kid, **header})


@pytest.fixture
def actor_workspace(workspace):
    workspace.admin("POST", "/actor-secrets", {"kid": "main", "secret": SECRET})
    return workspace


def test_an_actor_token_of_any_jwt_library_names_who_is_behind(actor_workspace):
    key = actor_workspace.key({"require_actor": True, "required_claims": ["team"]})
    signed = token({"sub": "u-1", "team": "search", "agent": "crawler"})
    reply = key.post("/v1/chat/completions", ASK, x_tallygate_actor=signed)
    assert reply.status == 200, reply.body
    event = key.event(reply.id)
    assert event["actor"] == {"user": "u-1", "team": "search", "agent": "crawler"}
    assert code_of(key.chat()) == (401, "actor_missing")
    no_team = key.post("/v1/chat/completions", ASK, x_tallygate_actor=token({"sub": "u-1"}))
    assert code_of(no_team) == (403, "actor_claim_missing")


@pytest.mark.parametrize(
    ("forged", "code"),
    [
        (lambda: token({}, secret="another-secret-of-at-least-32-bytes!!!!"), "actor_signature_invalid"),
        (lambda: token({"exp": int(time.time()) - 120}), "actor_expired"),
        (lambda: token({"exp": int(time.time()) + 90_000}), "actor_lifetime_too_long"),
        (lambda: token({}, kid="unknown"), "actor_kid_unknown"),
        (lambda: jwt.encode({"exp": 9e9}, None, algorithm="none"), "actor_algorithm_refused"),
        (lambda: "a.b.c", "actor_malformed"),
    ],
)
def test_a_forged_or_expired_actor_is_refused_even_where_none_is_required(actor_workspace, forged, code):
    key = actor_workspace.key()
    reply = key.post("/v1/chat/completions", ASK, x_tallygate_actor=forged())
    assert code_of(reply) == (401, code)


def test_a_token_cannot_override_what_the_key_fixes(actor_workspace):
    key = actor_workspace.key(actor={"team": "search"})
    reply = key.post("/v1/chat/completions", ASK, x_tallygate_actor=token({"team": "ads"}))
    assert code_of(reply) == (401, "actor_contradicts_key")
    reply = key.post("/v1/chat/completions", ASK, x_tallygate_actor=token({"user": "u"}))
    assert key.event(reply.id)["actor"] == {"user": "u", "team": "search"}


def test_unsigned_labels_label_and_nothing_more(key):
    reply = key.post(
        "/v1/chat/completions",
        {**ASK, "user": "u-7", "metadata": {"ticket": "T-1"}},
        x_tallygate_tags="build=42, nightly",
    )
    event = key.event(reply.id)
    assert event["labels"] == {"build": "42", "nightly": "", "ticket": "T-1", "user": "u-7"}
    assert event["actor"] == {}


@pytest.mark.parametrize(
    ("policy", "fields", "expected"),
    [
        ({"models": {"allow": ["claude-*"]}}, {}, (403, "model_not_allowed")),
        ({"models": {"allow": ["gpt-*"], "deny": ["gpt-6-*"]}}, {}, (403, "model_not_allowed")),
        ({"refuse_floating_aliases": True}, {"model": "gpt-5-latest"}, (403, "floating_alias_refused")),
        ({"max_output_tokens": 10, "on_output_excess": "refuse"}, {"max_tokens": 11}, (400, "max_output_tokens_exceeded")),
        ({"max_request_usd": "0.000001"}, {}, (400, "max_request_cost_exceeded")),
        ({"max_request_bytes": 20}, {}, (413, "request_too_large")),
        ({"ip_ranges": ["10.0.0.0/8"]}, {}, (403, "address_not_allowed")),
        ({"spend_caps": [{"window": "day", "limit_usd": "1"}]}, {"model": "gpt-unknown"}, (400, "model_unpriced")),
        ({"spend_caps": [{"window": "month", "limit_usd": "0.00001"}]}, {}, (402, "budget_exceeded")),
    ],
)
def test_each_rule_refuses_with_its_code_and_its_facts(workspace, policy, fields, expected):
    key = workspace.key(policy)
    reply = key.chat(**fields)
    assert code_of(reply) == expected
    assert reply.code == expected[1]
    assert "retry-after" not in reply.headers
    assert key.state()["in_flight"] == 0
    key.ring()
    listed = workspace.admin("GET", f"/requests?key={key.id}&code={expected[1]}")["data"]
    assert [(e["outcome"], e["charged"]) for e in listed] == [("refused", "0")]


def test_an_address_in_range_passes(workspace):
    key = workspace.key({"ip_ranges": ["10.0.0.0/8", "2001:db8::/32"]})
    for address in ("10.1.2.3", "2001:db8::1"):
        assert key.post("/v1/chat/completions", ASK, cf_connecting_ip=address).status == 200
    reply = key.post("/v1/chat/completions", ASK, cf_connecting_ip="11.1.2.3")
    assert code_of(reply) == (403, "address_not_allowed")


def test_output_is_clamped_on_its_way(workspace):
    key = workspace.key({"max_output_tokens": 3})
    for fields in ({}, {"max_tokens": 100}):
        reply = key.chat(sim={"output_tokens": 50}, **fields)
        assert reply.json["choices"][0]["finish_reason"] == "length"
        assert reply.json["usage"]["completion_tokens"] == 3


def test_requests_per_minute_and_its_headers(workspace):
    key = workspace.key({"requests_per_minute": 2})
    first = key.chat()
    assert first.headers["x-ratelimit-limit-requests"] == "2"
    assert first.headers["x-ratelimit-remaining-requests"] == "1"
    assert key.chat().status == 200
    reply = key.chat()
    assert code_of(reply) == (429, "rate_limited")
    assert 1 <= int(reply.headers["retry-after"]) <= 31
    assert reply.error["metadata"]["unit"] == "requests_per_minute"


def test_tokens_per_minute_are_reserved_and_trued_up(workspace):
    key = workspace.key({"tokens_per_minute": 1000})
    assert key.chat(max_tokens=900, sim={"input_tokens": 10, "output_tokens": 10}).status == 200
    # 20 of them were used: the rest came back.
    assert key.chat(max_tokens=900, sim={"input_tokens": 10, "output_tokens": 10}).status == 200
    assert key.chat(max_tokens=10, sim={"input_tokens": 5000, "output_tokens": 10}).status == 200
    assert code_of(key.chat(max_tokens=900)) == (429, "rate_limited")


def test_concurrency_counts_requests_in_flight(workspace):
    key = workspace.key({"max_concurrency": 2})
    slow = [threading.Thread(target=key.chat, kwargs={"sim": {"latency_ms": 600}}) for _ in range(2)]
    for thread in slow:
        thread.start()
    time.sleep(0.2)
    reply = key.chat()
    assert code_of(reply) == (429, "rate_limited")
    assert reply.error["metadata"]["unit"] == "concurrent_requests"
    for thread in slow:
        thread.join()
    assert key.chat().status == 200


def test_a_cap_holds_under_concurrency_to_the_cent(workspace):
    # Each request holds, and costs, at most 10 x 0.5 + about 10 x 0.1 per million; there is room for few.
    key = workspace.key({"spend_caps": [{"window": "day", "limit_usd": "0.00002"}]})
    replies = []

    def ask():
        replies.append(key.chat(max_tokens=10, sim={"input_tokens": 8, "output_tokens": 10}))

    for _ in range(3):
        threads = [threading.Thread(target=ask) for _ in range(20)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    good = [reply for reply in replies if reply.status == 200]
    assert {reply.status for reply in replies} <= {200, 402, 429}
    assert good
    spent = key.state()["spent_usd"]["day"]
    assert float(spent) <= 0.00002
    assert workspace.books()["cost_nanodollars"] == round(float(spent) * 1e9)
    assert {r.error["code"] for r in replies if r.status == 429} <= {"budget_held"}


def test_simulate_says_what_a_request_would_get_and_sends_nothing(workspace):
    key = workspace.key({"models": {"deny": ["gpt-6-sol"]}, "spend_caps": [{"window": "day", "limit_usd": "5"}]})
    good = key.admin("POST", "/simulate", {"model": "gpt-6-luna", "input_tokens": 100, "max_output_tokens": 100})
    assert (good["decision"], good["targets"]) == ("admit", ["openai/gpt-6-luna"])
    assert float(good["hold_usd"]) >= 0.00006
    bad = key.admin("POST", "/simulate", {"model": "gpt-6-sol"})
    assert (bad["decision"], bad["status"], bad["code"]) == ("refuse", 403, "model_not_allowed")
    assert [c["check"] for c in bad["checks"] if "refusal" in c] == ["model"]
    assert workspace.books()["entries"] == []
    assert key.state()["events"] == 0
