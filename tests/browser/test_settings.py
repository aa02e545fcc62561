"""Settings, keys, receivers and proposals in a real browser: every look, role and form; and the numbers are the API's."""

from __future__ import annotations

import json
from decimal import Decimal

import pytest

from test_dashboard import LOOKS, cells, check
from visitors import browser, site  # noqa: F401

PAGES = {
    "/dashboard/settings": "Settings",
    "/dashboard/settings/versions": "Versions",
    "/dashboard/settings/versions/1": "Version 1",
    "/dashboard/settings/simulator": "Policy simulator",
    "/dashboard/settings/maturity": "Crawl, walk, run",
    "/dashboard/settings/people": "Who may sign in",
    "/dashboard/receivers": "Where alerts go",
    "/dashboard/keys": "Keys and providers",
    "/dashboard/budgets?dimension=feature": "Budgets",
}


def thought(site, **more: str) -> str:
    key = site.workspace.keys[0].id
    fields = {"key": key, "model": "gpt-6-luna", "input_tokens": "1000"} | more
    return "/dashboard/settings/simulator?" + "&".join(f"{name}={value}" for name, value in fields.items())


@pytest.mark.parametrize(("scheme", "width"), LOOKS)
def test_every_page_in_every_look(site, scheme, width):
    with site.visitor("admin", scheme, width) as page:
        for path, heading in (PAGES | {thought(site): "Policy simulator"}).items():
            assert page.goto(path).status == 200
            check(page, heading)
            assert page.locator(".note.bad").count() == 0, path


@pytest.mark.parametrize("role", ["finance", "developer", "auditor"])
def test_who_does_not_configure_reads_and_finds_no_form(site, role):
    with site.visitor(role) as page:
        for path, heading in PAGES.items():
            assert page.goto(path).status == 200, path
            check(page, heading)
            assert page.locator(".note.bad").count() == 0, path
            changes = page.locator("main form[method=post]:not([action$='/check'])")
            assert changes.count() == 0, (path, changes.first.get_attribute("action"))


def test_a_developer_with_an_owner_sees_the_owners_rows(site):
    body = {"name": "own", "role": "developer", "owner": "somebody else"}
    site.tokens["own"] = site.workspace.admin("POST", "/tokens", body)["token"]
    with site.visitor("own") as page:
        refused = {"/dashboard/settings/versions", "/dashboard/settings/versions/1", "/dashboard/settings/maturity",
                   "/dashboard/receivers"}
        for path, heading in PAGES.items():
            status = page.goto(path).status
            assert status == (403 if path in refused else 200), path
            check(page, heading)
        for path, table in [("/keys", "keys"), ("/requests", "requests"), ("/budgets", "budgets"), ("/alerts", "alerts")]:
            page.goto(f"/dashboard{path}")
            assert "You see what belongs to somebody else" in page.content()
            assert page.locator(f"table#{table} td.empty").count() == 1, path
        request = site.api("/requests?limit=1")["data"][0]["id"]
        key = site.workspace.keys[0].id
        for path in [f"/requests/{request}", f"/keys/{key}", "/budgets/all"]:
            assert page.goto(f"/dashboard{path}").status == 404, path
        assert page.goto("/dashboard/usage?owner=ann").status == 403
    # Whose keys they are sees them.
    site.tokens["own"] = site.workspace.admin("POST", "/tokens", body | {"owner": "ann"})["token"]
    keys = [key["name"] for key in site.api("/keys")["data"] if key["owner"] == "ann"]
    with site.visitor("own") as page:
        page.goto("/dashboard/keys")
        assert [row[0] for row in cells(page, "keys") if len(row) > 1] == keys


def test_the_configuration_is_edited_checked_applied_and_gone_back_from(site):
    with site.visitor() as page:
        page.goto("/dashboard/settings")
        box = page.get_by_label("Configuration", exact=True)
        config = json.loads(box.input_value())
        assert config == site.api("/config")
        before = site.api("/config/versions")["data"][0]["version"]
        box.fill("{ not json")
        page.get_by_role("button", name="Check it").click()
        assert "no JSON" in page.get_by_role("alert").inner_text()
        assert page.get_by_label("Configuration", exact=True).input_value() == "{ not json"
        check(page, "Settings")
        wrong = config | {"budgets": {"b": {"scope": {"dimension": "team"}, "owner": "x", "limit_usd": "-1"}}}
        page.get_by_label("Configuration", exact=True).fill(json.dumps(wrong))
        page.get_by_role("button", name="Check it").click()
        assert any(row[0].startswith("budgets.b") for row in cells(page, "errors"))
        check(page, "Settings")
        terms = {"scope": {"dimension": "workspace"}, "owner": "ann", "limit_usd": "77", "window": "month"}
        page.get_by_label("Configuration", exact=True).fill(json.dumps(config | {"budgets": config["budgets"] | {"new": terms}}))
        page.get_by_role("button", name="Check it").click()
        assert ["budgets.new.limit_usd", "added", "none", "77"] in [
            [cell.replace("–", "") for cell in row] for row in cells(page, "changes")
        ]
        check(page, "Settings")
        # Somebody else is faster: both changes are shown, and nothing is applied.
        site.workspace.admin("PUT", "/budgets/theirs", terms | {"limit_usd": "5"})
        page.get_by_role("button", name="Apply").click()
        assert "was made since" in page.get_by_role("alert").inner_text()
        assert any(row[0] == "budgets.theirs.limit_usd" for row in cells(page, "theirs"))
        assert "new" not in site.api("/budgets")
        check(page, "Settings")
        page.get_by_role("button", name="Check it").click()
        page.get_by_role("button", name="Apply").click()
        assert "applied" in page.get_by_role("status").inner_text()
        assert site.api("/budgets")["new"]["limit_usd"] == "77" and "theirs" not in site.api("/budgets")
        page.get_by_role("link", name="Versions").click()
        shown = [row[0] for row in cells(page, "versions")]
        assert shown == [str(it["version"]) for it in site.api("/config/versions")["data"]]
        page.goto(f"/dashboard/settings/versions/{before}")
        assert ["budgets.new.limit_usd", "removed", "77"] in [row[:3] for row in cells(page, "changes")]
        page.get_by_role("button", name="Go back to it").click()
        check(page, "The configuration went back")
        assert site.api("/config") == config


