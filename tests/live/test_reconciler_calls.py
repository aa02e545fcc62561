"""What the reconciler reads from the edge and brings to it, by signed calls."""

from __future__ import annotations

import json
import sys
import time
from datetime import datetime, timedelta, timezone
from decimal import Decimal
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))

from signing import Signer  # noqa: E402
from test_budgets import budget  # noqa: E402


@pytest.fixture
def signer(workspace):
    return Signer(workspace)


def today() -> str:
    return datetime.now(timezone.utc).strftime("%Y-%m-%d")


def tomorrow() -> str:
    return (datetime.now(timezone.utc) + timedelta(days=1)).strftime("%Y-%m-%d")


def code(body: bytes) -> str:
    return json.loads(body)["code"]


def test_only_a_fresh_signature_of_the_very_call_is_believed(workspace, signer):
    path, query = f"{signer.prefix}/context", ""
    headers = signer.headers("GET", path, query, b"")
    assert signer.send("GET", path, query, b"", headers)[0] == 200
    status, body = signer.send("GET", path, query, b"", headers)
    assert (status, code(body)) == (401, "signature_invalid") and b"before" in body
    fresh = signer.headers("GET", path, query, b"")
    for change in [
        {"x-tallygate-signature": "v1=" + "0" * 64},
        {"x-tallygate-nonce": "another-nonce-of-mine"},
        {"x-tallygate-timestamp": str(int(time.time()) - 1)},
        {"x-tallygate-key-id": "other"},
    ]:
        status, body = signer.send("GET", path, query, b"", fresh | change)
        assert (status, code(body)) == (401, "signature_invalid"), change
    assert signer.call("GET", "/context", at=time.time() - 400)[0] == 401
    status, body = signer.send("GET", path, query, b"", {"authorization": f"Bearer {workspace.token}"})
    assert (status, code(body)) == (401, "signature_missing")
    # A signed call reaches nothing else, and one workspace's secret opens no other.
    keys = f"/api/v1/workspaces/{workspace.id}/keys"
    assert signer.send("GET", keys, "", b"", signer.headers("GET", keys, "", b""))[0] == 401
    workspace.admin("DELETE", f"/reconciler-secrets/{signer.kid}")
    assert signer.call("GET", "/context")[0] == 401
    assert signer.secret not in json.dumps(workspace.admin("GET", "/config"))
    assert signer.secret not in json.dumps(workspace.admin("GET", "/audit"))


def test_the_export_has_every_event_once_and_goes_on_where_it_broke_off(workspace, signer):
    key = workspace.key()
    replies = [key.chat() for _ in range(7)]
    for reply in replies:
        key.event(reply.id)
    key.ring()
    events, end = signer.events(today())
    assert sorted(e["id"] for e in events) == sorted(r.id for r in replies)
    assert end["lines"] == 7
    assert events == sorted(events, key=lambda e: e["id"])
    third = events[2]
    rest, _ = signer.events(today(), after=f"{third['id']}~{third['key']}")
    assert [e["id"] for e in rest] == [e["id"] for e in events[3:]]
    assert signer.events("2026-01-01")[0] == []
    status, body = signer.call("GET", "/events", day="yesterday")
    assert status == 422 and b"2026-11-20" in body


def test_corrections_change_a_budget_once_and_never_backwards(workspace, signer):
    terms = {"owner": "grace", "limit_usd": "10", "window": "lifetime"}
    budget(workspace, "teams", scope={"dimension": "team", "value": "*"}, **terms)
    budget(workspace, "all", scope={"dimension": "workspace"}, **terms)
    key = workspace.key(actor={"team": "search"})
    reply = key.chat()
    key.event(reply.id)
    key.ring()

    # The first day that a budget counts whole is the one after it was made.
    def correct(amount: str, revision: int, name: str = "teams", value: str = "search", day: str = tomorrow()):
        body = [{"budget": name, "value": value, "day": day, "source": "openai", "revision": revision, "amount": amount}]
        return signer.call("POST", "/budget-corrections", body)

    def counted(path: str) -> Decimal:
        return Decimal(workspace.admin("GET", path)["money"]["spent_usd"])

    teams, everything = "/budgets/teams/status?value=search", "/budgets/all/status"
    before, before_all = counted(teams), counted(everything)
    assert correct("-5", 1, day=today())[0] == 200
    assert counted(teams) == before
    assert correct("1.25", 5)[0] == 200
    assert correct("1.25", 5)[0] == 200
    assert counted(teams) == before + Decimal("1.25")
    assert correct("7", 4)[0] == 200
    assert counted(teams) == before + Decimal("1.25")
    assert correct("-0.0000000015", 6)[0] == 200
    assert counted(teams) == before - Decimal("0.000000002")
    assert correct("3", 7, "all", "")[0] == 200
    assert counted(everything) == before_all + 3
    assert correct("1", 8, "gone")[0] == 200
    # They are listed, with what each changed and what the budget counts of it.
    listed = workspace.admin("GET", "/corrections")["data"]
    shown = [(it["budget"], it["amount_usd"], it["change_usd"], it["counted_usd"], it["state"]) for it in listed]
    assert shown == [
        ("gone", "1", "1", "0", "no_budget"),
        ("all", "3", "3", "3", "counts"),
        ("teams", "-0.0000000015", "-1.2500000015", "-0.000000002", "counts"),
        ("teams", "1.25", "1.25", "0", "replaced"),
    ]
    page = workspace.admin("GET", "/corrections?limit=3")
    rest = workspace.admin("GET", f"/corrections?limit=3&cursor={page['next_cursor']}")
    assert page["data"] + rest["data"] == listed and rest["next_cursor"] is None
    # A cap that corrections have used up refuses, and one that they freed admits again.
    assert correct("10", 9)[0] == 200
    reply = key.chat()
    assert (reply.status, reply.code) == (402, "budget_exceeded")
    assert correct("0", 10)[0] == 200
    deadline = time.monotonic() + 15
    while (reply := key.chat()).status != 200:
        assert time.monotonic() < deadline, reply.body
        time.sleep(0.2)


