"""The dashboard in a real browser: every page, role, colour scheme and width; its forms; and its numbers."""

from __future__ import annotations

import csv
import io
from decimal import Decimal

import pytest
from playwright.sync_api import expect

from visitors import AXE, browser, site  # noqa: F401

PAGES = {
    "/dashboard": "Overview",
    "/dashboard/usage": "Owners",
    "/dashboard/usage?by=feature&team=search": "Owners",
    "/dashboard/requests": "Requests",
    "/dashboard/requests?outcome=refused": "Requests",
    "/dashboard/budgets": "Budgets",
    "/dashboard/budgets/all": "Budget all",
    "/dashboard/budgets/teams": "Budget teams",
    "/dashboard/alerts": "Alerts",
    "/dashboard/keys": "Keys and providers",
    "/dashboard/reconciliation": "Reconciliation",
    "/dashboard/sessions": "Sessions",
    "/dashboard/no-such-page": "Not found",
}
LOOKS = [(scheme, width) for scheme in ("light", "dark") for width in (360, 1920)]


def check(page, heading: str) -> None:
    """The page is the one that was asked for, fits its window, and passes the accessibility checks."""
    assert page.locator("h1").inner_text() == heading
    wide, window = page.evaluate("[document.scrollingElement.scrollWidth, innerWidth]")
    assert wide <= window, f"{heading} is {wide} px wide in a window of {window}"
    page.evaluate(AXE.read_text())
    found = page.evaluate("axe.run().then(({ violations }) => violations)")
    told = [(v["id"], v["help"], [n["html"][:200] for n in v["nodes"]]) for v in found]
    assert told == [], f"{heading}: {told}"


def details(site) -> dict[str, str]:
    """The pages of one thing, by what there is."""
    request = site.api("/requests?limit=1")["data"][0]["id"]
    alert = site.api("/alerts")["data"][0]
    key = site.workspace.keys[0].id
    return {
        f"/dashboard/requests/{request}": f"Request {request}",
        f"/dashboard/alerts/{alert['id']}": alert["title"],
        f"/dashboard/keys/{key}": "Key search",
    }


@pytest.mark.parametrize(("scheme", "width"), LOOKS)
def test_every_page_in_every_look(site, scheme, width):
    with site.visitor("admin", scheme, width) as page:
        for path, heading in (PAGES | details(site)).items():
            page.goto(path)
            check(page, heading)


@pytest.mark.parametrize("role", ["finance", "developer", "auditor"])
def test_every_page_for_every_role(site, role):
    with site.visitor(role, width=1280) as page:
        for path, heading in (PAGES | details(site)).items():
            answer = page.goto(path)
            check(page, heading)
            if path == "/dashboard/sessions":
                assert answer.status == (200 if role == "auditor" else 403)
            elif path != "/dashboard/no-such-page":
                assert answer.status == 200, (path, page.locator(".note").all_inner_texts())
        page.goto("/dashboard/keys")
        assert page.get_by_role("button", name="Issue").count() == 0
        assert page.get_by_role("button", name="Suspend").count() == 0


@pytest.mark.parametrize(("scheme", "width"), LOOKS)
def test_the_page_to_sign_in_on(site, scheme, width):
    with site.visitor(None, scheme, width) as page:
        answer = page.goto("/dashboard/usage?by=owner")
        check(page, "Sign in to Tallygate")
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'" in policy and "unsafe" not in policy
        page.get_by_label("API token").fill("nonsense")
        page.get_by_role("button", name="Sign in").click()
        assert "not known" in page.get_by_role("alert").inner_text()
        check(page, "Sign in to Tallygate")
        page.get_by_label("API token").fill(site.tokens["admin"])
        page.get_by_role("button", name="Sign in").click()
        # One lands where one wanted to go.
        page.wait_for_url("**/dashboard/usage?by=owner")
        assert site.tokens["admin"] not in page.content()
        assert page.evaluate("document.cookie") == ""


def cells(page, table: str) -> list[list[str]]:
    """A table's exact values."""
    return page.locator(f"table#{table} tbody tr").evaluate_all(
        """rows => rows.map(row => [...row.cells].map(cell =>
            cell.querySelector('data')?.value ?? cell.querySelector('time')?.dateTime ?? cell.textContent.trim()))"""
    )


def stat(page, label: str) -> str:
    return page.locator(".stats > div", has=page.get_by_text(label, exact=True)).locator("data").get_attribute("value")


