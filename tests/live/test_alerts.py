"""Alerts: found in real traffic, and told to receivers that verify, fail, hang, move and go away."""

from __future__ import annotations

import json
import threading
import time
from datetime import datetime, timezone
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import standardwebhooks.webhooks
from standardwebhooks import Webhook

from conftest import Gateway, call, new_secrets, new_workspace


class Receiver:
    """A local HTTP server that answers as it is told and keeps what it got."""

    def __init__(self, status: int = 204):
        self.status = status
        self.headers: dict[str, str] = {}
        self.hold = threading.Event()
        self.hold.set()
        self.got: list[tuple[dict[str, str], str]] = []
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                body = self.rfile.read(int(self.headers["content-length"])).decode()
                headers = {name.lower(): value for name, value in self.headers.items()}
                receiver.got.append((headers, body))
                receiver.hold.wait(60)
                self.send_response(receiver.status)
                for name, value in receiver.headers.items():
                    self.send_header(name, value)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_port}/hook"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def wait(self, count: int, patience: float = 10) -> list[dict]:
        """The bodies, once there are so many."""
        deadline = time.monotonic() + patience
        while len(self.got) < count:
            assert time.monotonic() < deadline, f"{len(self.got)} of {count} messages came"
            time.sleep(0.02)
        assert len(self.got) == count
        return [json.loads(body) for _, body in self.got]

    def close(self) -> None:
        self.hold.set()
        self.server.shutdown()
        self.server.server_close()


class Bench:
    """A workspace on a gateway of its own, whose clock a test moves."""

    def __init__(self, workspace):
        self.workspace = workspace
        self.gateway = workspace.gateway
        self.receivers: list[Receiver] = []

    def receiver(self, name: str, status: int = 204, **fields) -> tuple[Receiver, dict]:
        receiver = Receiver(status)
        self.receivers.append(receiver)
        body = {"type": "standard_webhook", "url": receiver.url, **fields}
        return receiver, self.workspace.admin("PUT", f"/receivers/{name}", body)

    def advance(self, seconds: float) -> None:
        status, answer = call("POST", f"{self.gateway.url}/_test/advance?ms={int(seconds * 1000)}")
        assert status == 200
        self.now = answer["now"] / 1000
        self.ring()

    def ring(self) -> None:
        status, _ = call("POST", f"{self.gateway.url}/_test/alarm?alerts={self.workspace.id}")
        assert status == 200

    def deliveries(self, query: str = "") -> list[dict]:
        return self.workspace.admin("GET", f"/deliveries{query}")["data"]

    def until(self, check, patience: float = 10):
        deadline = time.monotonic() + patience
        while not (result := check()):
            assert time.monotonic() < deadline, "it did not come about"
            time.sleep(0.02)
        return result

    def use(self, key, model: str = "gpt-6-luna", **fields):
        """A request, and what the Alerts object makes of it."""
        reply = key.chat(model=model, **fields)
        key.event(reply.id)
        key.ring()
        return reply


@pytest.fixture
def bench(tmp_path, simulator):
    settings = new_secrets() | {
        "TALLYGATE_FAULTS": "on",
        "TALLYGATE_ALLOW_PRIVATE_DELIVERY": "on",
    }
    gateway = Gateway(home=tmp_path, settings=settings).start()
    bench = Bench(new_workspace(gateway, simulator))
    yield bench
    for receiver in bench.receivers:
        receiver.close()
    gateway.stop()


def verify_at(monkeypatch, moment: float) -> None:
    """Lets the library's tolerance count from the gateway's clock."""

    class Clock(datetime):
        @classmethod
        def now(cls, tz=None):
            return datetime.fromtimestamp(moment, tz=tz)

    monkeypatch.setattr(standardwebhooks.webhooks, "datetime", Clock)


def test_the_first_use_of_a_model_is_told_signed_and_once(bench):
    receiver, made = bench.receiver("ops")
    key = bench.workspace.key()
    for _ in range(3):
        reply = bench.use(key)
    [body] = receiver.wait(1)
    headers, raw = receiver.got[0]
    assert Webhook(made["secret"]).verify(raw, headers) == body
    with pytest.raises(standardwebhooks.webhooks.WebhookVerificationError):
        Webhook(made["secret"]).verify(raw.replace("info", "INFO"), headers)
    assert headers["content-type"] == "application/json"
    assert body["type"] == "alert.opened"
    alert = body["data"]["alert"]
    assert (alert["kind"], alert["severity"]) == ("new_model", "info")
    assert alert["owner"] == "ann"
    assert alert["evidence"]["model"] == "openai/gpt-6-luna"
    assert alert["link"].startswith("/requests/req_")
    listed = bench.workspace.admin("GET", "/alerts?kind=new_model")["data"]
    assert [a["id"] for a in listed] == [alert["id"]]
    assert bench.until(lambda: bench.deliveries("?state=delivered"))[0]["status"] == 204
    assert "Hello" not in raw and reply.status == 200


