#!/usr/bin/env bash
# dockerd with littlebox-runtime as an additional runtime.
set -euo pipefail
cd "$(dirname "$0")"
work=$(mktemp -d /var/tmp/lb-docker.XXXXXX)
. ./lib.sh
daemon=

clean() {
  local ids
  ids=$(docker ps -aq 2>/dev/null || true)
  [ -z "$ids" ] || docker rm -f $ids >/dev/null 2>&1 || true
  [ -z "$daemon" ] || end "$daemon"
  rm -rf "$work"
}
trap clean EXIT

docker() { command docker --host "unix://$work/d.sock" "$@"; }
echo '{}' >"$work/daemon.json"
# Nothing of the host's network is touched.
dockerd --config-file "$work/daemon.json" --data-root "$work/root" --exec-root "$work/exec" \
  --host "unix://$work/d.sock" --pidfile "$work/pid" --storage-driver vfs \
  --iptables=false --ip6tables=false --ip-forward=false --bridge=none \
  --exec-opt native.cgroupdriver=cgroupfs --add-runtime "littlebox=$runtime" >"$work/log" 2>&1 &
daemon=$!
wait_for docker version || { tail -20 "$work/log"; exit 1; }

busybox_root "$work/busybox"
tar -C "$work/busybox" -c . | docker import - busybox:latest >/dev/null
run() { docker run --runtime littlebox --network none "$@"; }

is "run prints" hello "$(run --rm busybox echo hello)"
is "the exit code is the program's" 7 "$(code run --rm busybox sh -c 'exit 7')"
is "a missing command is 127" 127 "$(code run --rm busybox nope)"
is "a directory as a command is 126" 126 "$(code run --rm busybox /etc)"
is "a terminal is one" /dev/pts/0 "$(run --rm -t busybox tty | tr -d '\r')"
is "the default seccomp profile is on" 2 "$(run --rm busybox grep Seccomp: /proc/self/status | tr -dc 0-9)"
is "capabilities are Docker's" 00000000a80425fb "$(run --rm busybox sh -c 'grep CapEff /proc/self/status' | awk '{ print $2 }')"

run -d --name one busybox sh -c 'echo logged; trap "exit 4" TERM; while :; do sleep 0.1; done' >/dev/null
wait_for docker logs one
is "exec prints" inside "$(docker exec one echo inside)"
is "exec has its own exit code" 3 "$(code docker exec one sh -c 'exit 3')"
is "exec with a terminal" yes "$(docker exec -t one sh -c 'test -t 0 && echo yes' | tr -d '\r')"
is "logs are kept" logged "$(docker logs one)"
has "top lists processes" sleep "$(docker top one)"
has "stats are read" one "$(docker stats --no-stream --format '{{.Name}} {{.MemUsage}}' one)"
docker update --memory 64m --memory-swap 64m one >/dev/null
is "a limit is changed while it runs" 67108864 "$(docker exec one sh -c 'cat /sys/fs/cgroup/memory.max /sys/fs/cgroup/memory/memory.limit_in_bytes 2>/dev/null | head -1')"
docker pause one >/dev/null
is "it is paused" paused "$(docker inspect -f '{{.State.Status}}' one)"
docker unpause one >/dev/null
docker stop one >/dev/null
is "stop sends SIGTERM" 4 "$(docker inspect -f '{{.State.ExitCode}}' one)"
docker rm one >/dev/null

is "a device is given" 0 "$(code run --rm --device /dev/zero:/dev/mine busybox sh -c 'head -c 1 /dev/mine')"
is "another is not" 1 "$(code run --rm --cap-add MKNOD --user 0 busybox sh -c 'test -e /dev/mine')"

# dockerd keeps a mount of its own while it runs.
end "$daemon"
daemon=
nothing_left "$work/exec/runtimes/littlebox"
exit $((failures > 0))
