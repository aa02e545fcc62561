"""`make bench-pages`: how long each page of the dashboard takes against a large ledger, and how that grows.

The Ledger's file is filled natively by the Ledger's own code, and planted where the runtime keeps the object. What is
timed is a request on a connection that is open, from its first byte sent to its last byte read, one at a time.
"""

from __future__ import annotations

import gzip
import http.client
import os
import re
import subprocess
import sys
import tempfile
import time
import urllib.parse
from datetime import datetime, timedelta, timezone
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "support"))

from gateway import BUILD, ROOT, Gateway, call, new_secrets  # noqa: E402

FILL = ROOT / "target" / "tools" / "examples" / "fill_ledger"
WORKSPACE = "ws_bench"
#: The whole: 10,000,000 requests, of which a Ledger keeps 1,000,000 one by one, and 100,000 rows of sums.
EVENTS, ROLLUPS = 1_000_000, 100_000
SIZES = [float(size) for size in os.environ.get("SIZES", "0.1 0.33 1").split()]
TIMES = int(os.environ.get("TIMES", "50"))
AIM_MS = 300
ASSETS_AIM = 400_000
#: Beside the pages of the menu: the same pages asked otherwise.
QUERIES = [
    "/dashboard/usage?by=feature&team=team-3",
    "/dashboard/usage?by=user",
    "/dashboard/requests?team=team-3",
    "/dashboard/requests?outcome=refused",
    "/dashboard/requests?team=nobody-has-this-name",
    "/dashboard/reconciliation?by=provider,model",
    "/dashboard/statements?by=team",
    "/dashboard/budgets/all",
]


class Visitor:
    """A signed-in browser on one open connection."""

    def __init__(self, gateway: Gateway, token: str):
        self.connection = http.client.HTTPConnection("127.0.0.1", gateway.port, timeout=120)
        self.headers = {}
        form = urllib.parse.urlencode({"token": token})
        origin = {"origin": gateway.url, "content-type": "application/x-www-form-urlencoded"}
        self.connection.request("POST", "/dashboard/sign-in", form, origin)
        answer = self.connection.getresponse()
        answer.read()
        assert answer.status == 303, answer.status
        self.headers = {"cookie": answer.headers["set-cookie"].split(";")[0]}

    def get(self, path: str) -> tuple[int, str, float]:
        """Status, body and milliseconds."""
        began = time.perf_counter()
        self.connection.request("GET", path, headers=self.headers)
        answer = self.connection.getresponse()
        body = answer.read()
        return answer.status, body.decode(), (time.perf_counter() - began) * 1000


def furnish(gateway: Gateway) -> str:
    """A workspace with a budget, whose clock stands in the last week of next month: its admin token."""
    now = datetime.now(timezone.utc)
    at = (now.replace(day=1) + timedelta(days=32)).replace(day=25, hour=1, minute=0, second=0, microsecond=0)
    ms = int((at - now).total_seconds() * 1000)
    # The workspace is older than the month: the pages ask the months before it too.
    status, created = gateway.admin("POST", "/workspaces", {"id": WORKSPACE, "name": "Bench"})
    assert status == 201, created
    call("POST", f"{gateway.url}/_test/advance?ms={ms}")
    budget = {"scope": {"dimension": "workspace"}, "owner": "ann", "limit_usd": "100000", "window": "month"}
    status, answer = gateway.admin("PUT", f"/workspaces/{WORKSPACE}/budgets/all", budget)
    assert status < 300, answer
    return created["admin_token"]["token"]


def ledger_file(gateway: Gateway, month: str) -> Path:
    """The file of a month's Ledger, which a question makes."""
    folder = gateway.home / "state" / "tallygate-ledger"
    before = set(folder.glob("*.sqlite")) if folder.exists() else set()
    status, _ = gateway.admin("GET", f"/workspaces/{WORKSPACE}/statements?month={month}")
    assert status == 200
    (made,) = set(folder.glob("*.sqlite")) - before
    return made


