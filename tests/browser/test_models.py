"""Models, requests, prompts, sessions of agents and blocked requests, in a real browser."""

from __future__ import annotations

import csv
import io
import json
import time
from datetime import timedelta
from decimal import Decimal

import jwt
import pytest
from playwright.sync_api import expect

from test_dashboard import LOOKS, cells, check, stat
from visitors import browser, site  # noqa: F401

SECRET = "actor-secret-of-the-pages-at-least-32-bytes"
SESSION = "trip to São/Paulo"


@pytest.fixture(scope="module")
def talk(site):
    """A conversation that sends everything again, of a key with limits."""
    workspace = site.workspace
    workspace.admin("POST", "/actor-secrets", {"kid": "talk", "secret": SECRET})
    limits = {"max_request_usd": "5", "spend_caps": [{"window": "day", "limit_usd": "50"}]}
    key = workspace.key(name="agents", policy=limits)
    claims = {"session": SESSION, "agent": "planner", "feature": "trips"}
    expiry = int((site.today + timedelta(hours=6)).timestamp())
    token = jwt.encode({**claims, "exp": expiry}, SECRET, algorithm="HS256", headers={"kid": "talk"})
    for turn in (1, 2, 3):
        said = [{"role": "user", "content": f"step {n} " + "word " * 400} for n in range(turn)]
        body = {
            "model": "gpt-6-luna",
            "messages": [{"role": "system", "content": "Plan trips."}, *said],
            "sim": {"input_tokens": 1_000 * turn * turn, "output_tokens": 100},
        }
        answer = key.post("/v1/chat/completions", body, x_tallygate_actor=token)
        assert answer.status == 200, answer.body
        key.event(answer.id)
    key.ring()
    wait_for(lambda: len(site.api(f"/requests?key={key.id}")["data"]) == 3)
    return key


def wait_for(done) -> None:
    deadline = time.monotonic() + 10
    while not done():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def pages(site) -> dict[str, str]:
    request = site.api("/requests?limit=1&outcome=completed")["data"][0]["id"]
    refused = site.api("/requests?limit=1&outcome=refused")["data"][0]["id"]
    return {
        "/dashboard/models": "Models",
        "/dashboard/models?over_time=usd_per_million_tokens&provider=openai": "Models",
        "/dashboard/requests?sort=charged&live=1": "Requests",
        "/dashboard/requests?customer=acme%20%26%20co&min_charged_usd=0.000001": "Requests",
        f"/dashboard/requests/{request}": f"Request {request}",
        f"/dashboard/requests/{refused}": f"Request {refused}",
        "/dashboard/prompts": "Prompts",
        "/dashboard/prompts?sort=growth": "Prompts",
        "/dashboard/agent-sessions/trip%20to%20S%C3%A3o%2FPaulo": f"Session {SESSION}",
        "/dashboard/blocked": "Blocked",
        "/dashboard/blocked?by=key&rules=%7B%7D": "Blocked",
    }


@pytest.mark.parametrize(("scheme", "width"), LOOKS)
def test_every_page_in_every_look(site, talk, scheme, width):
    with site.visitor("admin", scheme, width) as page:
        for path, heading in pages(site).items():
            answer = page.goto(path)
            assert answer.status == 200, (path, page.locator(".note").all_inner_texts())
            check(page, heading)


@pytest.mark.parametrize("role", ["finance", "developer", "auditor"])
def test_every_page_for_every_role(site, talk, role):
    with site.visitor(role) as page:
        for path, heading in pages(site).items():
            answer = page.goto(path)
            assert answer.status == 200, (path, page.locator(".note").all_inner_texts())
            check(page, heading)


