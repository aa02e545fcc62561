"""Compares what the Terraform says twice with what the reconciler's code says: exported columns, key prefixes of the
ledger, folders of the bucket, settings and metrics. Exits with 1 when they differ; says what it could not compare."""

import pathlib
import re
import sys

INFRA = pathlib.Path(__file__).resolve().parent
SOURCE = INFRA.parent / "reconciler" / "src"


def terraform(name: str) -> str:
    return (INFRA / name).read_text()


def code() -> str:
    return "\n".join(path.read_text() for path in sorted(SOURCE.rglob("*.rs")))


def columns(block: str) -> list[str]:
    text = terraform("focus_columns.tf").split(f"{block} = [", 1)[1].split("\n  ]", 1)[0]
    return re.findall(r'\["(\w+)",', text)


def compare_columns() -> list[str] | None:
    golden = SOURCE / "focus" / "golden" / "cost_and_usage_1_4.txt"
    if not golden.exists():
        return None
    written = golden.read_text().splitlines()[0].split(",")
    of_focus, own = set(columns("cost_and_usage_columns")), set(columns("custom_columns"))
    wrong = [f"the export has {name}, the Glue table has not" for name in written if name not in of_focus | own]
    return wrong + [f"the Glue table has {name}, the export has not" for name in sorted(own - set(written))]


def compare_keys() -> list[str] | None:
    store = SOURCE / "stores" / "dynamodb.rs"
    table = re.findall(r"^//! \|[^|]*\|([^|]*)\|", store.read_text(), re.M) if store.exists() else []
    used = set(re.findall(r"`([A-Z])#", " ".join(table)))
    if not used:
        return None
    lists = re.findall(r"^\s*(?:put|update)\s*= \[(.*)\]", terraform("iam.tf"), re.M)
    allowed = set(re.findall(r'"([A-Z])#\*"', " ".join(lists)))
    return [f"the role may write {key}#, the store has no such key" for key in sorted(allowed - used)] + [
        f"the store writes {key}#, the role may not" for key in sorted(used - allowed)
    ]


def compare_folders() -> list[str] | None:
    used = set(re.findall(r'format!\(\s*"([a-z-]+)/v1/', code()))
    if not used:
        return None
    [written] = re.findall(r"^\s*written_once = \[(.*)\]", terraform("iam.tf"), re.M)
    allowed = set(re.findall(r'"([a-z-]+)"', written))
    return [f"the role may write {name}/, nothing does" for name in sorted(allowed - used)] + [
        f"{name}/ is written, the role may not" for name in sorted(used - allowed)
    ]


def compare_settings() -> list[str] | None:
    text = code()
    if "TALLYGATE_TABLE" not in text:
        return None
    given = set(re.findall(r"^\s+(TALLYGATE_\w+)\s+=", terraform("lambda.tf"), re.M))
    return [f"the Lambda is given {name}, nothing reads it" for name in sorted(given) if name not in text]


def compare_metrics() -> list[str] | None:
    text = code()
    if "Tallygate/Reconciler" not in text:
        return None
    looked_at = terraform("alarms.tf") + terraform("dashboard.tf")
    own = set(re.findall(r'"((?:Run|Paid|Ledger|Unmetered|Variance|Providers)[A-Z][A-Za-z]+)"', looked_at))
    return [f"an alarm or a chart looks at {name}, nothing prints it" for name in sorted(own) if f'"{name}"' not in text]


def main() -> int:
    failed = 0
    for what, compare in {
        "columns of the export": compare_columns,
        "keys of the ledger": compare_keys,
        "folders of the bucket": compare_folders,
        "settings": compare_settings,
        "metrics": compare_metrics,
    }.items():
        wrong = compare()
        if wrong is None:
            print(f"infra: LEFT OUT: {what} (the reconciler's code says nothing of them)")
        elif wrong:
            failed = 1
            print(f"infra: {what}: FAILED\n  " + "\n  ".join(wrong))
        else:
            print(f"infra: {what}: as in the code")
    return failed


if __name__ == "__main__":
    sys.exit(main())
