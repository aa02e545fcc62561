"""Statements, reconciliation, the overview's books and the demo, in a real browser over a month of demo traffic."""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass, field
from decimal import Decimal

import pytest

import demo
from conftest import Gateway, call, new_secrets
from test_dashboard import LOOKS, cells, check, stat
from visitors import ROLES, Site, browser  # noqa: F401

PAGES = {
    "/dashboard": "Overview",
    "/dashboard/statements": "Statements",
    "/dashboard/statements?by=team&month=2020-01": "Statements",
    "/dashboard/reconciliation": "Reconciliation",
    "/dashboard/reconciliation?by=provider,model&provider=openai": "Reconciliation",
}
#: What every page of the menu must have on a demo: rows, and no empty table among these.
ALIVE = ["/dashboard", "/dashboard/usage", "/dashboard/requests", "/dashboard/budgets", "/dashboard/alerts",
         "/dashboard/keys", "/dashboard/reconciliation", "/dashboard/statements"]


@dataclass
class DemoWorkspace:
    """What a visitor needs of a workspace."""

    gateway: Gateway
    token: str
    path: str = f"/workspaces/{demo.WORKSPACE}"
    tokens: dict[str, str] = field(default_factory=dict)

    def admin(self, method: str, path: str, body: object = None):
        status, answer = self.gateway.admin(method, f"{self.path}{path}", body, self.token)
        assert status < 300, answer
        return answer


def furnish(gateway: Gateway, browser) -> Site:
    def admin(method, path, body=None):
        status, answer = gateway.admin(method, path, body)
        assert status < 300, (path, answer)
        return answer

    workspace = DemoWorkspace(gateway, demo.create(admin))
    assert demo.fill(admin) > 15_000
    site = Site(workspace, browser, None)
    site.tokens["admin"] = workspace.token
    for role in ROLES[1:]:
        body = {"name": role, "role": role, "owner": "*" if role == "developer" else None}
        site.tokens[role] = workspace.admin("POST", "/tokens", body)["token"]
    return site


@pytest.fixture(scope="module")
def site(tmp_path_factory, browser):
    gateway = Gateway(home=tmp_path_factory.mktemp("demo"), settings=new_secrets()).start()
    try:
        yield furnish(gateway, browser)
    finally:
        gateway.stop()


@pytest.mark.parametrize(("scheme", "width"), LOOKS)
def test_every_page_in_every_look(site, scheme, width):
    with site.visitor("admin", scheme, width) as page:
        for path, heading in PAGES.items():
            page.goto(path)
            check(page, heading)


@pytest.mark.parametrize("role", ROLES)
def test_every_page_for_every_role(site, role):
    with site.visitor(role) as page:
        for path, heading in PAGES.items():
            assert page.goto(path).status == 200
            check(page, heading)
            # Only who may change the workspace may remove it.
            assert page.get_by_role("button", name="Remove the demo").count() == (role == "admin")


def test_every_page_is_labelled_and_alive(site):
    with site.visitor("admin") as page:
        for path in ALIVE:
            page.goto(path)
            assert "Demo data." in page.locator(".banner").inner_text(), path
            assert page.locator("tbody tr td:not(.empty)").count() > 0, path


def test_a_statement_is_the_ledger(site):
    month = site.api("/forecast")["month"]
    answer = site.api(f"/statements?month={month}&by=cost_centre")
    assert answer["control"]["agrees"]
    with site.visitor("finance") as page:
        page.goto(f"/dashboard/statements?month={month}")
        assert Decimal(stat(page, "Total")) == Decimal(answer["control"]["ledger_usd"])
        rows = cells(page, "statement")
        assert rows[-1][0] == "All"
        assert sum(Decimal(row[-1]) for row in rows[:-1]) == Decimal(rows[-1][-1])
        assert "agree" in page.locator(".facts").inner_text()
        assert "Provisional" in page.locator(".lead").inner_text()
        file = page.request.get(f"/dashboard/statements?month={month}&format=csv&table=statement")
        table = list(csv.DictReader(io.StringIO(file.text())))
        assert [Decimal(row["total_usd"]) for row in table] == [Decimal(row[-1]) for row in rows]
        # By another owner it is the same sum, and each owner leads to its charges.
        page.get_by_label("By", exact=True).select_option("team")
        page.get_by_role("button", name="Show").click()
        page.wait_for_url("**by=team**")
        assert Decimal(stat(page, "Total")) == Decimal(answer["control"]["ledger_usd"])
        page.locator("table#statement").get_by_role("link", name="support").click()
        page.wait_for_url("**/dashboard/usage**team=support**")


def test_a_statement_is_printed_without_buttons(site):
    with site.visitor("finance", "dark") as page:
        page.goto("/dashboard/statements")
        page.emulate_media(media="print")
        assert page.locator("table#statement").is_visible()
        for hidden in (".top", ".filters", ".foot"):
            assert not page.locator(hidden).first.is_visible(), hidden


@pytest.mark.parametrize("query", ["month=never", "month=2099-01", "by=colour"])
def test_a_statement_of_nonsense_says_what_is_wrong(site, query):
    with site.visitor("finance") as page:
        assert page.goto(f"/dashboard/statements?{query}").status == 422
        assert "Give" in page.get_by_role("alert").inner_text() or "Use" in page.get_by_role("alert").inner_text()
        check(page, "Statements")


