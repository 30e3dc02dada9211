# Limits on a pure cgroup v2 host with every controller.
# shellcheck shell=bash

# _cg NAME FILE: a file of a container's cgroup.
_cg() { cat "$(field "$1" .cgroups.unified)/$2"; }

# _has DIRECTORY N: at least so many processes are in it.
_has() { test "$(wc -l <"$1/cgroup.procs")" -ge "$2"; }

limits_are_in_the_kernel() {
  run limits -m 64m --memory-swap 64m --cpus 0.5 --cpu-weight 50 --cpuset-cpus 0 --pids-limit 20 -- sleep 1000
  is "$(_cg limits memory.max)" $((64 << 20))
  is "$(_cg limits memory.swap.max)" 0
  is "$(_cg limits cpu.max)" "50000 100000"
  is "$(_cg limits cpu.weight)" 50
  is "$(_cg limits cpuset.cpus)" 0
  is "$(_cg limits pids.max)" 20
  lbctl rm -f limits
}

limits_of_a_running_container_change_in_the_kernel() {
  # The machine may have only one.
  local cpu=$(($(nproc) - 1))
  run live -m 64m --cpus 0.5 --pids-limit 20 -- sleep 1000
  lbctl update -m 96m --memory-swap 128m --memory-high 80m --cpus 0.25 --cpu-weight 300 --cpuset-cpus $cpu \
    --pids-limit 30 live
  is "$(_cg live memory.max)" $((96 << 20))
  is "$(_cg live memory.swap.max)" $((32 << 20))
  is "$(_cg live memory.high)" $((80 << 20))
  is "$(_cg live cpu.max)" "25000 100000"
  is "$(_cg live cpu.weight)" 300
  is "$(_cg live cpuset.cpus)" $cpu
  is "$(lbctl exec live nproc)" 1
  is "$(_cg live pids.max)" 30
  # By the API, and only what it names.
  api /containers/live -X PATCH -H 'Content-Type: application/json' -d '{"resources": {"pids_limit": 40}}'
  is "$(_cg live pids.max) $(_cg live memory.max)" "40 $((96 << 20))"
  lbctl update --lift cpus --lift memory_high live
  is "$(_cg live cpu.max)" "max 100000"
  is "$(_cg live memory.high)" max
  remove_all
}

a_limit_below_what_is_used_changes_nothing() {
  # 24 MiB in a tmpfs cannot be reclaimed without swap.
  run full -m 64m --tmpfs /mem -- sh -c 'dd if=/dev/zero of=/mem/x bs=1M count=24; echo there; exec sleep 1000'
  until_true says there lbctl logs full
  fails lbctl update -m 8m --pids-limit 7 full
  is "$(_cg full memory.max)" $((64 << 20))
  fails is "$(_cg full pids.max)" 7
  is "$(field full .state)" running
  remove_all
}

# shellcheck disable=SC2016 # a script for the container
readonly GREEDY='x=a; while :; do x=$x$x$x$x; done'

an_exec_that_runs_out_of_memory_is_told_from_its_container() {
  # PID 1 forks nothing while the memory is gone: that would be its own end.
  run victim -m 16m --memory-swap 16m -- sh -c 'trap "exit 0" TERM; sleep 1000 & echo ready; wait'
  until_true says ready lbctl logs victim
  local exec
  exec=$(api '/containers/victim/execs?wait=300s' --max-time 400 -H 'Content-Type: application/json' \
    -d "$(jq -n --arg script "$GREEDY" '{command: ["sh", "-c", $script]}')")
  jq -e '.exit.oom_killed' <<<"$exec"
  is "$(field victim '"\(.state) \(.oom_kills)"')" "running 1"
  says 'oom_kill 1' _cg victim memory.events
  lbctl stop victim
  is "$(field victim '"\(.exit.code) \(.exit.oom_killed // false)"')" "0 false"
  remove_all
}

memory_that_runs_out_ends_its_container_and_no_other() {
  run other -- sleep 1000
  run hungry -m 16m -- sh -c 'x=$(tr "\0" x </dev/zero | head -c 100000000)'
  lbctl wait hungry
  is "$(field hungry .exit.oom_killed)" true
  is "$(field other .state)" running
  active littlebox-containers.service
  remove_all
}

a_fork_bomb_stays_small() {
  # A shell that cannot fork gives up: the inner one bombs, and the outer one stays.
  run bomb --pids-limit 10 -- sh -c 'sh -c "while :; do sleep 1000 & done"; exec sleep 1000'
  until_true says 'max [1-9]' _cg bomb pids.events
  test "$(_cg bomb pids.current)" -le 10
  is "$(field bomb .state)" running
  remove_all
}

_stands_still() {
  local lines
  lines=$(lbctl logs "$1" | wc -l)
  sleep 2
  is "$(lbctl logs "$1" | wc -l)" "$lines"
}

a_paused_container_stands_still() {
  counter
  until_true numbers count
  lbctl pause count
  is "$(_cg count cgroup.freeze)" 1
  says 'frozen 1' _cg count cgroup.events
  # What it had printed may still be on its way.
  until_true _stands_still count
  lbctl resume count
  tell 0
  is "$(lbctl wait count)" 0
  numbers count
  remove_all
}

freeze_and_kill_reach_cgroups_below() {
  run deep --pids-limit 100 -- sh -c 'for i in 1 2 3; do sleep 1000 & done; wait'
  local dir pid
  dir=$(field deep .cgroups.unified)
  until_true _has "$dir" 4
  mkdir -p "$dir/a/b"
  pid=$(tail -n1 "$dir/cgroup.procs")
  echo "$pid" >"$dir/a/b/cgroup.procs"
  lbctl pause deep
  says 'frozen 1' cat "$dir/a/b/cgroup.events"
  lbctl rm -f deep
  test ! -d "/proc/$pid"
  test ! -d "$dir"
}

a_kill_leaves_no_process_in_the_cgroup() {
  run family --pids-limit 100 -- sh -c 'for i in 1 2 3 4 5; do (trap "" TERM; sleep 1000) & done; wait'
  local dir
  dir=$(field family .cgroups.unified)
  until_true _has "$dir" 6
  lbctl rm -f family
  test ! -d "$dir"
}

stats_come_from_the_cgroup() {
  run busy -m 64m -- sh -c 'while :; do :; done'
  _busy() { api /containers/busy/stats | jq -e '.cpu_ns > 100000000'; }
  until_true _busy
  api /containers/busy/stats | jq -e '.source == "cgroup2" and .memory > 0 and .pids == 1 and .memory_limit == 67108864'
  remove_all
}

stats_have_the_pressure_of_the_cgroup() {
  # Two that share a twentieth of a CPU wait for it.
  run pressed --cpus 0.05 -- sh -c '(while :; do :; done) & while :; do :; done'
  _some() { api /containers/pressed/stats | jq -e '.pressure.cpu.some.total_us > 0 and .cpu_throttled_ns > 0'; }
  until_true _some
  api /containers/pressed/stats | jq -e '.pressure | has("memory") and has("io")'
  remove_all
}

containers_see_their_own_cgroup_read_only() {
  run inside -- sleep 1000
  is "$(lbctl exec inside cat /proc/self/cgroup)" 0::/
  lbctl exec inside grep -q cgroup2 /proc/mounts
  fails lbctl exec inside mkdir /sys/fs/cgroup/x
  remove_all
}
