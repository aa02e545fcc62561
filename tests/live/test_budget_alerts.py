"""A shared budget that is spent is told to the workspace's alerts, from the request to the alert."""

from __future__ import annotations

import time

import pytest

from conftest import call, running_gateway
from test_budgets import HOLD, ask, budget, furnish, settled


@pytest.fixture(scope="module")
def gateway(tmp_path_factory):
    """A gateway of its own: this test moves its clock."""
    yield from running_gateway(tmp_path_factory)


def told(workspace, wanted, patience: float = 10) -> dict:
    """The first alert of the workspace that is wanted, once it is there."""
    deadline = time.monotonic() + patience
    while True:
        found = workspace.admin("GET", "/alerts")["data"]
        if match := [alert for alert in found if wanted(alert)]:
            return match[0]
        assert time.monotonic() < deadline, found
        time.sleep(0.05)


def test_each_threshold_is_told_once_with_its_evidence(workspace):
    furnish(workspace)
    budget(
        workspace,
        "teams",
        scope={"dimension": "team", "value": "*"},
        owner="grace",
        limit_usd=str(10 * HOLD),
        thresholds=[50, 100],
    )
    key = workspace.key(actor={"team": "search"})
    for _ in range(10):
        settled(key)
    assert ask(key).status == 402
    # The last request does not fit any more: the budget is as good as spent, and says so.
    alert = told(workspace, lambda a: a["severity"] == "critical")
    assert alert["kind"] == "budget_threshold"
    assert alert["owner"] == "grace"
    assert alert["evidence"]["budget"] == "teams" and alert["evidence"]["value"] == "search"
    assert alert["link"] == "/budgets/teams"
    # The next day the money is there again, and the alert is over.
    call("POST", f"{workspace.gateway.url}/_test/advance?ms=86400000")
    settled(key)
    key.get("/v1/budget")
    call("POST", f"{workspace.gateway.url}/_test/alarm?alerts={workspace.id}")
    deadline = time.monotonic() + 10
    while (state := workspace.admin("GET", f"/alerts/{alert['id']}")["status"]["state"]) != "resolved":
        assert time.monotonic() < deadline, state
        time.sleep(0.05)
