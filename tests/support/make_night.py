"""`make night`: reconciles what `make run` served with the simulator's bills, on local disk, and shows that they agree."""

from __future__ import annotations

import json
import subprocess
import sys
import urllib.error
import urllib.request
from datetime import datetime, timedelta, timezone

from gateway import ROOT

CONFIG = ROOT / ".dev" / "reconciler.json"
BINARY = ROOT / "target" / "night" / "debug" / "reconciler"


def main() -> int:
    if not CONFIG.exists():
        print("Nothing runs here yet. Start the gateway with `make run`, send it some requests, then come back.")
        return 1
    url = json.loads(CONFIG.read_text())["workspaces"][0]["edge"]["url"]
    try:
        urllib.request.urlopen(f"{url}/healthz", timeout=5).close()
    except (urllib.error.URLError, OSError):
        print(f"The gateway does not answer at {url}. Start it with `make run` in another terminal.")
        return 1
    now = datetime.now(timezone.utc)
    # A real night ends with yesterday. Here the day that is not over counts too: its bill is provisional.
    first, last = (now - timedelta(days=6)).date(), now.date()
    days = ["--from", first.isoformat(), "--to", last.isoformat()]
    code = subprocess.run([BINARY, "--config", CONFIG, "backfill", *days], check=False).returncode
    export = [BINARY, "--config", CONFIG, "export", "--directory", CONFIG.with_name("export"), "--month"]
    for month in sorted({first.isoformat()[:7], last.isoformat()[:7]}):
        code = subprocess.run([*export, month], check=False).returncode or code
    print("The exports are in .dev/export, and on the page Reconciliation of the dashboard.")
    print("The books are in .dev/books. `ledger - bill` is 0 where every cent of the bill has its owner.")
    print("The same in the gateway: curl -H \"authorization: Bearer $TALLYGATE_ADMIN_TOKEN\" \\")
    print(f'    "{url}/api/v1/workspaces/ws_dev/true-ups?group_by=provider,model"')
    return code


if __name__ == "__main__":
    sys.exit(main())
