"""What a person can do wrong with the reconciler: each mistake is named, with its place and a remedy, and no secret is told."""

from __future__ import annotations

import copy
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))

from gateway import free_port  # noqa: E402
from night import BINARY  # noqa: E402

SECRETS = {"EDGE_SECRET": "the-secret-of-the-edge-0123456789", "OPENAI_ADMIN": "sk-admin-hidden"}
DAY = "2026-11-20"
HTML = (200, "text/html", b"<!doctype html><html>Please log in</html>")
PROBLEM = "application/problem+json"


class World:
    """Stands for the edge, a provider and AWS, and answers all calls below a path alike."""

    def __init__(self, home: Path):
        self.home = home
        self.answers: dict[str, tuple[int, str, bytes]] = {}
        world = self

        class Handler(BaseHTTPRequestHandler):
            def answer(self):
                self.rfile.read(int(self.headers.get("content-length") or 0))
                found = [answer for path, answer in world.answers.items() if self.path.startswith(path)]
                status, kind, body = found[0] if found else (404, "text/plain", b"nothing here")
                self.send_response(status)
                self.send_header("content-type", kind)
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            do_GET = do_POST = do_PUT = do_HEAD = answer

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        self.document = {
            "storage": {"local": {"directory": str(home / "books")}},
            "workspaces": [
                {
                    "id": "acme",
                    "edge": {"url": self.url, "key_id": "night", "secret": {"$env": "EDGE_SECRET"}},
                    "sources": [
                        {
                            "connector": "openai",
                            "base_url": f"{self.url}/openai",
                            "account": "org-1",
                            "admin_key": {"$env": "OPENAI_ADMIN"},
                        }
                    ],
                }
            ],
        }

    @property
    def aws(self) -> dict:
        return {"table": "t", "bucket": "b", "region": "us-east-1", "dynamodb_endpoint": self.url, "s3_endpoint": self.url}

    def run(self, *command: str, document: object = None, **more: str) -> tuple[int, str]:
        """The exit code, and all that was said."""
        path = self.home / "reconciler.json"
        text = document if isinstance(document, str) else json.dumps(document or self.document)
        path.write_text(text)
        environment = {"PATH": os.environ["PATH"], "AWS_EC2_METADATA_DISABLED": "true"} | SECRETS | more
        arguments = [str(BINARY), "--config", str(path), *command]
        done = subprocess.run(arguments, env=environment, capture_output=True, text=True, timeout=60)
        said = done.stdout + done.stderr
        assert not any(secret in said for secret in environment.values() if "secret" in secret or "sk-" in secret), said
        return done.returncode, said


@pytest.fixture
def world(tmp_path):
    world = World(tmp_path)
    yield world
    world.server.shutdown()
    world.server.server_close()


def put(path: str, value: object) -> Callable[[dict], None]:
    """Sets what is at a path such as `workspaces.0.edge.url`."""

    def change(document: dict) -> None:
        *way, last = path.split(".")
        place = document
        for step in way:
            place = place[int(step) if step.isdigit() else step]
        place[last] = value

    return change


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (put("workspace", []), ("`workspace`", "expected one of", "`workspaces`")),
        (put("workspaces.0.source", []), ("`workspaces[0].source`", "`sources`")),
        (put("workspaces.0.edge.keyid", "x"), ("`workspaces[0].edge.keyid`", "`key_id`")),
        (put("workspaces.0.edge", {"url": "https://g"}), ("`workspaces[0].edge`", "missing field `key_id`")),
        (put("workspaces.0.edge.url", "gateway.example.com"), ("`workspaces[0].edge.url`", "https://")),
        (put("workspaces.0.sources.0.connector", "openia"), ("`workspaces[0].sources[0].connector`", "`openai`")),
        (put("workspaces.0.sources.0.adminkey", "sk-pasted"), ("`workspaces[0].sources[0]`", "`admin_key`")),
        (put("workspaces.0.edge.secret", {"$env": "NO_SUCH"}), ("`workspaces[0].edge.secret` names NO_SUCH", "set this")),
        (put("workspaces.0.edge.secret", {"$file": "/no/such"}), ("`workspaces[0].edge.secret` names /no/such", "No such file")),
        (put("workspaces", []), ("`workspaces`", "name at least one")),
        (put("lookback_days", "35"), ("`lookback_days`", "expected u32")),
    ],
)
def test_a_configuration_that_cannot_be_used_names_the_field(world, change, expected):
    document = copy.deepcopy(world.document)
    change(document)
    code, said = world.run("doctor", document=document)
    assert code == 2 and all(part in said for part in expected), said
    assert not (world.home / "books").exists(), "nothing was begun"


def test_a_configuration_that_is_no_json_or_is_not_there_is_said(world):
    code, said = world.run("doctor", document="{storage: 1}")
    assert code == 2 and "`the document` is no JSON" in said and "line 1" in said
    done = subprocess.run([BINARY, "--config", "none.json", "show"], cwd=world.home, capture_output=True, text=True)
    assert done.returncode == 2 and "none.json" in done.stderr and "--config" in done.stderr


UNKNOWN = (404, PROBLEM, b'{"title": "Not found", "status": 404, "detail": "There is no workspace acme."}')
UNSIGNED = (401, PROBLEM, b'{"title": "Unauthorized", "status": 401, "detail": "The signature does not fit."}')
REFUSED = (401, "application/json", b'{"error": {"message": "Incorrect API key provided: sk-admin-hidden"}}')