def test_numbers_are_the_apis(site):
    month = site.today.replace(day=1).date().isoformat()
    rows = site.api(f"/usage?from={month}&group_by=team")["data"]
    total = sum(Decimal(row["charged_usd"]) for row in rows)
    assert total > 0
    with site.visitor() as page:
        assert Decimal(stat(page, "Spent this month")) == total
        today = site.api(f"/usage?from={site.today.date().isoformat()}")["data"][0]["charged_usd"]
        assert Decimal(stat(page, "Spent today")) == Decimal(today)
        assert stat(page, "Requests") == str(sum(row["requests"] for row in rows))
        days = cells(page, "by-provider")
        assert len(days) == 5
        assert sum(Decimal(day[-1]) for day in days) == total
        assert all(sum(map(Decimal, day[1:-1])) == Decimal(day[-1]) for day in days)
        page.goto("/dashboard/usage?by=team")
        shown = {row[0]: Decimal(row[5]) for row in cells(page, "usage")}
        assert shown == {row["team"] or "Unallocated": Decimal(row["charged_usd"]) for row in rows}
        assert sum(shown.values()) == total
        with page.expect_download() as download:
            page.locator("section", has=page.locator("table#usage")).locator("a[download]").click()
        lines = list(csv.DictReader(io.StringIO(download.value.path().read_text())))
        assert {line["team"]: Decimal(line["charged_usd"]) for line in lines} == shown
        page.goto("/dashboard/budgets/all")
        status = site.api("/budgets/all/status")["money"]
        [row] = cells(page, "accounts")
        names = ["cap_usd", "spent_usd", "held_usd", "leased_usd", "remaining_usd"]
        assert row[4:9] == [status[name] for name in names]


def test_a_chart_is_drawn_over_its_table_and_follows_the_colours(site):
    with site.visitor() as page:
        figure = page.locator("figure[data-chart=by-provider]")
        assert figure.locator("canvas").is_visible()
        page.emulate_media(color_scheme="dark")
        assert figure.locator("canvas").count() == 1
        page.set_viewport_size({"width": 400, "height": 800})
        width = figure.evaluate("it => it.clientWidth")
        assert width < 400
        expect(figure.locator("canvas")).to_have_js_property("clientWidth", width)


def test_an_owner_leads_down_to_its_requests(site):
    with site.visitor() as page:
        page.goto("/dashboard/usage")
        bands = page.locator("svg.flow path title").all_text_contents()
        assert any(band.startswith("support to replies: $") for band in bands), bands
        assert not any("None reached" in band for band in bands), bands
        page.get_by_role("link", name="support", exact=True).first.click()
        assert [row[0] for row in cells(page, "usage")] == ["replies"]
        page.get_by_role("link", name="The requests").click()
        teams = {row[3] for row in cells(page, "requests")}
        assert teams == {"support"}
        page.locator("table#requests tbody tr td a").first.click()
        assert page.get_by_text("Held before it was sent").is_visible()


def test_without_scripts_everything_is_there(site):
    with site.visitor(js=False) as page:
        for path, heading in (PAGES | details(site)).items():
            page.goto(path)
            assert page.locator("h1").inner_text() == heading
        page.goto("/dashboard/requests")
        page.get_by_label("How it ended").select_option("refused")
        page.get_by_role("button", name="Show").click()
        assert page.locator("table#requests tbody tr").count() == 5
        page.get_by_label("Colours").select_option("dark")
        page.get_by_role("button", name="Set").click()
        assert page.locator("html").get_attribute("data-theme") == "dark"
        assert "outcome=refused" in page.url
        page.get_by_role("button", name="Sign out").click()
        page.goto("/dashboard")
        assert page.locator("h1").inner_text() == "Sign in to Tallygate"


def test_by_keyboard_alone(site):
    with site.visitor() as page:
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.textContent") == "Skip to the content"
        assert page.locator(":focus").bounding_box()["x"] >= 0
        page.keyboard.press("Enter")
        assert page.url.endswith("#content")
        seen = set()
        while True:
            page.keyboard.press("Tab")
            if page.evaluate("document.activeElement === document.body"):
                break
            seen.add(page.evaluate("document.activeElement.textContent.trim()"))
            style = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
            assert style != "none", page.evaluate("document.activeElement.outerHTML")
        assert "Download as CSV: Teams this month" in seen