def test_a_message_is_tried_again_on_schedule_with_the_same_id(bench, monkeypatch):
    receiver, made = bench.receiver("ops", status=500)
    bench.use(bench.workspace.key())
    receiver.wait(1)
    waits = [5, 300, 1800, 7200, 18000, 36000, 50400, 72000, 86400]
    for attempt, wait in enumerate(waits, start=2):
        bench.until(lambda: bench.deliveries()[0].get("status") == 500)
        bench.until(lambda: bench.deliveries()[0]["attempts"] == attempt - 1)
        bench.advance(wait * 0.9)
        assert len(receiver.got) == attempt - 1, "too early"
        # A tenth may be jitter.
        bench.advance(wait * 0.25)
        # The alert itself is over after seven days: none of these waits reaches it.
        receiver.wait(attempt)
        headers, raw = receiver.got[-1]
        verify_at(monkeypatch, bench.now)
        Webhook(made["secret"]).verify(raw, headers)
    assert len({headers["webhook-id"] for headers, _ in receiver.got}) == 1
    assert len({raw for _, raw in receiver.got}) == 1
    failed = bench.until(lambda: bench.deliveries("?state=failed"))[0]
    assert failed["attempts"] == 10
    # Nothing is lost: by hand it goes out again.
    receiver.status = 200
    bench.workspace.admin("POST", f"/deliveries/{failed['id']}/redeliver")
    receiver.wait(11)
    assert bench.until(lambda: bench.deliveries("?state=delivered"))[0]["id"] == failed["id"]


def test_a_receiver_that_hangs_delays_no_other_and_no_request(bench):
    dead, _ = bench.receiver("dead")
    dead.hold.clear()
    live, _ = bench.receiver("live")
    key = bench.workspace.key()
    started = time.monotonic()
    for count, model in enumerate(["gpt-6-luna", "gpt-6-sol", "gpt-6-astra"], start=1):
        reply = bench.use(key, model=model)
        assert reply.status == 200
        live.wait(count, patience=5)
    assert time.monotonic() - started < 14, "somebody waited for the receiver that hangs"
    assert len(dead.got) == 1
    # The books are where they belong.
    usage = bench.workspace.admin("GET", "/usage")
    assert sum(row["requests"] for row in usage["data"]) == 3
    dead.hold.set()
    # What waited for it comes as soon as it answers.
    dead.wait(3)


def test_a_receiver_that_is_gone_gets_nothing_until_it_is_tested(bench):
    receiver, _ = bench.receiver("ops", status=410)
    key = bench.workspace.key()
    bench.use(key)
    receiver.wait(1)
    bench.until(lambda: bench.workspace.admin("GET", "/receivers/ops")["gone"])
    bench.use(key, model="gpt-6-sol")
    bench.advance(3600)
    assert len(receiver.got) == 1
    assert bench.workspace.admin("POST", "/receivers/ops/test")["delivered"] is False
    receiver.status = 200
    tested = bench.workspace.admin("POST", "/receivers/ops/test")
    assert (tested["delivered"], tested["status"]) == (True, 200)
    assert json.loads(receiver.got[-1][1])["type"] == "alert.test"
    bench.use(key, model="gpt-6-astra")
    receiver.wait(4)


def test_redirects_are_not_followed(bench):
    elsewhere = Receiver()
    bench.receivers.append(elsewhere)
    receiver, _ = bench.receiver("ops", status=307)
    receiver.headers["location"] = elsewhere.url
    tested = bench.workspace.admin("POST", "/receivers/ops/test")
    assert (tested["delivered"], tested["status"]) == (False, 307)
    assert elsewhere.got == []


def test_while_a_secret_is_replaced_either_one_verifies(bench, monkeypatch):
    receiver, made = bench.receiver("ops")
    rotated = bench.workspace.admin("POST", "/receivers/ops/rotate", {"overlap_seconds": 3600})
    old, new = made["secret"], rotated["secret"]
    bench.workspace.admin("POST", "/receivers/ops/test")
    headers, raw = receiver.got[-1]
    assert len(headers["webhook-signature"].split()) == 2
    for secret in (old, new):
        assert Webhook(secret).verify(raw, headers)["type"] == "alert.test"
    bench.advance(3601)
    verify_at(monkeypatch, bench.now)
    bench.workspace.admin("POST", "/receivers/ops/test")
    headers, raw = receiver.got[-1]
    Webhook(new).verify(raw, headers)
    with pytest.raises(standardwebhooks.webhooks.WebhookVerificationError):
        Webhook(old).verify(raw, headers)


def test_slack_gets_text_and_blocks(bench):
    receiver, shown = bench.receiver("chat", type="slack")
    assert "url" not in shown and "secret" not in shown
    bench.use(bench.workspace.key())
    [body] = receiver.wait(1)
    assert body["text"].startswith("[Info] Model openai/gpt-6-luna")
    assert [block["type"] for block in body["blocks"]] == ["section", "section", "context"]
    assert "webhook-signature" not in receiver.got[0][0]


