#!/usr/bin/env bash
# `make demo`: the first container, from nothing. Starts a daemon on directories of its own, runs a
# container on a copy-on-write view of this machine, shows that its namespaces are not the host's,
# and proves that nothing is left behind. Needs root and LITTLEBOX_BIN_DIR.
set -euo pipefail
bin=${LITTLEBOX_BIN_DIR:?the directory of littleboxd, lbctl and littlebox-helper}
[ "$(id -u)" -eq 0 ] || { echo "demo: building namespaces needs root (sudo make demo)" >&2; exit 1; }

bold= plain=
if [ -t 1 ]; then bold=$'\033[1m' plain=$'\033[0m'; fi
say() { printf '\n%s%s%s\n' "$bold" "$*" "$plain"; }
show() { printf '$ %s\n' "$*"; "$@"; }
fail() { echo "demo: FAILED: $*" >&2; exit 1; }

# A short path: a Unix socket's may have 107 bytes.
work=$(mktemp -d /tmp/littlebox-demo.XXXXXX)
links=$(ls -1 /sys/class/net)
daemon=
cleanup() {
  [ -z "$daemon" ] || kill "$daemon" 2>/dev/null || true
  [ -z "$daemon" ] || wait "$daemon" 2>/dev/null || true
  rm -rf "$work"
}
trap cleanup EXIT

export LITTLEBOX_SOCKET=$work/littlebox.sock
lbctl=$bin/lbctl
lbctl() { "$bin/lbctl" "$@"; }

say "1. A daemon on directories of its own ($work)"
"$bin/littleboxd" --socket "$LITTLEBOX_SOCKET" --state-dir "$work/state" --run-dir "$work/run" \
  >"$work/daemon.log" 2>&1 &
daemon=$!
for _ in $(seq 100); do
  lbctl version >/dev/null 2>&1 && break
  kill -0 "$daemon" 2>/dev/null || { cat "$work/daemon.log" >&2; fail "the daemon ended"; }
  sleep 0.1
done
show lbctl version || { cat "$work/daemon.log" >&2; fail "the daemon does not answer"; }

say "2. A container whose root is a copy-on-write view of this machine"
show lbctl run --rm --hostname little host sh -c \
  'echo "hostname: $(hostname)"; echo; ps -ef; echo; mount; touch /etc/written-in-the-container'
[ ! -e /etc/written-in-the-container ] || fail "the container wrote to the machine's own root"
echo
echo "(the file /etc/written-in-the-container, written inside, does not exist out here)"

say "3. Its namespaces beside the host's"
lbctl run -d --init --name demo --hostname little host sleep 300 >/dev/null
show lbctl ns inspect demo
echo
inspect=$(curl -sf --unix-socket "$LITTLEBOX_SOCKET" http://localhost/v1/containers/demo)
mapfile -t cgroups < <(jq -r '.cgroups[]?' <<<"$inspect")
mapfile -t processes < <(jq -r '.pid, .helper_pid' <<<"$inspect")
processes+=("$(curl -sf --unix-socket "$LITTLEBOX_SOCKET" http://localhost/v1/system | jq -r .zygote_pid)")
pid=${processes[0]}
show ls -Li "/proc/$pid/ns"
echo
echo "type       container         host"
kinds="mnt uts ipc net pid cgroup time user"
api=$(curl -sf --unix-socket "$LITTLEBOX_SOCKET" http://localhost/v1/containers/demo/namespaces)
for kind in $kinds; do
  inside=$(stat -L -c %i "/proc/$pid/ns/$kind")
  outside=$(stat -L -c %i "/proc/self/ns/$kind")
  told=$(jq -r --arg k "$kind" '.namespaces[] | select(.type == $k) | .inode' <<<"$api")
  [ "$inside" = "$told" ] || fail "$kind: littlebox says $told, /proc/$pid/ns says $inside"
  if [ "$inside" = "$outside" ]; then verdict="the same"; else verdict="its own"; fi
  printf '%-7s %12s %12s  %s\n' "$kind" "$inside" "$outside" "$verdict"
  [ "$inside" != "$outside" ] || fail "the container shares the host's $kind namespace"
done
echo "Each inode that littlebox shows is the one that ls shows."

say "4. Stop, remove, and look what is left"
show lbctl stop demo
show lbctl rm demo
[ -z "$(lbctl --json ps -a | jq -r 'if type == "array" then .[] else .items[] end | .id')" ] ||
  fail "a container is left"
[ -z "$(find "$work/state/containers" -mindepth 1 2>/dev/null)" ] || fail "files are left in the state directory"
kill "$daemon"
wait "$daemon" || fail "the daemon ended with status $?"
daemon=
[ -z "$(find "$work/run/c" -mindepth 1 2>/dev/null)" ] || fail "files are left in the run directory"
[ ! -e "$LITTLEBOX_SOCKET" ] || fail "the socket is left"

# What was noted while the container ran. The last cgroup directory may take a moment to go.
gone() {
  local p
  for p in "${processes[@]}"; do [ ! -e "/proc/$p" ] || { echo "process $p ($(tr '\0' ' ' <"/proc/$p/cmdline"))"; return 1; }; done
  for p in "${cgroups[@]}"; do [ ! -e "$p" ] || { echo "cgroup $p"; return 1; }; done
  ! grep -F "$work" /proc/self/mountinfo || return 1
  ls -1 /sys/class/net | diff - <(echo "$links") || return 1
}
for _ in $(seq 50); do
  left=$(gone) && break
  sleep 0.1
done
left=$(gone) || fail "something is left behind: $left"
echo "No mount, process, cgroup, network link or file is left behind."