def test_reconciliation_leads_from_a_day_to_its_models(site):
    first = site.api("/true-ups?group_by=day")["data"][0]["group"]["day"]
    with site.visitor("finance") as page:
        page.goto(f"/dashboard/reconciliation?by=day&from={first}")
        page.locator("table#true-ups").get_by_role("link", name=first).click()
        page.wait_for_url("**by=provider%2Cmodel**")
        rows = cells(page, "true-ups")
        wanted = site.api(f"/true-ups?group_by=provider,model&day={first}")["data"]
        assert sum(Decimal(row[3]) for row in rows) == sum(Decimal(it["sums"]["billed_usd"]) for it in wanted)
        page.goto(f"/dashboard/reconciliation?from={first}")
        assert "sk-...kq7d" in page.locator("table#unmetered").inner_text()
        runs = cells(page, "runs")
        assert len(runs) == 28 and any("partial" in row[1] and "mistral" in row[4] for row in runs)


def test_corrections_of_budgets_are_the_apis_and_lead_to_their_day(site):
    wanted = site.api("/corrections?from=2000-01-01")
    first = wanted["data"][-1]["day"]
    with site.visitor("finance") as page:
        page.goto(f"/dashboard/reconciliation?from={first}")
        check(page, "Reconciliation")
        rows = cells(page, "corrections")
        assert len(rows) == len(wanted["data"]) == 50
        for row, it in zip(rows, wanted["data"]):
            assert [row[0], row[1], row[3]] == [it["came_at"], it["day"], it["budget"]]
            assert [Decimal(amount) for amount in row[7:12]] == [
                Decimal(it[name])
                for name in ["amount_usd", "change_usd", "by_quantity_usd", "by_price_usd", "counted_usd"]
            ]
        page.locator("table#corrections tbody a").first.click()
        page.wait_for_url(f"**provider={wanted['data'][0]['provider']}**")
        assert {row[1] for row in cells(page, "corrections")} == {wanted["data"][0]["day"]}


def test_open_alerts_are_counted_on_top_and_lead_to_their_list(site):
    counts = site.api("/alert-counts")
    with site.visitor("auditor") as page:
        for severity in ["critical", "warning", "info"]:
            page.goto("/dashboard/alerts")
            check(page, "Alerts")
            stat_of = page.locator(".stats > div", has=page.get_by_text(f"{severity.capitalize()}, open", exact=True))
            link = stat_of.get_by_role("link")
            count = counts[severity]["open"]
            assert link.inner_text() == str(count)
            link.click()
            page.wait_for_url(f"**state=open&severity={severity}")
            rows = [row for row in cells(page, "alerts") if len(row) > 1]
            assert len(rows) == min(count, 100) and all(row[1] == severity for row in rows)
    assert sum(states["open"] for states in counts.values()) > 0


def test_the_idle_commitment_and_the_keys_payment_methods_are_shown(site):
    found = [it for it in site.api("/savings")["data"] if it["kind"] == "idle_commitment"]
    assert found[0]["counted"] and found[0]["evidence"]["commitment"] == "sol-scale-tier"
    with site.visitor("finance") as page:
        page.goto("/dashboard/savings")
        rows = [row for row in cells(page, "opportunities") if row[0] == "An idle commitment"]
        assert Decimal(rows[0][3]) == Decimal(found[0]["saves_usd"]) and rows[0][1] == "sol-scale-tier"
        page.goto("/dashboard/keys")
        headings = page.locator("table#keys thead th").all_inner_texts()
        place = [heading.strip() for heading in headings].index("Paid by")
        keys = site.api("/key-inventory")["data"]
        methods = {provider: method or "not said" for provider, method in keys[0]["payment_methods"].items()}
        text = cells(page, "keys")[0][place]
        assert methods and all(provider in text and method in text for provider, method in methods.items())


def test_the_overviews_numbers_are_the_apis(site):
    forecast, books = site.api("/forecast"), site.api("/books")
    with site.visitor("finance") as page:
        page.goto("/dashboard")
        assert Decimal(stat(page, "Spent this month")) == Decimal(forecast["spent_usd"])
        assert Decimal(stat(page, "Forecast for the month")) == Decimal(forecast["forecast"]["expected_usd"])
        assert Decimal(stat(page, "Trued up so far")) == Decimal(books["ledger_usd"])
        assert Decimal(stat(page, "Still an estimate")) == Decimal(books["still_estimated_usd"])
        assert {row[0] for row in cells(page, "freshness")} == set(books["providers"])
        assert len(cells(page, "allocation")) == 4
        week = next(it for it in forecast["accuracy"] if it["days"] == 7)
        assert Decimal(week["actual_usd"]) > 0


def test_the_demo_goes_with_one_click(tmp_path, browser):
    gateway = Gateway(home=tmp_path, settings=new_secrets()).start()
    try:
        def admin(method, path, body=None):
            return gateway.admin(method, path, body)[1]

        workspace = DemoWorkspace(gateway, demo.create(admin))
        admin("POST", f"{workspace.path}/demo", {"day": 0})
        site = Site(workspace, browser, None)
        site.tokens["admin"] = workspace.token
        with site.visitor("admin") as page:
            page.get_by_role("button", name="Remove the demo").click()
            page.wait_for_url("**/dashboard/sign-in")
        assert admin("GET", "/workspaces")["data"] == []
        assert call("GET", f"{gateway.url}/api/v1{workspace.path}/usage", token=workspace.token)[0] == 401
        # It can be made again, whole.
        again = DemoWorkspace(gateway, demo.create(admin))
        assert again.admin("GET", "/usage")["data"][0]["requests"] == 0
    finally:
        gateway.stop()
