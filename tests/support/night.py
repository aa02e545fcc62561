"""The reconciler beside a gateway: its configuration, and nights."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta, timezone
from decimal import Decimal
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from bills import Bills  # noqa: E402
from gateway import ROOT, call  # noqa: E402
from signing import Signer  # noqa: E402

BINARY = Path(os.environ.get("TALLYGATE_RECONCILER", ROOT / "target" / "debug" / "reconciler"))


@dataclass
class Night:
    """A workspace's books in a directory, and the reconciler that keeps them."""

    workspace: object
    bills: Bills
    home: Path
    days: int = 2
    sources: list[dict] = field(default_factory=list)
    more: dict = field(default_factory=dict)
    env: dict[str, str] = field(default_factory=dict)
    storage: dict | None = None

    def __post_init__(self):
        self.signer = Signer(self.workspace)
        self.advance(0)
        if not self.sources:
            self.sources = [self.openai(), self.anthropic()]

    def openai(self, **fields) -> dict:
        return {
            "connector": "openai",
            "base_url": self.bills.base_url("openai"),
            "account": "org-sim",
            "admin_key": {"$env": "SIM_OPENAI_ADMIN"},
            **fields,
        }

    def anthropic(self, **fields) -> dict:
        return {
            "connector": "anthropic",
            "base_url": self.bills.base_url("anthropic"),
            "account": "org-sim",
            "admin_key": {"$env": "SIM_ANTHROPIC_ADMIN"},
            "report": "analytics",
            **fields,
        }

    @property
    def config(self) -> Path:
        path = self.home / "reconciler.json"
        document = {
            "storage": self.storage or {"local": {"directory": str(self.home / "books")}},
            "reread_days": min(3, self.days),
            "workspaces": [
                {
                    "id": self.workspace.id,
                    "edge": {
                        "url": self.workspace.gateway.url,
                        "key_id": self.signer.kid,
                        "secret": {"$env": "EDGE_SECRET"},
                    },
                    "sources": self.sources,
                    **self.more,
                }
            ],
        }
        path.write_text(json.dumps(document, indent=2))
        return path

    def advance(self, days: int = 1) -> None:
        """Moves the gateway's clock, and with it those of the simulator and of the reconciler."""
        status, answer = call("POST", f"{self.workspace.gateway.url}/_test/advance?ms={days * 86_400_000}")
        assert status == 200
        self.shift = timedelta(milliseconds=answer["now"]) - timedelta(seconds=time.time())
        self.bills.set_clock(self.now.replace(microsecond=0))

    @property
    def now(self) -> datetime:
        return datetime.now(timezone.utc) + self.shift

    @property
    def today(self) -> date:
        return self.now.date()

    def arguments(self, *command: str) -> list[str]:
        now = self.now.strftime("%Y-%m-%dT%H:%M:%SZ")
        return [str(BINARY), "--config", str(self.config), "--now", now, *command]

    @property
    def environment(self) -> dict[str, str]:
        return os.environ | {
            "EDGE_SECRET": self.signer.secret,
            "SIM_OPENAI_ADMIN": self.bills.admin_key("openai"),
            "SIM_ANTHROPIC_ADMIN": self.bills.admin_key("anthropic"),
            "TMPDIR": str(self.home),
            **self.env,
        }

    def run(self, *command: str, patience: float = 120) -> subprocess.CompletedProcess:
        return subprocess.run(
            self.arguments(*command), env=self.environment, capture_output=True, text=True, timeout=patience
        )

    def night(self, *command: str) -> dict:
        """A night; its report of the workspace, with the status of the whole."""
        done = self.run("--json", *(command or ("reconcile", "--days", str(self.days))))
        assert done.returncode in (0, 1), done.stderr
        report = json.loads(done.stdout)
        assert self.workspace.id in report["workspaces"], report
        return report["workspaces"][self.workspace.id] | {"status": report["status"], "code": done.returncode}

    def true_ups(self, query: str = "") -> dict[tuple, dict]:
        """The edge's true-ups by group."""
        data = self.workspace.admin("GET", f"/true-ups{query}")["data"]
        return {tuple(row["group"].values()): row["sums"] for row in data}


def difference(provider: dict) -> Decimal:
    return Decimal(provider["ledger"]) - Decimal(provider["billed"])
