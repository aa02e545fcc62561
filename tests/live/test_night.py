"""Nights: traffic through the gateway, the simulator's bills with their quirks, and books that agree to the last digit."""

from __future__ import annotations

import json
import sys
from datetime import timedelta
from decimal import Decimal
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))

from bills import Bills  # noqa: E402
from conftest import new_workspace, running_gateway  # noqa: E402
from gateway import Simulator  # noqa: E402
from night import Night, difference  # noqa: E402
from test_budgets import budget  # noqa: E402


@pytest.fixture(scope="module")
def gateway(tmp_path_factory):
    """A gateway of its own: these tests move its clock."""
    yield from running_gateway(tmp_path_factory)


@pytest.fixture(scope="module")
def simulator():
    simulator = Simulator().start()
    yield simulator
    simulator.stop()


@pytest.fixture
def night(gateway, simulator, tmp_path):
    workspace = new_workspace(gateway, simulator)
    number = workspace.credential.removeprefix("sk-sim-")
    credential = f"sk-sim-{number}-held-by-the-gateway"
    for name in ("openai", "anthropic"):
        workspace.admin("PATCH", f"/providers/{name}", {"credential": credential})
    workspace.credential = credential
    return Night(workspace, Bills(simulator.url, number), tmp_path)


def traffic(night: Night, teams=("search", "ads"), each: int = 3) -> None:
    """A day of two teams at two providers, all of it in the Ledger when this returns."""
    for team in teams:
        key = night.workspace.key(actor={"team": team})
        replies = []
        for nth in range(each):
            replies.append(key.chat(sim={"input_tokens": 1000 + nth, "output_tokens": 100 + nth}))
            replies.append(key.chat(model="gpt-6-sol", sim={"input_tokens": 333, "output_tokens": 77}))
            replies.append(key.messages(sim={"input_tokens": 2000, "output_tokens": 55 + nth}))
        for reply in replies:
            assert reply.status == 200, reply.body
            key.event(reply.id)
        key.ring()


def test_the_ledger_equals_the_bills_to_the_last_digit(night):
    day = night.today
    traffic(night)
    night.advance()
    report = night.night()
    assert report["status"] == "complete", report["missing"]
    for provider in ("openai", "anthropic"):
        invoice = night.bills.invoice(provider, day, day)
        books = report["providers"][provider]
        assert Decimal(books["billed"]) == invoice.total
        assert difference(books) == 0
        assert Decimal(books["estimated"]) == invoice.total, "the simulator's prices are the price book's"
    sums = night.true_ups("?provider=openai&group_by=team")
    assert set(sums) == {("search",), ("ads",)}
    invoice = night.bills.invoice("openai", day, day)
    assert sum(Decimal(row["billed_usd"]) for row in sums.values()) == invoice.total
    assert report["findings"] == [] and report["unknown_credentials"] == []
    # People see at the edge how it ended.
    told = night.workspace.admin("GET", "/reconciliation-runs")["data"][0]
    assert (told["status"], told["missing"], told["rows_written"]) == ("complete", {}, report["rows_written"])
    assert told["providers"]["openai"]["booked_usd"] == report["providers"]["openai"]["ledger"]
    # The same night again finds nothing to do.
    again = night.night()
    assert (again["rows_written"], again["days_settled"]) == (0, 0), again
    assert again["providers"] == report["providers"]


