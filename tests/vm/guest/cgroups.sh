# Limits on a pure cgroup v2 host with every controller.
# shellcheck shell=bash

# _cg NAME FILE: a file of a container's cgroup.
_cg() { cat "$(field "$1" .cgroups.unified)/$2"; }

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

a_paused_container_stands_still() {
  counter
  until_true numbers count
  lbctl pause count
  is "$(_cg count cgroup.freeze)" 1
  local then
  then=$(lbctl logs count | wc -l)
  sleep 1
  is "$(lbctl logs count | wc -l)" "$then"
  lbctl resume count
  tell 0
  is "$(lbctl wait count)" 0
  numbers count
  remove_all
}

a_kill_leaves_no_process_in_the_cgroup() {
  run family --pids-limit 100 -- sh -c 'for i in 1 2 3 4 5; do (trap "" TERM; sleep 1000) & done; wait'
  local dir
  dir=$(field family .cgroups.unified)
  until_true test "$(wc -l <"$dir/cgroup.procs")" -ge 6
  lbctl rm -f family
  test ! -d "$dir"
}

stats_come_from_the_cgroup() {
  run busy -m 64m -- sh -c 'while :; do :; done'
  sleep 2
  api "/containers/busy/stats" >/tmp/stats
  cat /tmp/stats
  head -n1 /tmp/stats | jq -e '.source == "cgroup2" and .cpu_ns > 100000000 and .memory > 0 and .pids == 1 and .memory_limit == 67108864'
  remove_all
}

containers_see_their_own_cgroup_read_only() {
  run inside -- sleep 1000
  is "$(lbctl exec inside cat /proc/self/cgroup)" 0::/
  lbctl exec inside grep -q cgroup2 /proc/mounts
  fails lbctl exec inside mkdir /sys/fs/cgroup/x
  remove_all
}
