"""Sign-in through Cloudflare Access: its token, signed by a key of ours in the team's place."""

from __future__ import annotations

import base64
import json
import subprocess
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from conftest import Gateway, new_secrets, new_workspace


def b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


class Team:
    """The keys' address of a team, and who signs with one of them."""

    def __init__(self, home):
        self.key = home / "team.pem"
        run = lambda *args, **more: subprocess.run(  # noqa: E731
            ["openssl", *args], check=True, capture_output=True, **more
        ).stdout
        run("genrsa", "-out", str(self.key), "2048")
        modulus = run("rsa", "-in", str(self.key), "-noout", "-modulus").decode().strip().split("=")[1]
        jwk = {"kty": "RSA", "kid": "one", "alg": "RS256", "n": b64(bytes.fromhex(modulus)), "e": "AQAB"}
        self.run = run
        team = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                team.asked.append(self.path)
                body = json.dumps({"keys": [jwk]}).encode()
                self.send_response(200)
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_):
                pass

        self.asked: list[str] = []
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def token(self, head: dict | None = None, **claims) -> str:
        said = {"iss": self.url, "aud": ["tag"], "exp": int(time.time()) + 600, "email": "Ann@Example.com"}
        parts = [{"alg": "RS256", "kid": "one"} | (head or {}), said | claims]
        text = ".".join(b64(json.dumps(part).encode()) for part in parts)
        signature = self.run("dgst", "-sha256", "-sign", str(self.key), input=text.encode())
        return f"{text}.{b64(signature)}"


@pytest.fixture(scope="module")
def team(tmp_path_factory):
    team = Team(tmp_path_factory.mktemp("team"))
    yield team
    team.server.shutdown()
    team.server.server_close()


@pytest.fixture(scope="module")
def workspace(tmp_path_factory, simulator, team):
    settings = new_secrets() | {
        "TALLYGATE_FAULTS": "on",
        "TALLYGATE_ACCESS_TEAM_DOMAIN": team.url,
        "TALLYGATE_ACCESS_AUD": "tag",
    }
    gateway = Gateway(home=tmp_path_factory.mktemp("access"), settings=settings).start()
    workspace = new_workspace(gateway, simulator)
    config = workspace.admin("GET", "/config")
    workspace.admin("PUT", "/config", config | {"dashboard": {"members": {"ann@example.com": "finance"}}})
    yield workspace
    gateway.stop()


class NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_):
        return None


def send(workspace, path: str, form: dict | None = None, **headers: str):
    url = workspace.gateway.url
    data = None if form is None else urllib.parse.urlencode(form).encode()
    request = urllib.request.Request(url + path, data=data, headers={"origin": url} | headers)
    try:
        answer = urllib.request.build_opener(NoRedirect).open(request, timeout=30)
    except urllib.error.HTTPError as error:
        answer = error
    names = {name.lower(): value for name, value in answer.headers.items()}
    return answer.status, names, answer.read().decode()


def come(workspace, token: str):
    form = {"workspace": workspace.id}
    return send(workspace, "/dashboard/sign-in", form, **{"cf-access-jwt-assertion": token})


def test_a_member_is_let_in_with_their_role_and_out_when_they_are_taken_away(workspace, team):
    status, _, page = send(workspace, "/dashboard/sign-in", **{"cf-access-jwt-assertion": team.token()})
    assert (status, "Continue as ann@example.com" in page) == (200, True)
    status, headers, page = come(workspace, team.token())
    assert status == 303, page
    cookie = headers["set-cookie"].split(";")[0]
    status, _, page = send(workspace, "/dashboard", cookie=cookie)
    assert (status, "mail:ann@example.com" in page, "finance" in page) == (200, True, True)
    assert workspace.admin("GET", "/sessions")["data"][0]["who"] == "mail:ann@example.com"
    config = workspace.admin("GET", "/config")
    workspace.admin("PUT", "/config", {name: value for name, value in config.items() if name != "dashboard"})
    assert send(workspace, "/dashboard", cookie=cookie)[0] == 303
    workspace.admin("PUT", "/config", config)
    # The team is asked for its keys once.
    assert team.asked == ["/cdn-cgi/access/certs"]


def test_what_the_team_did_not_sign_for_us_and_now_opens_nothing(workspace, team):
    good = team.token()
    head, claims, signature = good.split(".")
    other = b64(json.dumps({"iss": team.url, "aud": ["tag"], "exp": 9_999_999_999, "email": "ann@example.com"}).encode())
    none = b64(json.dumps({"alg": "none", "kid": "one"}).encode())
    for bad in [
        f"{head}.{other}.{signature}",
        f"{none}.{claims}.",
        f"{head}.{claims}.{'A' * len(signature)}",
        team.token(aud=["other"]),
        team.token(iss="https://evil.cloudflareaccess.com"),
        team.token(exp=int(time.time()) - 120),
        team.token(head={"kid": "two"}),
        team.token(head={"alg": "HS256"}),
        "nonsense",
    ]:
        status, headers, page = come(workspace, bad)
        assert (status, "set-cookie" in headers) == (401, False), (bad, page)
    status, headers, page = come(workspace, team.token(email="eve@example.com"))
    assert (status, "set-cookie" in headers) == (403, False), page
