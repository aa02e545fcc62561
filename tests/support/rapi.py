"""A minimal Lambda Runtime API, and a function that runs against it. Standard library only.

The function is a process that asks for its next event, as on AWS; here the events come from `Function.invoke`.
"""

from __future__ import annotations

import json
import queue
import subprocess
import threading
import time
import uuid
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

PREFIX = "/2018-06-01/runtime"


@dataclass
class Answer:
    """What the function answered to an event."""

    failed: bool
    body: dict
    seconds: float

    @property
    def status(self) -> str:
        assert not self.failed, self.body
        return self.body["status"]


@dataclass
class _Invocation:
    event: object
    deadline_ms: int
    id: str = field(default_factory=lambda: str(uuid.uuid4()))


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    # Head and body leave together: two packets would meet the client's delayed acknowledgement.
    wbufsize = -1

    def do_GET(self):
        assert self.path == f"{PREFIX}/invocation/next", self.path
        invocation = self.server.events.get()
        self.answer(
            200,
            json.dumps(invocation.event).encode(),
            {
                "Lambda-Runtime-Aws-Request-Id": invocation.id,
                "Lambda-Runtime-Deadline-Ms": str(invocation.deadline_ms),
                "Lambda-Runtime-Invoked-Function-Arn": "arn:aws:lambda:us-east-1:123456789012:function:reconciler",
                "Lambda-Runtime-Trace-Id": "Root=1-5bef4de7-ad49b0e87f6ef6c87fc2e700;Sampled=0",
            },
        )

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("content-length") or 0)) or self.chunks()
        *_, request, kind = self.path.split("/")
        self.answer(202, b"{}", {})
        self.server.answers.put((request, kind, json.loads(body)))

    def chunks(self) -> bytes:
        """A body without a length."""
        body = b""
        while self.headers.get("transfer-encoding") == "chunked" and (size := int(self.rfile.readline(), 16)):
            body += self.rfile.read(size)
            self.rfile.readline()
        return body

    def answer(self, status: int, body: bytes, headers: dict[str, str]):
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


class Died(AssertionError):
    """The function's process ended without an answer."""


class Function:
    """A Lambda's binary, with the Runtime API that it asks."""

    def __init__(self, binary: Path, environment: dict[str, str], home: Path):
        self.binary, self.environment, self.home = binary, environment, home
        self.home.mkdir(parents=True, exist_ok=True)
        self.api = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
        self.api.daemon_threads = True
        self.api.events, self.api.answers = queue.Queue(), queue.Queue()
        self.process = None

    def start(self) -> Function:
        threading.Thread(target=self.api.serve_forever, daemon=True).start()
        runtime = {
            "AWS_LAMBDA_RUNTIME_API": f"127.0.0.1:{self.api.server_port}",
            "AWS_LAMBDA_FUNCTION_NAME": "reconciler",
            "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": "1769",
            "AWS_LAMBDA_FUNCTION_VERSION": "$LATEST",
        }
        with (self.home / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [self.binary], env=self.environment | runtime, stdout=log, stderr=subprocess.STDOUT
            )
        return self

    def invoke(self, event: object, seconds: float = 900, patience: float = 120) -> Answer:
        """Sends an event with so many seconds until its deadline, and waits for the answer."""
        begun = time.monotonic()
        invocation = _Invocation(event, int((time.time() + seconds) * 1000))
        self.api.events.put(invocation)
        while True:
            try:
                request, kind, body = self.api.answers.get(timeout=0.05)
                break
            except queue.Empty:
                if self.process.poll() is not None:
                    raise Died(f"the function ended: {self.log[-2000:]}") from None
                assert time.monotonic() - begun < patience, f"no answer: {self.log[-2000:]}"
        assert request == invocation.id, (request, kind, body)
        assert kind in ("response", "error"), kind
        return Answer(kind == "error", body, time.monotonic() - begun)

    @property
    def log(self) -> str:
        return (self.home / "log").read_text()

    def stop(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        self.api.shutdown()
        self.api.server_close()
