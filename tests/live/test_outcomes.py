"""What became of requests: said by the key's holder, joined with what they cost, read by who may."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import jwt
import pytest

SECRET = "actor-secret-of-the-tests-at-least-32-bytes"


def token(claims: dict) -> str:
    claims = {"exp": int(time.time()) + 60, **claims}
    return jwt.encode(claims, SECRET, algorithm="HS256", headers={"kid": "main"})


def utc(offset_s: float = 0) -> str:
    return (datetime.now(UTC) + timedelta(seconds=offset_s)).strftime("%Y-%m-%dT%H:%M:%SZ")


def say(key, body, **headers):
    return key.post("/v1/outcomes", body, **headers)


def delivered(key, *replies) -> None:
    """Has the Meter deliver its events, and waits until the Ledger has those of the replies."""
    for reply in replies:
        key.event(reply.id)
    key.ring()
    deadline = time.monotonic() + 10
    missing = {reply.id for reply in replies}
    while missing:
        listed = key.workspace.admin("GET", f"/requests?key={key.id}&limit=1000")["data"]
        missing -= {event["id"] for event in listed}
        assert time.monotonic() < deadline, missing
        time.sleep(0.02)


def summary(workspace, query: str = "") -> list[dict]:
    return workspace.admin("GET", f"/outcomes/summary{query}")["data"]


@pytest.fixture
def signed(workspace):
    """A workspace that takes actor tokens."""
    workspace.admin("POST", "/actor-secrets", {"kid": "main", "secret": SECRET})
    return workspace


def test_the_cost_of_an_accepted_outcome_by_feature(signed):
    key = signed.key()
    sim = {"input_tokens": 1000, "output_tokens": 200}
    ask = {"model": "gpt-6-luna", "messages": [{"role": "user", "content": "Hello"}], "sim": sim}
    by_feature = {
        feature: [
            key.post("/v1/chat/completions", ask, x_tallygate_actor=token({"feature": feature}))
            for _ in range(2)
        ]
        for feature in ("review", "search")
    }
    cost = Decimal(by_feature["review"][0].headers["x-tallygate-cost-usd"])
    assert cost > 0
    early, late = by_feature["review"]
    # One is said before the Ledger has its request, the other after.
    reply = say(key, {"request": early.id, "outcome": "accepted", "value_usd": "0.75"})
    assert reply.status == 200, reply.body
    assert reply.json == {
        "object": "outcome",
        "request": early.id,
        "label": None,
        "outcome": "accepted",
        "value_usd": "0.75",
        "at": reply.json["at"],
        "replaced": False,
    }
    delivered(key, *by_feature["review"], *by_feature["search"])
    assert say(key, {"request": late.id, "outcome": "rejected"}).status == 200
    search = [{"request": r.id, "outcome": "accepted", "value_usd": "0.1"} for r in by_feature["search"]]
    assert [o["request"] for o in say(key, search).json["data"]] == [o["request"] for o in search]

    review, search = summary(signed, "?group_by=feature")
    each = {"requests": 2, "cost_usd": str(2 * cost), "cost_unknown": 0, "accepted_cost_unknown": 0}
    assert review == each | {
        "feature": "review",
        "accepted": 1,
        "rejected": 1,
        "value_usd": "0.75",
        "cost_per_accepted_usd": str(2 * cost),
    }
    assert search == each | {
        "feature": "search",
        "accepted": 2,
        "rejected": 0,
        "value_usd": "0.2",
        "cost_per_accepted_usd": str(cost),
    }
    listed = signed.admin("GET", "/outcomes?feature=review&outcome=rejected")["data"]
    assert [o["subject"] for o in listed] == [{"request": late.id}]
    assert listed[0]["actor"] == {"feature": "review"}


def test_a_session_s_outcome_counts_its_requests_and_is_whose_the_token_says(signed):
    key = signed.key()
    ask = {"model": "gpt-6-luna", "messages": [{"role": "user", "content": "Hello"}]}
    run = token({"session": "run-1", "user": "ann"})
    replies = [key.post("/v1/chat/completions", ask, x_tallygate_actor=run) for _ in range(3)]
    other = key.chat()
    delivered(key, *replies, other)
    body = {"session": "run-1", "outcome": "accepted", "label": "deployed"}
    assert say(key, body, x_tallygate_actor=token({"team": "ops"})).status == 200
    cost = sum(Decimal(reply.headers["x-tallygate-cost-usd"]) for reply in replies)
    (row,) = summary(signed, "?group_by=team,label")
    assert (row["team"], row["label"], row["requests"]) == ("ops", "deployed", 3)
    assert Decimal(row["cost_usd"]) == cost
    (event,) = signed.admin("GET", "/outcomes?session=run-1")["data"]
    assert event["actor"] == {"team": "ops"}
    assert say(key, body, x_tallygate_actor="a.b.c").status == 401


def test_the_same_again_changes_nothing_and_the_latest_counts(key):
    request = key.chat().id
    first = {"request": request, "outcome": "accepted", "at": utc(-60)}
    assert say(key, first).json["replaced"] is False
    listed = key.workspace.admin("GET", "/outcomes")["data"]
    again = say(key, first)
    assert (again.status, again.json["replaced"]) == (200, False)
    assert key.workspace.admin("GET", "/outcomes")["data"] == listed
    later = say(key, {"request": request, "outcome": "rejected", "at": utc(-30)})
    assert (later.json["replaced"], later.json["outcome"]) == (True, "rejected")
    stale = say(key, {"request": request, "outcome": "accepted", "at": utc(-45)})
    assert (stale.json["replaced"], stale.json["outcome"]) == (False, "rejected")
    other = say(key, {"request": request, "outcome": "accepted", "label": "merged"})
    assert other.json["replaced"] is False
    assert len(key.workspace.admin("GET", "/outcomes")["data"]) == 2


def test_a_request_of_another_key_is_not_found(workspace):
    one, two = workspace.key(), workspace.key()
    reply = one.chat()
    delivered(one, reply)
    ours = two.chat()
    body = [{"request": r.id, "outcome": "accepted"} for r in (ours, reply)]
    refused = say(two, body)
    assert (refused.status, refused.code) == (404, "request_not_found")
    assert refused.error["param"] == "[1].request"
    assert workspace.admin("GET", "/outcomes")["data"] == []
    assert say(one, body[1]).status == 200


def test_every_accepted_header_opens_it_and_no_other_key_does(key):
    body = {"session": "s", "outcome": "accepted"}
    for name in ("x_api_key", "api_key", "x_goog_api_key"):
        headers = {"authorization": "", name: key.key}
        assert say(key, body, **headers).status == 200
    refused = say(key, body, authorization=f"Bearer {key.key[:-1]}{'0' if key.key[-1] != '0' else '1'}")
    assert (refused.status, refused.error["type"]) == (401, "authentication_error")
    assert key.get("/v1/outcomes").status == 404


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"session": "s", "outcome": "good"}, "outcome"),
        ({"request": "req_" + "0" * 32}, "request"),
        ({"session": ""}, "session"),
        ({"session": "s", "request": "req_1"}, "session"),
        ({"session": "s", "value_usd": 12.5}, "value_usd"),
        ({"session": "s", "value_usd": "-1"}, "value_usd"),
        ({"session": "s", "label": "No Label"}, "label"),
        ({"session": "s", "at": "yesterday"}, "at"),
        ({"session": "s", "at": utc(3600)}, "at"),
        ({"session": "s", "at": utc(-41 * 86_400)}, "at"),
        ({"session": "s", "score": 1}, None),
    ],
)
def test_an_error_names_the_field(key, change, param):
    for body, place in (({"outcome": "accepted"} | change, ""), ([{"outcome": "accepted"} | change], "[0].")):
        refused = say(key, body)
        assert (refused.status, refused.code) == (400, "invalid_request_body"), refused.body
        assert refused.error["param"] == (param and place + param)
        assert refused.error["type"] == "invalid_request_error"
        assert refused.headers["x-should-retry"] == "false"
    assert key.workspace.admin("GET", "/outcomes")["data"] == []


def test_too_much_is_refused(key):
    one = {"session": "s", "outcome": "accepted"}
    for body, status in (([one] * 101, 400), ([], 400), (b" " * (128 * 1024 + 1), 413), (b"\xff", 400)):
        assert say(key, body).status == status
    assert say(key, [one] * 100).status == 200
    assert len(key.workspace.admin("GET", "/outcomes")["data"]) == 1


def test_a_listing_is_paged_and_only_for_readers(key):
    workspace = key.workspace
    bodies = [{"session": f"s{n}", "outcome": "accepted", "at": utc(-n)} for n in range(5)]
    assert say(key, bodies).status == 200
    seen, cursor = [], ""
    while cursor is not None:
        page = workspace.admin("GET", f"/outcomes?limit=2{cursor and '&cursor=' + cursor}")
        seen += [o["subject"]["session"] for o in page["data"]]
        cursor = page["next_cursor"]
    assert seen == ["s0", "s1", "s2", "s3", "s4"]
    for role in ("finance", "auditor", "developer"):
        body = {"name": role, "role": role, "owner": "*" if role == "developer" else None}
        made = workspace.admin("POST", "/tokens", body)["token"]
        assert workspace.raw("GET", "/outcomes", token=made)[0] == 200
    assert workspace.raw("GET", "/outcomes", token=key.key)[0] == 401
    status, problem = workspace.raw("GET", "/outcomes/summary?group_by=model")
    assert (status, problem["code"]) == (422, "invalid_field")
