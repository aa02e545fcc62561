"""Metrics and events out: what Prometheus scrapes and what an OpenTelemetry collector gets, read by their own parsers."""

from __future__ import annotations

import base64
import json
import threading
import time
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from google.protobuf import json_format
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics
from prometheus_client.parser import text_string_to_metric_families as text_format

from conftest import Gateway, call, new_secrets, new_workspace

PARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
OPENMETRICS = "application/openmetrics-text;version=1.0.0,text/plain;q=0.5"


class Server:
    """A local HTTP server that answers as it is told and keeps what it got: a collector, or a provider."""

    def __init__(self, body: str = "{}"):
        self.status = 200
        self.body = body
        self.headers: dict[str, str] = {}
        self.hold = threading.Event()
        self.hold.set()
        self.got: list[tuple[str, dict[str, str], str]] = []
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                body = self.rfile.read(int(self.headers["content-length"])).decode()
                headers = {name.lower(): value for name, value in self.headers.items()}
                server.got.append((self.path, headers, body))
                server.hold.wait(60)
                self.send_response(server.status)
                for name, value in server.headers.items():
                    self.send_header(name, value)
                answer = server.body.encode()
                self.send_header("content-type", "application/json")
                self.send_header("content-length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            def log_message(self, *_):
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.http.server_port}"
        threading.Thread(target=self.http.serve_forever, daemon=True).start()

    def to(self, path: str) -> list[tuple[dict[str, str], str]]:
        return [(headers, body) for at, headers, body in list(self.got) if at == path]

    def close(self) -> None:
        self.hold.set()
        self.http.shutdown()
        self.http.server_close()


def parse_logs(body: str) -> ExportLogsServiceRequest:
    """Strictly. OTLP's JSON has ids in hex where Protobuf's has base 64; all else is Protobuf's."""
    message = json.loads(body)
    for resource in message["resourceLogs"]:
        for scope in resource["scopeLogs"]:
            for record in scope["logRecords"]:
                for name in ("traceId", "spanId"):
                    if name in record:
                        raw = bytes.fromhex(record[name])
                        record[name] = base64.b64encode(raw).decode()
    return json_format.ParseDict(message, ExportLogsServiceRequest(), ignore_unknown_fields=False)


def parse_metrics(body: str) -> ExportMetricsServiceRequest:
    request = ExportMetricsServiceRequest()
    return json_format.ParseDict(json.loads(body), request, ignore_unknown_fields=False)


def plain(attributes) -> dict:
    return {a.key: getattr(a.value, a.value.WhichOneof("value")) for a in attributes}


class Bench:
    """A workspace on a gateway of its own, whose clock a test moves."""

    def __init__(self, workspace):
        self.workspace = workspace
        self.gateway = workspace.gateway
        self.servers: list[Server] = []

    def server(self, body: str = "{}") -> Server:
        self.servers.append(Server(body))
        return self.servers[-1]

    def collector(self, **fields) -> Server:
        server = self.server()
        body = {"endpoint": server.url, "headers": {"Authorization": "Bearer collect-me"}, **fields}
        self.workspace.admin("PUT", "/telemetry", body)
        return server

    def advance(self, seconds: float) -> None:
        status, _ = call("POST", f"{self.gateway.url}/_test/advance?ms={int(seconds * 1000)}")
        assert status == 200
        self.ring()

    def ring(self) -> None:
        url = f"{self.gateway.url}/_test/alarm?telemetry={self.workspace.id}"
        assert call("POST", url)[0] == 200

    def until(self, check, patience: float = 10):
        deadline = time.monotonic() + patience
        while not (result := check()):
            assert time.monotonic() < deadline, "it did not come about"
            time.sleep(0.02)
        return result

    def use(self, key, **fields):
        """A request, counted."""
        reply = key.chat(**fields)
        key.ring()
        return reply

    def scrape(self, accept: str = "") -> tuple[str, str]:
        url = f"{self.gateway.url}/api/v1/workspaces/{self.workspace.id}/metrics"
        request = urllib.request.Request(url, headers={"accept": accept} if accept else {})
        request.add_header("authorization", f"Bearer {self.workspace.token}")
        with urllib.request.urlopen(request, timeout=10) as answer:
            return answer.headers["content-type"], answer.read().decode()

    def samples(self) -> dict[tuple[str, frozenset], float]:
        found = {}
        for family in text_format(self.scrape()[1]):
            for sample in family.samples:
                place = (sample.name, frozenset(sample.labels.items()))
                assert place not in found, f"{place} is there twice"
                found[place] = sample.value
        return found

    def total(self, name: str, **labels) -> float:
        """The sum of all series of this name that have these labels."""
        wanted = set(labels.items())
        return sum(v for (n, have), v in self.samples().items() if n == name and wanted <= have)

    def exports(self) -> dict:
        return self.workspace.admin("GET", "/telemetry")["exports"]

    def logs(self, server: Server) -> list[dict]:
        """All records that came, parsed."""
        records = []
        for _, body in server.to("/v1/logs"):
            for resource in parse_logs(body).resource_logs:
                for scope in resource.scope_logs:
                    records.extend(scope.log_records)
        return records


