"""The Lambda is killed at any of its requests to AWS, two run at once, and AWS fails in ways that pass: the books are those
of nights that nobody disturbed.

One gateway has the traffic of three days. Each test goes on from a copy of its state with books of its own, so all of it
can be compared: every row with its revision, every object with its content, and all that the edge was told.

TALLYGATE_KILLS=400 SEED=7 make it longer and another one.
"""

from __future__ import annotations

import collections
import copy
import dataclasses
import hashlib
import itertools
import json
import os
import random
import re
import shutil
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
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

KILLS = int(os.environ.get("TALLYGATE_KILLS", "32"))
SEED = int(os.environ.get("SEED", "20261121"))
KILLS_A_NIGHT = 8
DAYS = 3
LEASE = timedelta(minutes=16)
"""A killed run holds its lease for a quarter of an hour: the clocks are moved over it."""
TEAMS = ("search", "ads")
NIGHTS = (0, 1)


@dataclass(frozen=True)
class Books:
    """All that nights leave, without what says how often and by whom they were begun."""

    rows: dict[str, dict]
    objects: dict[str, str]
    export: dict[str, str]
    told: dict[str, object]


@dataclass
class World:
    """What all copies begin with: a gateway's state, and the time it is there. And what undisturbed nights leave."""

    home: Path
    settings: dict[str, str]
    night: Night
    begins: datetime
    aws: str
    calm: list[Books] = field(default_factory=list)
    providers: list[dict] = field(default_factory=list)
    requests: list[int] = field(default_factory=list)
    writes: list[int] = field(default_factory=list)


@pytest.fixture(scope="module")
def world(simulator, aws, tmp_path_factory) -> Iterator[World]:  # noqa: F811
    settings = new_secrets() | {"TALLYGATE_FAULTS": "on"}
    gateway = Gateway(home=tmp_path_factory.mktemp("gateway"), settings=settings).start()
    try:
        night, begins = three_days(gateway, simulator, tmp_path_factory.mktemp("night"))
    finally:
        gateway.stop()
    world = World(gateway.home, settings, night, begins, aws)
    with Stage(world, tmp_path_factory.mktemp("calm")) as calm:
        for number in NIGHTS:
            calm.dawn(number)
            requests, writes = calm.wire.seen, calm.wire.writes
            answer = calm.begin().invoke(calm.event())
            assert answer.status == "complete", answer.body
            world.requests.append(calm.wire.seen - requests)
            world.writes.append(calm.wire.writes - writes)
            world.providers.append(calm.report(answer)["providers"])
            assert all(difference(books) == 0 for books in world.providers[-1].values())
            world.calm.append(calm.books())
    assert any(row["rev"] > 1 for row in world.calm[-1].rows.values()), "the second night changes what the first one wrote"
    print(f"\nSEED={SEED}: undisturbed nights ask AWS {world.requests} times, {world.writes} to change something")
    yield world


def three_days(gateway: Gateway, simulator: Simulator, home: Path) -> tuple[Night, datetime]:  # noqa: F811
    """Traffic that is in the books of the edge when this returns, and when the first night begins."""
    workspace = new_workspace(gateway, simulator)
    number = workspace.credential.removeprefix("sk-sim-")
    workspace.credential = f"sk-sim-{number}-held-by-the-gateway"
    for name in ("openai", "anthropic"):
        workspace.admin("PATCH", f"/providers/{name}", {"credential": workspace.credential})
    budget(workspace, "teams", scope={"dimension": "team", "value": "*"}, limit_usd="10", window="month")
    night = Night(workspace, Bills(simulator.url, number), home, days=DAYS)
    keys = {team: workspace.key(actor={"team": team, "user": f"{team}-1"}) for team in TEAMS}
    spent = dict.fromkeys(TEAMS, Decimal(0))
    first = night.today
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
    night.bills.leak("openai", workspace.credential, "gpt-6-luna", first, requests=2, input=120_000, output=4_567)
    deadline = time.monotonic() + 20
    while {team: Decimal(amount) for team, amount in budgets(night).items()} != spent:
        assert time.monotonic() < deadline, (budgets(night), spent)
        for key in keys.values():
            key.ring()
        time.sleep(0.1)
    night.days = DAYS + 1
    midnight = night.now.replace(hour=0, minute=5, second=0, microsecond=0)
    return night, midnight if midnight > night.now else midnight + timedelta(days=1)


