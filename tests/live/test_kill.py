"""The runtime is killed again and again under load, and the books still agree."""

from __future__ import annotations

import random
import threading
import time

import pytest

from conftest import Gateway, Simulator, call, new_secrets, new_workspace

KILLS = 6
WRITERS = 12


@pytest.mark.parametrize("immediate", [True, False], ids=["each at the Meter", "under subleases"])
def test_books_agree_after_many_kills(tmp_path, immediate):
    simulator = Simulator().start()
    gateway = Gateway(home=tmp_path, settings=new_secrets() | {"TALLYGATE_FAULTS": "on"}).start()
    try:
        workspace = new_workspace(gateway, simulator)
        policy = {"spend_caps": [{"window": "day", "limit_usd": "1000"}], "immediate": immediate}
        keys = [workspace.key(policy) for _ in range(4)]
        answered, stop = _load(keys)
        for _ in range(KILLS):
            _wait_for_more(answered, 15)
            time.sleep(random.uniform(0, 0.4))
            gateway.kill()
            gateway.start()
        _wait_for_more(answered, 15)
        stop()
        # The last batch of settlements is on its way.
        time.sleep(0.2)
        # A Worker settles what it admitted itself in batches of 20 ms: a kill loses as much of the record, and says so.
        _compare(keys, workspace, simulator, answered, WRITERS * KILLS * (1 if immediate else 5))
    finally:
        gateway.stop()
        simulator.stop()


def _wait_for_more(answered, more: int):
    """Until so many further requests are answered: a kill is to fall into traffic, however slow the machine is."""
    enough, deadline = len(answered) + more, time.monotonic() + 60
    while len(answered) < enough:
        assert time.monotonic() < deadline, f"{len(answered)} of {enough} requests answered after a minute"
        time.sleep(0.02)


def _load(keys):
    """Writers that ask without pause; returns what was answered in full, and how to stop them."""
    answered: list[str] = []
    ended = threading.Event()

    def write(key):
        draw = random.Random()
        while not ended.is_set():
            sim = {"input_tokens": draw.randrange(1, 500), "output_tokens": draw.randrange(1, 50)}
            try:
                reply = key.chat(stream=draw.random() < 0.5, sim=sim)
            except Exception:  # noqa: BLE001 - a killed runtime fails in every way a socket can
                time.sleep(0.02)
                continue
            # A stream says with its last comment that it is settled.
            if reply.status == 200 and (b"data: " not in reply.body or b": tallygate" in reply.body):
                answered.append(reply.id)

    threads = [threading.Thread(target=write, args=(keys[n % len(keys)],)) for n in range(WRITERS)]
    for thread in threads:
        thread.start()

    def stop():
        ended.set()
        for thread in threads:
            thread.join()

    return answered, stop


def _events(workspace, key):
    events, cursor = [], ""
    while True:
        page = workspace.admin("GET", f"/requests?key={key.id}&limit=1000{cursor}")
        events += page["data"]
        if not page["next_cursor"]:
            return events
        cursor = f"&cursor={page['next_cursor']}"


def nanos(text: str) -> int:
    whole, _, fraction = text.partition(".")
    return int(whole) * 10**9 + int(fraction.ljust(9, "0")[:9])


def _compare(keys, workspace, simulator, answered, most_lost):
    # Whatever was in flight at a kill is over when the longest request is: move the clock, do not wait.
    call("POST", f"{workspace.gateway.url}/_test/advance?ms=1200000")
    for key in keys:
        for _ in range(60):
            key.ring()
            if not key.state()["undelivered"]:
                break
    billed = {entry["gateway_request_id"]: entry for entry in simulator.books()["entries"]}
    recorded = {}
    for key in keys:
        events = _events(workspace, key)
        state = key.state()
        assert state["in_flight"] == 0 and state["held_usd"] == "0", state
        # Sum of events = sum of counters, in the Meter and in the Ledger.
        assert sum(nanos(event["charged"]) for event in events) == nanos(state["spent_usd"]["lifetime"])
        assert state["events"] == len(events)
        assert sorted(event["seq"] for event in events) == list(range(1, len(events) + 1))
        recorded |= {event["id"]: event for event in events}
    settled = {i: e for i, e in recorded.items() if e["outcome"] == "completed"}
    # Nothing that a caller got whole was lost, but for what was settling at the moment of a kill.
    lost = [request_id for request_id in answered if request_id not in recorded]
    interrupted = [e for e in recorded.values() if e["outcome"] == "interrupted"]
    assert len(lost) <= most_lost
    assert interrupted or not lost, "what a kill lost is reported"
    # What is settled agrees with the simulator's books, request by request, to the nanodollar.
    for request_id, event in settled.items():
        entry = billed[request_id]["billed"]
        assert nanos(event["charged"]) == (entry["input"] * 100 + entry["output"] * 500), event
    # Money that the simulator billed and no event has: only requests that were in flight at a kill.
    missing = [i for i in billed if i not in recorded]
    bound = sum(nanos(event["hold"]) for event in interrupted)
    unrecorded = sum(billed[i]["billed"]["input"] * 100 + billed[i]["billed"]["output"] * 500 for i in missing)
    assert unrecorded <= bound, "an interruption says how much may be missing at most"
    print(
        f"{len(recorded)} events, {len(settled)} settled and equal, {len(missing)} in flight at "
        f"{KILLS} kills ({unrecorded} of at most {bound} nanodollars), {len(interrupted)} interruptions"
    )
    assert len(settled) > 10 * KILLS