def test_models_stand_side_by_side_as_in_the_api(site, talk):
    month = site.today.replace(day=1).date().isoformat()
    rows = site.api(f"/model-performance?from={month}")["data"]
    # Everything that was charged is charged by a model: the sums are the ledger's.
    charged = sum(Decimal(row["charged_usd"]) for row in rows)
    [usage] = site.api(f"/usage?from={month}")["data"]
    assert charged == Decimal(usage["charged_usd"]) > 0
    assert sum(row["requests"] for row in rows) == usage["requests"]
    assert sum(row["input_tokens"] for row in rows) == usage["input_tokens"]
    with site.visitor() as page:
        page.goto("/dashboard/models")
        shown = {(row[0], row[1]): row[2:] for row in cells(page, "models")}
        for row in rows:
            got = shown[(row["model"] or "None reached", row["provider"] or "–none")]
            assert got[0] == str(row["requests"])
            assert got[4:7] == [str(row["latency_ms"][p] or "–none") for p in ("p50", "p95", "p99")]
            assert got[10] == str(row["total_tokens"])
            assert got[12] == row["charged_usd"]
            assert got[13] == (row["usd_per_million_tokens"] or "–none")
        expect(page.locator("figure[data-chart=over-time] canvas")).to_be_visible()
        page.get_by_label("Over time").select_option("requests")
        page.get_by_role("button", name="Show").click()
        page.wait_for_url("**over_time=requests**")
        days = cells(page, "over-time")
        per_day = site.api(f"/model-performance?from={month}&bucket=day")["data"]
        sent = sum(row["requests"] for row in per_day if row["model"])
        assert sum(int(cell) for day in days for cell in day[1:] if cell != "–none") == sent
        with page.expect_download() as download:
            page.locator("section", has=page.locator("table#models")).locator("a[download]").click()
        lines = list(csv.DictReader(io.StringIO(download.value.path().read_text())))
        assert sum(Decimal(line["charged_usd"]) for line in lines) == charged
        page.goto("/dashboard/models?from=soon")
        assert "is not a time" in page.get_by_role("alert").inner_text()


def test_the_overview_has_tokens_by_bucket(site, talk):
    month = site.today.replace(day=1).date().isoformat()
    [whole] = site.api(f"/model-performance?from={month}&group_by=")["data"]
    with site.visitor() as page:
        shown = {row[1]: int(row[2]) for row in cells(page, "tokens")}
        assert shown == whole["tokens"]
        assert sum(shown.values()) == whole["total_tokens"]


def test_requests_are_sorted_and_filtered_by_the_api(site, talk):
    with site.visitor() as page:
        page.goto("/dashboard/requests")
        page.get_by_label("Sort by").select_option("tokens")
        page.get_by_text("More filters").click()
        page.get_by_label("Session", exact=True).fill(SESSION)
        page.get_by_role("button", name="Show").click()
        page.wait_for_url("**sort=tokens**")
        assert [row[9] for row in cells(page, "requests")] == ["9100", "4100", "1100"]
        # The fold stays open while one of its filters is in use.
        expect(page.get_by_label("Session", exact=True)).to_be_visible()
        page.get_by_label("Charged at least, USD").fill("cheap")
        page.get_by_role("button", name="Show").click()
        assert "min_charged_usd" in page.get_by_role("alert").inner_text()


def test_following_live_keeps_the_readers_place(site, talk):
    with site.visitor(width=360) as page:
        page.goto("/dashboard/requests?live=1")
        region = page.locator("#parts .scroll").first
        row = page.locator("table#requests tbody tr").nth(12)
        href = row.locator("a").first.get_attribute("href")
        row.locator("a").first.focus()
        region.evaluate("it => { it.scrollLeft = 200; }")
        row.evaluate("it => scrollTo(0, it.getBoundingClientRect().top + scrollY - 100)")
        top = row.bounding_box()["y"]
        done = talk.chat(sim={"input_tokens": 10, "output_tokens": 1})
        talk.event(done.id)
        talk.ring()
        expect(page.locator(f"table#requests a[href$='{done.id}']")).to_have_count(1, timeout=30_000)
        again = page.locator(f"table#requests a[href='{href}']").locator("xpath=ancestor::tr")
        assert abs(again.bounding_box()["y"] - top) < 2
        assert region.evaluate("it => it.scrollLeft") == 200
        assert page.evaluate("document.activeElement.getAttribute('href')") == href


