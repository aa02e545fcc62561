"""The reconciler as a Lambda: the real binary against a Runtime API, with DynamoDB, S3 and secrets of an emulator."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import uuid
from dataclasses import dataclass, field
from datetime import timedelta
from decimal import Decimal
from pathlib import Path

import boto3
import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))

from bills import Bills  # noqa: E402
from conftest import new_workspace, running_gateway  # noqa: E402
from gateway import ROOT, Simulator, call, free_port, stop, wait_for  # noqa: E402
from night import Night, difference  # noqa: E402
from rapi import Function  # noqa: E402
from test_night import traffic  # noqa: E402

BINARY = Path(os.environ.get("TALLYGATE_LAMBDA", ROOT / "target" / "debug" / "bootstrap"))
CREDENTIALS = {
    "AWS_ACCESS_KEY_ID": "testing",
    "AWS_SECRET_ACCESS_KEY": "testing-key-of-the-role",
    "AWS_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true",
}


@pytest.fixture(scope="module")
def gateway(tmp_path_factory):
    """A gateway of its own: these tests move its clock."""
    yield from running_gateway(tmp_path_factory)


@pytest.fixture(scope="module")
def simulator():
    simulator = Simulator().start()
    yield simulator
    simulator.stop()


@pytest.fixture(scope="module")
def aws(tmp_path_factory):
    """The address of an emulated AWS."""
    port, log = free_port(), tmp_path_factory.mktemp("aws") / "log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            [Path(sys.executable).parent / "moto_server", "-H", "127.0.0.1", "-p", str(port)],
            stdout=out,
            stderr=out,
            start_new_session=True,
        )
    url = f"http://127.0.0.1:{port}"
    wait_for(f"{url}/moto-api/data.json", process, "The AWS emulator", log)
    yield url
    stop(process)


@dataclass
class Lambda:
    """A deployed reconciler: what the Terraform makes, and its function."""

    night: Night
    url: str
    home: Path
    name: str = field(default_factory=lambda: uuid.uuid4().hex[:8])
    functions: list[Function] = field(default_factory=list)

    def client(self, service: str):
        return boto3.client(
            service,
            endpoint_url=self.url,
            region_name="us-east-1",
            aws_access_key_id="testing",
            aws_secret_access_key="testing",
        )

    def __post_init__(self):
        self.client("s3").create_bucket(Bucket=self.bucket)
        keys = {"pk": "HASH", "sk": "RANGE"}
        self.client("dynamodb").create_table(
            TableName=self.table,
            BillingMode="PAY_PER_REQUEST",
            AttributeDefinitions=[{"AttributeName": name, "AttributeType": "S"} for name in keys],
            KeySchema=[{"AttributeName": name, "KeyType": kind} for name, kind in keys.items()],
        )
        signer = self.night.signer
        edge = {self.night.workspace.id: {"key_id": signer.kid, "secret": signer.secret}}
        self.edge = self.secret("edge", edge)
        self.providers = {name: self.secret(f"provider/{name}", self.settings(name)) for name in ("openai", "anthropic")}

    @property
    def bucket(self) -> str:
        return f"books-{self.name}"

    @property
    def table(self) -> str:
        return f"ledger-{self.name}"

    def settings(self, provider: str) -> dict:
        """A connector's settings, with the credential itself."""
        source = getattr(self.night, provider)()
        source.pop("connector")
        return source | {"admin_key": self.night.bills.admin_key(provider)}

    def secret(self, name: str, value: object) -> str:
        made = self.client("secretsmanager").create_secret(Name=f"{self.name}/{name}", SecretString=json.dumps(value))
        return made["ARN"]

    def put_secret(self, arn: str, value: str) -> None:
        self.client("secretsmanager").put_secret_value(SecretId=arn, SecretString=value)

    @property
    def environment(self) -> dict[str, str]:
        """As infra/lambda.tf sets it, with the emulator's address and leave to choose the time."""
        return CREDENTIALS | {
            "AWS_ENDPOINT_URL": self.url,
            "RUST_LOG": "info",
            "TALLYGATE_BUCKET": self.bucket,
            "TALLYGATE_COST_TAG": "app",
            "TALLYGATE_EDGE_SECRET_ARN": self.edge,
            "TALLYGATE_EDGE_URL": self.night.workspace.gateway.url,
            "TALLYGATE_FAULTS": "on",
            "TALLYGATE_LOOKBACK_DAYS": str(self.night.days),
            "TALLYGATE_MAX_PAID_CALLS": "0",
            "TALLYGATE_PROVIDER_SECRETS": json.dumps(self.providers),
            "TALLYGATE_TABLE": self.table,
            "TALLYGATE_WORKSPACES": "",
            "TMPDIR": str(self.home),
        }

    def start(self, **environment: str) -> Function:
        home = self.home / f"function-{len(self.functions)}"
        self.functions.append(Function(BINARY, self.environment | environment, home).start())
        return self.functions[-1]

    def event(self, command: str = "night", **fields: str) -> dict:
        now = self.night.now.strftime("%Y-%m-%dT%H:%M:%SZ")
        return {"command": command, "now": now, **fields}

    def report(self, answer) -> dict:
        """The workspace's part of an answer's report."""
        return answer.body["report"]["workspaces"][self.night.workspace.id]

    def keys(self, prefix: str) -> list[str]:
        pages = self.client("s3").get_paginator("list_objects_v2").paginate(Bucket=self.bucket, Prefix=prefix)
        return [found["Key"] for page in pages for found in page.get("Contents", [])]

    def check_logs(self) -> list[dict]:
        """No secret in any line, every line is JSON. Returns the lines of metrics."""
        hidden = [
            self.night.signer.secret,
            *(self.night.bills.admin_key(name) for name in ("openai", "anthropic")),
            self.night.workspace.credential,
            CREDENTIALS["AWS_SECRET_ACCESS_KEY"],
        ]
        metrics = []
        for function in self.functions:
            for secret in hidden:
                assert secret not in function.log
            lines = [json.loads(line) for line in function.log.splitlines()]
            metrics += [line for line in lines if "_aws" in line]
        for line in metrics:
            [directive] = line["_aws"]["CloudWatchMetrics"]
            assert directive["Namespace"] == "Tallygate/Reconciler" and directive["Dimensions"] == [["service"]]
            assert line["service"] == "reconciler" and line["_aws"]["Timestamp"] > 0
            assert all(metric["Name"] in line for metric in directive["Metrics"])
        return metrics


