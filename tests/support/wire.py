"""A wire between a process and the AWS emulator: it counts requests, and does to each what a test has planned.

Standard library only.
"""

from __future__ import annotations

import http.client
import json
import threading
import urllib.parse
from collections.abc import Callable
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

HOP = {"connection", "transfer-encoding", "content-length", "date", "server", "keep-alive"}

WRITES = {"PutItem", "UpdateItem", "PUT", "POST"}


@dataclass(frozen=True)
class Asked:
    """A request of the process: its number since the wire was made, what it asks for, and if it changes something, its
    number among those that do."""

    number: int
    service: str
    operation: str
    write: int | None


@dataclass(frozen=True)
class Answer:
    """An answer, whole."""

    status: int
    headers: list[tuple[str, str]]
    body: bytes


class Gone(Exception):
    """The connection is cut, without another byte."""


@dataclass(frozen=True)
class Cut:
    """Half of the answer, and then nothing."""

    answer: Answer


Forward = Callable[[], Answer]
Plan = Callable[[Asked, Forward], "Answer | Cut"]


def pass_on(_: Asked, forward: Forward) -> Answer:
    """What the wire does when nothing is planned."""
    return forward()


def dynamodb_error(kind: str, message: str, status: int = 400) -> Answer:
    """As DynamoDB says no."""
    body = {"__type": f"com.amazonaws.dynamodb.v20120810#{kind}", "message": message}
    return Answer(status, [("content-type", "application/x-amz-json-1.0")], json.dumps(body).encode())


def s3_error(status: int, code: str, message: str) -> Answer:
    """As S3 says no."""
    body = f'<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>{code}</Code><Message>{message}</Message></Error>'
    return Answer(status, [("content-type", "application/xml")], body.encode())


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1

    def handle_any(self):
        body = self._body()
        asked = self.server.wire.count(self._service(), self._operation())
        upstream = self.server.wire.upstream
        headers = {name: value for name, value in self.headers.items() if name.lower() not in HOP | {"expect"}}

        def forward() -> Answer:
            # A connection each: the emulator closes them after an answer.
            connection = http.client.HTTPConnection(upstream.hostname, upstream.port, timeout=60)
            try:
                connection.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
                for name, value in headers.items():
                    connection.putheader(name, value)
                connection.putheader("content-length", str(len(body)))
                connection.endheaders(body)
                got = connection.getresponse()
                return Answer(got.status, got.getheaders(), got.read())
            finally:
                connection.close()

        try:
            answer = self.server.wire.plan(asked, forward)
            self._answer(answer)
        except Gone:
            self.close_connection = True
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True

    do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = handle_any

    def _body(self) -> bytes:
        if self.headers.get("transfer-encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("content-length") or 0))
        body = b""
        while size := int(self.rfile.readline(), 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return body

    def _service(self) -> str:
        target = self.headers.get("x-amz-target", "")
        return {"DynamoDB_20120810": "dynamodb", "secretsmanager": "secrets"}.get(target.split(".")[0], "s3")

    def _operation(self) -> str:
        return self.headers.get("x-amz-target", f".{self.command}").split(".")[1]

    def _answer(self, planned: Answer | Cut) -> None:
        answer = planned.answer if isinstance(planned, Cut) else planned
        self.send_response_only(answer.status)
        # The answer to a HEAD tells the length of what it does not bring.
        told = dict((name.lower(), value) for name, value in answer.headers).get("content-length")
        length = told if self.command == "HEAD" and told else str(len(answer.body))
        for name, value in answer.headers:
            if name.lower() not in HOP:
                self.send_header(name, value)
        self.send_header("content-length", length)
        self.end_headers()
        body = b"" if self.command == "HEAD" else answer.body
        if isinstance(planned, Cut):
            self.wfile.write(body[: len(body) // 2])
            self.close_connection = True
        else:
            self.wfile.write(body)
        self.wfile.flush()

    def log_message(self, *_):
        pass


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request, client_address):
        """A client that is killed resets its connections: that is what the wire is for."""


class Wire:
    """Listens on a port of its own, and passes on to `upstream` what the plan lets through."""

    def __init__(self, upstream: str, plan: Plan = pass_on):
        self.upstream = urllib.parse.urlsplit(upstream)
        self.plan, self.seen, self.writes, self._lock = plan, 0, 0, threading.Lock()
        self._server = _Server(("127.0.0.1", 0), _Handler)
        self._server.wire = self
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    def count(self, service: str, operation: str) -> Asked:
        with self._lock:
            self.seen += 1
            writes = operation in WRITES
            self.writes += writes
            return Asked(self.seen, service, operation, self.writes if writes else None)

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()
