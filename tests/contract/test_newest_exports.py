"""The queries' choice of exports (infra/queries/newest.sql), asked of a small database that says where a row lies."""

from __future__ import annotations

import re
import sqlite3
from pathlib import Path

import pytest

QUERY = Path(__file__).resolve().parents[2] / "infra/queries/newest.sql"
DAYS = {"cost_and_usage": True, "invoice_detail": False, "billing_period": False}


@pytest.fixture
def lake():
    base = sqlite3.connect(":memory:")
    base.execute("ATTACH ':memory:' AS books")
    base.create_function("regexp_extract", 3, extracted)
    for table in DAYS:
        base.execute(f'CREATE TABLE books.{table} ("$path", workspace, billing_period, charge_day, usd)')
    yield base
    base.close()


def extracted(text: str, pattern: str, group: int) -> str | None:
    found = re.search(pattern, text)
    return found.group(group) if found else None


def write(lake, number: int, table: str, month: str, *rows: tuple[str, int], workspace: str = "ws_a"):
    for day, usd in rows:
        cut = f"/charge_day={day}" if DAYS[table] else ""
        path = f"s3://b/export/v1/{workspace}/focus_1_4/{table}/billing_period={month}{cut}/part-r{number:05}-ab.parquet"
        lake.execute(f"INSERT INTO books.{table} VALUES (?, ?, ?, ?, ?)", (path, workspace, month, day, usd))


def newest(lake, table: str, filter: str = "true") -> list[tuple[str, int]]:
    text = QUERY.read_text()
    for name, value in {"database": "books", "dataset": table, "filter": filter}.items():
        text = text.replace("${" + name + "}", value)
    assert "${" not in text
    return lake.execute(f"SELECT charge_day, usd FROM {text} ORDER BY 1, 2").fetchall()


def test_what_the_newest_export_leaves_out_does_not_count(lake):
    # A correction of October is booked in November, and taken back before the second export.
    write(lake, 1, "cost_and_usage", "2026-11", ("2026-10-15", -10), ("2026-10-15", 12), ("2026-11-02", 5))
    write(lake, 1, "invoice_detail", "2026-11", ("", 5))
    write(lake, 1, "billing_period", "2026-11", ("", 0))
    assert newest(lake, "cost_and_usage") == [("2026-10-15", -10), ("2026-10-15", 12), ("2026-11-02", 5)]
    write(lake, 2, "cost_and_usage", "2026-11", ("2026-11-02", 6))
    # Until its last file is there, the second export does not count at all.
    assert sum(usd for _, usd in newest(lake, "cost_and_usage")) == 7
    write(lake, 2, "billing_period", "2026-11", ("", 0))
    assert newest(lake, "cost_and_usage") == [("2026-11-02", 6)]
    assert newest(lake, "invoice_detail") == []
    assert newest(lake, "billing_period") == [("", 0)]


def test_months_and_workspaces_have_exports_of_their_own(lake):
    for number, month, workspace in [(10, "2026-10", "ws_a"), (9, "2026-11", "ws_a"), (3, "2026-11", "ws_b")]:
        write(lake, number, "cost_and_usage", month, (f"{month}-01", number), workspace=workspace)
        write(lake, number, "billing_period", month, ("", 0), workspace=workspace)
    assert [usd for _, usd in newest(lake, "cost_and_usage")] == [10, 3, 9]
    of_one = "c.workspace = 'ws_a' AND c.billing_period = '2026-11'"
    assert newest(lake, "cost_and_usage", of_one) == [("2026-11-01", 9)]