def budgets(night: Night) -> dict[str, str]:
    """What each team's budget counts as spent."""
    status = {team: night.workspace.admin("GET", f"/budgets/teams/status?value={team}") for team in TEAMS}
    return {team: shown["money"]["spent_usd"] for team, shown in status.items()}


class Stage:
    """A copy of the gateway, with books of its own, and a reconciler whose requests go through a wire."""

    def __init__(self, world: World, home: Path):
        self.world, self.home = world, home
        shutil.copytree(world.home, home / "gateway")
        self.gateway = Gateway(home=home / "gateway", settings=world.settings)
        self.night = copy.copy(world.night)
        self.night.home, self.night.shift = home, timedelta(0)
        self.night.workspace = dataclasses.replace(world.night.workspace, gateway=self.gateway)
        self.deployed = Lambda(self.night, world.aws, home)
        self.wires: list[Wire] = []
        self.wire = self.another_wire()

    def __enter__(self) -> Stage:
        self.gateway.start()
        return self

    def __exit__(self, *_) -> None:
        for function in self.deployed.functions:
            function.stop()
        self.gateway.stop()
        for wire in self.wires:
            wire.stop()
        self.deployed.check_logs()

    def another_wire(self) -> Wire:
        self.wires.append(Wire(self.world.aws))
        return self.wires[-1]

    def advance(self, by: timedelta) -> None:
        """Moves the clocks of the gateway and the reconciler."""
        ms = by // timedelta(milliseconds=1)
        status, answer = call("POST", f"{self.gateway.url}/_test/advance?ms={ms}")
        assert status == 200
        self.night.shift = timedelta(milliseconds=answer["now"]) - timedelta(seconds=time.time())

    def dawn(self, number: int) -> None:
        """A night begins, with bills that it finds. The second one's say something else than the first one's."""
        begins = self.world.begins + timedelta(days=number)
        self.advance(begins - self.night.now)
        # Answers tell their time: it is the same however late they are asked for.
        self.night.bills.set_clock(begins, frozen=True)
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
        return self.deployed.start(AWS_ENDPOINT_URL=(wire or self.wire).url)

    def event(self, command: str = "night", **fields: str) -> dict:
        return self.deployed.event(command, **fields)

    def backfill(self) -> dict:
        """The days of the night before, by another run."""
        yesterday = self.night.today - timedelta(days=1)
        days = {"from": yesterday - timedelta(days=self.night.days - 1), "to": yesterday}
        return self.event("backfill", **{name: str(day) for name, day in days.items()})

    def report(self, answer: Invoked) -> dict:
        return self.deployed.report(answer)

    def until_it_ends(self, number: int) -> Invoked:
        """The night goes on in a process that nobody disturbs, and its figures are the bills'."""
        self.wire.plan = pass_on
        answer = self.begin().invoke(self.event())
        assert answer.status == "complete", answer.body
        providers = self.report(answer)["providers"]
        assert providers == self.world.providers[number]
        return answer

    def books(self) -> Books:
        """As they are, read behind the wire."""
        rows: dict[str, dict] = {}
        pages = self.deployed.client("dynamodb").get_paginator("scan").paginate(TableName=self.deployed.table)
        for item in (item for page in pages for item in page["Items"]):
            if not item["sk"]["S"].startswith(("h#", "r#")):
                continue
            row = json.loads(item["body_"]["S"])
            # How many pulls were begun before, and by which run, is not what the books say.
            del row["seq"], row["run"]
            name = json.dumps([row["unit"], row["line"], row["rev"]], sort_keys=True)
            assert rows.setdefault(name, row) == row, "a revision put aside is the one that was written"
        objects, export = {}, {}
        lists = {key.rpartition("/")[0]: key for key in sorted(self.deployed.keys("export-list/"))}
        newest = {part["key"] for key in lists.values() for part in json.loads(self.get(key))["parts"]}
        for key in self.deployed.keys(""):
            if key.startswith(("report/", "export-list/")):
                continue
            body = self.get(key)
            if not key.startswith("export/"):
                objects[key] = hashlib.sha256(body).hexdigest()
            elif key in newest and "/billing_period/" not in key:
                # A file's name tells which export of the month it belongs to.
                export[re.sub(r"-r\d+-", "-", key)] = hashlib.sha256(body).hexdigest()
        return Books(rows, objects, export, self.told())

    def get(self, key: str) -> bytes:
        return self.deployed.client("s3").get_object(Bucket=self.deployed.bucket, Key=key)["Body"].read()

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
        return {name: sorted(part, key=order) for name, part in told.items()} | {"budgets": budgets(self.night)}

    def compare(self, number: int) -> None:
        """The books with those of an undisturbed night."""
        calm, ours = self.world.calm[number], self.books()
        assert sorted(ours.rows) == sorted(calm.rows)
        for name, row in calm.rows.items():
            assert ours.rows[name] == row
        # A killed worker may have noted that it was about to tell the edge something.
        more = {key for key in ours.objects.keys() - calm.objects.keys() if not key.startswith("told/")}
        assert not more
        assert {key: ours.objects.get(key) for key in calm.objects} == calm.objects
        assert ours.export == calm.export
        assert ours.told == calm.told


