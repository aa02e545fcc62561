"""A busy key far from its limits is admitted by the Worker itself; the books stay exact, and a revocation is late by 2 s."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal

import pytest

from conftest import call, running_gateway

ASK = {"input_tokens": 100, "output_tokens": 10}
# 100 x 0.1 + 10 x 0.5 a million tokens.
COST = Decimal("0.000015")


@pytest.fixture(scope="module")
def gateway(tmp_path_factory):
    """A gateway of its own: these tests move its clock."""
    yield from running_gateway(tmp_path_factory)


def rush(key, requests: int, workers: int = 8):
    with ThreadPoolExecutor(workers) as pool:
        return list(pool.map(lambda _: key.chat(max_tokens=10, sim=ASK), range(requests)))


def settled(key, requests: int, patience: float = 10) -> dict:
    """The Meter's books, once so many events are in them."""
    deadline = time.monotonic() + patience
    while (state := key.state())["events"] < requests:
        assert time.monotonic() < deadline, state
        time.sleep(0.05)
    return state


def test_books_of_a_busy_key_are_exact_and_most_requests_make_no_call(workspace):
    key = workspace.key({"spend_caps": [{"window": "day", "limit_usd": "1000"}]})
    before = rush(key, 600)
    assert all(reply.status == 200 for reply in before)
    state = settled(key, 600)
    assert Decimal(state["spent_usd"]["lifetime"]) == 600 * COST
    assert state["admitted_here"] < 400, "a Worker with a sublease asks the Meter for every request"
    # One event each, in one sequence, and the Ledger has them all.
    while key.state()["undelivered"]:
        key.ring()
    page = workspace.admin("GET", f"/requests?key={key.id}&limit=1000")["data"]
    assert sorted(event["seq"] for event in page) == list(range(1, 601))
    assert len({event["id"] for event in page}) == 600
    # What the sublease did not need comes back when it is over.
    deadline = time.monotonic() + 10
    while (state := key.state())["held_usd"] != "0":
        assert time.monotonic() < deadline, state
        time.sleep(0.1)
    print(f"600 requests, {state['admitted_here']} of them admitted by the Meter")


def test_a_shared_budget_is_exact_under_subleases(workspace):
    terms = {"scope": {"dimension": "workspace"}, "owner": "finance", "limit_usd": "50", "window": "day"}
    workspace.admin("PUT", "/budgets/b", terms)
    keys = [workspace.key() for _ in range(2)]
    for key in keys:
        assert all(reply.status == 200 for reply in rush(key, 300))
    for key in keys:
        settled(key, 300)
        assert key.get("/v1/budget").status == 200
    spent = workspace.admin("GET", "/budgets/b/status")["money"]["spent_usd"]
    assert Decimal(spent) == 600 * COST


def test_a_revocation_is_two_seconds_late_at_most_and_at_once_for_a_key_that_asks(workspace):
    busy = workspace.key()
    at_once = workspace.key({"immediate": True})
    for key in (busy, at_once):
        assert all(reply.status == 200 for reply in rush(key, 100))
        key.admin("POST", "/revoke")
    assert at_once.chat(sim=ASK).status == 401
    deadline = time.monotonic() + 2.2
    while busy.chat(sim=ASK).status == 200:
        assert time.monotonic() < deadline, "revoked, and served for more than two seconds"
    assert busy.chat(sim=ASK).status == 401


def test_what_a_vanished_worker_kept_comes_back_and_is_recorded(workspace):
    key = workspace.key()
    rush(key, 60)
    # Its memory goes, and with it what it knows of the sublease.
    call("POST", f"{workspace.gateway.url}/_test/panic")
    assert all(reply.status == 200 for reply in rush(key, 60))
    settled(key, 120)
    call("POST", f"{workspace.gateway.url}/_test/advance?ms=1200000")
    for _ in range(3):
        key.ring()
    state = key.state()
    assert (state["held_usd"], state["in_flight"]) == ("0", 0), state
    assert Decimal(state["spent_usd"]["lifetime"]) == 120 * COST


def test_near_a_limit_each_request_goes_to_the_meter(workspace):
    key = workspace.key({"requests_per_minute": 100})
    replies = rush(key, 130)
    served = [reply for reply in replies if reply.status == 200]
    # A minute's requests, and the few that the bucket fills up with meanwhile.
    assert 100 <= len(served) <= 106
    assert {reply.code for reply in replies if reply.status != 200} == {"rate_limited"}
