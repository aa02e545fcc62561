"""Sign-in through an OpenID provider: a small one with keys of its own, a real browser, and what must not open."""

from __future__ import annotations

import base64
import hashlib
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
from visitors import AXE, browser  # noqa: F401

CLIENT, SECRET = "tallygate", "a secret with /+: signs"


def b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def openssl(*args: str, **more) -> bytes:
    return subprocess.run(["openssl", *args], check=True, capture_output=True, **more).stdout


def der_to_raw(der: bytes) -> bytes:
    """An ECDSA signature as JSON Web Signatures have it: two numbers of 32 bytes."""
    first = der[4 : 4 + der[3]]
    second = der[6 + der[3] :]
    return b"".join(part[-32:].rjust(32, b"\0") for part in (first, second))


class Provider:
    """An OpenID provider that lets everybody in, as whom and how the test says."""

    def __init__(self, home):
        self.rsa, self.ec = home / "rsa.pem", home / "ec.pem"
        openssl("genrsa", "-out", str(self.rsa), "2048")
        openssl("ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", str(self.ec))
        modulus = openssl("rsa", "-in", str(self.rsa), "-noout", "-modulus").decode().strip().split("=")[1]
        point = openssl("ec", "-in", str(self.ec), "-pubout", "-outform", "DER")[-64:]
        self.keys = [
            {"kty": "RSA", "kid": "r", "use": "sig", "n": b64(bytes.fromhex(modulus)), "e": "AQAB"},
            {"kty": "EC", "kid": "e", "crv": "P-256", "x": b64(point[:32]), "y": b64(point[32:])},
        ]
        self.reset()
        self.codes: dict[str, dict] = {}
        self.issuer_said = None
        provider = self

        class Handler(BaseHTTPRequestHandler):
            def send(self, status: int, body: object = None, **headers: str):
                text = json.dumps(body).encode()
                self.send_response(status)
                for name, value in ({"content-length": str(len(text))} | headers).items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(text)

            def do_GET(self):
                path, _, query = self.path.partition("?")
                asked = dict(urllib.parse.parse_qsl(query))
                if provider.down:
                    return self.send(503)
                if path == "/.well-known/openid-configuration":
                    return self.send(200, provider.document())
                if path == "/keys":
                    return self.send(200, {"keys": provider.keys})
                if path == "/authorize":
                    code = b64(hashlib.sha256(asked["state"].encode()).digest())
                    provider.codes[code] = asked
                    back = urllib.parse.urlencode({"code": code, "state": asked["state"]})
                    return self.send(302, location=f"{asked['redirect_uri']}?{back}")
                return self.send(404)

            def do_POST(self):
                form = dict(urllib.parse.parse_qsl(self.rfile.read(int(self.headers["content-length"])).decode()))
                given = base64.b64decode(self.headers["authorization"].removeprefix("Basic ")).decode()
                client = [urllib.parse.unquote(part) for part in given.split(":")]
                asked = provider.codes.pop(form["code"], None)
                fits = asked and b64(hashlib.sha256(form["code_verifier"].encode()).digest()) == asked["code_challenge"]
                if not fits or client != [CLIENT, SECRET] or form["redirect_uri"] != asked["redirect_uri"]:
                    return self.send(400, {"error": "invalid_grant"})
                return self.send(200, {"id_token": provider.token(asked["nonce"]), "token_type": "Bearer"})

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def reset(self):
        self.claims: dict = {}
        self.alg, self.forged, self.down = "RS256", False, False

    def document(self) -> dict:
        return {
            "issuer": self.issuer_said or self.url,
            "authorization_endpoint": f"{self.url}/authorize",
            "token_endpoint": f"{self.url}/token",
            "jwks_uri": f"{self.url}/keys",
        }

    def token(self, nonce: str) -> str:
        said = {"iss": self.url, "aud": CLIENT, "exp": int(time.time()) + 300, "nonce": nonce, "sub": "1"}
        said |= {"email": "Ann@Example.com", "email_verified": True} | self.claims
        head = {"alg": self.alg, "kid": {"RS256": "r", "ES256": "e"}.get(self.alg, "r")}
        text = ".".join(b64(json.dumps(part).encode()) for part in (head, said))
        key = self.ec if self.alg == "ES256" else self.rsa
        signature = openssl("dgst", "-sha256", "-sign", str(key), input=text.encode())
        signature = der_to_raw(signature) if self.alg == "ES256" else signature
        if self.forged:
            text = text.replace(".", ".e", 1)
        return f"{text}.{b64(signature)}"


