#!/usr/bin/env bash
# containerd's runc shim with littlebox-runtime as its BinaryName.
set -euo pipefail
cd "$(dirname "$0")"
work=$(mktemp -d /var/tmp/lb-containerd.XXXXXX)
. ./lib.sh
daemon=

clean() {
  local name
  for name in $(ctr containers ls -q 2>/dev/null); do
    ctr tasks kill -s KILL "$name" >/dev/null 2>&1 || true
    ctr tasks rm -f "$name" >/dev/null 2>&1 || true
    ctr containers rm "$name" >/dev/null 2>&1 || true
  done
  [ -z "$daemon" ] || end "$daemon"
  rm -rf "$work"
}
trap clean EXIT

cat >"$work/config.toml" <<T
version = 2
root = "$work/root"
state = "$work/state"
disabled_plugins = ["io.containerd.grpc.v1.cri", "io.containerd.internal.v1.opt"]
[grpc]
address = "$work/c.sock"
[ttrpc]
address = "$work/c.sock.ttrpc"
T
ctr() { command ctr --address "$work/c.sock" "$@"; }
containerd --config "$work/config.toml" >"$work/log" 2>&1 &
daemon=$!
wait_for ctr version

# docker-archive by hand: a manifest, a configuration, a layer.
busybox_root "$work/busybox"
mkdir "$work/image"
tar -C "$work/busybox" -cf "$work/image/layer.tar" .
layer=$(sha256sum "$work/image/layer.tar" | cut -d' ' -f1)
cat >"$work/image/config.json" <<T
{"architecture": "$(dpkg --print-architecture)", "os": "linux", "config": {"Env": ["PATH=/bin"]},
 "rootfs": {"type": "layers", "diff_ids": ["sha256:$layer"]}}
T
echo '[{"Config": "config.json", "RepoTags": ["example.org/busybox:latest"], "Layers": ["layer.tar"]}]' \
  >"$work/image/manifest.json"
tar -C "$work/image" -cf "$work/image.tar" manifest.json config.json layer.tar
ctr images import --snapshotter native "$work/image.tar" >/dev/null
image=example.org/busybox:latest

run() {
  ctr run --snapshotter native --runc-binary "$runtime" --runc-root "$work/runtime" "$@"
}
status() { ctr tasks ls | awk -v name="$1" '$1 == name { print $3 }'; }

is "run prints" hello "$(run --rm $image one echo hello)"
is "the exit code is the program's" 7 "$(code run --rm $image two sh -c 'exit 7')"
has "a missing command is told" "executable file not found" "$(run --rm $image three nope 2>&1 || true)"
is "seccomp by containerd's own profile" hello "$(run --rm --seccomp $image four echo hello)"

run -d $image five sh -c 'trap "exit 4" TERM; while :; do sleep 0.1; done'
is "it runs" RUNNING "$(status five)"
is "exec prints" inside "$(ctr tasks exec --exec-id e1 five echo inside)"
is "exec has its own exit code" 3 "$(code ctr tasks exec --exec-id e2 five sh -c 'exit 3')"
has "processes are listed" PID "$(ctr tasks ps five)"
has "metrics are read" memory "$(ctr tasks metrics five)"
ctr tasks pause five
is "it is paused" PAUSED "$(status five)"
ctr tasks resume five
is "it goes on" RUNNING "$(status five)"
ctr tasks kill -s TERM five
has_stopped() { [ "$(status five)" = STOPPED ]; }
wait_for has_stopped
is "its exit code is kept" 4 "$(ctr tasks rm five 2>&1 | grep -o 'code [0-9]*' | cut -d' ' -f2)"
ctr containers rm five

nothing_left "$work/runtime/default"
exit $((failures > 0))