def test_the_simulator_says_what_the_api_says(site):
    policy = {"models": {"allow": ["gpt-6-luna"]}, "max_request_usd": "0.000001"}
    site.workspace.admin("PUT", "/policies/tight", policy)
    with site.visitor("developer") as page:
        page.goto("/dashboard/settings/simulator")
        page.get_by_label("Key", exact=True).select_option(label="search")
        page.get_by_label("Policy", exact=True).select_option("tight")
        page.get_by_label("Model").fill("gpt-6-luna")
        page.get_by_label("Tokens of input").fill("1000")
        page.get_by_role("button", name="Show").click()
        assert "policy=tight" in page.url
        check(page, "Policy simulator")
        body = {"model": "gpt-6-luna", "input_tokens": 1000}
        path = f"/keys/{site.workspace.keys[0].id}/simulate"
        answer = site.workspace.admin("POST", path, body | {"policy": "tight"})
        own = site.workspace.admin("POST", path, body)
        assert (answer["decision"], own["decision"]) == ("refuse", "admit")
        verdicts = {True: "passes", False: "refuses"}
        expected = [[it["check"].replace("_", " "), verdicts["refusal" not in it]] for it in answer["checks"]]
        assert [row[:2] for row in cells(page, "checks")] == expected
        page.goto(thought(site, input_tokens="many"))
        assert "input_tokens" in page.get_by_role("alert").inner_text()
        check(page, "Policy simulator")
    site.workspace.admin("DELETE", "/policies/tight")


def test_the_scale_is_the_apis(site):
    with site.visitor("finance") as page:
        page.goto("/dashboard/settings/maturity")
        expected = [
            [capability["capability"], it["level"], it["what"], "met" if it["met"] else "not met", it["evidence"]]
            for capability in site.api("/maturity")["capabilities"]
            for it in capability["criteria"]
        ]
        assert [row[:5] for row in cells(page, "criteria")] == expected


def test_keys_are_those_of_the_inventory_and_get_an_owner(site):
    key = site.workspace.key(name="orphan", owner="unassigned")
    with site.visitor() as page:
        page.goto("/dashboard/keys")
        inventory = site.api("/key-inventory")["data"]
        assert [row[:2] for row in cells(page, "keys")] == [[it["name"], it["id"]] for it in inventory]
        shown = sum(Decimal(row[10]) for row in cells(page, "keys"))
        assert shown == sum(Decimal(it["charged_usd"]) for it in inventory)
        page.locator("table#unowned").get_by_role("link", name="Name an owner").click()
        form = page.locator("form[action$='/change']")
        form.get_by_label("Owner").fill("bob")
        form.get_by_role("button", name="Save").click()
        assert "changed" in page.get_by_role("status").inner_text()
        assert site.api(f"/keys/{key.id}")["owner"] == "bob"
        check(page, "Key orphan")
        page.goto("/dashboard/keys?days=0")
        assert "365" in page.get_by_role("alert").inner_text()
        page.goto("/dashboard/keys")
        form = page.locator("form[action='/dashboard/provider-payment']")
        form.get_by_label("Paid by").fill("card ending 4242")
        form.get_by_role("button", name="Save").click()
        assert "card ending 4242" in page.locator("table#providers").inner_text()


def test_a_receiver_is_added_changed_and_seen_at_an_alert(site):
    with site.visitor() as page:
        page.goto("/dashboard/receivers")
        page.get_by_label("Name").fill("ops")
        page.get_by_label("Address").fill("http://plain.example.com")
        page.get_by_role("button", name="Save").click()
        assert "https" in page.get_by_role("alert").inner_text()
        assert page.get_by_label("Name").input_value() == "ops"
        check(page, "Where alerts go")
        page.get_by_label("Address").fill("https://hooks.example.com/x")
        page.get_by_role("button", name="Save").click()
        check(page, "The receiver is saved")
        secret = page.locator("dd", has_text="whsec_").inner_text()
        page.get_by_role("link", name="Back").click()
        assert secret not in page.content()
        alert = site.api("/alerts")["data"][0]["id"]
        page.goto(f"/dashboard/alerts/{alert}")
        page.locator("table#routes").get_by_role("link", name="ops").click()
        page.get_by_label("On", exact=True).select_option("no")
        page.get_by_role("button", name="Save").click()
        assert site.api("/receivers/ops")["enabled"] is False
        check(page, "The receiver is saved")
    site.workspace.admin("DELETE", "/receivers/ops")


def test_without_scripts_all_of_it_works(site):
    with site.visitor(js=False) as page:
        for path, heading in PAGES.items():
            page.goto(path)
            assert page.locator("h1").inner_text() == heading
        page.goto("/dashboard/settings")
        page.get_by_role("button", name="Check it").click()
        assert "Nothing differs." in page.locator("table#changes").inner_text()
