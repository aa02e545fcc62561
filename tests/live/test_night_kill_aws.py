"""The Lambda is killed at any of its requests to AWS, two run at once, and AWS fails in ways that pass: the books are those
of nights that nobody disturbed.

One gateway has the traffic of three days. Each test goes on from a copy of its state with books of its own, so all of it
can be compared: every row with its revision, every object with its content, and all that the edge was told.
"""

from __future__ import annotations

import base64
import copy
import dataclasses
import hashlib
import json
import os
import random
import shutil
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))

from bills import Bills  # noqa: E402
from conftest import new_workspace  # noqa: E402
from gateway import Gateway, Simulator, call, new_secrets  # noqa: E402
from night import Night, difference  # noqa: E402
from rapi import Answer as Invoked  # noqa: E402
from rapi import Died, Function  # noqa: E402
from test_budgets import budget  # noqa: E402
from test_lambda import Lambda, aws, simulator  # noqa: E402, F401
from wire import Answer, Asked, Cut, Forward, Gone, Wire, dynamodb_error, pass_on, s3_error  # noqa: E402

KILLS = int(os.environ.get("TALLYGATE_KILLS", "36"))
SEED = int(os.environ.get("SEED", "20261121"))
KILLS_A_NIGHT = 5
DAYS = 3
LEASE = timedelta(minutes=16)
"""A killed run holds its lease for a quarter of an hour: the clocks are moved over it."""
TEAMS = ("search", "ads")
NIGHTS = (0, 1)


@dataclass
class World:
    """What all copies begin with: a gateway's state, and the time it is there."""

    home: Path
    settings: dict[str, str]
    night: Night
    begins: datetime
    aws: str
    calm: Books | None = None
    """What undisturbed nights leave."""
    requests: tuple[int, ...] = ()
    """How many requests each of them takes."""


@pytest.fixture(scope="module")
def world(simulator, aws, tmp_path_factory) -> World:  # noqa: F811
    settings = new_secrets() | {"TALLYGATE_FAULTS": "on"}
    gateway = Gateway(home=tmp_path_factory.mktemp("gateway"), settings=settings).start()
    workspace = new_workspace(gateway, simulator)
    number = workspace.credential.removeprefix("sk-sim-")
    workspace.credential = f"sk-sim-{number}-held-by-the-gateway"
    for name in ("openai", "anthropic"):
        workspace.admin("PATCH", f"/providers/{name}", {"credential": workspace.credential})
    budget(workspace, "teams", scope={"dimension": "team", "value": "*"}, limit_usd="10", window="month")
    night = Night(workspace, Bills(simulator.url, number), tmp_path_factory.mktemp("night"), days=DAYS)
    keys = {team: workspace.key(actor={"team": team, "user": f"{team}-1"}) for team in TEAMS}
    spent = dict.fromkeys(TEAMS, Decimal(0))
    for _ in range(DAYS):
        for team, key in keys.items():
            replies = [
                key.chat(sim={"input_tokens": 1000 + len(team), "output_tokens": 101}),
                key.messages(sim={"input_tokens": 2000, "output_tokens": 55 + len(team)}),
            ]
            for reply in replies:
                assert reply.status == 200, reply.body
                spent[team] += Decimal(key.event(reply.id)["charged"])
            key.ring()
        night.advance()
    deadline = time.monotonic() + 20
    while {team: Decimal(amount) for team, amount in budgets(night).items()} != spent:
        assert time.monotonic() < deadline, (budgets(night), spent)
        for key in keys.values():
            key.ring()
        time.sleep(0.1)
    midnight = night.now.replace(hour=0, minute=5, second=0, microsecond=0)
    begins = midnight if midnight > night.now else midnight + timedelta(days=1)
    night.days = DAYS + 1
    gateway.stop()
    world = World(gateway.home, settings, night, begins, aws)
    with stage(world, tmp_path_factory.mktemp("calm")) as calm:
        counts = []
        for number in NIGHTS:
            calm.bills(number)
            begun = calm.wire.seen
            answer = calm.begin().invoke(calm.event())
            assert answer.status == "complete", answer.body
            counts.append(calm.wire.seen - begun)
            for books in calm.report(answer)["providers"].values():
                assert difference(books) == 0
            calm.next_day()
        world.requests = tuple(counts)
        world.calm = calm.books()
    assert any(row["rev"] > 1 for row in world.calm.rows.values()), "the second night changes what the first one wrote"
    print(f"SEED={SEED}; an undisturbed night asks AWS {counts} times")
    return world


def budgets(night: Night) -> dict[str, str]:
    """What each team's budget counts as spent."""
    status = {team: night.workspace.admin("GET", f"/budgets/teams/status?value={team}") for team in TEAMS}
    return {team: shown["money"]["spent_usd"] for team, shown in status.items()}


@dataclass(frozen=True)
class Books:
    """All that nights leave, without what says how often they were begun."""

    rows: dict[str, dict]
    objects: dict[str, str]
    told: dict[str, object]