@pytest.fixture
def bench(tmp_path, simulator):
    settings = new_secrets() | {
        "TALLYGATE_FAULTS": "on",
        "TALLYGATE_ALLOW_PRIVATE_DELIVERY": "on",
    }
    gateway = Gateway(home=tmp_path, settings=settings).start()
    bench = Bench(new_workspace(gateway, simulator))
    yield bench
    for server in bench.servers:
        server.close()
    gateway.stop()


def test_prometheus_scrapes_what_the_books_say(bench):
    key = bench.workspace.key({"models": {"allow": ["gpt-6-luna"]}}, actor={"team": "search"})
    events = [key.event(bench.use(key).id) for _ in range(3)]
    assert bench.use(key, model="gpt-6-sol").status == 403
    key.ring()
    bench.until(lambda: bench.total("tallygate_requests_total") == 4)
    assert bench.total("tallygate_requests_total", outcome="completed", team="search") == 3
    assert bench.total("tallygate_refusals_total", code="model_not_allowed") == 1
    cost = sum(float(event["cost"]["total"]) for event in events)
    assert bench.total("tallygate_cost_usd_total") == pytest.approx(cost, rel=1e-12)
    tokens = [event["usage"]["tally"]["tokens"] for event in events]
    for bucket in ("input", "output"):
        expected = sum(each.get(bucket, 0) for each in tokens)
        assert bench.total("tallygate_tokens_total", bucket=bucket) == expected > 0
    assert bench.total("tallygate_provider_attempts_total", result="200") == 3
    assert bench.total("tallygate_request_duration_seconds_count") == 3
    assert bench.total("tallygate_ledger_outbox_events") == 0
    assert bench.total("tallygate_alerts_open", severity="critical") == 0
    bench.until(lambda: bench.total("tallygate_alerts_open") >= 1)  # the first use of a model
    seen = bench.total("tallygate_last_event_timestamp_seconds")
    assert abs(seen - max(event["settled_at"] for event in events) / 1000) < 60


def test_both_formats_are_valid_and_say_the_same(bench):
    key = bench.workspace.key(actor={"team": 'quoted "team" \\ with slashes'})
    bench.use(key)
    bench.until(lambda: bench.total("tallygate_requests_total") == 1)
    kind, text = bench.scrape()
    assert kind == "text/plain; version=0.0.4; charset=utf-8"
    open_kind, open_text = bench.scrape(OPENMETRICS)
    assert open_kind == "application/openmetrics-text; version=1.0.0; charset=utf-8"
    read = {}
    for name, parse, page in [("text", text_format, text), ("open", openmetrics, open_text)]:
        families = list(parse(page))
        kinds = {family.name: family.type for family in families}
        samples = {
            (s.name, frozenset(s.labels.items()), s.value) for f in families for s in f.samples
        }
        read[name] = (kinds, samples)
    assert read["text"] == read["open"]
    kinds, samples = read["text"]
    assert kinds["tallygate_requests"] == "counter"
    assert kinds["tallygate_request_duration_seconds"] == "histogram"
    teams = {dict(labels).get("team") for _, labels, _ in samples}
    assert 'quoted "team" \\ with slashes' in teams