def test_a_leaked_key_is_found_to_the_token_and_a_second_night_is_quiet(night):
    traffic(night)
    held, stranger = night.workspace.credential, f"{night.workspace.credential}-copied"
    day = night.today
    night.bills.leak("openai", held, "gpt-6-luna", day, requests=3, input=120_000, output=4_567)
    other = night.bills.leak("openai", stranger, "gpt-6-sol", day, requests=1, input=999, output=111)
    night.advance()
    report = night.night()
    invoice = night.bills.invoice("openai", day, day)
    books = report["providers"]["openai"]
    assert difference(books) == 0 and Decimal(books["billed"]) == invoice.total
    assert Decimal(books["unmetered"]) == invoice.leaked_amount
    sums = night.true_ups("?provider=openai&group_by=model,meter,unmetered")
    leaked = {key: row for key, row in sums.items() if key[2]}
    amounts = {(model, meter): Decimal(row["billed_usd"]) for (meter, model, who), row in leaked.items()}
    expected = {(l.model, l.meter): l.leaked_amount for l in invoice.lines if l.leaked}
    assert amounts == {key: amount for key, amount in expected.items() if key[1] in ("input", "output")}
    # Found to the token, and told.
    alerts = night.workspace.admin("GET", "/alerts?kind=unmetered_usage")["data"]
    tokens = sum(int(alert["evidence"]["tokens"]) for alert in alerts)
    assert tokens == 120_000 + 4_567 + 999 + 111
    assert any(alert["evidence"]["credential"] == other for alert in alerts)
    assert any(other in alert["evidence"]["credential"] for alert in alerts_of(night, "unknown_credential"))
    again = night.night()
    assert again["rows_written"] == 0 and again["providers"] == report["providers"]


def alerts_of(night: Night, kind: str) -> list[dict]:
    return night.workspace.admin("GET", f"/alerts?kind={kind}")["data"]


def test_another_price_is_proposed_and_the_next_day_agrees(night):
    night.workspace.admin("PUT", "/reconciler-settings", {"price_corrections": "apply"})
    day = night.today
    night.bills.set("openai", price=[{"model": "gpt-6-luna", "meter": "output", "from": day.isoformat(), "per_million": "0.625"}])
    budget(night.workspace, "teams", scope={"dimension": "team", "value": "*"}, limit_usd="10", window="month")
    traffic(night)
    before = Decimal(night.workspace.admin("GET", "/budgets/teams/status?value=search")["money"]["spent_usd"])
    night.advance()
    report = night.night()
    books = report["providers"]["openai"]
    assert difference(books) == 0
    variance = Decimal(books["price_variance"])
    assert variance > 0 and Decimal(books["quantity_variance"]) == 0
    assert Decimal(books["billed"]) - Decimal(books["estimated"]) == variance
    # Budgets are corrected by what their requests cost more, each once.
    by_team = night.true_ups("?provider=openai&group_by=team")
    more = Decimal(by_team[("search",)]["billed_usd"]) - Decimal(by_team[("search",)]["estimated_usd"])
    after = Decimal(night.workspace.admin("GET", "/budgets/teams/status?value=search")["money"]["spent_usd"])
    assert after - before == more.quantize(Decimal("1e-9"))
    [proposal] = night.workspace.admin("GET", "/price-proposals")["data"]
    assert (proposal["state"], proposal["correction"]["billed_per_million"]) == ("applied", "0.625")
    # From the next day on requests are rated so, and the second night's variance is nothing.
    first_day = Decimal(books["estimated"])
    night.advance()
    traffic(night)
    invoice = night.bills.invoice("openai", night.today, night.today)
    night.advance()
    report = night.night("reconcile", "--days", "1")
    books = report["providers"]["openai"]
    assert Decimal(books["billed"]) == invoice.total == Decimal(books["estimated"])
    assert first_day < invoice.total


def test_a_bill_that_comes_late_and_is_revised_appends_revisions(night):
    day = night.today
    traffic(night)
    night.bills.set(
        "openai",
        late=[{"percent": 40, "days": day.isoformat(), "pulls": 1}],
        revise=[{"day": day.isoformat(), "model": "gpt-6-luna", "meter": "output", "amount": "0.01", "pulls": 2}],
    )
    night.advance()
    totals = []
    for _ in range(4):
        report = night.night()
        assert difference(report["providers"]["openai"]) == 0
        totals.append(Decimal(report["providers"]["openai"]["billed"]))
    invoice = night.bills.invoice("openai", day, day)
    assert totals[-1] == invoice.total and len(set(totals)) >= 2, totals
    assert report["rows_written"] == 0, "the last two nights saw the same bill"
    # A month that is over is closed, and changes by correction only.
    following = (day.replace(day=1) + timedelta(days=32)).replace(day=1)
    night.advance((following - night.today).days)
    closed = night.run("close", "--workspace", night.workspace.id, "--month", day.strftime("%Y-%m"))
    assert closed.returncode == 0, closed.stderr
    night.bills.set("openai", credit=[{"days": day.isoformat(), "amount": "0.005"}])
    report = night.night("reconcile", "--days", str((night.today - day).days))
    assert difference(report["providers"]["openai"]) == 0 and report["rows_written"] > 0


