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

a_policy_is_at_work_before_the_reboot() {
  local pid
  pid=$(pid_of always)
  kill -9 "$pid"
  until_true _restarted
  fails is "$(pid_of always)" "$pid"
}