def fill(file: Path, first: datetime, last: datetime, size: float) -> None:
    ms = [str(int(at.timestamp() * 1000)) for at in (first, last)]
    amounts = [str(int(EVENTS * size)), str(int(ROLLUPS * size))]
    began = time.monotonic()
    subprocess.run([FILL, file, *ms, *amounts], check=True)
    print(
        f"==> {int(EVENTS * size * 10):,} requests, {int(EVENTS * size):,} of them one by one, {int(ROLLUPS * size):,} "
        f"sums: {file.stat().st_size / 1e9:.2f} GB in {time.monotonic() - began:.0f} s",
        flush=True,
    )


def pages_of(visitor: Visitor) -> list[str]:
    """The menu's pages, one request, and the questions above."""
    _, home, _ = visitor.get("/dashboard")
    menu = re.search(r"<nav.*?</nav>", home, re.S).group(0)
    pages = re.findall(r'href="(/dashboard[^"]*)"', menu)
    _, requests, _ = visitor.get("/dashboard/requests")
    one = re.search(r'href="(/dashboard/requests/req_[^"]*)"', requests)
    return pages + ([one.group(1)] if one else []) + QUERIES


def measure(visitor: Visitor, path: str) -> tuple[float, float]:
    """The median and the 95th percentile, in milliseconds."""
    taken = []
    for _ in range(TIMES + 2):
        status, body, ms = visitor.get(path)
        assert status in (200, 404), (path, status, body[:300])
        taken.append(ms)
        # A page that is far too slow has shown it.
        if sum(taken) > 20_000:
            break
    # The first two warm up.
    taken = sorted(taken[2:] or taken)
    return taken[len(taken) // 2], taken[min(len(taken) - 1, len(taken) * 95 // 100)]


def run(size: float) -> dict[str, tuple[float, float]]:
    with tempfile.TemporaryDirectory(prefix="tallygate-pages-", dir=os.environ.get("BENCH_DIR")) as home:
        settings = new_secrets() | {"TALLYGATE_FAULTS": "on"}
        gateway = Gateway(home=Path(home), settings=settings).start()
        try:
            token = furnish(gateway)
            month = datetime.now(timezone.utc).replace(day=1, hour=0, minute=0, second=0, microsecond=0)
            first = (month + timedelta(days=32)).replace(day=1)
            file = ledger_file(gateway, f"{first:%Y-%m}")
        finally:
            gateway.stop()
        fill(file, first, first.replace(day=25), size)
        gateway = Gateway(home=Path(home), settings=settings).start()
        try:
            # The clock starts anew with the process.
            now = datetime.now(timezone.utc)
            ms = int((first.replace(day=25, hour=1) - now).total_seconds() * 1000)
            call("POST", f"{gateway.url}/_test/advance?ms={ms}")
            visitor = Visitor(gateway, token)
            return {path: measure(visitor, path) for path in pages_of(visitor)}
        finally:
            gateway.stop()


def assets() -> int:
    """The bytes of all static files, compressed."""
    files = [file for file in (BUILD / "assets").rglob("*") if file.is_file() and file.name != "_headers"]
    return sum(len(gzip.compress(file.read_bytes(), 9)) for file in files)


def main() -> int:
    results = {size: run(size) for size in SIZES}
    paths = list(results[SIZES[-1]])
    print(f"\nServer time of a page in ms, {TIMES} times each: median and 95th percentile")
    print(f"{'':60}" + "".join(f"{int(size * 10_000_000):>18,}" for size in SIZES) + "    growth")
    slow = []
    for path in paths:
        cells = [results[size].get(path) for size in SIZES]
        shown = "".join(f"{c[0]:>9.0f}{c[1]:>9.0f}" if c else f"{'':18}" for c in cells)
        known = [cell for cell in cells if cell]
        growth = known[-1][0] / known[0][0] if len(known) > 1 else 1
        name = re.sub(r"req_[0-9a-f]+", "req_...", path)
        print(f"{name:60}{shown}{growth:>9.1f}x")
        if cells[-1][1] >= AIM_MS:
            slow.append(name)
    total = assets()
    print(f"\nStatic files, compressed: {total / 1000:.0f} KB (aim: below {ASSETS_AIM // 1000} KB)")
    print(f"Pages over {AIM_MS} ms at the 95th percentile: {', '.join(slow) or 'none'}")
    return 1 if slow or total >= ASSETS_AIM else 0


if __name__ == "__main__":
    sys.exit(main())
