"""The simulator's bills: traffic, a moved clock and a leaked key, read back by the providers' own SDKs."""

from __future__ import annotations

import json
import urllib.request
from datetime import date, datetime, timedelta, timezone
from decimal import Decimal

import anthropic
import openai
import pytest

from bills import Bills, BillsError
from gateway import Simulator, call

FIRST = date(2026, 11, 1)
LAST = date(2026, 11, 3)
START = datetime(2026, 11, 1, 23, 59, 30, tzinfo=timezone.utc)


@pytest.fixture(scope="module")
def simulator():
    """One whose clock belongs to these tests alone."""
    simulator = Simulator().start()
    yield simulator
    simulator.stop()


@pytest.fixture
def bills(simulator):
    simulator.reset()
    bills = Bills(simulator.url, account="7")
    bills.set_clock(START, frozen=True)
    return bills


def use(bills: Bills, path: str, model: str, input_tokens: int, output_tokens: int, key: str = "sk-sim-7"):
    sim = {"input_tokens": input_tokens, "output_tokens": output_tokens}
    body = {"model": model, "messages": [{"role": "user", "content": "hi"}], "sim": sim}
    status, answer = call("POST", bills.url + path, body, key)
    assert status == 200, answer


def unix(day: date) -> int:
    return int(datetime(day.year, day.month, day.day, tzinfo=timezone.utc).timestamp())


def raw(bills: Bills, provider: str, path: str) -> dict:
    """One answer of a billing API, its numbers exact."""
    key = bills.admin_key(provider)
    headers = {"authorization": f"Bearer {key}", "x-api-key": key, "anthropic-version": "2023-06-01"}
    request = urllib.request.Request(bills.base_url(provider) + path, headers=headers)
    with urllib.request.urlopen(request, timeout=30) as answer:
        return json.loads(answer.read(), parse_float=Decimal, parse_int=Decimal)


def openai_costs(bills: Bills) -> Decimal:
    query = f"?start_time={unix(FIRST)}&end_time={unix(LAST + timedelta(days=1))}&group_by[]=line_item"
    page = raw(bills, "openai", f"/organization/costs{query}&limit=180")
    results = (result for bucket in page["data"] for result in bucket["results"])
    return sum((Decimal(result["amount"]["value"]) for result in results), Decimal(0))


def test_each_request_is_on_the_bill_of_its_day(bills):
    use(bills, "/openai/v1/chat/completions", "gpt-6-luna", 1_001, 333)
    bills.advance(timedelta(minutes=1))
    use(bills, "/openai/v1/chat/completions", "gpt-6-luna", 7, 1)
    use(bills, "/openai/v1/chat/completions", "gpt-6-luna", 50, 50, key="sk-sim-8")
    invoice = bills.invoice("openai", FIRST, LAST)
    # 0.10 and 0.50 dollars a million.
    assert invoice.days[FIRST] == Decimal("0.0002666")
    assert invoice.days[FIRST + timedelta(days=1)] == Decimal("0.0000012")
    assert invoice.total == invoice.shown == openai_costs(bills) == Decimal("0.0002678")
    assert invoice.tokens("output") == 334 and invoice.tokens("requests", "gpt-6-luna") == 2
    everybody = Bills(bills.url).invoice("openai", FIRST, LAST)
    assert everybody.total - invoice.total == Decimal("0.00003")


def test_a_leaked_key_is_told_apart_to_the_token(bills):
    use(bills, "/openai/v1/chat/completions", "gpt-6-sol", 100, 10)
    own = bills.leak("openai", "sk-sim-7", "gpt-6-sol", FIRST, requests=3, input=999, output=1)
    other = bills.leak("openai", "sk-sim-7-lost", "gpt-6-sol", FIRST, input=5)
    invoice = bills.invoice("openai", FIRST)
    assert invoice.leaked["input"] == 1_004 and invoice.leaked["requests"] == 4
    assert invoice.leaked_amount == Decimal("0.002018")
    assert invoice.keys == {own: Decimal("0.002308"), other: Decimal("0.00001")}
    assert invoice.total == openai_costs(bills)


