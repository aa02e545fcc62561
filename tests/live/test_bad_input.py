"""Bad input gets a clear error in the caller's dialect, is recorded, and leaves nothing behind."""

from __future__ import annotations

import json
import socket
import time
import urllib.request
from urllib.parse import urlsplit

import pytest
from conftest import new_workspace


@pytest.mark.parametrize(
    ("body", "code", "param"),
    [
        (b"", "invalid_request_body", None),
        (b"{", "invalid_request_body", None),
        (b"[]", "invalid_request_body", None),
        (b"\xff\xfe", "invalid_request_body", None),
        (b'{"messages": []}', "invalid_request_body", "model"),
        (b'{"model": 7}', "invalid_request_body", "model"),
        (b'{"model": "a", "model": "b"}', "invalid_request_body", "model"),
        (b'{"model": "a", "stream": "yes"}', "invalid_request_body", "stream"),
        (b'{"model": ' + b"[" * 5000, "invalid_request_body", None),
    ],
)
def test_a_body_that_cannot_be_read_names_the_field(key, body, code, param):
    reply = key.post("/v1/chat/completions", body)
    assert (reply.status, reply.error["code"], reply.error["param"]) == (400, code, param)
    key.ring()
    assert key.event(reply.id)["code"] == code
    assert key.state()["in_flight"] == 0


def test_an_anthropic_caller_gets_anthropic_s_envelope(key):
    reply = key.post("/v1/messages", b"{")
    assert reply.status == 400
    assert (reply.json["type"], reply.error["type"]) == ("error", "invalid_request_error")


def test_another_content_type_is_refused(key):
    reply = key.post("/v1/chat/completions", b"a=b", content_type="application/x-www-form-urlencoded")
    assert (reply.status, reply.error["code"]) == (415, "unsupported_media_type")


def test_a_body_over_the_limit_is_refused(key):
    reply = key.post("/v1/chat/completions", b"x" * (33 * 1024 * 1024))
    assert (reply.status, reply.error["code"]) == (413, "request_too_large")


@pytest.mark.parametrize("path", ["/v1/files", "/v1/audio/speech", "/v1/chat", "/v1/", "/v1/batches"])
def test_an_unknown_path_is_a_404_and_is_never_forwarded(key, path):
    reply = key.post(path, {"model": "gpt-6-luna"})
    assert (reply.status, reply.error["code"]) == (404, "not_found")
    assert key.workspace.books()["entries"] == []
    assert key.post("/v1/messages/batches", {}).json["type"] == "error"


def test_an_unknown_model_is_named(workspace):
    workspace.admin("DELETE", "/providers/openai")
    key = workspace.key()
    reply = key.chat(model="gpt-6-luna")
    assert (reply.status, reply.error["code"]) == (404, "model_not_found")
    assert "gpt-6-luna" in reply.error["message"]


def test_a_model_name_cannot_inject_headers(key):
    reply = key.chat(model="gpt-6-luna\r\nx-evil: 1")
    assert "x-evil" not in reply.headers
    assert key.chat().status == 200


def test_a_caller_that_sends_its_body_slowly_blocks_nobody(key):
    url = urlsplit(key.workspace.gateway.url)
    slow = socket.create_connection((url.hostname, url.port))
    head = (
        f"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {key.key}\r\n"
        "Content-Type: application/json\r\nContent-Length: 1000\r\n\r\n{"
    )
    slow.sendall(head.encode())
    started = time.monotonic()
    assert key.chat().status == 200
    assert time.monotonic() - started < 5
    slow.close()
    assert key.state()["in_flight"] == 0


def test_a_request_of_another_key_cannot_be_looked_up(workspace):
    one, two = workspace.key(), workspace.key()
    reply = one.chat()
    assert two.get(f"/v1/requests/{reply.id}").status == 404
    assert one.get("/v1/requests/nonsense").status == 404


