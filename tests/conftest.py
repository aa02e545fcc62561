"""Fixtures: a running gateway on the Workers runtime with the simulator beside it, and a workspace to test in."""

from __future__ import annotations

import itertools
import json
import sys
import time
import urllib.error
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent / "support"))

from gateway import Gateway, Simulator, call, new_secrets  # noqa: E402

_numbers = itertools.count(1)


@dataclass
class Reply:
    """An answer of the gateway."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> dict:
        return json.loads(self.body)

    @property
    def error(self) -> dict:
        return self.json["error"]

    @property
    def code(self) -> str:
        return self.headers.get("x-tallygate-code", "")

    @property
    def id(self) -> str:
        return self.headers["x-tallygate-request-id"]


@dataclass
class Key:
    """A gateway key, and what one does with it."""

    workspace: Workspace
    id: str
    key: str

    def post(self, path: str, body: object, timeout: float = 30, **headers: str) -> Reply:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        sent = {"content-type": "application/json", "authorization": f"Bearer {self.key}"}
        sent |= {name.replace("_", "-"): value for name, value in headers.items()}
        request = urllib.request.Request(
            self.workspace.gateway.url + path, data=data, headers=sent, method="POST"
        )
        return _send(request, timeout)

    def get(self, path: str) -> Reply:
        request = urllib.request.Request(self.workspace.gateway.url + path)
        request.add_header("authorization", f"Bearer {self.key}")
        return _send(request, 30)

    def chat(self, model: str = "gpt-6-luna", sim: dict | None = None, **fields) -> Reply:
        body = {"model": model, "messages": [{"role": "user", "content": "Hello"}], **fields}
        if sim is not None:
            body["sim"] = sim
        return self.post("/v1/chat/completions", body)

    def messages(self, model: str = "claude-haiku-4-5", sim: dict | None = None, **fields) -> Reply:
        body = {
            "model": model,
            "max_tokens": 1000,
            "messages": [{"role": "user", "content": "Hello"}],
            **fields,
        }
        if sim is not None:
            body["sim"] = sim
        return self.post("/v1/messages", body)

    def event(self, request_id: str, patience: float = 10) -> dict:
        """The record of a request, once it is settled."""
        deadline = time.monotonic() + patience
        while True:
            reply = self.get(f"/v1/requests/{request_id}")
            if reply.status == 200 and reply.json["outcome"] != "in_flight":
                return reply.json
            assert time.monotonic() < deadline, f"{request_id} is not settled: {reply.body!r}"
            time.sleep(0.02)

    def state(self) -> dict:
        return self.workspace.admin("GET", f"/keys/{self.id}/state")

    def admin(self, method: str, path: str = "", body: object = None):
        return self.workspace.admin(method, f"/keys/{self.id}{path}", body)

    def ring(self) -> None:
        """Has the Meter's alarm ring now."""
        status, _ = call("POST", f"{self.workspace.gateway.url}/_test/alarm?key={self.id}")
        assert status == 200


@dataclass
class Workspace:
    """A workspace of its own for a test."""

    gateway: Gateway
    simulator: Simulator
    id: str
    token: str
    credential: str
    keys: list[Key] = field(default_factory=list)

    def raw(self, method: str, path: str, body: object = None, token: str | None = None):
        return self.gateway.admin(method, f"/workspaces/{self.id}{path}", body, token or self.token)

    def admin(self, method: str, path: str, body: object = None):
        status, answer = self.raw(method, path, body)
        assert status < 300, (method, path, status, answer)
        return answer

    def key(self, policy: object = None, **fields) -> Key:
        body = {
            "name": f"key-{next(_numbers)}",
            "owner": "ann",
            "cost_centre": "cc-1",
            "purpose": "tests",
            "environment": "test",
            **fields,
        }
        if policy is not None:
            body["policy"] = policy
        answer = self.admin("POST", "/keys", body)
        self.keys.append(Key(self, answer["id"], answer["key"]))
        return self.keys[-1]

    def provider(self, kind: str, flavour: str | None = None, **fields) -> None:
        paths = {
            "anthropic": "/anthropic",
            "gemini": "/gemini/v1beta/openai",
            "azure": "/azure",
            "cohere": "/cohere/compatibility/v1",
        }
        name = fields.pop("name", kind)
        path = paths.get(kind, f"/{flavour or kind}/v1")
        body = {
            "name": name,
            "kind": kind,
            "base_url": self.simulator.url + path,
            "credential": self.credential,
            **fields,
        }
        self.admin("POST", "/providers", body)

    def books(self) -> dict:
        return self.simulator.books(self.credential)


def _send(request: urllib.request.Request, timeout: float) -> Reply:
    try:
        with urllib.request.urlopen(request, timeout=timeout) as answer:
            headers = {name.lower(): value for name, value in answer.headers.items()}
            return Reply(answer.status, headers, answer.read())
    except urllib.error.HTTPError as error:
        headers = {name.lower(): value for name, value in error.headers.items()}
        return Reply(error.code, headers, error.read())


@pytest.fixture(scope="session")
def simulator():
    simulator = Simulator().start()
    yield simulator
    simulator.stop()


def running_gateway(tmp_path_factory):
    settings = new_secrets() | {"TALLYGATE_FAULTS": "on"}
    gateway = Gateway(home=tmp_path_factory.mktemp("gateway"), settings=settings, archive=True).start()
    yield gateway
    gateway.stop()


@pytest.fixture(scope="session")
def gateway(tmp_path_factory):
    yield from running_gateway(tmp_path_factory)


def new_workspace(gateway: Gateway, simulator: Simulator) -> Workspace:
    number = next(_numbers)
    status, answer = gateway.admin(
        "POST", "/workspaces", {"id": f"ws_test-{number}", "name": f"Test {number}"}
    )
    assert status == 201, answer
    credential = f"sk-sim-{number}"
    token = answer["admin_token"]["token"]
    workspace = Workspace(gateway, simulator, f"ws_test-{number}", token, credential)
    workspace.provider("openai")
    workspace.provider("anthropic")
    return workspace


@pytest.fixture
def workspace(gateway, simulator):
    return new_workspace(gateway, simulator)


@pytest.fixture
def key(workspace):
    return workspace.key()
