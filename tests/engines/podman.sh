#!/usr/bin/env bash
# Podman with littlebox-runtime: run, exec, stop, logs, stats, pods, terminals, exit codes.
set -euo pipefail
cd "$(dirname "$0")"
work=$(mktemp -d /var/tmp/lb-podman.XXXXXX)
. ./lib.sh

# Where the containers' state is, is said by a program in between: Podman does not pass its
# --runtime-flag on to the clean-up after a container's end.
printf '#!/bin/sh\nexec %q --root %q "$@"\n' "$runtime" "$work/state" >"$work/littlebox-runtime"
chmod +x "$work/littlebox-runtime"
podman() {
  command podman --root "$work/root" --runroot "$work/run" --tmpdir "$work/tmp" \
    --storage-driver vfs --cgroup-manager cgroupfs --events-backend file \
    --runtime "$work/littlebox-runtime" "$@"
}

clean() {
  podman pod rm --all --force >/dev/null 2>&1 || true
  podman rm --all --force --time 0 >/dev/null 2>&1 || true
  rm -rf "$work"
}
trap clean EXIT

busybox_root "$work/busybox"
tar -C "$work/busybox" -c . | podman import - busybox >/dev/null
image=localhost/busybox:latest

is "run prints" hello "$(podman run --rm --network none $image echo hello)"
is "the exit code is the program's" 7 "$(code podman run --rm --network none $image sh -c 'exit 7')"
is "a missing command is 127" 127 "$(code podman run --rm --network none $image nope)"
is "a directory as a command is 126" 126 "$(code podman run --rm --network none $image /etc)"
is "stdin arrives" "typed" "$(echo typed | podman run -i --rm --network none $image cat)"
is "the user is the asked one" 1000:100 "$(podman run --rm --network none --user 1000:100 $image sh -c 'echo $(id -u):$(id -g)')"
is "the root can be read-only" 1 "$(code podman run --rm --network none --read-only $image sh -c 'echo >/x')"
is "a terminal is one" /dev/pts/0 "$(podman run -t --rm --network none $image tty | tr -d '\r')"
is "the host's network" "$(readlink /proc/self/ns/net)" "$(podman run --rm --network host $image readlink /proc/self/ns/net)"
is "a volume is the host's directory" seen "$(mkdir "$work/v"; echo seen >"$work/v/f"; podman run --rm --network none -v "$work/v:/v:ro" $image cat /v/f)"
is "a limit of processes is set" 50 "$(podman run --rm --network none --pids-limit 50 $image sh -c 'cat /sys/fs/cgroup/pids.max /sys/fs/cgroup/pids/pids.max 2>/dev/null | head -1')"

podman run -d --name one --network none $image sh -c 'echo logged; trap "exit 4" TERM; while :; do sleep 0.1; done' >/dev/null
wait_for podman logs one
is "it runs" running "$(podman inspect -f '{{.State.Status}}' one)"
is "exec prints" inside "$(podman exec one echo inside)"
is "exec has its own exit code" 3 "$(code podman exec one sh -c 'exit 3')"
is "exec of a missing command is 127" 127 "$(code podman exec one nope)"
is "exec with a terminal" yes "$(podman exec -t one sh -c 'test -t 0 && echo yes' | tr -d '\r')"
is "exec in the environment" bar "$(podman exec -e FOO=bar one sh -c 'echo $FOO')"
is "logs are kept" logged "$(podman logs one)"
has "stats are read" one "$(podman stats --no-stream --format '{{.Name}} {{.PIDs}}' one)"
has "top lists processes" sh "$(podman top one comm)"
podman pause one >/dev/null
is "it is paused" paused "$(podman inspect -f '{{.State.Status}}' one)"
podman unpause one >/dev/null
podman stop one >/dev/null
is "stop sends SIGTERM" 4 "$(podman inspect -f '{{.State.ExitCode}}' one)"
podman start one >/dev/null
is "it starts again" running "$(podman inspect -f '{{.State.Status}}' one)"
podman kill one >/dev/null
has_exited() { [ "$(podman inspect -f '{{.State.Status}}' one)" = exited ]; }
wait_for has_exited
podman rm --force one >/dev/null

# A pod's first container is busybox too: its program only has to wait.
podman pod create --name pod --network none --infra-image $image --infra-command 'sleep 1000' >/dev/null
podman run -d --pod pod --name a $image sleep 1000 >/dev/null
net=$(podman exec a readlink /proc/self/ns/net)
is "containers of a pod share the network" "$net" "$(podman run --rm --pod pod $image readlink /proc/self/ns/net)"
is "and the host name" pod "$(podman exec a cat /proc/sys/kernel/hostname)"
# Podman removes the pod's control group at once, also while its own monitors are still on their way
# out of it ("directory not empty").
wait_for podman pod rm --force --ignore --time 0 pod

nothing_left "$work/state"
exit $((failures > 0))