@pytest.fixture
def deployed(gateway, simulator, aws, tmp_path):
    workspace = new_workspace(gateway, simulator)
    number = workspace.credential.removeprefix("sk-sim-")
    workspace.credential = f"sk-sim-{number}-held-by-the-gateway"
    for name in ("openai", "anthropic"):
        workspace.admin("PATCH", f"/providers/{name}", {"credential": workspace.credential})
    deployed = Lambda(Night(workspace, Bills(simulator.url, number), tmp_path), aws, tmp_path)
    yield deployed
    for function in deployed.functions:
        function.stop()
    deployed.check_logs()


SUMS = ("estimated", "billed", "ledger", "quantity_variance", "price_variance", "unmetered")


def sums(report: dict) -> dict:
    return {name: {field: provider[field] for field in SUMS} for name, provider in report["providers"].items()}


def test_the_books_equal_the_bills_and_a_second_slot_has_nothing_to_do(deployed):
    night, day = deployed.night, deployed.night.today
    traffic(night)
    night.bills.leak("openai", night.workspace.credential, "gpt-6-luna", day, requests=2, input=1000, output=100)
    night.advance()
    function = deployed.start()
    first = function.invoke(deployed.event(scheduled_at="2026-11-20T02:00:00Z"))
    assert first.status == "complete", first.body
    report = deployed.report(first)
    for provider in ("openai", "anthropic"):
        books = report["providers"][provider]
        assert Decimal(books["billed"]) == night.bills.invoice(provider, day, day).total > 0
        assert difference(books) == 0
    # DynamoDB and S3 hold them, and the months are exported.
    assert deployed.client("dynamodb").scan(TableName=deployed.table, Limit=1)["Count"] == 1
    assert deployed.keys("raw/v1/openai/") and deployed.keys("rows/v1/")
    months = {made["month"] for made in first.body["exported"]}
    assert day.strftime("%Y-%m") in months
    exports = deployed.keys("export/v1/")
    assert any(key.endswith(".parquet") for key in exports) and any(key.endswith(".csv") for key in exports)
    [metrics] = deployed.check_logs()
    assert (metrics["RunCompleted"], metrics["ProvidersMissing"], metrics["PaidCalls"]) == (1, 0, 0)
    assert metrics["LedgerRowsWritten"] == report["rows_written"] > 0
    assert f'"UnmeteredUsd":{report["providers"]["openai"]["unmetered"]}' in function.log
    # The next slot does nothing.
    items = deployed.client("dynamodb").describe_table(TableName=deployed.table)["Table"]["ItemCount"]
    second = function.invoke(deployed.event())
    assert second.status == "complete" and second.body["already"], second.body
    assert "exported" not in second.body and deployed.keys("export/v1/") == exports
    assert deployed.client("dynamodb").describe_table(TableName=deployed.table)["Table"]["ItemCount"] == items
    assert len(deployed.check_logs()) == 1
    # The same traffic in a store on local disk: the same books.
    local = night.night()
    assert sums(local) == sums(report)


