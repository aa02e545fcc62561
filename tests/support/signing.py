"""Signs calls as the reconciler does, by the standard library alone: a second opinion on the format."""

from __future__ import annotations

import hashlib
import hmac
import json
import secrets
import time
import urllib.error
import urllib.parse
import urllib.request


def signature(secret: str, method: str, path: str, query: str, stamp: str, nonce: str, body: bytes) -> str:
    """`v1=` and the HMAC-SHA-256 of the call."""
    digest = hashlib.sha256(body).hexdigest()
    text = "\n".join(["v1", method, path, query, stamp, nonce, digest])
    return "v1=" + hmac.new(secret.encode(), text.encode(), hashlib.sha256).hexdigest()


class Signer:
    """A reconciler's secret, and calls signed with it."""

    def __init__(self, workspace, kid: str = "night"):
        self.base = workspace.gateway.url
        self.prefix = f"/api/v1/workspaces/{workspace.id}/reconciler"
        self.kid = kid
        self.secret = workspace.admin("POST", "/reconciler-secrets", {"kid": kid})["secret"]

    def headers(self, method: str, path: str, query: str, body: bytes, at: float | None = None) -> dict[str, str]:
        stamp, nonce = str(int(at if at is not None else time.time())), secrets.token_hex(16)
        return {
            "content-type": "application/json",
            "x-tallygate-key-id": self.kid,
            "x-tallygate-timestamp": stamp,
            "x-tallygate-nonce": nonce,
            "x-tallygate-signature": signature(self.secret, method, path, query, stamp, nonce, body),
        }

    def send(self, method: str, path: str, query: str, body: bytes, headers: dict[str, str]) -> tuple[int, bytes]:
        url = self.base + path + (f"?{query}" if query else "")
        request = urllib.request.Request(url, data=body or None, headers=headers, method=method)
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                return answer.status, answer.read()
        except urllib.error.HTTPError as error:
            return error.code, error.read()

    def call(self, method: str, path: str, body: object = None, at: float | None = None, **query: str) -> tuple[int, bytes]:
        path, query = self.prefix + path, urllib.parse.urlencode(query)
        data = b"" if body is None else json.dumps(body).encode()
        return self.send(method, path, query, data, self.headers(method, path, query, data, at))

    def events(self, day: str, **query: str) -> tuple[list[dict], dict]:
        """A day's events, checked against the closing line."""
        status, body = self.call("GET", "/events", day=day, **query)
        assert status == 200, body
        *lines, end = body.splitlines(keepends=True)
        end = json.loads(end)
        assert end["end"] is True and end["lines"] == len(lines)
        assert end["sha256"] == hashlib.sha256(b"".join(lines)).hexdigest()
        return [json.loads(line) for line in lines], end
