"""`make bench`: Tallygate beside a Worker that only passes requests on. One machine, one run, plain workerd.

Rounds of both are interleaved, and medians are compared: the machine's noise then falls on both. CPU is the runtime's own.
"""

from __future__ import annotations

import gzip
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "support"))

from dev import Admin  # noqa: E402
from gateway import BUILD, ROOT, WORKERD, Gateway, Simulator, free_port, stop  # noqa: E402

LOAD = ROOT / "target" / "tools" / "tallygate-load"
ROUNDS = int(os.environ.get("ROUNDS", "5"))
MILLISECONDS = int(os.environ.get("MILLISECONDS", "1500"))
CHUNKS = 200
CREDENTIAL = "sk-sim-bench"
TICK = os.sysconf("SC_CLK_TCK")
ASK = {"model": "gpt-6-luna", "messages": [{"role": "user", "content": "Say something. " * 50}]}
CASES = {
    "JSON": {**ASK, "sim": {"text": "word " * 150}},
    "SSE": {**ASK, "stream": True, "sim": {"chunks": CHUNKS, "chunk_delay_ms": 2, "text": "word " * 200}},
    "SSE, usage asked for": {
        **ASK,
        "stream": True,
        "stream_options": {"include_usage": True},
        "sim": {"chunks": CHUNKS, "chunk_delay_ms": 2, "text": "word " * 200},
    },
}
AIMS = {
    ("JSON", "p50", 1): 2.0,
    ("SSE", "p50", 1): 1.3,
    ("JSON", "cpu", 32): 3.5,
    ("SSE", "cpu", 32): 2.1,
}


def passthrough(home: Path, simulator: Simulator) -> tuple[subprocess.Popen, int]:
    port = free_port()
    script = os.path.relpath(ROOT / "tests" / "bench" / "passthrough.mjs", home)
    config = home / "passthrough.capnp"
    config.write_text(f"""using Workerd = import "/workerd/workerd.capnp";
const config :Workerd.Config = (
  services = [(name = "pass", worker = .pass),
    (name = "internet", network = (allow = ["public", "private", "local"]))],
  sockets = [(name = "http", address = "127.0.0.1:{port}", http = (), service = "pass")]);
const pass :Workerd.Worker = (
  modules = [(name = "passthrough.mjs", esModule = embed "{script}")],
  compatibilityDate = "2026-11-01",
  bindings = [(name = "UPSTREAM", text = "{simulator.url}/openai"), (name = "CREDENTIAL", text = "{CREDENTIAL}")]);
""")
    process = subprocess.Popen([WORKERD, "serve", config], stderr=subprocess.DEVNULL, start_new_session=True)
    time.sleep(0.5)
    return process, port


def cpu_seconds(process: subprocess.Popen) -> float:
    fields = Path(f"/proc/{process.pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / TICK


def measure(process, port, token, body, connections) -> dict:
    before = cpu_seconds(process)
    command = [
        LOAD, "--address", f"127.0.0.1:{port}", "--path", "/v1/chat/completions", "--token", token,
        "--body", json.dumps(body), "--connections", str(connections), "--milliseconds", str(MILLISECONDS),
    ]  # fmt: skip
    report = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
    # Settlements that follow the last answer belong to this round.
    time.sleep(0.1)
    used = cpu_seconds(process) - before
    requests = max(report["requests"], 1)
    return {
        "p50": report["p50_us"] / 1000,
        "p99": report["p99_us"] / 1000,
        "rps": report["requests"] / report["milliseconds"] * 1000,
        "cpu": used / requests * 1e6,
        "failed": report["failed"],
    }


def compare(subjects: dict, case: str, connections: int) -> None:
    rounds = {name: [] for name in subjects}
    # The runtime compiles hot code while it runs: the first round of each is not counted.
    for process, port, token in subjects.values():
        measure(process, port, token, CASES[case], connections)
    for _ in range(ROUNDS):
        for name, (process, port, token) in subjects.items():
            rounds[name].append(measure(process, port, token, CASES[case], connections))
    failed = sum(r["failed"] for results in rounds.values() for r in results)
    print(f"\n{case}, {connections} connection{'s' if connections > 1 else ''}" + (f", {failed} FAILED" if failed else ""))
    for what, unit in (("p50", "ms"), ("p99", "ms"), ("rps", "/s"), ("cpu", "us")):
        a, b = (statistics.median(r[what] for r in rounds[name]) for name in subjects)
        label = {"cpu": "CPU a request", "rps": "requests"}.get(what, what)
        if what == "cpu" and case != "JSON":
            label, a, b = "CPU a chunk", a / CHUNKS, b / CHUNKS
        aim = AIMS.get((case, what, connections))
        note = f"   aim {aim}" if aim else ""
        print(f"  {label:14} {a:10.2f} {b:10.2f} {unit:3} b/a {b / a if a else 0:6.2f}{note}")


def main() -> int:
    print(f"(a) a Worker that passes requests on   (b) Tallygate   medians of {ROUNDS} interleaved rounds")
    wasm = (BUILD / "edge_bg.wasm").read_bytes()
    print(f"wasm: {len(wasm) / 1024:.0f} KB, compressed {len(gzip.compress(wasm, 9)) / 1024:.0f} KB (aim: under 600)")
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        simulator = Simulator().start()
        started = time.monotonic()
        gateway = Gateway(home=home).start()
        print(f"start-up to the first answer: {(time.monotonic() - started) * 1000:.0f} ms")
        process, port = passthrough(home, simulator)
        try:
            admin = Admin(gateway)
            admin("POST", "/workspaces", {"id": "ws_bench", "name": "Bench"})
            provider = {"name": "openai", "kind": "openai", "base_url": f"{simulator.url}/openai/v1"}
            admin("POST", "/workspaces/ws_bench/providers", {**provider, "credential": CREDENTIAL})
            policy = {
                "models": {"allow": ["gpt-*"]},
                "requests_per_minute": 10_000_000,
                "max_concurrency": 1000,
                "spend_caps": [{"window": "day", "limit_usd": "100000"}],
            }
            key = admin(
                "POST",
                "/workspaces/ws_bench/keys",
                {"name": "bench", "owner": "b", "cost_centre": "b", "purpose": "b", "environment": "b", "policy": policy},
            )
            subjects = {
                "a": (process, port, "tg_unused"),
                "b": (gateway.process, gateway.port, key["key"]),
            }
            for case in CASES:
                for connections in (1, 32):
                    compare(subjects, case, connections)
        finally:
            stop(process)
            gateway.stop()
            simulator.stop()
    return 0


if __name__ == "__main__":
    sys.exit(main())