@pytest.fixture(scope="module")
def provider(tmp_path_factory):
    provider = Provider(tmp_path_factory.mktemp("provider"))
    yield provider
    provider.server.shutdown()
    provider.server.server_close()


@pytest.fixture(scope="module")
def workspace(tmp_path_factory, simulator, provider):
    settings = new_secrets() | {
        "TALLYGATE_FAULTS": "on",
        "TALLYGATE_OIDC_ISSUER": provider.url,
        "TALLYGATE_OIDC_CLIENT_ID": CLIENT,
        "TALLYGATE_OIDC_CLIENT_SECRET": SECRET,
    }
    gateway = Gateway(home=tmp_path_factory.mktemp("oidc"), settings=settings).start()
    workspace = new_workspace(gateway, simulator)
    config = workspace.admin("GET", "/config")
    members = {"ann@example.com": "finance", "dev@example.com": {"role": "developer", "owner": "search"}}
    workspace.admin("PUT", "/config", config | {"dashboard": {"members": members}})
    yield workspace
    gateway.stop()


class NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_):
        return None


class Visitor:
    """A browser without pictures: it keeps cookies and follows nothing by itself."""

    def __init__(self, workspace):
        self.workspace, self.url = workspace, workspace.gateway.url
        self.cookies: dict[str, str] = {}

    def send(self, url: str, form: dict | None = None):
        url = url if url.startswith("http") else self.url + url
        data = None if form is None else urllib.parse.urlencode(form).encode()
        headers = {"origin": self.url, "cookie": "; ".join(f"{k}={v}" for k, v in self.cookies.items())}
        request = urllib.request.Request(url, data=data, headers=headers)
        try:
            answer = urllib.request.build_opener(NoRedirect).open(request, timeout=30)
        except urllib.error.HTTPError as error:
            answer = error
        if url.startswith(self.url):
            for line in answer.headers.get_all("set-cookie") or []:
                name, _, value = line.split(";")[0].partition("=")
                self.cookies[name] = value
        return answer.status, answer.headers, answer.read().decode()

    def begin(self) -> str:
        """The address that the provider sends the browser back to."""
        form = {"workspace": self.workspace.id, "next": "/dashboard/usage"}
        status, headers, page = self.send("/dashboard/sign-in/oidc", form)
        assert status == 200, page
        _, headers, _ = self.send(headers["refresh"].removeprefix("0;url="))
        return headers["location"]

    def is_in(self) -> bool:
        return self.send("/dashboard")[0] == 200


def test_people_sign_in_with_a_real_browser(workspace, provider, browser):
    provider.reset()
    for alg, scheme, mail, shown in [
        ("RS256", "light", "Ann@Example.com", "finance"),
        ("ES256", "dark", "dev@example.com", "You see what belongs to search"),
    ]:
        provider.alg, provider.claims = alg, {"email": mail}
        context = browser.new_context(
            color_scheme=scheme, viewport={"width": 360, "height": 900}, base_url=workspace.gateway.url
        )
        page = context.new_page()
        said: list[str] = []
        page.on("console", lambda it: said.append(it.text) if it.type in ("error", "warning") else None)
        page.goto("/dashboard/budgets")
        page.evaluate(AXE.read_text())
        found = page.evaluate("axe.run().then(({ violations }) => violations.map(v => v.id))")
        assert found == []
        assert page.evaluate("document.scrollingElement.scrollWidth <= innerWidth")
        page.get_by_label("Workspace of your account").fill(workspace.id)
        page.get_by_role("button", name="Continue with 127.0.0.1").click()
        page.wait_for_url("**/dashboard/budgets")
        assert shown in page.content()
        assert page.evaluate("document.cookie") == ""
        assert said == []
        context.close()