@pytest.mark.parametrize(
    ("quirk", "word"),
    [
        ({"kind": "html", "api": "costs"}, "HTML"),
        ({"kind": "half_page", "api": "costs"}, "openai"),
        ({"kind": "wrong_currency", "api": "costs"}, "currency"),
        ({"kind": "repeated_cursor"}, "circle"),
        ({"kind": "text_as_number", "api": "costs"}, "amount"),
        ({"kind": "missing_amount", "api": "costs"}, "amount"),
        ({"kind": "status", "status": 403, "api": "costs"}, "admin credential"),
    ],
)
def test_a_broken_source_is_named_and_spoils_no_book(night, quirk, word):
    day = night.today
    traffic(night, teams=("search",), each=1)
    night.advance()
    whole = night.night()
    assert whole["status"] == "complete"
    night.bills.change("openai", faults=[quirk])
    night.bills.set("anthropic", tax=[{"days": day.isoformat(), "amount": "0.02"}])
    report = night.night()
    assert report["status"] == "partial" and word in report["missing"]["openai"], report["missing"]
    # The other provider goes on, and what the books had of this one stays.
    assert report["providers"]["openai"] == whole["providers"]["openai"]
    anthropic = report["providers"]["anthropic"]
    assert difference(anthropic) == 0
    assert Decimal(anthropic["billed"]) == Decimal(whole["providers"]["anthropic"]["billed"]) + Decimal("0.02")
    assert alerts_of(night, "reconciliation_incomplete")
    night.bills.set("openai")
    healed = night.night()
    assert healed["status"] == "complete"
    [alert] = alerts_of(night, "reconciliation_incomplete")
    assert alert["status"]["state"] == "resolved"


def test_an_edge_that_is_down_is_said_and_taken_up_later(night):
    traffic(night, teams=("search",), each=1)
    night.advance()
    url = night.workspace.gateway.url
    night.more = {"edge": None}
    config = night.config.read_text().replace('"edge": null', '"edge": {"url": "http://127.0.0.1:9", "key_id": "x", "secret": "y"}')
    night.more = {}
    path = night.home / "down.json"
    path.write_text(config)
    arguments = night.arguments("--json", "reconcile", "--days", "1")
    arguments[2] = str(path)
    import subprocess

    done = subprocess.run(arguments, env=night.environment, capture_output=True, text=True, timeout=180)
    assert done.returncode == 1 and "edge" in done.stdout and url not in done.stderr
    assert night.night()["status"] == "complete"


def test_the_doctor_says_what_is_wrong(night):
    done = night.run("doctor")
    assert done.returncode == 0, done.stdout
    assert "ok    objects" in done.stdout and f"ok    {night.workspace.id}: openai" in done.stdout
    night.env = {"SIM_OPENAI_ADMIN": "sk-wrong"}
    done = night.run("doctor")
    assert done.returncode == 1 and f"FAIL  {night.workspace.id}: openai" in done.stdout
    assert "sk-wrong" not in done.stdout + done.stderr


def test_the_export_is_of_the_books(night):
    import csv

    day = night.today
    traffic(night)
    night.advance()
    night.night()
    done = night.run("export", "--month", day.strftime("%Y-%m"), "--directory", str(night.home / "export"))
    assert done.returncode == 0, done.stderr
    [path] = (night.home / "export").glob("export/v1/*/focus_1_4_csv/cost_and_usage/*/*/*.csv")
    with path.open() as file:
        rows = list(csv.DictReader(file))
    by_issuer = {}
    for row in rows:
        by_issuer[row["InvoiceIssuerName"]] = by_issuer.get(row["InvoiceIssuerName"], 0) + Decimal(row["BilledCost"])
    assert by_issuer["OpenAI"] == night.bills.invoice("openai", day, day).total
    assert by_issuer["Anthropic"] == night.bills.invoice("anthropic", day, day).total


