"""The reconciler is killed again and again, or two run at once, and the books are those of a night that nobody disturbed.

Two workspaces have the same traffic and the same bills. One is reconciled in peace, the other one is not; in the end the
rows of the books, and all that the edge was told, must be equal.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from datetime import timedelta
from decimal import Decimal
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))

from bills import Bills  # noqa: E402
from conftest import new_workspace, running_gateway  # noqa: E402
from gateway import Simulator, call  # noqa: E402
from night import Night, difference  # noqa: E402
from test_budgets import budget  # noqa: E402

DAYS = 3
KILLS_A_STAGE = 10
LEASE = timedelta(minutes=16)
"""A killed run holds its lease for a quarter of an hour: the clocks are moved over it."""


@pytest.fixture(scope="module")
def gateway(tmp_path_factory):
    """A gateway of its own: these tests move its clock."""
    yield from running_gateway(tmp_path_factory)


@pytest.fixture(scope="module")
def simulator():
    simulator = Simulator().start()
    yield simulator
    simulator.stop()


class Pair:
    """Two workspaces that differ in their names only: `rough` is disturbed, `calm` is not."""

    def __init__(self, gateway, simulator, home: Path):
        self.rough, self.calm = (self._night(gateway, simulator, home / name) for name in ("rough", "calm"))
        self.both = (self.rough, self.calm)
        self.ids: dict[str, dict[str, str]] = {night.workspace.id: {} for night in self.both}
        self.first = self.rough.today
        for night in self.both:
            budget(night.workspace, "teams", scope={"dimension": "team", "value": "*"}, limit_usd="10", window="month")
            budget(night.workspace, "people", scope={"dimension": "user", "value": "*"}, limit_usd="10", window="month")
            for team in ("search", "ads"):
                key = night.workspace.key(actor={"team": team, "user": f"{team}-1"})
                self.name(night, key.id, f"key-of-{team}")
        for _ in range(DAYS):
            for night in self.both:
                _traffic(night)
            self.advance(timedelta(days=1))
        # The night begins shortly after midnight: many leases fit into the day.
        midnight = self.rough.now.replace(hour=0, minute=5, second=0, microsecond=0) + timedelta(days=1)
        for night in self.both:
            night.days = DAYS + 1
        self.advance(midnight - self.rough.now)
        self.settle_budgets()

    def settle_budgets(self, patience: float = 20) -> None:
        """Waits until the budgets have heard of all that was spent: Meters report in batches."""
        deadline = time.monotonic() + patience
        while True:
            rough, calm = (self.spent(night) for night in self.both)
            if rough == calm and Decimal(0) not in map(Decimal, rough.values()):
                return
            assert time.monotonic() < deadline, (rough, calm)
            for night in self.both:
                for key in night.workspace.keys:
                    key.ring()
            time.sleep(0.1)

    @staticmethod
    def spent(night: Night) -> dict[str, str]:
        """What each budget counts as spent."""
        shown = {}
        for name, values in {"teams": ("search", "ads"), "people": ("search-1", "ads-1")}.items():
            for value in values:
                status = night.workspace.admin("GET", f"/budgets/{name}/status?value={value}")
                shown[f"{name} {value}"] = status["money"]["spent_usd"]
        return shown

    @staticmethod
    def _night(gateway, simulator, home: Path) -> Night:
        home.mkdir()
        workspace = new_workspace(gateway, simulator)
        number = workspace.credential.removeprefix("sk-sim-")
        credential = f"sk-sim-{number}-held-by-the-gateway"
        for name in ("openai", "anthropic"):
            workspace.admin("PATCH", f"/providers/{name}", {"credential": credential})
        workspace.credential = credential
        return Night(workspace, Bills(simulator.url, number), home)

    def name(self, night: Night, what: str, name: str) -> None:
        """What the two workspaces call by other names gets one name."""
        self.ids[night.workspace.id][what] = name

    def advance(self, by: timedelta) -> None:
        ms = by // timedelta(milliseconds=1)
        status, answer = call("POST", f"{self.rough.workspace.gateway.url}/_test/advance?ms={ms}")
        assert status == 200
        for night in self.both:
            night.shift = timedelta(milliseconds=answer["now"]) - timedelta(seconds=time.time())
            night.bills.set_clock(night.now.replace(microsecond=0))

    def stage(self, number: int) -> None:
        """The bills of a stage: each changes what the last one said."""
        first, second = self.first.isoformat(), (self.first + timedelta(days=1)).isoformat()
        for night in self.both:
            held = night.workspace.credential
            openai: dict = {
                "price": [{"model": "gpt-6-luna", "meter": "output", "from": second, "per_million": "0.625"}],
                "tax": [{"days": first, "basis_points": 1900}],
                "rounding": {"places": 6, "adjustment": True},
            }
            if number == 0:
                shown = night.bills.leak("openai", held, "gpt-6-luna", self.first, requests=3, input=120_000, output=4_567)
                self.name(night, shown, "held-at-openai")
                shown = night.bills.leak("openai", f"{held}-copied", "gpt-6-sol", self.first, requests=1, input=999, output=111)
                self.name(night, shown, "copied-at-openai")
            if number >= 1:
                openai["credit"] = [{"days": second, "amount": "0.005"}]
                openai["tax"] = [{"days": first, "basis_points": 700}]
            if number >= 2:
                # The price is the book's after all: what budgets were corrected by is taken back.
                openai["price"] = []
                night.bills.set("anthropic", rounding={"places": 2, "adjustment": True})
            if number >= 3:
                openai["revise"] = [{"day": second, "model": "gpt-6-luna", "meter": "output", "amount": "0.01", "pulls": 0}]
                shown = night.bills.leak("anthropic", held, "claude-haiku-4-5", self.first, requests=1, input=777)
                self.name(night, shown, "held-at-anthropic")
            night.bills.set("openai", **openai)
        for night in self.both:
            for provider in ("openai", "anthropic"):
                keys = night.bills.invoice(provider, self.first, self.first + timedelta(days=DAYS)).keys
                for key in keys:
                    self.ids[night.workspace.id].setdefault(key, f"held-at-{provider}")

    def plain(self, night: Night, value: object) -> object:
        """The value with the names that both workspaces share."""
        text = json.dumps(value, sort_keys=True)
        number = night.workspace.credential.split("-")[2]
        names = self.ids[night.workspace.id] | {night.workspace.id: "workspace", f"sk-sim-{number}": "sk-sim"}
        # The simulator names keys by how their ids begin, and one provider's ids can be the end of another's.
        names |= {f"Key {what[:10]}": name for what, name in names.items()}
        for what in sorted(names, key=len, reverse=True):
            text = text.replace(what, names[what])
        return json.loads(text)

    def told(self, night: Night) -> dict:
        """All that the edge was told, in an order of its own."""
        workspace = night.workspace
        groups = "day,provider,model,meter,kind,team,unmetered"
        proposals = workspace.admin("GET", "/price-proposals")["data"]
        kinds = ("unmetered_usage", "bill_variance", "unknown_credential", "reconciliation_incomplete")
        alerts = [alert for kind in kinds for alert in workspace.admin("GET", f"/alerts?kind={kind}")["data"]]
        shown = [
            (alert["kind"], alert["status"]["state"], alert["title"], alert["evidence"]) for alert in alerts
        ]
        told = {
            "true_ups": workspace.admin("GET", f"/true-ups?group_by={groups}")["data"],
            "proposals": [(proposal["state"], proposal["correction"]) for proposal in proposals],
            "alerts": shown,
        }
        plain = self.plain(night, told)
        return {
            name: sorted(part, key=lambda item: json.dumps(item, sort_keys=True)) if isinstance(part, list) else part
            for name, part in plain.items()
        }

    def compare(self, stage: object) -> None:
        """The rows, and what the edge was told."""
        rough, calm = (self.plain(night, list(rows(night.home / "books").values())) for night in self.both)
        order = lambda row: json.dumps([row["unit"], row["line"]], sort_keys=True)  # noqa: E731
        rough, calm = sorted(rough, key=order), sorted(calm, key=order)
        assert [row["line"] for row in rough] == [row["line"] for row in calm], stage
        for ours, theirs in zip(rough, calm):
            assert ours == theirs, stage
        ours, theirs = (self.told(night) for night in self.both)
        for part, value in theirs.items():
            assert ours[part] == value, (stage, part)
        # A Meter may still have had spending to report when the night began: that arrives by itself.
        self.settle_budgets()


def _traffic(night: Night) -> None:
    for team, key in zip(("search", "ads"), night.workspace.keys):
        replies = [
            key.chat(sim={"input_tokens": 1000 + len(team), "output_tokens": 101}),
            key.chat(model="gpt-6-sol", sim={"input_tokens": 333, "output_tokens": 77}),
            key.messages(sim={"input_tokens": 2000, "output_tokens": 55 + len(team)}),
        ]
        for reply in replies:
            assert reply.status == 200, reply.body
            key.event(reply.id)
        key.ring()


def rows(books: Path) -> dict[str, dict]:
    """The newest revision of each line, without what says who wrote it when."""
    connection = sqlite3.connect(f"file:{books / 'ledger.sqlite'}?mode=ro", uri=True)
    select = """SELECT r.body FROM lines AS l JOIN revisions AS r USING (workspace, day, provider, line, rev)"""
    found = {}
    for (body,) in connection.execute(select):
        row = json.loads(body)
        content = {name: value for name, value in row["content"].items() if name != "source"}
        name = json.dumps([row["unit"], row["line"]], sort_keys=True)
        assert name not in found, name
        found[name] = {"unit": row["unit"], "line": row["line"], "content": content}
    connection.close()
    return found


def start(night: Night, *commands: tuple[str, ...]) -> list[subprocess.Popen]:
    """Starts them at once."""
    commands = commands or (("reconcile", "--days", str(night.days)),)
    arguments = [night.arguments("--json", *command) for command in commands]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return [subprocess.Popen(each, env=night.environment, text=True, **pipes) for each in arguments]


def finish(process: subprocess.Popen) -> tuple[int, str]:
    out, err = process.communicate(timeout=120)
    return process.returncode, out + err


def test_a_night_that_is_killed_again_and_again_leaves_the_same_books(gateway, simulator, tmp_path):
    seed = int(os.environ.get("SEED", random.randrange(2**32)))
    print(f"SEED={seed}")
    draw = random.Random(seed)
    pair = Pair(gateway, simulator, tmp_path)
    killed = 0
    for stage in range(4):
        pair.stage(stage)
        begun = time.monotonic()
        calm = pair.calm.night()
        whole = time.monotonic() - begun
        assert calm["status"] == "complete", calm
        for _ in range(KILLS_A_STAGE):
            [process] = start(pair.rough)
            # Early kills are as likely as late ones, however much was done before.
            time.sleep(draw.uniform(0, whole) * draw.choice((0.3, 0.6, 1)))
            if process.poll() is None:
                process.send_signal(signal.SIGKILL)
                killed += 1
            else:
                # It was over before its time: the next ones have less.
                whole *= 0.7
            finish(process)
            pair.advance(LEASE)
        report = pair.rough.night()
        assert report["status"] == "complete", report
        for provider, books in report["providers"].items():
            assert difference(books) == 0, (stage, provider)
            twin = calm["providers"][provider]
            assert books == twin, (stage, provider)
        pair.compare(stage)
        assert pair.rough.night()["rows_written"] == 0, "it is at rest"
    assert killed >= 20, f"only {killed} of {4 * KILLS_A_STAGE} were killed before their end"
    # A night of books that begin anew says the same, line by line.
    disturbed = {name: row for name, row in rows(pair.rough.home / "books").items() if not is_nothing(row)}
    pair.rough.home = tmp_path / "again"
    pair.rough.home.mkdir()
    assert pair.rough.night()["status"] == "complete"
    assert disturbed == rows(pair.rough.home / "books")


def is_nothing(row: dict) -> bool:
    """Whether a line is there only to say that it is no more."""
    content = row["content"]
    figures = ("estimated", "billed", "quantity_variance", "price_variance", "metered", "billed_quantity")
    amounts = [content[name] for name in figures]
    return content["requests"] == 0 and all(amount is None or Decimal(amount) == 0 for amount in amounts)


def test_a_night_and_a_backfill_at_once_end_with_the_same_books(gateway, simulator, tmp_path):
    pair = Pair(gateway, simulator, tmp_path)
    last = pair.first + timedelta(days=DAYS)
    for stage in range(4):
        pair.stage(stage)
        calm = pair.calm.night()
        assert calm["status"] == "complete", calm
        backfill = ("backfill", "--from", pair.first.isoformat(), "--to", last.isoformat())
        for process in start(pair.rough, ("reconcile", "--days", str(DAYS + 1)), backfill):
            code, said = finish(process)
            assert code == 0, said
        pair.compare(stage)