def test_a_night_without_time_goes_on_in_the_next_slot(deployed):
    night = deployed.night
    night.days = 3
    for _ in range(2):
        traffic(night, teams=("search",), each=1)
        night.advance()
    function = deployed.start()
    short = function.invoke(deployed.event(), seconds=20)
    assert short.status == "more", short.body
    assert deployed.report(short)["days_settled"] == 0 and deployed.check_logs() == []
    # A new process, as after a while on AWS.
    function.stop()
    answer = deployed.start().invoke(deployed.event())
    assert answer.status == "complete", answer.body
    report = deployed.report(answer)
    assert report["seq"] == deployed.report(short)["seq"], "the same run"
    assert sums(night.night("reconcile", "--days", "3")) == sums(report)


def cost_explorer_knows_of_nothing(deployed: Lambda) -> None:
    """Two answers, for use and for record types: each of the look-back's days, without a charge."""
    days = [deployed.night.today - timedelta(days=back) for back in range(deployed.night.days, 0, -1)]
    nothing = [
        {"TimePeriod": {"Start": str(day), "End": str(day + timedelta(days=1))}, "Total": {}, "Groups": [], "Estimated": False}
        for day in days
    ]
    answer = {"ResultsByTime": nothing, "DimensionValueAttributes": [], "GroupDefinitions": []}
    status, _ = call("POST", f"{deployed.url}/moto-api/static/ce/cost-and-usage-results", {"results": [answer, answer]})
    assert status == 201


def test_a_partial_night_is_made_again_and_asks_only_for_what_is_missing(deployed):
    night = deployed.night
    traffic(night, teams=("search",), each=1)
    night.advance()
    night.bills.change("openai", faults=[{"kind": "status", "status": 403, "api": "costs"}])
    cost_explorer_knows_of_nothing(deployed)
    function = deployed.start(TALLYGATE_MAX_PAID_CALLS="20")
    first = function.invoke(deployed.event())
    assert first.status == "partial" and list(deployed.report(first)["missing"]) == ["openai"], first.body
    pulls = set(deployed.keys("pull/v1/"))
    assert not any("openai" in key for key in pulls)
    night.bills.set("openai")
    second = function.invoke(deployed.event())
    assert second.status == "complete" and not second.body["already"], second.body
    books = deployed.report(second)["providers"]["openai"]
    assert difference(books) == 0 and Decimal(books["billed"]) > 0
    new = set(deployed.keys("pull/v1/")) - pulls
    assert new and all("openai" in key for key in new), new
    assert [("RunPartial" in line, "RunCompleted" in line) for line in deployed.check_logs()] == [
        (True, False),
        (False, True),
    ]
    paid = [line["PaidCalls"] for line in deployed.check_logs()]
    assert paid == [2, 0], "what was paid for is kept"


