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
from gateway import BUILD, ROOT, WORKERD, Gateway, Simulator, call, free_port, new_secrets, stop  # noqa: E402

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


def measure(process, port, tokens, body, connections) -> dict:
    before = cpu_seconds(process)
    command = [
        LOAD, "--address", f"127.0.0.1:{port}", "--path", "/v1/chat/completions",
        "--body", json.dumps(body), "--connections", str(connections), "--milliseconds", str(MILLISECONDS),
    ]  # fmt: skip
    for token in tokens if isinstance(tokens, list) else [tokens]:
        command += ["--token", token]
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


def compare(subjects: dict, case: str, connections: int, aims: dict = AIMS, title: str = "") -> None:
    rounds = {name: [] for name in subjects}
    # The runtime compiles hot code while it runs: the first round of each is not counted.
    for process, port, token in subjects.values():
        measure(process, port, token, CASES[case], connections)
    for _ in range(ROUNDS):
        for name, (process, port, token) in subjects.items():
            rounds[name].append(measure(process, port, token, CASES[case], connections))
    failed = sum(r["failed"] for results in rounds.values() for r in results)
    plural = "s" if connections > 1 else ""
    print(f"\n{title or case}, {connections} connection{plural}" + (f", {failed} FAILED" if failed else ""))
    for what, unit in (("p50", "ms"), ("p99", "ms"), ("rps", "/s"), ("cpu", "us")):
        a, b = (statistics.median(r[what] for r in rounds[name]) for name in subjects)
        label = {"cpu": "CPU a request", "rps": "requests"}.get(what, what)
        if what == "cpu" and case != "JSON":
            label, a, b = "CPU a chunk", a / CHUNKS, b / CHUNKS
        aim = aims.get((case, what, connections))
        note = f"   aim {aim}" if aim else ""
        print(f"  {label:14} {a:10.2f} {b:10.2f} {unit:3} b/a {b / a if a else 0:6.2f}{note}")


class Bench:
    """The workspace of the benchmark, and keys in it."""

    def __init__(self, admin: Admin, policy: dict):
        self.admin, self.policy, self.count = admin, policy, 0

    def key(self, policy: dict | None = None, **fields) -> dict:
        self.count += 1
        words = dict.fromkeys(("owner", "cost_centre", "purpose", "environment"), "b")
        body = {"name": f"bench-{self.count}", "policy": policy or self.policy, **words, **fields}
        return self.admin("POST", "/workspaces/ws_bench/keys", body)

    def keys(self, count: int, **fields) -> list[dict]:
        return [self.key(**fields) for _ in range(count)]

    def subject(self, *keys: dict) -> tuple:
        gateway = self.admin.gateway
        return gateway.process, gateway.port, [key["key"] for key in keys]

    def budget(self, name: str, dimension: str, **terms) -> None:
        scope = {"dimension": dimension, **({} if dimension == "workspace" else {"value": "*"})}
        terms = {"scope": scope, "owner": "b", "limit_usd": "1000000", **terms}
        self.admin("PUT", f"/workspaces/ws_bench/budgets/{name}", terms)

    def state(self, key: dict) -> dict:
        return self.admin("GET", f"/workspaces/ws_bench/keys/{key['id']}/state")


def isolate_leases(bench: Bench, through: tuple) -> None:
    """What a Worker saves that admits a busy key's requests itself."""
    policy = {name: value for name, value in bench.policy.items() if name not in ("immediate", "max_concurrency")}
    off, on = bench.key(), bench.key(policy)
    for connections in (1, 32):
        compare({"a": bench.subject(off), "b": bench.subject(on)}, "JSON", connections, {},
                "Isolate leases: (a) off (b) on; JSON")  # fmt: skip
    aims = {("JSON", "cpu", 32): 2.0}
    compare({"a": through, "b": bench.subject(on)}, "JSON", 32, aims,
            "Isolate leases: (a) a Worker that passes requests on (b) Tallygate, leases on; JSON")  # fmt: skip
    state = bench.state(on)
    print(f"  {state['events']} requests, {state['admitted_here']} of them admitted by the Meter")


ACTOR = {"team": "t", "app": "a", "feature": "f", "customer": "c"}


def shared_budgets(bench: Bench) -> None:
    """A request under five shared budgets against one under none."""
    for dimension in ("team", "app", "feature", "customer"):
        bench.budget(f"by-{dimension}", dimension, window="month", time_zone="Europe/Berlin")
    bench.budget("by-environment", "environment", scope={"dimension": "environment", "value": "measured"})
    # A key without an actor is nobody's under these budgets.
    none = bench.key()
    five = bench.key(actor=ACTOR, environment="measured")
    for connections in (1, 32):
        aims = {("JSON", "p50", connections): 1.15}
        compare({"a": bench.subject(none), "b": bench.subject(five)}, "JSON", connections, aims,
                "Shared budgets: (a) none (b) five; JSON")  # fmt: skip
    state = bench.state(five)
    calls = state["budget_calls"] / max(state["events"], 1)
    print(f"  budget calls a request: {calls:.4f} (all five together; aim: under 0.05)")


