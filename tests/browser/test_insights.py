"""Unit economics, the weekly review, savings and the calculators in a real browser: looks, roles, forms, numbers."""

from __future__ import annotations

import csv
import io
from decimal import Decimal

import pytest

from test_dashboard import LOOKS, cells, check, stat
from visitors import browser, site  # noqa: F401

PAGES = {
    "/dashboard/unit-economics": "Unit economics",
    "/dashboard/unit-economics?by=customer&bucket=week": "Unit economics",
    "/dashboard/review": "Weekly review",
    "/dashboard/savings": "Savings",
    "/dashboard/calculators/workload": "A workload across models",
    "/dashboard/calculators/workload?requests=1000&input_tokens=2000&output_tokens=500": "A workload across models",
    "/dashboard/calculators/provisioned-throughput": "Provisioned throughput",
    "/dashboard/calculators/provisioned-throughput?price_per_unit_hour_usd=2&tokens_per_minute=10000"
    "&on_demand_per_million_usd=5&tokens_per_month=1000000": "Provisioned throughput",
}


def this_week(site) -> str:  # noqa: F811
    return "{}-W{:02}".format(*site.today.isocalendar()[:2])


@pytest.fixture(scope="module")
def judged(site):  # noqa: F811
    """Some outcomes, and what kind of application a feature is."""
    key = next(key for key in site.workspace.keys)
    for request in site.api(f"/requests?key={key.id}&limit=3")["data"]:
        assert key.post("/v1/outcomes", {"request": request["id"], "outcome": "accepted", "value_usd": "2"}).status == 200
    config = site.api("/config")
    config["archetypes"] = {"answers": "document_analysis"}
    site.workspace.admin("PUT", "/config", config)
    for key in site.workspace.keys:
        key.ring()
    return site


@pytest.mark.parametrize(("scheme", "width"), LOOKS)
def test_every_page_in_every_look(judged, scheme, width):
    with judged.visitor("admin", scheme, width) as page:
        for path, heading in (PAGES | {f"/dashboard/review?week={this_week(judged)}": "Weekly review"}).items():
            page.goto(path)
            check(page, heading)


@pytest.mark.parametrize("role", ["finance", "developer", "auditor"])
def test_every_page_for_every_role(judged, role):
    with judged.visitor(role) as page:
        for path, heading in PAGES.items():
            answer = page.goto(path)
            check(page, heading)
            assert answer.status == 200, (path, page.locator(".note").all_inner_texts())
        names = page.locator("nav a").all_inner_texts()
        assert {"Unit economics", "Weekly review", "Savings"} <= set(names)


def test_without_scripts_everything_is_there(judged):
    with judged.visitor(js=False) as page:
        for path, heading in PAGES.items():
            page.goto(path)
            assert page.locator("h1").inner_text() == heading
        page.goto("/dashboard/unit-economics")
        page.get_by_label("By", exact=True).select_option("customer")
        page.get_by_role("button", name="Show").click()
        assert {row[0] for row in cells(page, "units")} == {"acme & co", "Unallocated"}


def test_unit_economics_are_the_apis(judged):
    month = judged.today.replace(day=1).date().isoformat()
    report = judged.api(f"/unit-economics?from={month}&bucket=day")
    charged = judged.api(f"/usage?from={month}")["data"][0]["charged_usd"]
    assert Decimal(report["overall"]["total_usd"]) == Decimal(charged) > 0
    with judged.visitor() as page:
        page.goto("/dashboard/unit-economics")
        assert stat(page, "Cost in all") == charged
        assert stat(page, "Per accepted outcome") == report["overall"]["per_accepted_usd"]
        shown = cells(page, "units")
        assert {row[0]: (row[1], row[4]) for row in shown} == {
            row["name"] or "Unallocated": (str(row["requests"]), row["total_usd"]) for row in report["totals"]
        }
        assert sum(Decimal(row[4]) for row in shown) == Decimal(charged)
        days = cells(page, "cost-over-time")
        assert len(days) == 5 and sum(Decimal(day[-1]) for day in days) == Decimal(charged)
        assert page.locator("figure[data-chart=cost-over-time] canvas").is_visible()
        with page.expect_download() as download:
            page.locator("section", has=page.locator("table#units")).locator("a[download]").click()
        lines = list(csv.DictReader(io.StringIO(download.value.path().read_text())))
        assert [line["total_usd"] for line in lines] == [row[4] for row in shown]
        page.get_by_role("link", name="answers", exact=True).first.click()
        assert "feature=answers" in page.url and "by=model" in page.url


