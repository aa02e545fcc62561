"""The FOCUS export before the public validators: focus-data-toolkit for 1.4, focus-validator for 1.2.

Neither proves much by itself (the reconciler's own checks, which run on every row and file beforehand, catch what they
miss); together they say that others can read the files. They see a sample with all that FOCUS can say, and a month that
a night exported.
"""

from __future__ import annotations

import csv
import glob
import hashlib
import os
import re
import shutil
import subprocess
import sys
from decimal import Decimal
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
REQUIREMENTS = Path(__file__).with_name("requirements-focus.txt")

# What the sample claims to support: conditional rules are looked at only where their condition is named.
CRITERIA = [
    "ACCOUNT_NAMING_SUPPORTED",
    "BILLING_BASED_ON_PROVISIONED_RESOURCES_SUPPORTED",
    "MULTIPLE_BILLING_ACCOUNT_TYPES_SUPPORTED",
    "MULTIPLE_PRICING_CATEGORIES_SUPPORTED",
    "MULTIPLE_SUB_ACCOUNT_TYPES_SUPPORTED",
    "NEGOTIATED_PRICING_SUPPORTED",
    "PRICING_BILLING_CURRENCY_DIFFERENCES_SUPPORTED",
    "PUBLIC_PRICE_LIST_SUPPORTED",
    "REGION_SUPPORTED",
    "RESOURCE_TYPE_ASSIGNMENT_SUPPORTED",
    "SUB_ACCOUNT_SUPPORTED",
    "TAGGING_SUPPORTED",
    "UNIT_PRICING_SUPPORTED",
    "USAGE_MEASUREMENT_SUPPORTED",
]
# InvoiceId-C-004-C asks for null in every row, InvoiceId-C-005-C for no null in any: "is on an invoice" is not in the
# data, so the model leaves the condition away, and no file passes both (FOCUS_Spec#2394). A file with rows of either
# kind fails both and the rules above them; each kind alone fails one.
NULL_WANTED, NULL_UNWANTED = "InvoiceId-C-004-C", "InvoiceId-C-005-C"
# "0 when the purchase is intended to cover future charges": the model leaves the intent away too. A seat covers its own
# month, and nothing later carries its cost. The test counts that exactly the seats are meant.
SEATS = "EffectiveCost-C-005-C"


def python_3_12() -> str | None:
    """A Python 3.12 that runs: a pyenv shim may be there and not."""
    found = [os.environ.get("FOCUS_PYTHON"), shutil.which("python3.12")]
    found += sorted(glob.glob(str(Path.home() / ".pyenv/versions/3.12*/bin/python")))
    for python in filter(None, found):
        probe = [python, "-c", "import sys; print(sys.version_info[:2] == (3, 12))"]
        answer = subprocess.run(probe, capture_output=True, text=True)
        if answer.stdout.strip() == "True":
            return python
    return None