def test_admin_errors_are_problem_documents_that_name_the_field(workspace):
    def refused(method, path, body, status, code):
        got, problem = workspace.raw(method, path, body)
        assert (got, problem["code"]) == (status, code), problem
        assert {"type", "title", "status", "detail"} <= set(problem)
        return problem

    refused("POST", "/keys", {"name": "k"}, 400, "invalid_body")
    refused("POST", "/keys", {"name": "k", "budget": 5}, 400, "invalid_body")
    base = {"name": "k", "owner": "o", "cost_centre": "c", "purpose": "p", "environment": "e"}
    refused("POST", "/keys", {**base, "policy": {"max_output": 5}}, 400, "invalid_body")
    problem = refused("POST", "/keys", {**base, "policy": "nobody"}, 422, "invalid_field")
    assert problem["errors"][0]["remedy"]
    refused("POST", "/providers", {"name": "openai", "kind": "openai"}, 409, "already_exists")
    refused("POST", "/providers", {"name": "x", "kind": "skynet"}, 422, "invalid_field")
    bad = {"name": "x", "kind": "openai", "base_url": "ftp://a"}
    refused("POST", "/providers", bad, 422, "invalid_field")
    refused("PUT", "/routes/r", {"targets": []}, 422, "invalid_field")
    refused("GET", "/nothing", None, 404, "not_found")
    refused("GET", "/usage?group_by=colour", None, 422, "invalid_field")
    status, problem = workspace.raw("GET", "/keys", token="nonsense")
    assert (status, problem["code"]) == (401, "token_invalid")


def test_roles_are_kept_and_secrets_never_come_back(workspace):
    token = workspace.admin("POST", "/tokens", {"name": "fin", "role": "finance"})["token"]
    assert workspace.raw("GET", "/usage", token=token)[0] == 200
    status, problem = workspace.raw("POST", "/keys", {}, token=token)
    assert (status, problem["code"]) == (403, "role_insufficient")
    assert workspace.raw("GET", "/audit", token=token)[0] == 403
    workspace.admin("POST", "/actor-secrets", {"kid": "k", "secret": "s" * 40})
    key = workspace.key()
    key.admin("POST", "/rotate", {"overlap_seconds": 60})
    everything = "".join(
        str(workspace.admin("GET", path))
        for path in ("/providers", "/keys", "/config", "/audit", "/tokens", "/actor-secrets")
    )
    for secret in (workspace.credential, key.key, "s" * 40, token):
        assert secret not in everything


def test_the_configuration_is_exported_diffed_and_applied(workspace):
    key = workspace.key({"requests_per_minute": 100})
    exported = workspace.admin("GET", "/config")
    assert workspace.admin("PUT", "/config", exported)["changes"] == []
    exported["routes"]["smart"] = {"targets": [{"provider": "openai", "model": "gpt-6-luna"}]}
    exported["keys"][key.id]["policy"] = {"models": {"deny": ["gpt-6-sol"]}}
    changes = workspace.admin("POST", "/config/diff", exported)["changes"]
    assert {c["path"]: c["change"] for c in changes} == {
        "routes.smart": "added",
        f"keys.{key.id}": "changed",
    }
    workspace.admin("PUT", "/config", exported)
    assert key.chat(model="smart").status == 200
    assert key.chat(model="gpt-6-sol").error["code"] == "model_not_allowed"
    assert workspace.raw("POST", "/config/validate", {"routs": {}})[0] == 400
    audited = [entry["path"] for entry in workspace.admin("GET", "/audit")["data"]]
    assert "routes.smart" in audited


def test_a_workspace_is_closed_to_others(workspace, gateway, simulator):
    other = new_workspace(gateway, simulator)
    status, problem = other.raw("GET", "/keys", token=workspace.token)
    assert (status, problem["code"]) == (401, "token_invalid")
    status, _ = gateway.admin("GET", "/workspaces", token=workspace.token)
    assert status == 403


def test_the_openapi_document_is_served(workspace):
    with urllib.request.urlopen(workspace.gateway.url + "/api/v1/openapi.json") as answer:
        document = json.load(answer)
    assert document["openapi"].startswith("3.1")
    assert "/api/v1/workspaces/{workspace}/keys" in document["paths"]
