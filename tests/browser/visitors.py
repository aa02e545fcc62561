"""Fixtures: a real browser, and a gateway with some days of traffic whose clock stands in the middle of a month."""

from __future__ import annotations

import atexit
import functools
import os
import shutil
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest

from conftest import Gateway, Workspace, call, new_secrets, new_workspace

ROOT = Path(__file__).resolve().parents[2]
AXE = ROOT / "node_modules" / "axe-core" / "axe.min.js"
ROLES = ["admin", "finance", "developer", "auditor"]


def chromium() -> str | None:
    """A Chromium of this machine."""
    named = os.environ.get("CHROMIUM")
    names = ["chromium", "chromium-browser", "google-chrome", "google-chrome-stable"]
    return named or next(filter(None, map(shutil.which, names)), None)


@functools.cache
def launched(path: str):
    """One browser for all files: each that imports the fixture has one of its own, and Playwright runs once."""
    from playwright.sync_api import sync_playwright

    playwright = sync_playwright().start()
    browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox", "--disable-dev-shm-usage"])
    atexit.register(playwright.stop)
    return browser


@pytest.fixture(scope="session")
def browser():
    path = chromium()
    if path is None:
        pytest.skip("SKIPPED-NO-CHROMIUM: install Chromium or set CHROMIUM to its path, then `make test-browser`")
    return launched(path)


@dataclass
class Site:
    """The gateway, a workspace with traffic, and a token of each role."""

    workspace: Workspace
    browser: object
    today: datetime
    tokens: dict[str, str] = field(default_factory=dict)

    @property
    def url(self) -> str:
        return self.workspace.gateway.url

    def api(self, path: str):
        return self.workspace.admin("GET", path)

    @contextmanager
    def visitor(self, role: str | None = "admin", scheme: str = "light", width: int = 1280, js: bool = True):
        """A page of a browser of its own, signed in by the form. What its console says badly fails the test."""
        context = self.browser.new_context(
            color_scheme=scheme,
            viewport={"width": width, "height": 900},
            java_script_enabled=js,
            base_url=self.url,
        )
        page = context.new_page()
        page.set_default_timeout(15_000)
        said: list[str] = []
        # A page that answers 4xx on purpose is no error of its own.
        page.on("console", lambda it: said.append(it.text) if is_bad(it) else None)
        page.on("pageerror", lambda error: said.append(str(error)))
        if role is not None:
            page.goto("/dashboard")
            page.get_by_label("API token").fill(self.tokens[role])
            page.get_by_role("button", name="Sign in").click()
            page.wait_for_url("**/dashboard")
        yield page
        context.close()
        assert said == [], said


def is_bad(message) -> bool:
    return message.type in ("error", "warning") and "the server responded with a status of 4" not in message.text


@pytest.fixture(scope="session")
def site(tmp_path_factory, simulator, browser):
    settings = new_secrets() | {"TALLYGATE_FAULTS": "on"}
    gateway = Gateway(home=tmp_path_factory.mktemp("site"), settings=settings).start()
    try:
        yield furnish(new_workspace(gateway, simulator), browser)
    finally:
        gateway.stop()


def advance(gateway: Gateway, by: timedelta) -> None:
    ms = int(by.total_seconds() * 1000)
    status, _ = call("POST", f"{gateway.url}/_test/advance?ms={ms}")
    assert status == 200


def furnish(workspace: Workspace, browser) -> Site:
    """Five days of traffic, from the second of the next month on: however late it is in this one."""
    now = datetime.now(timezone.utc)
    first = (now.replace(day=1) + timedelta(days=32)).replace(day=2, hour=12, minute=0)
    advance(workspace.gateway, first - now)
    workspace.admin(
        "PUT",
        "/budgets/all",
        {"scope": {"dimension": "workspace"}, "owner": "ann", "limit_usd": "10", "window": "month"},
    )
    workspace.admin(
        "PUT",
        "/budgets/teams",
        {"scope": {"dimension": "team", "value": "*"}, "owner": "ann", "limit_usd": "5", "window": "month"},
    )
    keys = [
        workspace.key(name="search", actor={"team": "search", "feature": "answers"}),
        workspace.key(name="support", actor={"team": "support", "feature": "replies", "customer": "acme & co"}),
        workspace.key(name="nobody's"),
    ]
    strict = workspace.key(name="strict", policy={"models": {"allow": ["gpt-6-luna"]}})
    for day in range(5):
        if day > 0:
            advance(workspace.gateway, timedelta(days=1))
        for place, key in enumerate(keys):
            tokens = 20_000 * (place + 1) + 5_000 * day
            sim = {"input_tokens": tokens, "output_tokens": 2_000, "cached_tokens": tokens // 4}
            key.event(key.chat(sim=sim).id)
            key.event(key.messages(sim={"input_tokens": tokens, "output_tokens": 1_000}).id)
        assert strict.chat(model="gpt-6-sol").status == 403
        for key in [*keys, strict]:
            key.ring()
    site = Site(workspace, browser, first + timedelta(days=4))
    site.tokens["admin"] = workspace.token
    for role in ROLES[1:]:
        body = {"name": role, "role": role, "owner": "*" if role == "developer" else None}
        site.tokens[role] = workspace.admin("POST", "/tokens", body)["token"]
    return site
