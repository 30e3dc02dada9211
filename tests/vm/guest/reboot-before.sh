# What is there before a reboot; reboot-after.sh looks what has come of it.
# ends with a reboot
# shellcheck shell=bash

containers_of_every_policy_run() {
  remove_all
  for policy in no on-failure always unless-stopped; do run "$policy" --restart "$policy" -- sleep 1000; done
  for policy in always unless-stopped; do
    run "stopped-$policy" --restart "$policy" -- sleep 1000
    lbctl stop -t 0 "stopped-$policy"
  done
  run done --restart on-failure -- true
  lbctl wait done
  run count --restart always -- sh -c 'echo run; sleep 1000'
  until_true says run lbctl logs count
}

_restarted() { is "$(field always .state) $(field always .restart_count)" "running 1"; }

how_containers_will_end_is_theirs() {
  # One obeys, one does not, one cannot before it is thawed; one ends well when it is told to.
  # shellcheck disable=SC2016 # scripts for the containers
  run obeys -- sh -c 'trap "exit 3" TERM; echo ready; while :; do sleep 0.1; done'
  run own-signal --stop-signal INT -- sh -c 'trap "exit 4" INT; echo ready; while :; do sleep 0.1; done'
  run deaf --stop-timeout 2 -- sleep 1000
  run paused --restart unless-stopped -- sh -c 'trap "exit 5" TERM; echo ready; while :; do sleep 0.1; done'
  run ends-well --restart on-failure -- sh -c 'trap "exit 0" TERM; echo ready; while :; do sleep 0.1; done'
  for name in obeys own-signal paused ends-well; do until_true says ready lbctl logs "$name"; done
  lbctl pause paused
}

a_policy_is_at_work_before_the_reboot() {
  local pid
  pid=$(pid_of always)
  kill -9 "$pid"
  until_true _restarted
  fails is "$(pid_of always)" "$pid"
}
