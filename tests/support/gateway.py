"""Starts the gateway on the plain Workers runtime, and the provider simulator beside it.

Used by `make run`, by the tests and by the benchmark. Standard library only.
"""

from __future__ import annotations

import base64
import json
import os
import secrets
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
BUILD = ROOT / "build"
WORKERD = ROOT / "node_modules" / ".bin" / "workerd"
BUCKET = Path(__file__).with_name("bucket.mjs")
SIMULATOR = ROOT / "target" / "tools" / "tallygate-simulator"
COMPATIBILITY_DATE = "2026-11-01"
OBJECTS = ["Alerts", "Telemetry", "Meter", "Budget", "Workspace", "Ledger", "Directory"]
SETTINGS = [
    "TALLYGATE_KEY_RING",
    "TALLYGATE_OPERATOR_TOKEN",
    "TALLYGATE_FAULTS",
    "TALLYGATE_ALLOW_PRIVATE_DELIVERY",
    "TALLYGATE_ACCESS_TEAM_DOMAIN",
    "TALLYGATE_ACCESS_AUD",
    "TALLYGATE_KEPT_EVENTS",
    "TALLYGATE_OIDC_ISSUER",
    "TALLYGATE_OIDC_CLIENT_ID",
    "TALLYGATE_OIDC_CLIENT_SECRET",
]


class NotReady(Exception):
    """Something did not start; the text says what and why."""


def free_port() -> int:
    """A port of this machine that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def demand_free(port: int, setting: str) -> None:
    """Says what to do when something listens on a port already; its answers would be taken for ours."""
    with socket.socket() as probe:
        if probe.connect_ex(("127.0.0.1", port)) == 0:
            raise NotReady(
                f"Something listens on port {port} already. Stop it, or choose another port: "
                f"{setting}={port + 1000} make run"
            )


def new_secrets() -> dict[str, str]:
    """Fresh secrets for a gateway of one's own."""
    key = base64.b64encode(secrets.token_bytes(32)).decode()
    return {
        "TALLYGATE_KEY_RING": f"k1:{key}",
        "TALLYGATE_OPERATOR_TOKEN": f"tgo_{secrets.token_hex(24)}",
    }


def call(
    method: str, url: str, body: object = None, token: str | None = None, timeout: float = 30
) -> tuple[int, object]:
    """One JSON call; returns the status and the answer."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data=data, method=method)
    request.add_header("content-type", "application/json")
    if token:
        request.add_header("authorization", f"Bearer {token}")
    try:
        with urllib.request.urlopen(request, timeout=timeout) as answer:
            status, text = answer.status, answer.read()
    except urllib.error.HTTPError as error:
        status, text = error.code, error.read()
    try:
        return status, json.loads(text) if text else None
    except ValueError:
        return status, text.decode(errors="replace")


def wait_for(url: str, process: subprocess.Popen, what: str, log: Path | None = None) -> None:
    """Waits until `url` answers 200, or says why it will not."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        if process.poll() is not None:
            tail = log.read_text(errors="replace")[-2000:] if log and log.exists() else ""
            raise NotReady(f"{what} ended with code {process.returncode}.\n{tail}")
        try:
            with urllib.request.urlopen(url, timeout=1) as answer:
                if answer.status == 200:
                    return
        except (urllib.error.URLError, ConnectionError, TimeoutError, OSError):
            time.sleep(0.03)
    raise NotReady(f"{what} did not answer at {url} within 30 seconds")


def stop(process: subprocess.Popen | None, patience: float = 3) -> None:
    """Ends a process: politely, then not."""
    if process is None or process.poll() is not None:
        return
    process.terminate()
    try:
        process.wait(patience)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


@dataclass
class Simulator:
    """The provider simulator."""

    port: int = field(default_factory=free_port)
    seed: int = 1
    #: Where it keeps what it bills; nowhere, and it forgets it when it ends.
    kept_in: Path | None = None
    process: subprocess.Popen | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> Simulator:
        if not SIMULATOR.exists():
            raise NotReady("The simulator is not built. Run `make simulator`.")
        demand_free(self.port, "SIMULATOR_PORT")
        arguments = [SIMULATOR, "--port", str(self.port), "--seed", str(self.seed)]
        if self.kept_in:
            self.kept_in.parent.mkdir(parents=True, exist_ok=True)
            arguments += ["--books", self.kept_in]
        self.process = subprocess.Popen(arguments, stdout=subprocess.DEVNULL, start_new_session=True)
        wait_for(f"{self.url}/_sim/health", self.process, "The simulator")
        return self

    def stop(self) -> None:
        stop(self.process)

    def books(self, credential: str | None = None, limit: int = 100_000) -> dict:
        query = f"?limit={limit}" + (f"&credential={credential}" if credential else "")
        status, books = call("GET", f"{self.url}/_sim/books{query}")
        assert status == 200, books
        return books

    def script(self, *steps: dict, credential: str | None = None, repeat: bool = False) -> None:
        body = {"steps": list(steps), "repeat": repeat}
        if credential:
            body["credential"] = credential
        status, answer = call("POST", f"{self.url}/_sim/script", body)
        assert status < 300, answer

    def reset(self) -> None:
        call("POST", f"{self.url}/_sim/reset")