def kill_at(rough: Stage, function: Function, draw: random.Random, number: int, log: list[str]) -> None:
    """Has the process killed at one of the requests of the night, before or after AWS has done what it asks for. Every
    second one is a request that changes something."""
    wire, manner = rough.wire, draw.choice(("before", "after"))
    counts = "write" if draw.randrange(2) else "number"
    whole = rough.world.writes[number] if counts == "write" else rough.world.requests[number]
    # What was done before is not done again: late requests of a night are early ones of its last process.
    at = max(1, draw.randint(1, whole) * draw.choice((25, 50, 100)) // 100)
    at += wire.writes if counts == "write" else wire.seen
    killed = threading.Event()

    def plan(asked: Asked, forward: Forward) -> Answer:
        if killed.is_set():
            raise Gone
        if getattr(asked, counts) == at:
            killed.set()
            if manner == "after":
                forward()
            log.append(f"{asked.service} {asked.operation} {manner}")
            function.process.kill()
            function.process.wait()
            raise Gone
        return forward()

    wire.plan = plan


def dies(function: Function, event: dict) -> bool:
    """Whether the function is killed before it answers."""
    try:
        answer = function.invoke(event)
    except Died:
        return True
    assert not answer.failed, answer.body
    return False


def test_a_night_killed_at_any_request_leaves_the_same_books(world, tmp_path):
    draw, log = random.Random(SEED), []
    for round_ in itertools.count():
        with Stage(world, tmp_path / str(round_)) as rough:
            for number in NIGHTS:
                rough.dawn(number)
                for _ in range(KILLS_A_NIGHT):
                    function = rough.begin()
                    kill_at(rough, function, draw, number, log)
                    if not dies(function, rough.event()):
                        break
                    rough.advance(LEASE)
                rough.until_it_ends(number)
                rough.compare(number)
        if len(log) >= KILLS:
            break
    print(f"\n{len(log)} kills in {round_ + 1} times {len(NIGHTS)} nights:")
    print(*(f"  {times:3} at {what} was done" for what, times in sorted(collections.Counter(log).items())), sep="\n")
    assert sum("Item " in what or "PUT" in what for what in log) >= len(log) // 4, "many are killed where they write"


@pytest.mark.parametrize("second", ["night", "backfill"])
def test_of_two_at_once_one_is_killed(world, tmp_path, second):
    """The second one finds the run taken, or works on the same days in a run of its own."""
    draw, log = random.Random(f"{SEED} {second}"), []
    with Stage(world, tmp_path / "stage") as rough:
        rough.dawn(0)
        other = rough.another_wire()
        event = rough.event() if second == "night" else rough.backfill()
        functions = rough.begin(), rough.begin(other)
        with ThreadPoolExecutor(2) as pool:
            kill_at(rough, functions[0], draw, 0, log)
            killed = pool.submit(dies, functions[0], rough.event())
            while rough.wire.seen < 8 and not killed.done():
                time.sleep(0.002)
            answer = pool.submit(functions[1].invoke, event).result()
            assert not answer.failed, answer.body
            assert killed.result() and log, "the first one is killed"
        rough.advance(LEASE)
        rough.until_it_ends(0)
        assert rough.begin().invoke(rough.backfill()).status == "complete"
        rough.compare(0)


@pytest.mark.parametrize("quarter", range(4))
def test_a_write_that_arrives_after_its_worker_was_replaced_changes_nothing(world, tmp_path, quarter):
    """A worker hangs in a request. Its lease ends, another one does the night, and then the request arrives after all."""
    draw = random.Random(f"{SEED} {quarter}")
    at = 1 + (quarter * 100 + draw.randrange(100)) * world.writes[0] // 400
    with Stage(world, tmp_path / "stage") as rough:
        rough.dawn(0)
        hangs, released = threading.Event(), threading.Event()

        def hang(asked: Asked, forward: Forward) -> Answer:
            if asked.write == at:
                hangs.set()
                # Less than the time after which the client would ask again.
                released.wait(25)
            return forward()

        slow = rough.another_wire()
        slow.plan = hang
        with ThreadPoolExecutor(1) as pool:
            late = pool.submit(rough.begin(slow).invoke, rough.event())
            assert hangs.wait(30)
            rough.advance(LEASE)
            rough.until_it_ends(0)
            released.set()
            answer = late.result()
        if answer.body.get("errorType") != "RunSuperseded" and answer.status != "complete":
            # Its own clock stood still: what it signs after the write is too old for the gateway to take the exports.
            assert answer.status == "partial", (at, answer.body)
            refused = [each["not_handed_over"] for each in answer.body["exported"] if "not_handed_over" in each]
            assert refused and all("check the clocks" in why for why in refused), (at, answer.body)
        rough.compare(0)


def no_answer(asked: Asked, forward: Forward) -> Answer:
    """It was done, and nobody heard of it."""
    forward()
    raise Gone


def cut_off(asked: Asked, forward: Forward) -> Cut:
    return Cut(forward())


def done_and_denied(asked: Asked, forward: Forward) -> Answer:
    """It was done, and the answer says that it failed."""
    forward()
    return refusals(asked.service)["500"]


def refusals(service: str) -> dict[str, Answer]:
    """How a service says that it cannot now."""
    if service == "s3":
        return {
            "500": s3_error(500, "InternalError", "We encountered an internal error."),
            "503": s3_error(503, "SlowDown", "Please reduce your request rate."),
        }
    return {
        "500": dynamodb_error("InternalServerError", "Internal server error", 500),
        "throughput": dynamodb_error("ProvisionedThroughputExceededException", "The level of throughput was exceeded."),
        "throttled": dynamodb_error("ThrottlingException", "Rate of requests exceeds the allowed throughput."),
    }


def fault(asked: Asked, draw: random.Random):
    """One of the faults that this request can meet."""
    refused = [lambda *_, answer=answer: answer for answer in refusals(asked.service).values()]
    if asked.service == "dynamodb" and asked.write:
        conflict = dynamodb_error("TransactionConflictException", "Transaction is ongoing for the item")
        refused.append(lambda *_: conflict)
    if asked.operation == "PUT":
        conflict = s3_error(409, "ConditionalRequestConflict", "A conflicting operation is in progress.")
        refused.append(lambda *_: conflict)
    return draw.choice((*refused, no_answer, cut_off, done_and_denied))


def test_faults_that_pass_leave_the_same_books(world, tmp_path):
    draw, met = random.Random(SEED + 9), collections.Counter()

    def fails_now_and_then(asked: Asked, forward: Forward) -> Answer | Cut:
        if draw.randrange(14):
            return forward()
        met[f"{asked.service} {asked.operation}"] += 1
        return fault(asked, draw)(asked, forward)

    with Stage(world, tmp_path / "stage") as rough:
        for number in NIGHTS:
            rough.dawn(number)
            rough.wire.plan = fails_now_and_then
            answer = rough.begin().invoke(rough.event())
            assert answer.status == "complete", answer.body
            rough.compare(number)
    print("\nfaults:", *(f"  {times:3} at {what}" for what, times in sorted(met.items())), sep="\n")
    assert met.total() >= 25, "there was something to get over"


def test_a_permission_taken_away_in_the_night_is_named_and_the_night_goes_on(world, tmp_path):
    with Stage(world, tmp_path / "stage") as rough:
        rough.dawn(0)
        for at, service, action in ((60, "s3", "s3:PutObject"), (20, "dynamodb", "dynamodb:")):
            function, begun = rough.begin(), rough.wire.seen

            def denied(asked: Asked, forward: Forward) -> Answer:
                if asked.number < begun + at or asked.service != service or not asked.write:
                    return forward()
                if service == "s3":
                    return s3_error(403, "AccessDenied", "Access Denied")
                return dynamodb_error("AccessDeniedException", "User is not authorized")

            rough.wire.plan = denied
            answer = function.invoke(rough.event())
            assert answer.failed and answer.body["errorType"] == "PermissionMissing", answer.body
            assert action in answer.body["errorMessage"] and "grant" in answer.body["errorMessage"]
            rough.advance(LEASE)
        rough.until_it_ends(0)
        rough.compare(0)
