"""FOCUS exports at the gateway: the reconciler brings them, and people download what it wrote, byte for byte."""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import re
import subprocess
import urllib.parse
from pathlib import Path

import pytest

from gateway import call
from night import Night
from signing import Signer
from test_night import gateway, night, simulator, traffic  # noqa: F401


@pytest.fixture
def signer(workspace):
    return Signer(workspace)


def get(gateway, path: str, **headers: str) -> tuple[int, dict[str, str], bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", gateway.port, timeout=30)
    connection.request("GET", path, headers=headers)
    answer = connection.getresponse()
    found = {name.lower(): value for name, value in answer.getheaders()}
    body = answer.read()
    connection.close()
    return answer.status, found, body


def download(workspace, month: str, file: str, token: str | None = None) -> tuple[int, dict[str, str], bytes]:
    path = f"/api/v1/workspaces/{workspace.id}/focus-exports/{month}/{file}"
    return get(workspace.gateway, path, authorization=f"Bearer {token or workspace.token}")


def stored(workspace) -> list[Path]:
    folder = workspace.gateway.home / "archive" / "focus" / workspace.id
    return sorted(path for path in folder.rglob("*") if path.is_file())


def clock(signer: Signer) -> float:
    """The gateway's: nights move it."""
    return call("POST", f"{signer.base}/_test/advance?ms=0")[1]["now"] / 1_000


def upload(signer: Signer, path: str, content: bytes, sent: bytes | None = None) -> tuple[int, dict]:
    """Uploads a file that is signed as `content`."""
    path = f"{signer.prefix}/focus-files/{path}"
    headers = signer.headers("PUT", path, "", content, clock(signer))
    headers["x-tallygate-content-sha256"] = hashlib.sha256(content).hexdigest()
    status, body = signer.send("PUT", path, "", content if sent is None else sent, headers)
    return status, json.loads(body)


def commit(signer: Signer, month: str, number: int, files: dict[str, bytes]) -> tuple[int, dict]:
    listed = [
        {
            "file": name,
            "focus_version": "1.4",
            "table": "cost_and_usage",
            "format": name.rpartition(".")[2],
            "rows": 1,
            "bytes": len(content),
            "sha256": hashlib.sha256(content).hexdigest(),
            "place": f"s3://books/{name}",
            "uploaded": True,
        }
        for name, content in files.items()
    ]
    export = {"month": month, "number": number, "made_at": 0, "files": listed}
    status, body = signer.call("POST", "/focus-exports", export, at=clock(signer))
    return status, json.loads(body)


def sign_in(workspace, token: str) -> str:
    """A session of the dashboard, as its cookie."""
    connection = http.client.HTTPConnection("127.0.0.1", workspace.gateway.port, timeout=30)
    headers = {"content-type": "application/x-www-form-urlencoded", "origin": workspace.gateway.url}
    form = urllib.parse.urlencode({"token": token})
    connection.request("POST", "/dashboard/sign-in", form, headers | {"sec-fetch-site": "same-origin"})
    answer = connection.getresponse()
    answer.read()
    assert answer.status == 303
    return answer.getheader("set-cookie").split(";")[0]


def export(night: Night) -> dict[str, dict]:
    """Exports the month; what the gateway lists of it, by file."""
    month = night.today.strftime("%Y-%m")
    done = night.run("export", "--month", month, "--directory", str(night.home / "export"))
    assert done.returncode == 0, done.stdout + done.stderr
    [listed] = night.workspace.admin("GET", "/focus-exports")["data"]
    assert listed["month"] == month
    return {file["file"]: file | {"number": listed["number"]} for file in listed["files"]}


def test_a_csv_and_a_parquet_come_as_the_reconciler_wrote_them(night):
    traffic(night, teams=("search",), each=1)
    night.advance()
    night.night()
    month = night.today.strftime("%Y-%m")
    files = export(night)
    formats = {file["format"] for file in files.values()}
    assert formats == {"csv", "parquet"} and {file["focus_version"] for file in files.values()} == {"1.2", "1.4"}
    for name, file in files.items():
        status, headers, body = download(night.workspace, month, name)
        assert status == 200, body
        assert body == Path(file["place"]).read_bytes(), "what the books hold"
        assert (len(body), hashlib.sha256(body).hexdigest()) == (file["bytes"], file["sha256"])
        kind = {"csv": "text/csv; charset=utf-8", "parquet": "application/vnd.apache.parquet"}[file["format"]]
        assert headers["content-type"] == kind
        assert headers["content-disposition"] == f'attachment; filename="{name}"'
    assert any(name.startswith("focus_1_4-cost_and_usage-") and name.endswith(".parquet") for name in files)
    # The same on the dashboard's page, for those who see money.
    token = night.workspace.admin("POST", "/tokens", {"name": "money", "role": "finance"})["token"]
    cookie = sign_in(night.workspace, token)
    first = min(file["day"] for file in files.values() if "day" in file)
    status, _, page = get(night.workspace.gateway, f"/dashboard/reconciliation?from={first}&until={night.today}", cookie=cookie)
    assert status == 200
    links = re.findall(rb'href="(/dashboard/focus-exports/[^"]+)"', page)
    assert {link.rpartition(b"/")[2].decode() for link in links} == set(files)
    for link in links[:2]:
        status, headers, body = get(night.workspace.gateway, link.decode(), cookie=cookie)
        assert (status, hashlib.sha256(body).hexdigest()) == (200, files[link.decode().rpartition("/")[2]]["sha256"])
        assert "attachment" in headers["content-disposition"] and headers["cache-control"] == "no-store"
    status, _, page = get(night.workspace.gateway, f"/dashboard/focus-exports/{month}/none.csv", cookie=cookie)
    assert status == 404 and b"no such file" in page
    # A developer with an owner sees what is theirs alone: no file is.
    body = {"name": "dev", "role": "developer", "owner": "ann"}
    token = night.workspace.admin("POST", "/tokens", body)["token"]
    status, _, body = download(night.workspace, month, next(iter(files)), token)
    assert (status, json.loads(body)["code"]) == (403, "owner_insufficient")
    status, _, _ = get(night.workspace.gateway, links[0].decode(), cookie=sign_in(night.workspace, token))
    assert status == 403
    # A newer export takes the place of this one, and its files that of these.
    newer = export(night)
    (before,), (after,) = ({file["number"] for file in some.values()} for some in (files, newer))
    assert after > before
    assert [path.name for path in stored(night.workspace)] == sorted(newer)


def test_an_export_that_the_gateway_did_not_hear_of_is_handed_over_the_next_time(night):
    traffic(night, teams=("search",), each=1)
    night.advance()
    night.night()
    month = night.today.strftime("%Y-%m")
    path = night.home / "down.json"
    path.write_text(night.config.read_text().replace(night.workspace.gateway.url, "http://127.0.0.1:9"))
    arguments = night.arguments("export", "--month", month, "--directory", str(night.home / "export"))
    arguments[2] = str(path)
    done = subprocess.run(arguments, env=os.environ | night.environment, capture_output=True, text=True, timeout=180)
    assert done.returncode == 1 and "NOT AT THE EDGE" in done.stdout, done.stdout + done.stderr
    assert night.workspace.admin("GET", "/focus-exports")["data"] == []
    assert export(night)


def test_what_is_not_what_was_signed_is_never_stored(workspace, signer):
    status, answer = upload(signer, "2026-11/1/a.csv", b"signed", b"forged")
    assert (status, answer["code"]) == (422, "content_differs")
    assert stored(workspace) == []
    # A hash that was not signed, and a call that was made before.
    path = f"{signer.prefix}/focus-files/2026-11/1/a.csv"
    headers = signer.headers("PUT", path, "", b"signed", clock(signer))
    forged = headers | {"x-tallygate-content-sha256": hashlib.sha256(b"forged").hexdigest()}
    assert signer.send("PUT", path, "", b"forged", forged)[0] == 401
    headers["x-tallygate-content-sha256"] = hashlib.sha256(b"signed").hexdigest()
    assert signer.send("PUT", path, "", b"signed", headers)[0] == 200
    status, body = signer.send("PUT", path, "", b"signed", headers)
    assert (status, json.loads(body)["code"]) == (401, "signature_invalid")
    assert [path.read_bytes() for path in stored(workspace)] == [b"signed"]
    # The same again is success; what is there is not written over.
    assert upload(signer, "2026-11/1/a.csv", b"signed") == (200, {"stored": True})
    status, answer = upload(signer, "2026-11/1/a.csv", b"another")
    assert (status, answer["code"]) == (409, "file_differs")
    assert [path.read_bytes() for path in stored(workspace)] == [b"signed"]
    status, _, _ = download(workspace, "2026-11", "a.csv")
    assert status == 404, "nobody committed it"


def test_a_large_file_goes_through_in_a_stream(workspace, signer):
    content = os.urandom(20 * 1024 * 1024)
    assert upload(signer, "2026-11/7/large.parquet", content) == (200, {"stored": True})
    assert commit(signer, "2026-11", 7, {"large.parquet": content}) == (200, {"number": 7})
    status, headers, body = download(workspace, "2026-11", "large.parquet")
    assert status == 200 and body == content
    assert headers["content-type"] == "application/vnd.apache.parquet"


def test_files_of_older_exports_go_and_an_older_one_never_replaces_a_newer(workspace, signer):
    for number in (9, 10):
        assert upload(signer, f"2026-11/{number}/a.csv", b"%d" % number)[0] == 200
        assert commit(signer, "2026-11", number, {"a.csv": b"%d" % number}) == (200, {"number": number})
    assert [path.read_bytes() for path in stored(workspace)] == [b"10"]
    assert upload(signer, "2026-11/8/a.csv", b"8")[0] == 200
    assert commit(signer, "2026-11", 8, {"a.csv": b"8"}) == (200, {"number": 10})
    assert [path.read_bytes() for path in stored(workspace)] == [b"10"]
    assert download(workspace, "2026-11", "a.csv")[2] == b"10"
    # Files that are gone from the bucket are missed by name.
    for path in stored(workspace):
        path.unlink()
    status, _, body = download(workspace, "2026-11", "a.csv")
    assert (status, json.loads(body)["code"]) == (404, "not_uploaded") and b"s3://books/a.csv" in body