def test_a_review_adds_up_and_leads_to_what_it_speaks_of(judged):
    week = this_week(judged)
    review = judged.api(f"/weekly-review?week={week}")
    with judged.visitor() as page:
        page.goto(f"/dashboard/review?week={week}")
        names = ["Change", "by requests", "by model mix", "by tokens per request", "by price"]
        change, *parts = [Decimal(stat(page, name)) for name in names]
        assert change == sum(parts) == Decimal(review["total"]["change_usd"])
        rows = cells(page, "movers")
        assert [row[0] for row in rows] == [it["name"] or "Unallocated" for it in review["movers"]]
        for row in rows:
            assert sum(map(Decimal, row[6:10])) == Decimal(row[5]), row
            assert row[-1].endswith("?")
        assert [row[0] for row in cells(page, "outcomes")] == ["answers"]
        page.get_by_text("The review as Markdown").click()
        assert page.locator("pre").inner_text().startswith("# ")
        page.get_by_role("link", name="The week before").click()
        assert page.locator("h1").inner_text() == "Weekly review"
        answer = page.goto("/dashboard/review?week=2026-W99")
        assert answer.status == 422 and "2026-W47" in page.get_by_role("alert").inner_text()


def test_savings_and_archetypes_are_the_apis(judged):
    report = judged.api("/savings?days=30")
    with judged.visitor() as page:
        page.goto("/dashboard/savings")
        assert stat(page, "Could be saved in a month") == report["total_usd"]
        rows = cells(page, "opportunities")
        assert [row[3] for row in rows] == [it["saves_usd"] for it in report["data"]]
        assert len(rows) > 0 and Decimal(report["total_usd"]) > 0
        kinds = {row[0]: row for row in cells(page, "archetypes")}
        assert kinds["answers"][1] == "Document analysis"
        assert kinds["replies"][1].endswith("(a guess)")
        page.locator("table#opportunities tbody tr th + td a").first.click()
        assert page.locator("h1").inner_text() == "Requests"
        assert page.locator("table#requests tbody tr").count() > 0
        answer = page.goto("/dashboard/savings?days=1000")
        assert answer.status == 422 and "days" in page.get_by_role("alert").inner_text()


def test_calculators_take_good_input_and_name_the_bad(judged):
    with judged.visitor() as page:
        page.goto("/dashboard/savings")
        page.get_by_role("link", name="Calculator: a workload across models").click()
        page.get_by_label("Requests a month").fill("1000")
        page.get_by_label("Input tokens of a request").fill("2000")
        page.get_by_label("of them cached").fill("1000")
        page.get_by_label("Output tokens of a request").fill("500")
        page.get_by_label("Can wait for a batch, in percent").fill("50")
        page.get_by_role("button", name="Show").click()
        rows = {row[0]: row for row in cells(page, "workload")}
        assert (rows["gpt-6-sol"][2], rows["gpt-6-sol"][3]) == ("5.4", "0.0072")
        amounts = [Decimal(row[2]) for row in cells(page, "workload")]
        assert amounts == sorted(amounts) and len(amounts) > 5
        page.get_by_label("of them cached").fill("5000")
        page.get_by_role("button", name="Show").click()
        assert "cached_tokens" in page.get_by_role("alert").inner_text()
        assert page.get_by_label("of them cached").input_value() == "5000"
        check(page, "A workload across models")
        page.goto("/dashboard/calculators/provisioned-throughput")
        page.get_by_label("Price of a unit for an hour, in US dollars").fill("2")
        page.get_by_label("Units", exact=True).fill("5")
        page.get_by_label("Tokens a minute that a unit takes").fill("10000")
        page.get_by_label("On demand, US dollars a million tokens").fill("5")
        page.get_by_label("Tokens a month").fill("1000000000")
        page.get_by_role("button", name="Show").click()
        assert page.get_by_text("Paying by the token is cheaper").is_visible()
        assert stat(page, "Saved a month") == "-2300"
        check(page, "Provisioned throughput")
        page.get_by_label("Price of a unit for an hour, in US dollars").fill("two")
        page.get_by_role("button", name="Show").click()
        assert "price_per_unit_hour_usd" in page.get_by_role("alert").inner_text()
        check(page, "Provisioned throughput")