def environment(python: str, name: str) -> Path:
    """The virtual environment with the validators, made once for each state of the requirements."""
    home = ROOT / name
    stamp = home / "stamp"
    wanted = hashlib.sha256(REQUIREMENTS.read_bytes() + python.encode()).hexdigest()
    if not stamp.exists() or stamp.read_text() != wanted:
        shutil.rmtree(home, ignore_errors=True)
        subprocess.run([python, "-m", "venv", home], check=True)
        pip = [home / "bin/python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*pip, "-r", REQUIREMENTS], check=True)
        stamp.write_text(wanted)
    return home


@pytest.fixture(scope="session")
def sample(tmp_path_factory):
    """The export's files. The sample has checked its rows and files with the project's own checks by then."""
    home = tmp_path_factory.mktemp("focus")
    run = ["cargo", "run", "--quiet", "-p", "tallygate-reconciler", "--no-default-features"]
    run += ["--features", "parquet", "--example", "focus_sample", "--", str(home)]
    done = subprocess.run(run, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    print(done.stdout)
    return home


@pytest.fixture(scope="session")
def night(tmp_path_factory):
    """The tables of a month that a night exported, after the project's own checks."""
    home = tmp_path_factory.mktemp("night")
    test = "exports::all_that_a_month_has_is_exported_for_others_to_read"
    run = ["cargo", "test", "--quiet", "-p", "tallygate-reconciler", "--test", "night_fakes", test]
    keep = os.environ | {"TALLYGATE_KEEP_EXPORT": str(home)}
    done = subprocess.run(run, cwd=ROOT, env=keep, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return home


@pytest.fixture(scope="session")
def toolkit():
    assert sys.version_info >= (3, 11), "focus-data-toolkit needs Python 3.11: use a newer python3"
    return environment(sys.executable, ".venv-focus") / "bin/focus-toolkit"


@pytest.fixture(scope="session")
def validator():
    python = python_3_12()
    if python is None:
        pytest.skip(
            "LEFT OUT: focus-validator (FOCUS 1.2) needs Python 3.12, and there is none. Install python3.12 or set "
            "FOCUS_PYTHON. The 1.4 checks and the project's own checks run without it."
        )
    return environment(python, ".venv-focus-validator")


def lint(toolkit: Path, dataset: str, file: Path) -> subprocess.CompletedProcess:
    conditions = ["SupportsUnitPricing", "SupportsMultiplePricingCategories"]
    supports = [word for name in conditions for word in ("--supports", name)]
    run = [toolkit, "validate", "--dataset", dataset, *supports, file]
    return subprocess.run(run, capture_output=True, text=True)


@pytest.mark.parametrize("extension", ["csv", "parquet"])
@pytest.mark.parametrize("dataset", ["cost-and-usage", "invoice-detail", "billing-period"])
def test_the_1_4_tables_pass_the_public_lint(sample, toolkit, dataset, extension):
    file = sample / f"{dataset.replace('-', '_')}_focus_1_4.{extension}"
    done = lint(toolkit, dataset, file)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "SEMANTIC_VALID" in done.stdout


@pytest.mark.parametrize("dataset", ["cost-and-usage", "invoice-detail", "billing-period"])
def test_what_a_night_exports_passes_the_public_lint(night, toolkit, dataset):
    done = lint(toolkit, dataset, night / f"{dataset.replace('-', '_')}_focus_1_4.csv")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "SEMANTIC_VALID" in done.stdout


def test_the_public_lint_does_look(sample, toolkit, tmp_path):
    text = (sample / "cost_and_usage_focus_1_4.csv").read_text()
    broken = tmp_path / "broken.csv"
    broken.write_text(text.replace(",Usage-Based,", ",Weekly,", 1))
    assert lint(toolkit, "cost-and-usage", broken).returncode == 1


def failures(validator: Path, file: Path) -> dict[str, int]:
    """The rules of FOCUS 1.2 that a file breaks, with the number of rows. The tool's exit code says nothing of it."""
    where = "import site; print(site.getsitepackages()[0])"
    packages = subprocess.check_output([validator / "bin/python", "-c", where], text=True).strip()
    run = [validator / "bin/focus-validator", "--data-file", file, "--validate-version", "1.2"]
    run += ["--block-download", "--show-violations", "--applicability-criteria", ",".join(CRITERIA)]
    # It opens its list of currencies relative to where it runs.
    done = subprocess.run(run, cwd=packages, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    total = re.search(r"Total: (\d+) \| Pass: (\d+) \| Fail: (\d+)", done.stdout)
    print(file.name, total.group(0))
    found = dict(re.findall(r"^- (\S+): violations=(\d+)", done.stdout, re.MULTILINE))
    assert int(total.group(1)) > 500 and int(total.group(3)) == len(found), done.stdout
    return {rule: int(count) for rule, count in found.items()}


def split(file: Path, to: Path) -> tuple[Path, Path, int, int]:
    """The rows with an invoice and those without, as two files; the number of the former, and of seats among them."""
    with file.open(newline="") as source:
        rows = list(csv.DictReader(source))
    files = (to / "invoiced.csv", to / "not_invoiced.csv")
    parts = [[row for row in rows if bool(row["InvoiceId"]) == wanted] for wanted in (True, False)]
    for target, part in zip(files, parts):
        with target.open("w", newline="") as out:
            writer = csv.DictWriter(out, rows[0].keys(), lineterminator="\n")
            writer.writeheader()
            writer.writerows(part)
    seats = sum(row["x_ChargeKind"] == "Seat" for row in parts[0])
    assert seats and parts[1]
    return *files, len(parts[0]), seats


def test_the_1_2_table_passes_the_public_validator(sample, validator, tmp_path):
    file = sample / "cost_and_usage_focus_1_2.csv"
    invoiced, not_invoiced, count, seats = split(file, tmp_path)
    assert failures(validator, invoiced) == {NULL_WANTED: count, SEATS: seats}
    found = failures(validator, not_invoiced)
    assert found.keys() == {NULL_UNWANTED}


def test_what_a_night_exports_passes_the_public_validator(night, validator, tmp_path):
    invoiced, not_invoiced, count, seats = split(night / "cost_and_usage_focus_1_2.csv", tmp_path)
    assert failures(validator, invoiced) == {NULL_WANTED: count, SEATS: seats}
    assert failures(validator, not_invoiced).keys() == {NULL_UNWANTED}


def test_the_1_2_parquet_says_what_the_csv_says(sample, validator):
    found = failures(validator, sample / "cost_and_usage_focus_1_2.parquet")
    above = {"InvoiceId-C-003-C", "InvoiceId-C-000-O"}
    assert found.keys() == {NULL_WANTED, NULL_UNWANTED, SEATS} | above


def test_the_public_validator_does_look(sample, validator, tmp_path):
    text = (sample / "cost_and_usage_focus_1_2.csv").read_text()
    broken = tmp_path / "broken.csv"
    broken.write_text(text.replace(",USD,", ",DOLLARS,"))
    assert any(rule.startswith("BillingCurrency") for rule in failures(validator, broken))


def test_money_in_parquet_is_decimal_and_the_same_as_in_csv(sample, toolkit):
    """Read by another implementation than the one that wrote it."""
    file = sample / "cost_and_usage_focus_1_4.parquet"
    script = (
        "import sys, pyarrow.parquet as pq; t = pq.read_table(sys.argv[1]);"
        "print(t.schema.field('BilledCost').type, t.schema.field('ChargePeriodStart').type, t.num_rows,"
        " sum(t['BilledCost'].to_pylist()))"
    )
    run = [toolkit.parent / "python", "-c", script, file]
    kind, time, zone, rows, billed = subprocess.check_output(run, text=True).replace(", ", ",", 1).split()
    assert (kind, time, zone) == ("decimal128(38,12)", "timestamp[us,", "tz=UTC]")
    with file.with_suffix(".csv").open(newline="") as source:
        amounts = [Decimal(row["BilledCost"]) for row in csv.DictReader(source)]
    assert (int(rows), Decimal(billed)) == (len(amounts), sum(amounts))