def test_quirks_come_and_go(bills):
    use(bills, "/openai/v1/chat/completions", "gpt-6-sol", 1_000_000, 77)
    usual = bills.invoice("openai", FIRST).total
    bills.set("openai", late=[{"percent": 10}], price=[{"model": "gpt-6-sol", "per_million": "3"}])
    bills.change("openai", tax=[{"days": FIRST, "amount": Decimal("0.19")}])
    invoice = bills.invoice("openai", FIRST)
    assert invoice.total == Decimal("3.190231") and invoice.shown == Decimal("2.89021")
    assert [(charge.reason, charge.amount) for charge in invoice.charges] == [("tax", Decimal("0.19"))]
    assert openai_costs(bills) == invoice.shown
    bills.release("openai")
    assert openai_costs(bills) == invoice.total
    bills.set("openai")
    assert openai_costs(bills) == usual
    with pytest.raises(BillsError, match="unknown field `latte`"):
        bills.set("openai", latte=[])


def test_openai_s_sdk_reads_costs_usage_and_keys(bills):
    use(bills, "/openai/v1/chat/completions", "gpt-6-luna", 300, 20)
    client = openai.OpenAI(
        base_url=bills.base_url("openai"), api_key="unused", admin_api_key=bills.admin_key("openai")
    )
    organization = client.admin.organization
    days = {"start_time": unix(FIRST), "end_time": unix(LAST), "limit": 1}
    costs = organization.usage.costs(**days, group_by=["line_item", "project_id", "api_key_id"])
    (first, second) = costs.data[0].results
    assert (first.line_item, first.amount.currency) == ("gpt-6-luna, input", "usd")
    assert (second.quantity, second.quantity_unit, second.project_id) == (20, "tokens", "proj_sim")
    # Time stands still on the first day: there is no bucket of the next.
    assert costs.has_more is False
    usage = organization.usage.completions(**days, group_by=["model", "batch"])
    (result,) = usage.data[0].results
    assert (result.model, result.input_tokens, result.batch) == ("gpt-6-luna", 300, False)
    keys = list(organization.projects.api_keys.list("proj_sim"))
    assert [key.id for key in keys] == [first.api_key_id]
    assert keys[0].owner.user.email == "ann@example.com"
    assert [key.name for key in organization.admin_api_keys.list()] == ["Billing"]
    with pytest.raises(openai.PermissionDeniedError):
        client.with_options(admin_api_key="sk-sim-7").admin.organization.usage.costs(**days)


def test_anthropic_s_sdk_reads_costs_usage_and_keys(bills):
    use(bills, "/anthropic/v1/messages", "claude-haiku-4-5", 300, 20)
    key = bills.leak("anthropic", "sk-sim-7-lost", "claude-haiku-4-5", FIRST, output=1)
    client = anthropic.Anthropic(
        base_url=bills.base_url("anthropic"), api_key=bills.admin_key("anthropic")
    )
    organization = client.beta.organization
    days = {
        "starting_at": f"{FIRST}T00:00:00Z",
        "ending_at": f"{LAST}T00:00:00Z",
        "time_bucket_width": "1d",
        "limit": 1,
    }
    costs = list(organization.analytics.cost.list(**days, group_by=["api_key_id", "token_type"]))
    cents = {(row.group.api_key_id, row.group.token_type): row.cost.amount for row in costs}
    assert len(costs) == 3 and cents[key, "output_tokens"] == "0.0005"
    total = sum(Decimal(row.cost.amount) for row in costs) / 100
    assert total == bills.invoice("anthropic", FIRST, LAST).total == Decimal("0.000405")
    (usage,) = organization.analytics.usage.list(**days, group_by=["model"])
    assert (usage.usage.requests, usage.usage.output_tokens) == (2, 21)
    keys = {listed.id: listed for listed in organization.api_keys.list()}
    assert len(keys) == 2 and keys[key].status == "active"
    report = raw(bills, "anthropic", f"/v1/organizations/cost_report?starting_at={FIRST}T00:00:00Z")
    assert report["data"][0]["results"][0]["amount"] == "0.0405"
