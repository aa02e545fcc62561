"""What speaks to AWS, against moto: the stores' conformance suite (`cargo test` runs it on local disk), and Cost Explorer."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
# One request at a time: AWS applies each request to an item or object as a whole, moto's threads do not.
ONE_BY_ONE = """
import sys
from moto.server import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import run_simple
run_simple("127.0.0.1", int(sys.argv[1]), DomainDispatcherApplication(create_backend_app))
"""


@pytest.fixture(scope="module")
def moto():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    server = subprocess.Popen(
        [sys.executable, "-c", ONE_BY_ONE, str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    url = f"http://127.0.0.1:{port}"
    deadline = time.monotonic() + 60
    while True:
        try:
            urllib.request.urlopen(f"{url}/moto-api/", timeout=2).close()
            break
        except (urllib.error.URLError, OSError):
            assert server.poll() is None and time.monotonic() < deadline, "moto did not start"
            time.sleep(0.1)
    yield url
    server.terminate()
    server.wait()


def cargo_test(*arguments: str, **more: str) -> str:
    """What a test of the reconciler prints, run with AWS's credentials for tests."""
    credentials = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_REGION": "us-east-1"}
    command = ["cargo", "test", "-p", "tallygate-reconciler", *arguments, "--nocapture"]
    environment = os.environ | credentials | more
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=1800)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_dynamodb_and_s3_keep_the_promises_of_the_ports(moto):
    printed = cargo_test(
        "--test",
        "conformance",
        "--",
        TALLYGATE_TEST_DYNAMODB_ENDPOINT=moto,
        TALLYGATE_TEST_S3_ENDPOINT=moto,
        # moto looks whether a multipart upload may be written, and writes it, in two steps.
        TALLYGATE_TEST_KNOWN_GAPS="racing_large_files_are_written_once",
    )
    assert "SKIPPED" not in printed, printed


def test_cost_explorer_is_read_whole(moto):
    printed = cargo_test("--lib", "a_night_against_moto", "--", "--ignored", TALLYGATE_TEST_AWS_ENDPOINT=moto)
    assert "1 passed" in printed, printed