def config_text(home: Path, port: int, archive: bool) -> str:
    """The runtime's configuration: the same modules, objects and settings as `wrangler.toml` deploys."""
    modules = []
    for file in sorted(BUILD.glob("*.mjs")) + [BUILD / "edge.js", BUILD / "edge_bg.wasm"]:
        kind = "wasm" if file.suffix == ".wasm" else "esModule"
        # An embedded file is looked up from the folder of the configuration.
        path = os.path.relpath(file, home)
        modules.append(f'(name = "{file.name}", {kind} = embed "{path}")')
    # The first module is the one that the runtime enters.
    modules.sort(key=lambda module: '"entry.mjs"' not in module)
    objects = [
        f'(className = "{name}", uniqueKey = "tallygate-{name.lower()}", enableSql = true)'
        for name in OBJECTS
    ]
    bindings = [f'(name = "{name.upper()}", durableObjectNamespace = "{name}")' for name in OBJECTS]
    bindings += [f'(name = "{name}", fromEnvironment = "{name}")' for name in SETTINGS]
    bindings.append('(name = "ASSETS", service = "assets")')
    services = [
        "(name = \"gateway\", worker = .gateway)",
        "(name = \"internet\", network = (\n"
        "      allow = [\"public\", \"private\", \"local\"], tlsOptions = (trustBrowserCas = true)))",
        disk("state", home / "state"),
        f'(name = "assets", disk = (path = "{BUILD / "assets"}"))',
    ]
    if archive:
        bucket = os.path.relpath(BUCKET, home)
        bindings.append('(name = "ARCHIVE", r2Bucket = "bucket")')
        services.append(disk("files", home / "archive"))
        services.append(
            f"""(name = "bucket", worker = (
      modules = [(name = "bucket.mjs", esModule = embed "{bucket}")],
      compatibilityDate = "{COMPATIBILITY_DATE}",
      bindings = [(name = "FILES", service = "files")]))"""
        )
    comma = ",\n    "
    return f"""using Workerd = import "/workerd/workerd.capnp";

const config :Workerd.Config = (
  services = [
    {comma.join(services)}
  ],
  sockets = [(name = "http", address = "127.0.0.1:{port}", http = (), service = "gateway")],
);

const gateway :Workerd.Worker = (
  modules = [
    {comma.join(modules)}
  ],
  compatibilityDate = "{COMPATIBILITY_DATE}",
  compatibilityFlags = ["enable_request_signal"],
  bindings = [
    {comma.join(bindings)}
  ],
  durableObjectNamespaces = [
    {comma.join(objects)}
  ],
  durableObjectStorage = (localDisk = "state"),
);
"""


def disk(name: str, path: Path) -> str:
    """A directory that the runtime may write to."""
    path.mkdir(parents=True, exist_ok=True)
    return f'(name = "{name}", disk = (path = "{path}", writable = true))'


@dataclass
class Gateway:
    """The gateway, with its state in `home`."""

    home: Path
    settings: dict[str, str] = field(default_factory=new_secrets)
    port: int = field(default_factory=free_port)
    process: subprocess.Popen | None = None
    # Whether the gateway has an archive: a bucket whose objects are files in `home`. It is a Worker of its own, which a
    # runtime that is started again and again has to load as often.
    archive: bool = False

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def log(self) -> Path:
        return self.home / "gateway.log"

    def start(self) -> Gateway:
        if not (BUILD / "edge_bg.wasm").exists():
            raise NotReady("The Worker is not built. Run `make build`.")
        demand_free(self.port, "PORT")
        self.home.mkdir(parents=True, exist_ok=True)
        config = self.home / "workerd.capnp"
        config.write_text(config_text(self.home, self.port, self.archive))
        defaults = {"TALLYGATE_FAULTS": "off", "TALLYGATE_ALLOW_PRIVATE_DELIVERY": "off"}
        defaults |= {"TALLYGATE_ACCESS_TEAM_DOMAIN": "", "TALLYGATE_ACCESS_AUD": "", "TALLYGATE_KEPT_EVENTS": ""}
        defaults |= {name: "" for name in SETTINGS if name.startswith("TALLYGATE_OIDC_")}
        environment = {**os.environ, **defaults, **self.settings}
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [WORKERD, "serve", config],
                stdout=log,
                stderr=log,
                env=environment,
                start_new_session=True,
            )
        wait_for(f"{self.url}/healthz", self.process, "The gateway", self.log)
        return self

    def stop(self) -> None:
        stop(self.process)

    def kill(self) -> None:
        """Pulls the plug: SIGKILL, as a crash would."""
        if self.process:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()

    def admin(self, method: str, path: str, body: object = None, token: str | None = None):
        """One call of the admin API; as the operator unless another token is given."""
        token = token or self.settings["TALLYGATE_OPERATOR_TOKEN"]
        return call(method, f"{self.url}/api/v1{path}", body, token)