def test_a_sign_in_counts_once(workspace, provider):
    provider.reset()
    visitor = Visitor(workspace)
    back = visitor.begin()
    before, asked = dict(visitor.cookies), dict(provider.codes[code_of(back)])
    status, headers, page = visitor.send(back)
    assert (status, headers["location"], visitor.is_in()) == (303, "/dashboard/usage", True), page
    # The address again, with the cookie that was kept: the provider takes a code once, and if it did not, we do.
    thief = Visitor(workspace)
    thief.cookies = dict(before)
    status, _, page = thief.send(back)
    assert (status, "no token" in page, thief.is_in()) == (503, True, False), page
    provider.codes[code_of(back)] = asked
    thief.cookies = dict(before)
    status, _, page = thief.send(back)
    assert (status, "used already" in page, thief.is_in()) == (403, True, False), page


def code_of(address: str) -> str:
    return dict(urllib.parse.parse_qsl(urllib.parse.urlsplit(address).query))["code"]


@pytest.mark.parametrize(
    ("claims", "status"),
    [
        ({"nonce": "another"}, 401),
        ({"aud": "somebody-else"}, 401),
        ({"aud": [CLIENT, "somebody-else"]}, 401),
        ({"exp": 1}, 401),
        ({"iss": "https://evil.example.com"}, 401),
        ({"email_verified": False}, 401),
        ({"email_verified": None}, 401),
        ({"email": "eve@example.com"}, 403),
    ],
)
def test_a_token_that_is_not_right_opens_nothing(workspace, provider, claims, status):
    provider.reset()
    provider.claims = claims
    workspace.gateway.admin("GET", "/workspaces")
    visitor = Visitor(workspace)
    got, _, page = visitor.send(visitor.begin())
    assert (got, visitor.is_in()) in [(status, False), (429, False)], page


def test_signatures_states_and_cookies_are_checked(workspace, provider):
    provider.reset()
    provider.forged = True
    visitor = Visitor(workspace)
    status, _, page = visitor.send(visitor.begin())
    assert status == 503 and not visitor.is_in(), page
    provider.reset()
    provider.alg = "HS256"
    visitor = Visitor(workspace)
    status, _, page = visitor.send(visitor.begin())
    assert status == 503 and "not signed by its keys" in page, page
    provider.reset()
    visitor = Visitor(workspace)
    back = visitor.begin()
    stranger = Visitor(workspace)
    assert stranger.send(back)[0] in (401, 429)
    assert not stranger.is_in()


def test_a_provider_that_is_down_is_said(tmp_path, simulator, provider):
    provider.reset()
    provider.down = True
    settings = new_secrets() | {
        "TALLYGATE_FAULTS": "on",
        "TALLYGATE_OIDC_ISSUER": provider.url,
        "TALLYGATE_OIDC_CLIENT_ID": CLIENT,
        "TALLYGATE_OIDC_CLIENT_SECRET": SECRET,
    }
    gateway = Gateway(home=tmp_path, settings=settings).start()
    try:
        workspace = new_workspace(gateway, simulator)
        visitor = Visitor(workspace)
        form = {"workspace": workspace.id}
        status, _, page = visitor.send("/dashboard/sign-in/oidc", form)
        assert status == 503 and "cannot be asked now" in page
        # A document of another issuer is not believed.
        provider.down, provider.issuer_said = False, "https://evil.example.com"
        assert visitor.send("/dashboard/sign-in/oidc", form)[0] == 503
        provider.issuer_said = None
        back = visitor.begin()
        provider.down = True
        assert visitor.send(back)[0] == 503
        # A token of the workspace opens it all the same.
        assert visitor.send("/dashboard/sign-in", {"token": workspace.token})[0] == 303
        assert visitor.is_in()
    finally:
        provider.issuer_said = None
        provider.reset()
        gateway.stop()
    assert SECRET not in gateway.log.read_text(errors="replace")
