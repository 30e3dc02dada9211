#!/usr/bin/env bash
# A public generator makes a Python client of api.yaml without a complaint; it type-checks, and a
# typed script lists containers with it. Needs root, for a real container.
#
# LITTLEBOX_BIN_DIR: where littleboxd and littlebox-helper are.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
: "${LITTLEBOX_BIN_DIR:?set it to the directory of littleboxd and littlebox-helper}"
cache=${LITTLEBOX_TEST_CACHE:-$here/../.cache}

venv=$cache/generated_client
if ! cmp -s "$here/requirements.txt" "$venv/installed"; then
  rm -rf "$venv"
  mkdir -p "$cache"
  python3 -m venv "$venv"
  "$venv/bin/pip" install --quiet --disable-pip-version-check -r "$here/requirements.txt"
  cp "$here/requirements.txt" "$venv/installed"
fi

work=$(mktemp -d /var/tmp/lbt-gc-XXXXXX)
run=$(mktemp -d /run/lbt-gc-XXXXXX)
daemon=''
cleanup() {
  local status=$?
  trap - EXIT
  if [ -n "$daemon" ]; then
    "$here/../schemathesis/remove_all.py" "$work/sock" || status=1
    kill -TERM "$daemon" && wait "$daemon" || status=1
    "$here/../schemathesis/leftovers.sh" "$work" "$run" '' || status=1
    if [ "$status" -ne 0 ]; then tail -n 40 "$work/daemon.log" >&2; fi
  fi
  rm -rf "$work" "$run"
  exit "$status"
}
trap cleanup EXIT

"$venv/bin/openapi-python-client" generate --fail-on-warning --meta none --config "$here/config.yaml" \
  --path "$here/../../api.yaml" --output-path "$work/littlebox_client"
cp "$here/list_containers.py" "$work/"
(cd "$work" && "$venv/bin/mypy" --strict --cache-dir "$work/mypy" list_containers.py littlebox_client)

LITTLEBOX_TEST_MARK=$(basename "$work") "$LITTLEBOX_BIN_DIR/littleboxd" --socket "$work/sock" \
  --state-dir "$work/state" --run-dir "$run/run" --log-format text >"$work/daemon.log" 2>&1 </dev/null &
daemon=$!
for _ in $(seq 100); do
  curl -sf -o /dev/null --unix-socket "$work/sock" http://localhost/v1/health && break
  kill -0 "$daemon" 2>/dev/null || break
  sleep 0.1
done
(cd "$work" && PYTHONDONTWRITEBYTECODE=1 "$venv/bin/python" list_containers.py "$work/sock")
