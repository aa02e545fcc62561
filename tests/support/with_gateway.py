"""Runs a command beside a fresh gateway and simulator, with the SDKs' environment variables set."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from dev import Admin, prepare
from gateway import Gateway, Simulator


def main() -> int:
    with tempfile.TemporaryDirectory() as home:
        simulator = Simulator().start()
        gateway = Gateway(home=Path(home)).start()
        try:
            known = prepare(Admin(gateway), simulator, {})
            environment = {
                **os.environ,
                "OPENAI_BASE_URL": f"{gateway.url}/v1",
                "OPENAI_API_KEY": known["key"],
                "ANTHROPIC_BASE_URL": gateway.url,
                "ANTHROPIC_API_KEY": known["key"],
            }
            return subprocess.run(sys.argv[1:], env=environment, check=False).returncode
        finally:
            gateway.stop()
            simulator.stop()


if __name__ == "__main__":
    sys.exit(main())