def test_counters_go_on_across_months_and_restarts(bench):
    key = bench.workspace.key()
    bench.use(key)
    bench.until(lambda: bench.total("tallygate_requests_total") == 1)
    bench.advance(40 * 86400)
    bench.use(key)
    bench.until(lambda: bench.total("tallygate_requests_total") == 2)
    before = bench.samples()
    bench.gateway.kill()
    bench.gateway.start()
    after = bench.samples()
    for place, value in before.items():
        if place[0].endswith(("_total", "_bucket", "_count", "_sum")):
            assert after[place] >= value, place


def test_only_a_token_of_the_workspace_scrapes(bench):
    url = f"/workspaces/{bench.workspace.id}/metrics"
    assert call("GET", f"{bench.gateway.url}/api/v1{url}")[0] == 401
    other = new_workspace(bench.gateway, bench.workspace.simulator)
    assert bench.gateway.admin("GET", url, token=other.token)[0] == 401


def test_budgets_are_gauges(bench):
    for name, scope in [
        ("all", {"dimension": "workspace"}),
        ("team", {"dimension": "team", "value": "search"}),
        ("each", {"dimension": "team", "value": "*"}),
    ]:
        terms = {"scope": scope, "owner": "ann", "window": "day", "limit_usd": "100"}
        bench.workspace.admin("PUT", f"/budgets/{name}", terms)
    key = bench.workspace.key(actor={"team": "search"})
    key.event(bench.use(key).id)
    assert key.get("/v1/budget").status == 200, "budgets hear of it now, and not in a while"
    bench.until(lambda: bench.total("tallygate_budget_spent_usd", budget="team"))
    spent = bench.until(lambda: bench.total("tallygate_budget_spent_usd", budget="all"))
    assert 0 < spent < 100
    assert bench.total("tallygate_budget_limit_usd", budget="all") == 100
    assert 'budget="each"' not in bench.scrape()[1], "one that has an account for each team is no gauge"


def test_a_collector_gets_log_events_by_the_conventions(bench):
    collector = bench.collector(resource={"deployment.environment.name": "test"})
    key = bench.workspace.key({"models": {"allow": ["gpt-6-luna"]}}, actor={"team": "search"})
    done = key.post(
        "/v1/chat/completions",
        {"model": "gpt-6-luna", "messages": [{"role": "user", "content": "a prompt nobody sees"}]},
        traceparent=PARENT,
        x_tallygate_tags="free=text",
    )
    event = key.event(done.id)
    assert key.chat(model="gpt-6-sol").status == 403
    key.ring()
    bench.advance(5)
    bench.until(lambda: len(bench.logs(collector)) == 2)
    headers, body = collector.to("/v1/logs")[0]
    assert headers["authorization"] == "Bearer collect-me"
    assert headers["content-type"] == "application/json"
    for secret in ("a prompt nobody sees", "free", key.key, "collect-me"):
        assert secret not in body
    resource = plain(parse_logs(body).resource_logs[0].resource.attributes)
    assert resource["service.name"] == "tallygate"
    assert resource["tallygate.workspace.id"] == bench.workspace.id
    assert resource["deployment.environment.name"] == "test"

    records = {record.event_name: record for record in bench.logs(collector)}
    record = records["gen_ai.client.inference.operation.details"]
    found = plain(record.attributes)
    tokens = event["usage"]["tally"]["tokens"]
    assert found["gen_ai.operation.name"] == "chat"
    assert found["gen_ai.provider.name"] == "openai"
    assert found["gen_ai.request.model"] == "gpt-6-luna"
    assert found["gen_ai.usage.input_tokens"] == tokens["input"] + tokens.get("cache_read", 0)
    assert found["gen_ai.usage.output_tokens"] == tokens["output"] + tokens.get("reasoning", 0)
    assert found["tallygate.request.id"] == done.id
    assert found["tallygate.team"] == "search"
    assert found["tallygate.cost.usd"] == pytest.approx(float(event["cost"]["total"]))
    assert found["tallygate.budget.decision"] == "allowed"
    assert record.severity_number == 9
    assert record.trace_id.hex() == TRACE == event["trace_id"]
    assert record.span_id.hex() == event["span_id"] != "00f067aa0ba902b7"
    assert record.time_unix_nano == event["settled_at"] * 1_000_000
    refused = records["tallygate.request.refused"]
    assert plain(refused.attributes)["error.type"] == "model_not_allowed"
    assert refused.trace_id == b""


