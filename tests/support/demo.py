"""A demo workspace: a month of made-up traffic, so that a newcomer sees each page alive. Used by `make run` and by tests."""

from __future__ import annotations

from collections.abc import Callable

WORKSPACE = "ws_demo"
TEAMS = {
    "support": ("ines", "customer-care", "answers customers"),
    "search": ("omar", "product", "the website's search"),
    "sales": ("lena", "sales", "the sales team's tools"),
    "data": ("yuki", "engineering", "reports and extraction"),
    "platform": ("raj", "engineering", "tools for engineers"),
    "growth": ("mila", "marketing", "campaigns"),
}
PROVIDERS = ["openai", "anthropic", "mistral"]


def team_budget(team: str, limit: str) -> dict:
    scope = {"dimension": "team", "value": team}
    return {"scope": scope, "owner": TEAMS[team][0], "limit_usd": limit, "window": "month"}


#: One of them is in danger.
BUDGETS = {
    "all": {"scope": {"dimension": "workspace"}, "owner": "ines", "limit_usd": "2000", "window": "month"},
    "support": team_budget("support", "200"),
    "platform": team_budget("platform", "400"),
    "sales": team_budget("sales", "60"),
    "data": team_budget("data", "150"),
}

#: Bought for a rush that did not come.
COMMITMENTS = {
    "sol-scale-tier": {
        "provider": "openai", "model": "gpt-6-sol", "units": 2, "usd_per_unit_hour": "0.25",
        "tokens_per_minute": {"input": 2000, "output": 400},
    },
}


def create(admin: Callable[[str, str, object], dict]) -> str:
    """Creates the demo workspace with its providers, keys and budgets: its admin token. As the operator."""
    created = admin("POST", "/workspaces", {"name": "Demo", "demo": True})
    path = f"/workspaces/{WORKSPACE}"
    for kind in PROVIDERS:
        admin("POST", f"{path}/providers", {"name": kind, "kind": kind, "credential": f"sk-demo-{kind}-of-nobody"})
    for team, (owner, cost_centre, purpose) in TEAMS.items():
        key = {"name": team, "owner": owner, "cost_centre": cost_centre, "purpose": purpose}
        admin("POST", f"{path}/keys", key | common({"team": team}))
    stray = {"name": "old-prototype", "owner": "raj", "cost_centre": "engineering", "purpose": "nobody remembers"}
    admin("POST", f"{path}/keys", stray | common({}))
    for name, budget in BUDGETS.items():
        admin("PUT", f"{path}/budgets/{name}", budget)
    admin("PUT", f"{path}/config", admin("GET", f"{path}/config", None) | {"commitments": COMMITMENTS})
    return created["admin_token"]["token"]


def common(actor: dict) -> dict:
    policy = {"spend_caps": [{"window": "day", "limit_usd": "100"}]}
    return {"environment": "production", "actor": actor, "policy": policy}


def fill(admin: Callable[[str, str, object], dict], told: Callable[[str], None] = lambda text: None) -> int:
    """Brings the month, a day in a call: how many requests it has."""
    day, requests = 0, 0
    while True:
        answer = admin("POST", f"/workspaces/{WORKSPACE}/demo", {"day": day})
        day, requests = answer["done"], requests + answer["events"]
        told(f"day {day} of {answer['of']}: {requests:,} requests")
        if day == answer["of"]:
            return requests
