"""The archive: what the Ledger lets go of is in a bucket, and an export has every event once all the same."""

from __future__ import annotations

import gzip
import http.client
import json
import random
import threading
import time
import urllib.request
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families as text_format

from conftest import Gateway, call, new_secrets, new_workspace
from signing import Signer

HOUR_MS = 3_600_000
DAY = timedelta(days=1)


class Clock:
    """The gateway's clock: it runs ahead of ours, and forgets that when the gateway is killed."""

    def __init__(self, gateway: Gateway):
        self.gateway = gateway
        self.ahead_ms = 0

    def pass_ms(self, ms: int) -> None:
        self.ahead_ms += ms
        self._advance(ms)

    def again(self) -> None:
        """After the gateway was started anew."""
        self._advance(self.ahead_ms)

    def _advance(self, ms: int) -> None:
        assert call("POST", f"{self.gateway.url}/_test/advance?ms={ms}")[0] == 200

    def now(self) -> datetime:
        return datetime.now(timezone.utc) + timedelta(milliseconds=self.ahead_ms)


class Archived:
    """A workspace of a gateway that keeps few events, and its archive."""

    def __init__(self, home: Path, simulator, kept: int, archive: bool = True):
        settings = new_secrets() | {"TALLYGATE_FAULTS": "on", "TALLYGATE_KEPT_EVENTS": str(kept)}
        self.gateway = Gateway(home=home, settings=settings, archive=archive).start()
        self.clock = Clock(self.gateway)
        self.first = self.clock.now()
        self.workspace = new_workspace(self.gateway, simulator)
        self.signer = Signer(self.workspace)
        policy = {"spend_caps": [{"window": "day", "limit_usd": "1000"}], "immediate": True}
        self.asked = 0
        self.keys = [self.workspace.key(policy) for _ in range(2)]

    def traffic(self, count: int, writers: int = 1) -> list[str]:
        """So many requests, delivered to the Ledger."""
        ids: list[str] = []

        def write(key, share: int) -> None:
            draw = random.Random()
            mine = [
                key.chat(sim={"input_tokens": draw.randrange(10, 5_000), "output_tokens": draw.randrange(1, 900)})
                for _ in range(share)
            ]
            assert {reply.status for reply in mine} == {200}
            ids.extend(reply.id for reply in mine)
            key.event(mine[-1].id)

        threads = [
            threading.Thread(target=write, args=(self.keys[n % len(self.keys)], count // writers))
            for n in range(writers)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(ids) == count
        self.asked += count
        self.deliver()
        return ids

    def deliver(self) -> None:
        deadline = time.monotonic() + 30
        while self.counted() < self.asked:
            assert time.monotonic() < deadline, f"the Ledger has {self.counted()} of {self.asked} events"
            for key in self.keys:
                key.ring()

    def counted(self) -> int:
        return self.workspace.admin("GET", "/usage")["data"][0]["requests"]

    def days(self) -> list[str]:
        days = (self.clock.now().date() - self.first.date()).days
        return [str(self.first.date() + n * DAY) for n in range(days + 1)]

    def ring(self) -> None:
        for month in sorted({day[:7] for day in self.days()}):
            url = f"{self.gateway.url}/_test/alarm?ledger={self.workspace.id}:{month}"
            assert call("POST", url)[0] == 200

    def ask(self, day: str, **query: str) -> tuple[int, bytes]:
        return self.signer.call("GET", "/events", day=day, at=self.clock.now().timestamp(), **query)

    def export(self) -> bytes:
        """All days with events, each checked against its closing line: a day that begins meanwhile adds nothing."""
        lines = b""
        for day in self.days():
            events, _ = self.signer.events(day, at=self.clock.now().timestamp())
            if events:
                lines += self.ask(day)[1]
        return lines

    def state(self) -> dict:
        answer = self.workspace.admin("GET", "/archive")
        fields = ["parts", "events", "bytes", "compressed_bytes", "kept_events", "unarchived_events", "failures"]
        sums = {field: sum(month[field] for month in answer["data"]) for field in fields}
        return {"bound": answer["bound"], "note": answer["note"], **sums}

    def gauges(self) -> dict[str, float]:
        """What `/metrics` says of the archive, added up over months."""
        url = f"{self.gateway.url}/api/v1/workspaces/{self.workspace.id}/metrics"
        request = urllib.request.Request(url, headers={"authorization": f"Bearer {self.workspace.token}"})
        with urllib.request.urlopen(request, timeout=10) as answer:
            families = list(text_format(answer.read().decode()))
        sums: dict[str, float] = {}
        for sample in (sample for family in families for sample in family.samples):
            if sample.name.startswith("tallygate_archive_"):
                assert list(sample.labels) == ["month"]
                name = sample.name.removeprefix("tallygate_archive_")
                sums[name] = sums.get(name, 0) + sample.value
        return sums

    def objects(self) -> list[Path]:
        return sorted((self.gateway.home / "archive").rglob("*.ndjson.gz"))


@pytest.fixture
def archived(tmp_path, simulator):
    archived = Archived(tmp_path, simulator, kept=3)
    yield archived
    archived.gateway.stop()


def test_an_export_is_the_same_whether_events_are_archived_or_not(archived):
    ids = []
    for _ in range(3):
        ids += archived.traffic(4)
        archived.clock.pass_ms(HOUR_MS)
    before = archived.export()
    assert sorted(json.loads(line)["id"] for line in before.splitlines() if b'"end"' not in line) == sorted(ids)
    archived.clock.pass_ms(HOUR_MS)
    archived.ring()
    state = archived.state()
    assert (state["bound"], state["events"], state["unarchived_events"], state["failures"]) == (True, 12, 0, 0)
    assert state["kept_events"] <= 3 and state["parts"] == len(archived.objects()) >= 3
    assert archived.export() == before
    # What comes late goes to a further part.
    archived.traffic(5)
    before = archived.export()
    archived.clock.pass_ms(2 * HOUR_MS)
    archived.ring()
    assert archived.state()["unarchived_events"] == 0
    assert archived.export() == before
    lines = sorted(line for path in archived.objects() for line in gzip.decompress(path.read_bytes()).splitlines())
    assert lines == sorted(line for line in before.splitlines() if b'"end"' not in line)
    prefix = f"events/v1/{archived.workspace.id}/"
    assert all(prefix in str(path) for path in archived.objects())
    # One request whole, from its part.
    shown = archived.workspace.admin("GET", f"/requests/{ids[0]}")
    assert shown["id"] == ids[0]
    assert archived.workspace.raw("GET", f"/requests/{ids[0][:-4]}0000")[0] == 404
    # An export goes on behind any event.
    day = archived.days()[0]
    events, _ = archived.signer.events(day, at=archived.clock.now().timestamp())
    behind = f"{events[2]['id']}~{events[2]['key']}"
    rest, _ = archived.signer.events(day, at=archived.clock.now().timestamp(), after=behind)
    assert rest == events[3:]


def test_an_object_that_is_missing_or_broken_is_named_and_ends_an_export_without_a_closing_line(archived):
    first = archived.traffic(1_200, writers=12)
    archived.clock.pass_ms(HOUR_MS)
    archived.traffic(4)
    archived.clock.pass_ms(2 * HOUR_MS)
    before = archived.export()
    archived.ring()
    state = archived.state()
    assert state["unarchived_events"] == 0
    print(f"{state['bytes'] / state['events']:.0f} bytes an event, {state['compressed_bytes'] / state['events']:.0f} compressed")
    assert archived.export() == before
    *_, last = archived.objects()
    good, name = last.read_bytes(), str(last.relative_to(archived.gateway.home / "archive"))
    day = archived.days()[0]
    lines = gzip.decompress(good)
    other = gzip.compress(lines.replace(b'"ann"', b'"bob"'))
    broken_off = 0
    for broken in [other, good[:-9], b"", b"not gzip", None]:
        if broken is None:
            last.unlink()
        else:
            last.write_bytes(broken)
        # A megabyte of lines is on its way before that part is read: the connection ends before the body does.
        with pytest.raises((http.client.IncompleteRead, ConnectionError)):
            archived.ask(day)
        broken_off += 1
        assert archived.gateway.log.read_text().count("export_broken_off") == broken_off
        status, body = archived.ask(day, after=f"{max(first)}~~")
        assert status == 502, body
        problem = json.loads(body)
        assert problem["code"] == "archive_unreadable" and name in problem["detail"]
    last.write_bytes(good)
    assert archived.export() == before


def test_a_kill_at_any_moment_loses_no_event(archived):
    for _ in range(4):
        archived.traffic(24, writers=4)
        archived.clock.pass_ms(HOUR_MS)
    before = archived.export()
    archived.clock.pass_ms(HOUR_MS)
    for _ in range(5):
        threading.Thread(target=_ring_until_killed, args=(archived,), daemon=True).start()
        time.sleep(random.uniform(0, 0.06))
        archived.gateway.kill()
        archived.gateway.start()
        archived.clock.again()
        assert archived.export() == before
    # What a kill left behind waits until it is tried again.
    archived.clock.pass_ms(HOUR_MS)
    archived.ring()
    assert archived.state()["unarchived_events"] == 0
    assert archived.state()["parts"] == len(archived.objects())
    assert archived.export() == before


def _ring_until_killed(archived: Archived) -> None:
    try:
        archived.ring()
    except Exception:  # noqa: BLE001 - a killed runtime fails in every way a socket can
        pass


def test_events_are_kept_for_as_long_as_the_settings_say(archived):
    assert archived.workspace.admin("GET", "/archive-settings") == {"keep_days": 400}
    status, problem = archived.workspace.raw("PUT", "/archive-settings", {"keep_days": 7})
    assert status == 400 and "35 to 3653" in json.dumps(problem), problem
    archived.traffic(6)
    archived.clock.pass_ms(2 * HOUR_MS)
    archived.ring()
    assert archived.objects()
    archived.clock.pass_ms(36 * 24 * HOUR_MS)
    archived.ring()
    assert archived.objects(), "400 days are not over"
    archived.workspace.admin("PUT", "/archive-settings", {"keep_days": 35})
    archived.clock.pass_ms(24 * HOUR_MS)
    archived.ring()
    assert archived.objects() == []
    status, body = archived.ask(archived.days()[0])
    assert status == 410 and b"events_pruned" in body


def test_metrics_say_what_waits_for_the_archive_and_when_it_took_the_last_part(archived):
    archived.traffic(4)
    assert archived.gauges() == {"waiting_hours": 0, "lag_seconds": 0, "consecutive_failures": 0, "failures_total": 0}
    archived.clock.pass_ms(3 * HOUR_MS)
    waiting = archived.gauges()
    assert waiting["waiting_hours"] in (1, 2) and 3600 < waiting["lag_seconds"] < 3 * 3600
    archived.ring()
    done = archived.gauges()
    assert (done["waiting_hours"], done["lag_seconds"], done["failures_total"]) == (0, 0, 0)
    assert abs(done["last_written_timestamp_seconds"] - archived.clock.now().timestamp()) < 60


def test_without_an_archive_the_gateway_says_so_and_keeps_the_newest_events(tmp_path, simulator):
    archived = Archived(tmp_path, simulator, kept=3, archive=False)
    try:
        archived.traffic(6)
        archived.ring()
        state = archived.state()
        assert state["bound"] is False and "README" in state["note"]
        assert archived.gauges() == {}
        assert (state["events"], state["kept_events"]) == (0, 3)
        status, body = archived.ask(archived.days()[0])
        assert status == 410 and b"events_pruned" in body
    finally:
        archived.gateway.stop()