def hot_spots(bench: Bench) -> None:
    """Admitted requests per second: one key, and one budget under many keys."""
    bench.budget("hot", "app")
    one = bench.subject(bench.key(actor={"app": "hot"}))
    fifty = bench.subject(*bench.keys(50, actor={"app": "hot"}))
    compare({"a": one, "b": fifty}, "JSON", 50, {}, "Hot: (a) one key (b) one budget under 50 keys; JSON")


def growth(bench: Bench) -> None:
    """How cost grows with the number of keys under a budget, of budgets and of windows that it has been through."""
    print("\nGrowth: JSON, 32 connections")
    for count in (1, 10, 100):
        keys = bench.keys(count, actor={"app": f"grown-{count}"})
        grown(bench, f"{count} keys under one budget", keys)
    for count in (1, 5, 20):
        for number in range(count):
            bench.budget(f"grown-{count}-{number}", "customer", scope={"dimension": "customer", "value": f"many-{count}"})
        grown(bench, f"{count} budgets over one key", [bench.key(actor={"customer": f"many-{count}"})])
    key = bench.key(actor={"feature": "days"})
    bench.budget("days", "feature", window="day")
    for days in (0, 30, 60):
        for _ in range(days and 30):
            call("POST", f"{bench.admin.gateway.url}/_test/advance?ms=86400000")
            measure_ms(bench.subject(key), 20)
        grown(bench, f"{days} earlier windows", [key])


def measure_ms(subject: tuple, milliseconds: int) -> None:
    """A handful of requests, not counted."""
    process, port, tokens = subject
    command = [LOAD, "--address", f"127.0.0.1:{port}", "--path", "/v1/chat/completions", "--token", tokens[0],
               "--body", json.dumps(CASES["JSON"]), "--milliseconds", str(milliseconds)]  # fmt: skip
    subprocess.run(command, check=True, capture_output=True)


def grown(bench: Bench, what: str, keys: list[dict]) -> None:
    subject = bench.subject(*keys)
    measure(*subject, CASES["JSON"], 32)
    rounds = [measure(*subject, CASES["JSON"], 32) for _ in range(ROUNDS)]
    p50, cpu, rps = (statistics.median(r[name] for r in rounds) for name in ("p50", "cpu", "rps"))
    failed = sum(r["failed"] for r in rounds)
    print(f"  {what:34} p50 {p50:7.2f} ms   CPU {cpu:7.0f} us   {rps:7.0f} /s" + (f"   {failed} FAILED" if failed else ""))


def main() -> int:
    print(f"(a) a Worker that passes requests on   (b) Tallygate, each request at its Meter   medians of {ROUNDS} interleaved rounds")
    wasm = (BUILD / "edge_bg.wasm").read_bytes()
    print(f"wasm: {len(wasm) / 1024:.0f} KB, compressed {len(gzip.compress(wasm, 9)) / 1024:.0f} KB (aim: under 600)")
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        simulator = Simulator().start()
        started = time.monotonic()
        settings = new_secrets() | {"TALLYGATE_FAULTS": "on"}
        gateway = Gateway(home=home, settings=settings).start()
        print(f"start-up to the first answer: {(time.monotonic() - started) * 1000:.0f} ms")
        process, port = passthrough(home, simulator)
        try:
            admin = Admin(gateway)
            admin("POST", "/workspaces", {"id": "ws_bench", "name": "Bench"})
            provider = {"name": "openai", "kind": "openai", "base_url": f"{simulator.url}/openai/v1"}
            admin("POST", "/workspaces/ws_bench/providers", {**provider, "credential": CREDENTIAL})
            policy = {
                "immediate": True,
                "models": {"allow": ["gpt-*"]},
                "requests_per_minute": 10_000_000,
                "max_concurrency": 1000,
                "spend_caps": [{"window": "day", "limit_usd": "100000"}],
            }
            bench = Bench(admin, policy)
            through = (process, port, "tg_unused")
            subjects = {"a": through, "b": bench.subject(bench.key())}
            for case in CASES:
                for connections in (1, 32):
                    compare(subjects, case, connections)
            isolate_leases(bench, through)
            shared_budgets(bench)
            hot_spots(bench)
            growth(bench)
        finally:
            stop(process)
            gateway.stop()
            simulator.stop()
    return 0


if __name__ == "__main__":
    sys.exit(main())
