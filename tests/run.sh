#!/usr/bin/env bash
# `make test`: every stage in turn, whatever the ones before did, and the totals at the very end.
# Environment: LITTLEBOX_BIN_DIR (the built programs), CARGO, SUDO (empty when root).
set -uo pipefail
cd "$(dirname "$0")/.."
CARGO=${CARGO:-cargo}
SUDO=${SUDO:-}
: "${LITTLEBOX_BIN_DIR:?set it to the directory of littleboxd, lbctl and littlebox-helper, or use make test}"
export LITTLEBOX_BIN_DIR

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
failed=0
report=()

# stage NAME COMMAND...: shows the output, keeps it, notes how it went.
stage() {
  local name=$1 start=$SECONDS status=0
  shift
  printf '\n=== %s\n' "$name"
  "$@" 2>&1 </dev/null | tee "$work/$name"
  status=${PIPESTATUS[0]}
  if [ "$status" -eq 0 ]; then
    report+=("$(printf '%-18s ok      %4d s' "$name" $((SECONDS - start)))")
  else
    report+=("$(printf '%-18s FAILED  %4d s (exit status %d)' "$name" $((SECONDS - start)) "$status")")
    failed=1
  fi
}

# as_root COMMAND...: with the environment that the stages need.
as_root() {
  if [ -n "$SUDO" ]; then $SUDO "$@"; else "$@"; fi
}

rust_tests() {
  if $CARGO nextest --version >/dev/null 2>&1; then
    $CARGO nextest run --locked --cargo-profile ci --workspace --no-fail-fast
  else
    $CARGO test --locked --profile ci --workspace --no-fail-fast --bins --lib --tests
  fi
}

# The closing lines of the Rust runner: nextest's summary, or the sum over cargo test's binaries.
rust_totals() {
  if grep -q '^ *Summary \[' "$work/rust"; then
    sed -n '/^ *Summary \[/,$p' "$work/rust"
  else
    awk '/^test result:/ { ok += $4; bad += $6; ign += $8 }
      END { printf "%d passed, %d failed, %d ignored\n", ok, bad, ign }' "$work/rust"
  fi
}

stage format $CARGO fmt --all --check
stage doc-tests $CARGO test --locked --profile ci --workspace --doc
stage demo as_root tests/demo.sh
stage generated-client as_root tests/generated_client/run.sh
stage schemathesis as_root tests/schemathesis/run.sh
stage rust rust_tests

printf '\n=== totals\n'
printf '%s\n' "${report[@]}"
rust_totals
if [ "$failed" -ne 0 ]; then
  echo "make test: FAILED"
  exit 1
fi
echo "make test: everything passed"
