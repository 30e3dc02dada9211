# After a reboot of the machine: the service is up, and restart policies have been followed.
# shellcheck shell=bash

_state() { is "$(field "$1" .state)" "$2"; }

the_service_is_up_after_a_boot() {
  until_true active littleboxd.service
  is "$(systemctl --failed --no-legend --plain 'littlebox*')" ""
}

what_was_running_comes_back_by_its_policy() {
  for name in on-failure always unless-stopped count; do until_true _state "$name" running; done
  lbctl exec always true
}

always_comes_back_even_when_it_was_stopped_by_hand() { until_true _state stopped-always running; }

unless_stopped_stays_down_when_it_was_stopped_by_hand() { _state stopped-unless-stopped exited; }

without_a_policy_the_end_is_known_to_be_unknown() {
  _state no exited
  is "$(field no .exit.reason)" unknown
  _state done exited
  is "$(field done .exit.code)" 0
}

_ran_twice() { is "$(lbctl logs count | grep -c run)" 2; }

the_log_goes_on_over_the_reboot() {
  until_true _ran_twice
}

the_journal_of_the_last_boot_is_kept() {
  says ready journalctl -b -1 -u littleboxd.service -o cat
  remove_all
}