class stage:
    """A copy of the gateway, with books of its own, and a reconciler whose requests go through a wire."""

    def __init__(self, world: World, home: Path):
        self.world, self.home = world, home
        shutil.copytree(world.home, home / "gateway")
        self.gateway = Gateway(home=home / "gateway", settings=world.settings)
        self.night = copy.copy(world.night)
        self.night.home = home
        workspace = self.night.workspace
        self.night.workspace = dataclasses.replace(workspace, gateway=self.gateway)
        self.wire = Wire(world.aws)

    def __enter__(self) -> stage:
        self.gateway.start()
        self.night.shift = timedelta(0)
        self.advance(self.world.begins - self.night.now)
        self.lambda_ = Lambda(self.night, self.world.aws, self.home)
        return self

    def __exit__(self, *_) -> None:
        for function in self.lambda_.functions:
            function.stop()
        self.lambda_.check_logs()
        self.gateway.stop()
        self.wire.stop()

    def advance(self, by: timedelta) -> None:
        """Moves the clocks of the gateway and the reconciler."""
        ms = by // timedelta(milliseconds=1)
        status, answer = call("POST", f"{self.gateway.url}/_test/advance?ms={ms}")
        assert status == 200
        self.night.shift = timedelta(milliseconds=answer["now"]) - timedelta(seconds=time.time())

    def next_day(self) -> None:
        """Moves the clocks to where a night begins, however often this one was begun."""
        begins = self.night.now.replace(hour=0, minute=5, second=0, microsecond=0) + timedelta(days=1)
        self.advance(begins - self.night.now)

    def bills(self, number: int) -> None:
        """The bills of a night: the second one finds them changed. Answers tell their time: it is the night's beginning."""
        self.night.bills.set_clock(self.world.begins + timedelta(days=number), frozen=True)
        first, second = (str((self.world.begins - timedelta(days=back)).date()) for back in (DAYS, DAYS - 1))
        openai: dict = {
            "price": [{"model": "gpt-6-luna", "meter": "output", "from": second, "per_million": "0.625"}],
            "tax": [{"days": first, "basis_points": 1900}],
            "rounding": {"places": 6, "adjustment": True},
        }
        if number > 0:
            openai |= {"price": [], "credit": [{"days": second, "amount": "0.005"}]}
            openai["tax"] = [{"days": first, "basis_points": 700}]
        self.night.bills.set("openai", **openai)

    def begin(self, wire: Wire | None = None) -> Function:
        return self.lambda_.start(AWS_ENDPOINT_URL=(wire or self.wire).url)

    def event(self, command: str = "night", **fields: str) -> dict:
        return self.lambda_.event(command, **fields)

    def report(self, answer: Invoked) -> dict:
        return self.lambda_.report(answer)

    def until_it_ends(self, patience: int = 5) -> Invoked:
        """New processes until one is done, as AWS begins them."""
        for _ in range(patience):
            answer = self.begin().invoke(self.event())
            if not answer.failed and answer.status != "more":
                assert answer.status == "complete", answer.body
                return answer
            self.advance(LEASE)
        raise AssertionError(answer.body)

    def books(self) -> Books:
        """As they are, read behind the wire."""
        rows: dict[str, dict] = {}
        pages = self.lambda_.client("dynamodb").get_paginator("scan").paginate(TableName=self.lambda_.table)
        for item in (item for page in pages for item in page["Items"]):
            if not item["sk"]["S"].startswith(("h#", "r#")):
                continue
            row = json.loads(item["body_"]["S"])
            # How many pulls were begun before, and by whom, is not what the books say.
            del row["seq"]
            name = json.dumps([row["unit"], row["line"], row["rev"]], sort_keys=True)
            assert rows.setdefault(name, row) == row, "a revision put aside is the one that was written"
        objects = {}
        s3 = self.lambda_.client("s3")
        for key in self.lambda_.keys(""):
            body = s3.get_object(Bucket=self.lambda_.bucket, Key=key)["Body"].read()
            objects[key] = hashlib.sha256(body).hexdigest()
        return Books(rows, objects, self.told())

    def told(self) -> dict[str, object]:
        """All that the edge was told."""
        admin = self.night.workspace.admin
        alerts = admin("GET", "/alerts")["data"]
        told = {
            "true_ups": admin("GET", "/true-ups?group_by=day,provider,model,meter,kind,team,unmetered")["data"],
            "proposals": [(each["state"], each["correction"]) for each in admin("GET", "/price-proposals")["data"]],
            "alerts": [(each["kind"], each["status"]["state"], each["title"], each["evidence"]) for each in alerts],
        }
        order = lambda item: json.dumps(item, sort_keys=True)  # noqa: E731
        told = json.loads(json.dumps(told))
        return {name: sorted(part, key=order) for name, part in told.items()} | {"budgets": budgets(self.night)}

    def compare(self) -> None:
        """The books with those of undisturbed nights."""
        calm, ours = self.world.calm, self.books()
        assert sorted(ours.rows) == sorted(calm.rows)
        for name, row in calm.rows.items():
            assert ours.rows[name] == row
        more, less = set(ours.objects) - set(calm.objects), set(calm.objects) - set(ours.objects)
        print(sorted(more), sorted(less))
        assert ours.objects == calm.objects
        assert ours.told == calm.told


def test_print(world, tmp_path):
    c = world.calm
    print(len(c.rows), len(c.objects))
    for k, v in c.objects.items():
        print(k, v[:8])
    print(json.dumps(c.told, indent=1)[:3000])
    with stage(world, tmp_path) as s:
        for number in NIGHTS:
            s.bills(number)
            s.advance(LEASE)
            t = time.monotonic()
            print(s.until_it_ends().status, time.monotonic() - t, s.wire.seen)
            s.next_day()
        s.compare()
