#!/usr/bin/env bash
# Fails when a daemon that has ended left something on the machine.
# Arguments: its directory, its directory for --run-dir, its cgroup parent.
set -u
work=$1 run=$2 parent=$3
status=0
say() { echo "left behind: $*" >&2; status=1; }

mark=$(basename "$work")
for _ in $(seq 50); do
  processes=$(grep -lsz "^LITTLEBOX_TEST_MARK=$mark\$" /proc/[0-9]*/environ 2>/dev/null)
  [ -z "$processes" ] && break
  sleep 0.1
done
for environ in $processes; do
  pid=${environ#/proc/} pid=${pid%/environ}
  say "process $pid $(tr '\0' ' ' <"/proc/$pid/cmdline" 2>/dev/null)"
done
while read -r line; do say "mount $line"; done < <(grep -e "$work" -e "$run" /proc/self/mountinfo)
if [ -n "$parent" ]; then
  while read -r dir; do say "cgroup $dir"; done < <(
    for tree in /sys/fs/cgroup /sys/fs/cgroup/*; do
      [ -d "$tree$parent" ] && find "$tree$parent" -mindepth 1 -type d
    done
  )
fi
while read -r file; do say "$file"; done < <(find "$work/state/containers" "$run/run/c" -mindepth 1 -maxdepth 1 2>/dev/null)
exit "$status"