def test_a_document_in_the_bucket_is_the_configuration(deployed):
    night, day = deployed.night, deployed.night.today
    traffic(night, teams=("search",), each=1)
    night.advance()
    document = json.loads(night.config.read_text())
    del document["storage"]
    document["lookback_days"] = night.days
    [workspace] = document["workspaces"]
    edge = {"$secret": deployed.secret("own-edge", {"secret": night.signer.secret}), "field": "secret"}
    workspace["edge"]["secret"] = edge
    for source in workspace["sources"]:
        arn = deployed.providers[source["connector"]]
        source["admin_key"] = {"$secret": arn, "field": "admin_key"}
    body = json.dumps(document).encode()
    deployed.client("s3").put_object(Bucket=deployed.bucket, Key="config/reconciler.json", Body=body)
    # The environment's secrets are not needed then.
    function = deployed.start(TALLYGATE_EDGE_SECRET_ARN="", TALLYGATE_PROVIDER_SECRETS="")
    answer = function.invoke(deployed.event())
    assert answer.status == "complete", answer.body
    by_night = {made["month"]: made["number"] for made in answer.body["exported"]}
    books = deployed.report(answer)["providers"]["openai"]
    assert Decimal(books["ledger"]) == night.bills.invoice("openai", day, day).total
    # Other commands.
    doctor = function.invoke(deployed.event("doctor"))
    assert doctor.status == "complete" and any("openai" in line for line in doctor.body["lines"])
    month = day.strftime("%Y-%m")
    [made] = function.invoke(deployed.event("export", month=month)).body["exported"]
    assert made["month"] == month and made["number"] > by_night[month]
    backfill = function.invoke(deployed.event("backfill", **{"from": str(day), "to": str(day)}))
    assert backfill.status == "complete" and deployed.report(backfill)["rows_written"] == 0, backfill.body


def test_what_is_wrong_is_said_without_addresses_and_secrets(deployed):
    function = deployed.start()

    def failure(function: Function, event: object) -> tuple[str, str]:
        answer = function.invoke(event)
        assert answer.failed, answer.body
        assert not re.search("https?://", json.dumps(answer.body)), answer.body
        return answer.body["errorType"], answer.body["errorMessage"]

    kind, message = failure(function, {"command": "night", "days": 3})
    assert kind == "BadEvent" and "days" in message
    # Time is chosen in tests only.
    kind, message = failure(deployed.start(TALLYGATE_FAULTS=""), deployed.event())
    assert kind == "BadEvent" and "now" in message
    gone = "arn:aws:secretsmanager:us-east-1:123456789012:secret:gone-abcdef"
    kind, message = failure(deployed.start(TALLYGATE_EDGE_SECRET_ARN=gone), deployed.event())
    assert kind == "StoreFailed" and gone in message and "put" in message, (kind, message)
    kind, message = failure(deployed.start(TALLYGATE_BUCKET="no-such-bucket"), deployed.event())
    assert kind == "StoreFailed" and "bucket" in message, (kind, message)
    deployed.put_secret(deployed.providers["openai"], "sk-pasted-as-it-is")
    kind, message = failure(function, deployed.event())
    assert kind == "BadConfiguration" and "openai" in message and "admin_key" in message
    assert "sk-pasted" not in message
    lines = deployed.check_logs()
    assert len(lines) == 5 and all(line["RunFailed"] == 1 for line in lines)


def test_a_missing_permission_is_named(deployed, tmp_path):
    """An AWS that refuses everything, as one does whose role lacks the permission."""
    import threading
    from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

    class Refuses(BaseHTTPRequestHandler):
        def do_POST(self):
            self.rfile.read(int(self.headers.get("content-length") or 0))
            body = b'{"__type":"AccessDeniedException","message":"not authorized"}'
            self.send_response(400)
            self.send_header("content-type", "application/x-amz-json-1.1")
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Refuses)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_port}"
    for service, action in (("SECRETS_MANAGER", "secretsmanager:GetSecretValue"), ("DYNAMODB", "dynamodb:")):
        answer = deployed.start(**{f"AWS_ENDPOINT_URL_{service}": url}).invoke(deployed.event())
        assert answer.failed and answer.body["errorType"] == "PermissionMissing", answer.body
        assert action in answer.body["errorMessage"] and "grant" in answer.body["errorMessage"]
    server.shutdown()