def test_true_ups_add_up_by_owner_to_the_last_digit(workspace, signer):
    def line(name: str, team: str, billed: str | None, revision: int = 1) -> dict:
        return {
            "day": "2026-11-20", "provider": "openai", "line": name, "revision": revision, "model": "gpt-6-luna",
            "meter": "input", "kind": "usage", "owner": {"team": team}, "estimated": "1", "billed": billed,
            "quantity_variance": "0.1", "price_variance": "0.000000000001", "provisional": False,
        }

    lines = [line("a", "search", "1.100000000001"), line("b", "ads", None)]
    assert signer.call("POST", "/true-ups", lines)[0] == 200
    report = workspace.admin("GET", "/true-ups?from=2026-11-01&group_by=team")["data"]
    sums = {row["group"]["team"]: row["sums"] for row in report}
    assert sums["search"]["billed_usd"] == "1.100000000001"
    assert (sums["ads"]["unbilled_lines"], sums["ads"]["estimated_usd"]) == (1, "1")
    status, body = signer.call("POST", "/true-ups", [line("a", "x", "1") | {"owner": {"planet": "mars"}}])
    assert status == 422 and b"planet" in body
    status, body = signer.call("POST", "/true-ups", [line("a", "x", "1") | {"surprise": 1}])
    assert status in (400, 422) and b"surprise" in body
    status, _ = signer.call("POST", "/true-ups", [line("a", "x", "1"), line("b", "x", "1") | {"day": "2026-10-20"}])
    assert status == 422


def test_a_billed_price_is_proposed_and_applied_from_the_next_day(workspace, signer):
    correction = {
        "provider": "openai", "model": "gpt-6-luna", "tier": "standard", "meter": "output",
        "ours_per_million": "0.5", "billed_per_million": "0.55", "day": "2026-11-20", "tokens": 1000, "effect": "0.00005",
    }
    assert json.loads(signer.call("POST", "/price-corrections", [correction])[1])["proposed"] == 1
    signer.call("POST", "/price-corrections", [correction])
    [proposal] = workspace.admin("GET", "/price-proposals")["data"]
    assert proposal["state"] == "proposed" and proposal["correction"] == correction
    assert workspace.admin("POST", f"/price-proposals/{proposal['id']}/apply")["state"] == "applied"
    [(name, row)] = workspace.admin("GET", "/prices")["overrides"].items()
    assert name.startswith("openai/gpt-6-luna@") and row["prices"]["standard"]["output"] == "0.55"
    assert row["effective_from"] > today()
    assert workspace.raw("POST", f"/price-proposals/{proposal['id']}/dismiss")[0] == 409
    assert json.loads(signer.call("POST", "/price-corrections", [correction])[1])["proposed"] == 0
    workspace.admin("PUT", "/reconciler-settings", {"price_corrections": "apply"})
    other = correction | {"meter": "input", "billed_per_million": "0.2"}
    assert json.loads(signer.call("POST", "/price-corrections", [other])[1])["applied"] == 1
    [row] = workspace.admin("GET", "/prices")["overrides"].values()
    assert (row["prices"]["standard"]["input"], row["prices"]["standard"]["output"]) == ("0.2", "0.55")


def test_findings_become_alerts_and_end(workspace, signer):
    finding = {
        "kind": "unmetered_usage", "subject": "openai:2026-11-20:key_abc", "severity": "critical",
        "title": "A key of openai is used outside of the gateway", "evidence": {"tokens": "1200", "billed_usd": "0.5"},
        "present": True,
    }
    assert signer.call("POST", "/findings", [finding])[0] == 200
    [alert] = workspace.admin("GET", "/alerts?kind=unmetered_usage")["data"]
    assert (alert["severity"], alert["evidence"]["tokens"]) == ("critical", "1200")
    assert signer.call("POST", "/findings", [finding | {"present": False}])[0] == 200
    assert workspace.admin("GET", f"/alerts/{alert['id']}")["status"]["state"] == "resolved"


def test_the_context_says_what_the_reconciler_needs(workspace, signer):
    budget(workspace, "all", scope={"dimension": "workspace"}, owner="grace", limit_usd="10")
    status, body = signer.call("GET", "/context")
    context = json.loads(body)
    assert (status, context["workspace"]) == (200, workspace.id)
    assert context["providers"]["openai"]["price_book"] == "openai"
    assert context["budgets"]["all"]["limit_usd"] == "10"
    assert context["settings"]["price_corrections"] == "propose"
    assert workspace.credential not in body.decode()
