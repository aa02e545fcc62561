"""The weekly review: made from real traffic, signed, and sent once a week to the receivers that are named."""

from __future__ import annotations

import time
from datetime import datetime, timedelta, timezone
from decimal import Decimal

from standardwebhooks import Webhook

from test_alerts import bench, verify_at  # noqa: F401


def monday_at_seven(now: datetime) -> datetime:
    """The first Monday 07:00 after a moment."""
    monday = (now - timedelta(days=now.weekday())).replace(hour=7, minute=0, second=0, microsecond=0)
    return monday if monday > now else monday + timedelta(days=7)


def test_a_review_is_sent_once_a_week_and_says_what_the_api_says(bench, monkeypatch):  # noqa: F811
    ops, made = bench.receiver("ops", kinds=["pace"])
    other, _ = bench.receiver("other", kinds=["pace"])
    bench.workspace.admin("PUT", "/alert-settings", {"weekly_review": {"receivers": ["ops"]}})
    # Into the middle of a week, so that all of it is in one.
    now = datetime.now(timezone.utc)
    first = monday_at_seven(now)
    bench.advance((first - now).total_seconds() + 60)
    bench.until(lambda: len(ops.got) == 1)
    key = bench.workspace.key(actor={"team": "search", "feature": "answers"})
    for _ in range(3):
        reply = bench.use(key, sim={"input_tokens": 200_000, "output_tokens": 5_000})
    assert key.post("/v1/outcomes", {"request": reply.id, "outcome": "accepted"}).status == 200
    key.ring()
    week = "{}-W{:02}".format(*first.isocalendar()[:2])
    told = bench.workspace.admin("GET", f"/weekly-review?week={week}")
    charged = sum(Decimal(row["charged_usd"]) for row in bench.workspace.admin("GET", "/usage")["data"])
    assert Decimal(told["total"]["after_usd"]) == charged > 0
    bench.advance(timedelta(days=6).total_seconds())
    assert len(ops.got) == 1
    bench.advance(timedelta(days=1).total_seconds())
    ops.wait(2)
    headers, raw = ops.got[-1]
    verify_at(monkeypatch, bench.now)
    body = Webhook(made["secret"]).verify(raw, headers)
    assert body["type"] == "review.weekly"
    review = body["data"]["review"]
    assert (review["week"], review["complete"]) == (week, True)
    for name in ("total", "movers", "outcomes", "new"):
        assert review[name] == told[name], name
    effects = [Decimal(part) for part in review["total"]["effects"].values()]
    assert sum(effects) == Decimal(review["total"]["change_usd"])
    assert [it["feature"] for it in review["outcomes"]] == ["answers"]
    assert body["data"]["markdown"].startswith("# ")
    # Ringing again sends nothing again.
    bench.ring()
    bench.advance(3600)
    time.sleep(0.2)
    assert len(ops.got) == 2 and other.got == []
    # Each has an id of its own; the first one's delivery is a week old and no longer listed.
    assert len({headers["webhook-id"] for headers, _ in ops.got}) == 2
    assert [it["alert"] for it in bench.deliveries() if it["type"] == "review.weekly"] == [f"review:{week}"]