def test_a_key_is_issued_and_its_mistakes_are_told(site):
    with site.visitor() as page:
        page.goto("/dashboard/keys")
        form = page.locator("form[action='/dashboard/keys/issue']")
        for label, value in [("Name", "made here"), ("Owner", "ann"), ("Cost centre", "cc-1"), ("Purpose", "tests")]:
            form.get_by_label(label, exact=True).fill(value)
        form.get_by_label("Environment").fill("test")
        form.get_by_label("Policy").fill("no such policy")
        form.get_by_role("button", name="Issue").click()
        assert "no such policy" in page.get_by_role("alert").inner_text()
        check(page, "Keys and providers")
        form = page.locator("form[action='/dashboard/keys/issue']")
        assert form.get_by_label("Name", exact=True).input_value() == "made here"
        form.get_by_label("Policy").fill("")
        form.get_by_label("Limit for each day in US dollars").fill("2.50")
        form.get_by_role("button", name="Issue").click()
        check(page, "A new key")
        page.get_by_role("link", name="Back").click()
        key = next(key for key in site.api("/keys")["data"] if key["name"] == "made here")
        row = page.locator("table#keys tr", has_text="made here")
        row.get_by_role("button", name="Suspend made here").click()
        assert "suspended" in page.get_by_role("status").inner_text()
        assert site.api(f"/keys/{key['id']}")["status"] == "suspended"
        row.get_by_role("button", name="Resume made here").click()
        assert site.api(f"/keys/{key['id']}")["status"] == "active"


def test_a_budget_is_raised_and_the_raise_ended(site):
    with site.visitor() as page:
        page.goto("/dashboard/budgets/all")
        form = page.locator("form[action$='/raise']").first
        form.get_by_label("Limit in US dollars").fill("plenty")
        form.get_by_label("Until the start of").fill((site.today.replace(day=12)).date().isoformat())
        form.get_by_label("Reason").fill("launch")
        form.get_by_role("button", name="Raise").click()
        assert "limit_usd" in page.get_by_role("alert").inner_text()
        assert page.get_by_label("Reason").input_value() == "launch"
        page.get_by_label("Limit in US dollars").fill("20")
        page.get_by_role("button", name="Raise").click()
        assert "raised" in page.get_by_role("status").inner_text()
        assert site.api("/budgets/all/status")["money"]["cap_usd"] == "20"
        page.get_by_role("button", name="End it now").click()
        assert site.api("/budgets/all/status")["money"]["cap_usd"] == "10"


def test_an_alert_is_acknowledged_snoozed_and_resolved(site):
    alert = site.api("/alerts")["data"][-1]["id"]
    state = lambda: site.api(f"/alerts/{alert}")["status"]["state"]  # noqa: E731
    with site.visitor("developer") as page:
        page.goto(f"/dashboard/alerts/{alert}")
        page.get_by_role("button", name="Acknowledge").click()
        assert "acknowledged" in page.get_by_role("status").inner_text()
        assert state() == "acknowledged"
        page.get_by_label("Until the start of").fill("2020-01-01")
        page.get_by_label("Reason").fill("later")
        page.get_by_role("button", name="Snooze").click()
        assert "until" in page.get_by_role("alert").inner_text()
        page.get_by_label("Until the start of").fill((site.today.replace(day=20)).date().isoformat())
        page.get_by_role("button", name="Snooze").click()
        assert state() == "snoozed"
        page.get_by_role("button", name="Resolve").click()
        assert state() == "resolved"


def test_live_requests_come_by_themselves(site):
    key = site.workspace.keys[0]
    with site.visitor() as page:
        page.clock.install()
        page.goto("/dashboard/requests?live=1")
        before = page.locator("table#requests tbody tr th").count()
        reply = key.chat()
        key.event(reply.id)
        key.ring()
        with page.expect_response("**/dashboard/requests?live=1"):
            page.clock.fast_forward(11_000)
        page.get_by_role("link", name=reply.id).wait_for()
        assert page.locator("table#requests tbody tr th").count() == before + 1
        page.get_by_role("link", name="Stop following").click()
        assert "live" not in page.url


def test_a_session_ended_from_afar_is_over(site):
    with site.visitor("finance") as finance, site.visitor("admin") as admin:
        admin.goto("/dashboard/sessions")
        for session in site.api("/sessions")["data"]:
            if session["role"] == "finance":
                admin.get_by_role("button", name=f"End {session['id']}").click()
                assert "ended" in admin.get_by_role("status").inner_text()
        finance.goto("/dashboard")
        assert finance.locator("h1").inner_text() == "Sign in to Tallygate"
