"""Checks that every Rust crate in the build has a licence that fits ours. Works offline, from cargo's own metadata."""

from __future__ import annotations

import json
import re
import subprocess
import sys

ALLOWED = {
    "0BSD",
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "BSL-1.0",
    # For data: the root certificates that Mozilla trusts.
    "CDLA-Permissive-2.0",
    "CC0-1.0",
    "ISC",
    "MIT",
    "MIT-0",
    "Unicode-3.0",
    "Unlicense",
    "Zlib",
}


def fits(expression: str) -> bool:
    """Whether one branch of an SPDX expression is wholly allowed. Parentheses are taken as they nest."""
    expression = expression.replace("/", " OR ")
    while "(" in expression:
        inner = re.search(r"\(([^()]*)\)", expression)
        if inner is None:
            return False
        expression = expression.replace(inner.group(0), "MIT" if fits(inner.group(1)) else "REFUSED")
    branches = expression.split(" OR ")
    return any(all(part.strip() in ALLOWED for part in branch.split(" AND ")) for branch in branches)


def main() -> int:
    command = ["cargo", "metadata", "--format-version", "1", "--locked"]
    packages = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)["packages"]
    bad = [p for p in packages if not (p.get("license") and fits(p["license"]))]
    for package in bad:
        print(f"{package['name']} {package['version']}: licence {package.get('license')!r} is not allowed")
    print(f"{len(packages) - len(bad)} crates have a licence that fits, {len(bad)} have not")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