@pytest.mark.parametrize(
    ("edge", "provider", "expected"),
    [
        (UNKNOWN, HTML, ("There is no workspace acme; check the workspace's `id`", "openai answered costs", "HTML")),
        (HTML, (302, "text/html", b""), ("edge answered /context", "HTML", "HTTP 302", "check the address")),
        (UNSIGNED, REFUSED, ("The signature does not fit; check the edge's `key_id` and `secret`", "check the admin credential")),
        ((400, "text/plain", b"?"), (200, "application/json", b'{"data": []}'), ("check the edge's `url`", "missing field `has_more`")),
    ],
)
def test_what_answers_something_else_is_named(world, edge, provider, expected):
    world.answers = {"/api": edge, "/openai": provider}
    code, said = world.run("doctor")
    assert code == 1 and all(part in said for part in expected), said
    assert said.count("FAIL") == 2 and said.count("ok ") == 2, said
    # A night says it too, and writes nothing down.
    code, said = world.run("reconcile", "--days", "1")
    assert code == 1 and "MISSING edge" in said and expected[0] in said, said


def test_an_edge_that_nobody_reaches_is_said_soon(world):
    put("workspaces.0.edge.url", f"http://127.0.0.1:{free_port()}")(world.document)
    code, said = world.run("doctor")
    assert code == 1 and "edge could not be asked" in said and "refused" in said and "check the address" in said, said


def test_a_secret_with_a_line_break_is_said_before_anything_is_asked(world):
    code, said = world.run("doctor", OPENAI_ADMIN="sk-admin-hidden\n")
    assert code == 1 and "openai refuses its credential" in said and "store it again" in said, said


CSV = "day,service,cost\n2026-11-20,vectors,1.25\n"


@pytest.mark.parametrize(
    ("path", "text", "code", "expected"),
    [
        ("db/a.csv", f"{CSV}2026-11-20,idle,abc\n2026-13-20,idle,1\n", 1, ("line 3, cost", "line 4, `day`", "mend it")),
        ("db/a.csv", CSV.replace("cost", "price"), 1, ("`cost` is not in the header", '"price"', "mapping")),
        ("db/a.csv", HTML[2].decode(), 1, ("is not in the header", "mend it")),
        ("other/a.csv", CSV, 0, ("note: inbox/other/a.csv", "no rule", "add one")),
        ("db/a.csv", CSV, 0, ("1 charges of 1.25 USD",)),
    ],
)
def test_a_file_in_the_inbox_that_cannot_be_read_is_held_and_said(world, path, text, code, expected):
    rows = {
        "period": {"day": {"column": "day", "format": "%Y-%m-%d"}},
        "amount": {"column": "cost", "unit": "dollars", "currency": {"fixed": "USD"}},
        "service": {"column": "service"},
    }
    rule = {"path": "db/*.csv", "provider": "db", "account": "acme", "bad_rows": "hold", "format": {"csv": rows}}
    put("workspaces.0.sources", [{"connector": "inbox", "mapping": {"files": [rule]}}])(world.document)
    file = world.home / "books" / "objects" / "inbox" / path
    file.parent.mkdir(parents=True)
    file.write_text(text)
    got, said = world.run("pull", "--from", DAY, "--to", DAY)
    assert got == code and all(part in said for part in expected), said
    assert ("HELD" in said) == (code == 1), said
    assert file.read_text() == text, "it stays for the person who mends it"
    _, said = world.run("doctor", "--now", "2026-11-21T08:00:00Z")
    assert f"{'ok  ' if code == 0 else 'FAIL'}  acme: inbox" in said, said


def test_what_aws_refuses_is_named_as_iam_names_it(world):
    world.document["storage"] = {"aws": world.aws}
    denied = b"<Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>"
    world.answers = {"/": (403, "application/xml", denied)}
    role = {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b"}
    code, said = world.run("doctor", **role)
    assert code == 1, said
    assert "S3 refuses s3:PutObject: grant it" in said and "DynamoDB refuses dynamodb:UpdateItem: grant it" in said, said
    code, said = world.run("show", **role)
    assert code == 2 and "dynamodb:GetItem" in said, said
    code, said = world.run("show")
    assert code == 2 and "check the region and the credentials" in said and "AWS_ACCESS_KEY_ID" in said, said


def test_a_store_that_writes_over_what_is_there_is_no_store(world):
    """Some stores that call themselves compatible take no notice of the condition."""
    world.document["storage"] = {"aws": world.aws}
    world.answers = {"/b/": (200, "application/xml", b"")}
    code, said = world.run("doctor", AWS_ACCESS_KEY_ID="a", AWS_SECRET_ACCESS_KEY="b")
    assert code == 1 and "writes over what is there" in said and "If-None-Match" in said, said


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        (("export", "--month", "2026-13"), ("2026-13", "YYYY-MM")),
        (("close", "--workspace", "nobody", "--month", "2026-10"), ("`nobody` is no workspace",)),
        (
            ("close", "--workspace", "acme", "--month", "2026-11", "--now", "2026-11-30T23:59:59Z"),
            ("2026-11 is not over", "from 2026-12-01 on"),
        ),
        (("backfill", "--from", "2026-11-10", "--to", "2026-11-01"), ("--to is before --from",)),
        (("backfill", "--from", "yesterday", "--to", DAY), ("--from", "such as 2026-11-20")),
        (("reconcil",), ("reconcile",)),
    ],
)
def test_a_command_that_makes_no_sense_is_said(world, command, expected):
    code, said = world.run(*command)
    assert code == 2 and all(part in said for part in expected), said
