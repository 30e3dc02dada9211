#!/usr/bin/env bash
# `make test`: every stage in turn, whatever the ones before did, and the totals at the very end.
# Environment: LITTLEBOX_BIN_DIR (the built programs), CARGO, SUDO (empty when root), CI=true (or
# NEXTEST_PROFILE=ci: a Rust test that fails is tried twice more).
set -uo pipefail
cd "$(dirname "$0")/.."
CARGO=${CARGO:-cargo}
SUDO=${SUDO:-}
: "${LITTLEBOX_BIN_DIR:?set it to the directory of littleboxd, lbctl and littlebox-helper, or use make test}"
export LITTLEBOX_BIN_DIR
if [ "${CI:-}" = true ]; then export NEXTEST_PROFILE=${NEXTEST_PROFILE:-ci}; fi

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

# The closing lines of the Rust runner: nextest's summary and the tests that it names (what they
# printed stands above), or the sum over cargo test's binaries.
rust_totals() {
  if grep -q '^ *Summary \[' "$work/rust"; then
    closing_lines | grep -v '^ *FLAKY '
  else
    awk '/^test result:/ { ok += $4; bad += $6; ign += $8 }
      END { printf "%d passed, %d failed, %d ignored\n", ok, bad, ign }' "$work/rust"
  fi
}

closing_lines() { sed -n '/^ *Summary \[/,$p' "$work/rust" | grep '^ *[A-Z][A-Za-z0-9/ -]* \[ *[0-9.]*s\] '; }

# The tests that passed only when they were tried again.
flaky_tests() { closing_lines | sed -n 's/^ *FLAKY /  /p'; }

stage format $CARGO fmt --all --check
stage doc-tests $CARGO test --locked --profile ci --workspace --doc
stage demo as_root tests/demo.sh
stage generated-client as_root tests/generated_client/run.sh
stage schemathesis as_root tests/schemathesis/run.sh
stage rust rust_tests
stage inject as_root env RUST_BACKTRACE=0 target/ci/littlebox-inject campaign --sample "${LITTLEBOX_INJECT_POINTS:-250}"
# Of all points few are theirs.
stage inject-workers as_root env RUST_BACKTRACE=0 target/ci/littlebox-inject campaign \
  --role worker --sample "${LITTLEBOX_INJECT_WORKER_POINTS:-60}" copy-in copy-out stat changes

printf '\n=== totals\n'
printf '%s\n' "${report[@]}"
flaky=$(flaky_tests)
if [ -n "$flaky" ]; then printf 'FLAKY: passed only when tried again; to be mended next\n%s\n' "$flaky"; fi
rust_totals
if [ "$failed" -ne 0 ]; then
  echo "make test: FAILED"
  exit 1
fi
echo "make test: everything passed"
