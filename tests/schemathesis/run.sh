#!/usr/bin/env bash
# Drives a running daemon from api.yaml with schemathesis: no 5xx, no undocumented status, media
# type, header or body, and what the contract forbids is refused. Needs root, for real containers.
#
# LITTLEBOX_BIN_DIR: where littleboxd and littlebox-helper are. SCHEMATHESIS_EXAMPLES: cases for each
# operation (40). SCHEMATHESIS_SEED: the seed (1). Further arguments go to `schemathesis run`.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
: "${LITTLEBOX_BIN_DIR:?set it to the directory of littleboxd and littlebox-helper}"
cache=${LITTLEBOX_TEST_CACHE:-$here/../.cache}
api=$here/../../api.yaml

# ---- tools ---------------------------------------------------------------------------------------
venv=$cache/schemathesis
if ! cmp -s "$here/requirements.txt" "$venv/installed"; then
  rm -rf "$venv"
  mkdir -p "$cache"
  python3 -m venv "$venv"
  "$venv/bin/pip" install --quiet --disable-pip-version-check -r "$here/requirements.txt"
  cp "$here/requirements.txt" "$venv/installed"
fi
"$venv/bin/openapi-spec-validator" "$api"

# ---- a daemon of its own -------------------------------------------------------------------------
work=$(mktemp -d /var/tmp/lbt-st-XXXXXX)
run=$(mktemp -d /run/lbt-st-XXXXXX)
socket=$work/sock
daemon='' bridge=''
api_call() { curl -sS --max-time 40 --unix-socket "$socket" "$@"; }

cleanup() {
  local status=$?
  trap - EXIT
  if [ -n "$daemon" ] && kill -0 "$daemon" 2>/dev/null; then
    "$here/remove_all.py" "$socket" || status=1
    kill -TERM "$daemon"
    wait "$daemon" || { echo "littleboxd ended with $?" >&2; status=1; }
  elif [ -n "$daemon" ]; then
    echo "littleboxd died" >&2
    status=1
  fi
  if [ -n "$bridge" ]; then kill "$bridge" 2>/dev/null || true; fi
  "$here/leftovers.sh" "$work" "$run" "${parent:-}" || status=1
  if grep -q 'panicked at' "$work/daemon.log"; then
    grep -A5 'panicked at' "$work/daemon.log" >&2
    status=1
  fi
  if [ "$status" -ne 0 ]; then tail -n 40 "$work/daemon.log" >&2; fi
  rm -rf "$work" "$run"
  exit "$status"
}
trap cleanup EXIT

root=$work/root
mkdir -p "$root"/{bin,dev,etc,proc,sys,tmp,run}
busybox=$(command -v busybox)
cp "$busybox" "$root/bin/busybox"
chroot "$root" /bin/busybox --install -s /bin
echo 'root:x:0:0:root:/root:/bin/sh' >"$root/etc/passwd"
echo 'root:x:0:' >"$root/etc/group"

LITTLEBOX_TEST_MARK=$(basename "$work") "$LITTLEBOX_BIN_DIR/littleboxd" --socket "$socket" \
  --state-dir "$work/state" --run-dir "$run/run" --log-format text >"$work/daemon.log" 2>&1 </dev/null &
daemon=$!
for _ in $(seq 100); do
  api_call -o /dev/null -f http://localhost/v1/health 2>/dev/null && break
  kill -0 "$daemon" 2>/dev/null || break
  sleep 0.1
done
parent=$(api_call -f http://localhost/v1/system | "$venv/bin/python" -c 'import json,sys; print(json.load(sys.stdin)["cgroup_parent"])')

# ---- the drive, over a bridge on the loopback ----------------------------------------------------
port=$("$venv/bin/python" -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
socat "TCP-LISTEN:$port,bind=127.0.0.1,reuseaddr,fork,backlog=64" "UNIX-CONNECT:$socket" 2>/dev/null &
bridge=$!
export LITTLEBOX_BASE=http://127.0.0.1:$port LITTLEBOX_ROOT=$root
export SCHEMATHESIS_HOOKS=hooks PYTHONPATH=$here PYTHONDONTWRITEBYTECODE=1
cd "$work"
# A refusal may come before the body was read; socat then meets a closed pipe and drops the answer
# with it, which a client on the socket itself would read: such a request is sent once more.
"$venv/bin/schemathesis" --config-file "$here/schemathesis.toml" run "$api" \
  --url "$LITTLEBOX_BASE" --request-retries 3 --max-examples "${SCHEMATHESIS_EXAMPLES:-40}" \
  --seed "${SCHEMATHESIS_SEED:-1}" "$@"
kill -0 "$daemon"