def test_one_request_whole(site, talk):
    [event] = site.api("/requests?limit=1&feature=trips")["data"]
    with site.visitor("finance") as page:
        page.goto(f"/dashboard/requests/{event['id']}")
        limits = {row[0]: row[1:] for row in cells(page, "limits")}
        assert limits["max request usd"][0] == "5" and limits["spend cap day"][3] == "passed"
        assert Decimal(limits["spend cap day"][2]) == Decimal(event["hold"])
        assert [row[1] for row in cells(page, "attempts")] == [event["model"]]
        parts = {row[0]: Decimal(row[1]) for row in cells(page, "components")}
        assert sum(parts.values()) == Decimal(event["cost"]["total"]) == Decimal(stat(page, "Charged"))
        tokens = {row[1]: int(row[2]) for row in cells(page, "tokens")}
        assert tokens == event["usage"]["tally"]["tokens"]
        expect(page.get_by_text("Not reconciled yet")).to_be_visible()
        page.get_by_role("link", name="Its session, request by request").click()
        expect(page.locator("h1")).to_have_text(f"Session {SESSION}")
        turns = cells(page, "turns")
        assert [row[4] for row in turns] == ["1000", "4000", "9000"]
        assert [row[5] for row in turns] == ["–none", "3000", "5000"]
    # Nothing of what was said is anywhere.
    assert "word word" not in json.dumps(event) and "Plan trips" not in json.dumps(event)


def test_prompts_by_shape(site, talk):
    rows = site.api("/prompt-shapes?feature=trips")["data"]
    assert sum(row["requests"] for row in rows) == 3
    assert {row["shape"].split(",")[0] for row in rows} == {"mostly the last message", "mostly history"}
    with site.visitor() as page:
        page.goto("/dashboard/prompts?feature=trips")
        shown = cells(page, "shapes")
        assert [row[:2] for row in shown] == [[row["shape"], "trips"] for row in rows]
        [session] = [row for row in cells(page, "sessions") if row[0] == SESSION]
        assert session[4:8] == ["3", "1000", "9000", "8000"]


def test_blocked_and_what_another_policy_would_have_said(site, talk):
    month = site.today.replace(day=1).date().isoformat()
    rows = site.api(f"/refusals?from={month}")["data"]
    total = sum(row["refusals"] for row in rows)
    with site.visitor("auditor") as page:
        page.goto("/dashboard/blocked")
        assert stat(page, "Refused") == str(total)
        assert {row[1]: int(row[2]) for row in cells(page, "by-reason")} == {
            row["code"]: row["refusals"] for row in rows
        }
        page.get_by_label("or rules, as JSON").fill('{"models": {"allow": ["gpt-6-sol"]}}')
        page.get_by_role("button", name="Show").click()
        page.wait_for_url("**rules=**")
        assert stat(page, "Would pass") == "5"
        [row] = [row for row in cells(page, "tried") if row[0] == "model_not_allowed"]
        assert row[1:] == ["5", "5", "0", "0"]
        page.get_by_label("or rules, as JSON").fill('{"models": {"allow": ["gpt-6-luna"]}}')
        page.get_by_role("button", name="Show").click()
        assert stat(page, "Still refused") == "5"
        page.get_by_label("or rules, as JSON").fill("{models")
        page.get_by_role("button", name="Show").click()
        expect(page.get_by_text("are no JSON")).to_be_visible()
        page.get_by_label("or rules, as JSON").fill('{"max_request_used": "5"}')
        page.get_by_role("button", name="Show").click()
        assert "max_request_used" in page.get_by_role("alert").inner_text()
        page.goto("/dashboard/blocked")
        page.get_by_role("link", name="model not allowed").click()
        assert len(cells(page, "requests")) == 5


def test_without_scripts_all_is_there(site, talk):
    with site.visitor("developer", js=False) as page:
        for path, heading in pages(site).items():
            page.goto(path)
            assert page.locator("h1").inner_text() == heading
            assert page.locator("table").count() > 0