def test_unit_economics_are_of_models_and_harness_together(night):
    day = night.today
    key = night.workspace.key(actor={"feature": "answers", "app": "shop"})
    replies = [key.chat(sim={"input_tokens": 5000, "output_tokens": 500}) for _ in range(4)]
    for reply in replies:
        key.event(reply.id)
    key.ring()
    for nth, reply in enumerate(replies[:3]):
        verdict = "accepted" if nth < 2 else "rejected"
        answer = key.post("/v1/outcomes", {"request": reply.id, "outcome": verdict})
        assert answer.status == 200, answer.body
    inbox = night.home / "books" / "objects" / "inbox" / "database"
    inbox.mkdir(parents=True)
    month = day.strftime("%Y-%m")
    (inbox / "bill.csv").write_text(f"day,service,amount,feature\n{day},vectors,1.25,answers\n{day},idle,0.75,\n")
    mapping = {
        "files": [
            {
                "path": "database/*.csv",
                "provider": "database",
                "account": "acme",
                "bad_rows": "hold",
                "format": {
                    "csv": {
                        "period": {"day": {"column": "day", "format": "%Y-%m-%d"}},
                        "amount": {"column": "amount", "unit": "dollars", "currency": {"fixed": "USD"}},
                        "service": {"column": "service"},
                        "tags": {"feature": "feature"},
                    }
                },
            }
        ]
    }
    night.sources.append({"connector": "inbox", "mapping": mapping})
    night.more = {"tags": {"feature": "feature"}}
    night.advance()
    report = night.night()
    assert report["status"] == "complete", report["missing"]
    assert difference(report["providers"]["database"]) == 0
    costs = json.loads(night.run("--json", "economics", "--month", month).stdout)
    [answers] = [unit for unit in costs["by"]["feature"] if unit["name"] == "answers"]
    models = night.bills.invoice("openai", day, day).total
    assert Decimal(answers["models"]) == models and Decimal(answers["harness"]) == Decimal("1.25")
    assert (answers["requests"], answers["accepted"], answers["rejected"]) == (4, 2, 1)
    assert Decimal(answers["per_accepted"]) == (models + Decimal("1.25")) / 2
    assert Decimal(costs["overall"]["total"]) == models + 2


def test_a_bill_rounded_to_cents_with_tax_and_credit_is_allocated_whole(night):
    day = night.today
    traffic(night, each=6)
    night.bills.leak("openai", night.workspace.credential, "gpt-6-luna", day, requests=2, input=7_000_001, output=900_001)
    for provider in ("openai", "anthropic"):
        night.bills.set(
            provider,
            rounding={"places": 2, "adjustment": True},
            tax=[{"days": day.isoformat(), "amount": "0.0731"}],
            credit=[{"days": day.isoformat(), "amount": "0.0000001"}],
        )
    night.advance()
    report = night.night()
    assert report["status"] == "complete", report["missing"]
    for provider in ("openai", "anthropic"):
        invoice = night.bills.invoice(provider, day, day)
        books = report["providers"][provider]
        assert Decimal(books["billed"]) == invoice.shown == invoice.total
        assert difference(books) == 0
        whole = Decimal(books["billed"]) - Decimal(books["estimated"])
        assert whole == Decimal(books["quantity_variance"]) + Decimal(books["price_variance"])
    # Rounding is no price: nothing is proposed.
    assert night.workspace.admin("GET", "/price-proposals")["data"] == []
    tokens = sum(int(a["evidence"]["tokens"]) for a in alerts_of(night, "unmetered_usage"))
    assert tokens == 7_000_001 + 900_001
