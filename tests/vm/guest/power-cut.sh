# After a power cut: nobody saw how containers ended, and that is what is said.
# shellcheck shell=bash

_state() { is "$(field "$1" .state)" "$2"; }

an_end_that_nobody_saw_is_unknown() {
  until_true active littleboxd.service
  _state no exited
  is "$(field no .exit.reason)" unknown
  is "$(field "done" .exit.code)" 7
}

policies_count_all_the_same() {
  until_true _state always running
  lbctl exec always true
  remove_all
}
