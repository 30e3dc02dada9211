# After a reboot of the machine: the service is up, it is known how containers ended, and restart
# policies have been followed.
# ends with a power cut
# shellcheck shell=bash

_state() { is "$(field "$1" .state)" "$2"; }

the_service_is_up_after_a_boot() {
  until_true active littleboxd.service
  is "$(systemctl --failed --no-legend --plain 'littlebox*')" ""
}

what_was_running_comes_back_by_its_policy() {
  for name in on-failure always unless-stopped count paused ends-well; do until_true _state "$name" running; done
  lbctl exec always true
}

always_comes_back_even_when_it_was_stopped_by_hand() { until_true _state stopped-always running; }

unless_stopped_stays_down_when_it_was_stopped_by_hand() { _state stopped-unless-stopped exited; }

the_shutdown_has_recorded_how_each_ended() {
  _exited obeys 3
  _exited own-signal 4
  for name in no deaf; do
    _state "$name" exited
    is "$(field "$name" '"\(.exit.reason) \(.exit.signal)"')" "signaled 9"
  done
  _exited done 0
}

the_service_stopped_containers_and_was_not_killed_itself() {
  local log
  log=$(journalctl -b -1 -u littleboxd.service -o cat)
  says 'containers end with the machine' echo "$log"
  says 'containers have ended with the machine left=0' echo "$log"
  fails says 'timed out' echo "$log"
}

_exited() { is "$(field "$1" '"\(.state) \(.exit.code)"')" "exited $2"; }

_ran_twice() { is "$(lbctl logs count | grep -c run)" 2; }

the_log_goes_on_over_the_reboot() {
  until_true _ran_twice
}

the_journal_of_the_last_boot_is_kept() {
  says ready journalctl -b -1 -u littleboxd.service -o cat
  remove_all
}

containers_run_when_the_power_fails() {
  run no -- sleep 1000
  run always --restart always -- sleep 1000
  run done -- sh -c 'exit 7'
  lbctl wait done || true
}