def test_a_collector_gets_metrics_by_the_conventions(bench):
    collector = bench.collector(signals=["metrics"])
    key = bench.workspace.key(actor={"team": "search"})
    events = [key.event(bench.use(key).id) for _ in range(2)]
    key.ring()
    bench.advance(61)

    def newest():
        bodies = collector.to("/v1/metrics")
        if not bodies:
            return None
        [resource] = parse_metrics(bodies[-1][1]).resource_metrics
        [scope] = resource.scope_metrics
        metrics = {metric.name: metric for metric in scope.metrics}
        duration = metrics["gen_ai.client.operation.duration"].histogram.data_points
        return metrics if sum(point.count for point in duration) == 2 else None

    metrics = bench.until(newest)
    usage = metrics["gen_ai.client.token.usage"]
    assert usage.unit == "{token}" and usage.histogram.aggregation_temporality == 2
    by_type = {}
    for point in usage.histogram.data_points:
        found = plain(point.attributes)
        assert found["gen_ai.operation.name"] == "chat"
        assert found["gen_ai.provider.name"] == "openai"
        assert list(point.explicit_bounds) == [4.0**n for n in range(14)]
        assert len(point.bucket_counts) == 15 and sum(point.bucket_counts) == point.count == 2
        assert 0 < point.start_time_unix_nano < point.time_unix_nano
        by_type[found["gen_ai.token.type"]] = point.sum
    tokens = [event["usage"]["tally"]["tokens"] for event in events]
    assert by_type["input"] == sum(t["input"] + t.get("cache_read", 0) for t in tokens)
    assert by_type["output"] == sum(t["output"] + t.get("reasoning", 0) for t in tokens)
    duration = metrics["gen_ai.client.operation.duration"]
    assert duration.unit == "s"
    bounds = list(duration.histogram.data_points[0].explicit_bounds)
    assert bounds == pytest.approx([0.01 * 2**n for n in range(14)])
    [cost] = metrics["tallygate.cost"].sum.data_points
    assert metrics["tallygate.cost"].sum.is_monotonic
    assert plain(cost.attributes)["tallygate.team"] == "search"
    expected = sum(float(event["cost"]["total"]) for event in events)
    assert cost.as_double == pytest.approx(expected)
    assert collector.to("/v1/logs") == []


def test_a_dead_collector_loses_nothing_and_delays_nothing(bench):
    collector = bench.collector(signals=["logs"])
    collector.hold.clear()
    key = bench.workspace.key()
    ids = {bench.use(key).id}
    bench.advance(5)
    bench.until(lambda: collector.got)
    began = time.monotonic()
    ids |= {bench.use(key).id for _ in range(3)}
    assert time.monotonic() - began < 5, "no request waits for a collector that hangs"
    collector.status, collector.headers = 503, {"retry-after": "3600"}
    collector.hold.set()
    bench.until(lambda: bench.exports()["logs"]["status"] == 503)
    tried = len(collector.got)
    bench.advance(1800)
    assert len(collector.got) == tried, "Retry-After is honoured"
    assert bench.exports()["logs"]["waiting"] == 4
    assert bench.total("tallygate_telemetry_lag_seconds", signal="logs") > 1700
    bench.gateway.kill()
    bench.gateway.start()
    collector.status, collector.headers, collector.got = 200, {}, []
    bench.advance(7200)
    bench.until(lambda: bench.exports()["logs"]["waiting"] == 0)
    came = [plain(record.attributes)["tallygate.request.id"] for record in bench.logs(collector)]
    assert sorted(came) == sorted(ids)