def test_expensive_unpriced_and_failing_are_found(bench):
    bench.workspace.admin(
        "PUT",
        "/alert-settings",
        {"rules": {"expensive_request_usd": "0.01", "provider_error_min_requests": 5}},
    )
    receiver, _ = bench.receiver(
        "ops", kinds=["expensive_request", "unpriced_model", "provider_errors"]
    )
    key = bench.workspace.key()
    reply = bench.use(key, sim={"input_tokens": 1_000_000, "output_tokens": 10})
    alert = receiver.wait(1)[0]["data"]["alert"]
    assert (alert["kind"], alert["severity"]) == ("expensive_request", "critical")
    assert alert["link"] == f"/requests/{reply.id}"
    assert alert["evidence"]["cost_usd"].startswith("0.2")
    assert bench.use(key, model="openai/house-model").status == 200
    alert = receiver.wait(2)[1]["data"]["alert"]
    assert (alert["kind"], alert["evidence"]["model"]) == ("unpriced_model", "openai/house-model")
    for _ in range(5):
        bench.use(key, sim={"status": 500})
    alert = receiver.wait(3)[2]["data"]["alert"]
    assert (alert["kind"], alert["severity"]) == ("provider_errors", "critical")
    assert alert["evidence"]["provider"] == "openai"
    # Calm for as long as the window is: it went away, and that is told.
    bench.advance(11 * 60)
    last = receiver.wait(4)[3]
    assert (last["type"], last["data"]["alert"]["kind"]) == ("alert.resolved", "provider_errors")


def test_a_key_in_a_new_network_is_found(bench):
    receiver, _ = bench.receiver("ops", kinds=["key_new_network"])
    key = bench.workspace.key()
    for address in ["198.51.100.7", "198.51.100.200", "203.0.113.9"]:
        body = {"model": "gpt-6-luna", "messages": [{"role": "user", "content": "Hello"}]}
        reply = key.post("/v1/chat/completions", body, cf_connecting_ip=address)
        assert key.event(reply.id)["network"].endswith(".0/24")
        key.ring()
    [body] = receiver.wait(1)
    assert body["data"]["alert"]["evidence"]["network"] == "203.0.113.0/24"
    assert body["data"]["alert"]["link"] == f"/keys/{key.id}"


def test_people_take_snooze_and_resolve(bench):
    receiver, _ = bench.receiver("ops", kinds=["unpriced_model"])
    key = bench.workspace.key()
    bench.use(key, model="openai/house-model")
    alert = receiver.wait(1)[0]["data"]["alert"]
    path = f"/alerts/{alert['id']}"
    assert bench.workspace.admin("POST", f"{path}/acknowledge")["status"]["state"] == "acknowledged"
    bench.advance(0)
    until = datetime.fromtimestamp(bench.now + 3600, tz=timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
    bench.workspace.admin("POST", f"{path}/snooze", {"until": until, "reason": "price is coming"})
    bench.use(key, model="openai/house-model")
    assert len(receiver.got) == 1
    bench.advance(3601)
    assert receiver.wait(2)[1]["type"] == "alert.reopened"
    assert bench.workspace.admin("POST", f"{path}/resolve")["status"]["state"] == "resolved"
    assert receiver.wait(3)[2]["type"] == "alert.resolved"
    # It is so still: counted, and quiet until it went away.
    bench.use(key, model="openai/house-model")
    shown = bench.workspace.admin("GET", path)
    assert (shown["count"], shown["status"]["state"]) == (3, "resolved")
    bench.advance(25 * 3600)
    bench.use(key, model="openai/house-model")
    assert receiver.wait(4)[3]["type"] == "alert.reopened"


def test_a_private_address_is_refused_without_the_operator_s_setting(workspace):
    for url in [
        "http://hooks.example.com/",
        "https://127.0.0.1/",
        "https://169.254.169.254/latest/meta-data",
        "https://[::ffff:10.0.0.1]/",
        "https://0x7f000001/",
        "https://localhost/",
    ]:
        body = {"type": "standard_webhook", "url": url}
        status, problem = workspace.raw("PUT", "/receivers/ops", body)
        assert status == 422, (url, problem)
        assert problem["errors"][0]["field"] == "receivers.ops.url"
        status, problem = workspace.raw("PUT", "/receivers/chat", {**body, "type": "slack"})
        assert (status, problem["errors"][0]["field"]) == (422, "url")


def test_alerts_go_on_after_the_runtime_was_killed(bench):
    receiver, _ = bench.receiver("ops", status=500)
    bench.use(bench.workspace.key())
    receiver.wait(1)
    bench.until(lambda: bench.deliveries()[0].get("status") == 500)
    bench.gateway.kill()
    bench.gateway.start()
    receiver.status = 200
    bench.advance(6)
    receiver.wait(2)
    assert receiver.got[0][0]["webhook-id"] == receiver.got[1][0]["webhook-id"]
