#!/usr/bin/env bash
# Checks the Terraform: format, schema and plan tests where terraform and the AWS provider can be had, syntax and policy
# always. Says what it left out. TERRAFORM_PLUGIN_DIR names a folder of provider plugins for machines without a network.
set -uo pipefail
cd "$(dirname "$0")" || exit 1
python=${1:?usage: check.sh <python with checkov>}
failed=0
left_out=()

check() {
  local what=$1
  shift
  if "$@"; then echo "infra: $what: ok"; else
    echo "infra: $what: FAILED" >&2
    failed=1
  fi
}

init() {
  local plugins=()
  [ -z "${TERRAFORM_PLUGIN_DIR:-}" ] || plugins=("-plugin-dir=$TERRAFORM_PLUGIN_DIR")
  terraform -chdir="$1" init -backend=false -input=false -no-color "${plugins[@]}" 2>&1
}

parse() {
  find . -name .terraform -prune -o \( -name '*.tf' -o -name '*.hcl' \) ! -name '.terraform.lock.hcl' -print0 |
    xargs -0 "$python" -c '
import sys, hcl2
for path in sys.argv[1:]:
    with open(path) as file:
        try:
            hcl2.load(file)
        except Exception as error:
            sys.exit(f"{path}: {str(error).splitlines()[0]}")
'
}

if command -v terraform >/dev/null; then
  check "terraform fmt" terraform fmt -check -recursive -diff .
  for folder in . examples/complete; do
    if answer=$(init $folder); then
      check "terraform validate $folder" terraform -chdir=$folder validate -no-color
      [ $folder != . ] || check "terraform test" terraform test -no-color
    elif grep -qE 'no such host|[Cc]ould not connect|registry service|connection refused|i/o timeout|unreachable' <<<"$answer"; then
      left_out+=("terraform validate and test of $folder (no AWS provider: no network, and TERRAFORM_PLUGIN_DIR names none)")
    else
      printf '%s\ninfra: terraform init %s: FAILED\n' "$answer" $folder >&2
      failed=1
    fi
  done
else
  left_out+=("terraform fmt, validate and test (terraform is not installed)")
fi

check "syntax" parse
check "agreement with the code" "$python" agree.py
check "checkov" "$python" -m checkov.main -d . --framework terraform --compact --quiet --skip-download

for what in ${left_out[@]+"${left_out[@]}"}; do echo "infra: LEFT OUT: $what"; done
exit $failed