def test_a_partial_success_is_logged_and_not_repeated(bench):
    collector = bench.collector(signals=["logs"])
    collector.body = json.dumps(
        {"partialSuccess": {"rejectedLogRecords": "1", "errorMessage": "too old"}}
    )
    key = bench.workspace.key()
    bench.use(key)
    bench.use(key)
    bench.advance(5)
    logs = bench.until(lambda: (found := bench.exports()["logs"])["dropped"] and found)
    assert (logs["dropped"], logs["waiting"], logs["error"]) == (1, 0, "rejected 1: too old")
    bench.advance(3600)
    assert len(bench.logs(collector)) == 2, "nothing came again"
    assert "partial_success, rejected 1" in bench.gateway.log.read_text()


def test_what_is_refused_for_good_is_dropped_and_counted(bench):
    collector = bench.collector(signals=["logs"])
    collector.status = 400
    key = bench.workspace.key()
    bench.use(key)
    bench.advance(5)
    bench.until(lambda: bench.exports()["logs"]["dropped"] == 1)
    assert bench.total("tallygate_telemetry_dropped_total", signal="logs") == 1
    bench.advance(3600)
    assert len(collector.got) == 1


def test_the_trace_goes_on_at_the_provider(bench):
    answer = {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "model": "gpt-6-luna",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": "Hi"}}],
        "usage": {"prompt_tokens": 5, "completion_tokens": 1, "total_tokens": 6},
    }
    provider = bench.server(json.dumps(answer))
    body = {"base_url": f"{provider.url}/v1", "credential": "sk-local"}
    bench.workspace.admin("PATCH", "/providers/openai", body)
    key = bench.workspace.key()
    request = {"model": "gpt-6-luna", "messages": [{"role": "user", "content": "Hello"}]}

    def passed(**headers) -> tuple[dict[str, str], dict]:
        reply = key.post("/v1/chat/completions", request, **headers)
        assert reply.status == 200, reply.body
        return provider.got[-1][1], key.event(reply.id)

    sent, event = passed(traceparent=PARENT, tracestate="congo=t61rcWkgMzE, rojo=1")
    version, trace, span, flags = sent["traceparent"].split("-")
    assert (version, trace, flags) == ("00", TRACE, "01")
    assert span != "00f067aa0ba902b7"
    assert sent["tracestate"] == "congo=t61rcWkgMzE,rojo=1"
    assert (event["trace_id"], event["span_id"]) == (trace, span)

    for headers in ({}, {"traceparent": "00-nonsense", "tracestate": "a=1"}):
        sent, event = passed(**headers)
        assert "traceparent" not in sent and "tracestate" not in sent
        assert "trace_id" not in event

    bench.workspace.admin("PUT", "/telemetry", {"start_traces": True})
    sent, event = passed(traceparent="00-nonsense", tracestate="a=1")
    assert sent["traceparent"] == f"00-{event['trace_id']}-{event['span_id']}-03"
    assert "tracestate" not in sent


def test_a_private_collector_is_refused_without_the_operator_s_setting(workspace):
    for endpoint in ("http://otlp.example.com", "https://127.0.0.1:4318", "https://[fd00::1]"):
        status, answer = workspace.raw("PUT", "/telemetry", {"endpoint": endpoint})
        assert (status, answer["errors"][0]["field"]) == (422, "telemetry.endpoint"), answer
