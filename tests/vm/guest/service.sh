# The systemd units: what an administrator would try by hand.
# shellcheck shell=bash

it_is_active_only_when_the_socket_answers() {
  is "$(systemctl show -P Type littleboxd.service)" notify
  for _ in 1 2 3; do
    systemctl restart littleboxd.service
    api /health | jq -e '.status == "ok"'
  done
}

the_journal_has_the_log() {
  lbctl ps
  says ready journalctl -b -u littleboxd.service -o cat
  until_true says 'path="/v1/containers"' journalctl -b -u littleboxd.service -o cat
}

containers_and_helpers_live_in_a_slice_of_their_own() {
  run web -- sleep 1000
  local slice=0::/littlebox.slice/littlebox-containers.service
  grep -q "^$slice/.*/$(field web .id)" "/proc/$(pid_of web)/cgroup"
  is "$(cat "/proc/$(field web .helper_pid)/cgroup")" "$slice/helpers"
  # The service's own cgroup has the daemon, and no cgroups below it.
  is "$(cat /sys/fs/cgroup/system.slice/littleboxd.service/cgroup.procs)" "$(main_pid)"
  is "$(find /sys/fs/cgroup/system.slice/littleboxd.service -mindepth 1 -type d)" ""
  # systemd knows the cgroup as its unit's, and has handed over every controller.
  is "$(systemctl show -P ControlGroup littlebox-containers.service)" "${slice#0::}"
  is "$(systemctl show -P Delegate littlebox-containers.service)" yes
  says 'sleep 1000' systemd-cgls --no-pager -l -u littlebox-containers.service
}

containers_survive_a_restart_of_the_service_and_the_log_has_no_gap() {
  counter
  local before
  before=$(pid_of count)
  for _ in 1 2 3; do
    systemctl restart littleboxd.service
    is "$(pid_of count)" "$before"
    lbctl exec count true
  done
  tell 7
  is "$(lbctl wait count)" 7
  numbers count
  lbctl rm count
}

a_container_that_ends_while_the_unit_is_stopped_keeps_its_exit_code() {
  counter
  local pid
  pid=$(pid_of count)
  systemctl stop littleboxd.service
  fails active littleboxd.service
  test -d "/proc/$pid"
  tell 42
  until_true test ! -d "/proc/$pid"
  # The socket starts the service again.
  is "$(lbctl wait count)" 42
  active littleboxd.service
  numbers count
  lbctl rm count
}

a_killed_daemon_is_started_again_and_takes_its_containers_back() {
  counter
  local pid restarts
  pid=$(pid_of count)
  restarts=$(systemctl show -P NRestarts littleboxd.service)
  kill -9 "$(main_pid)"
  is "$(pid_of count)" "$pid"
  is "$(systemctl show -P NRestarts littleboxd.service)" "$((restarts + 1))"
  lbctl exec count true
  tell 3
  is "$(lbctl wait count)" 3
  numbers count
  lbctl rm count
}

a_daemon_that_hangs_is_replaced_by_the_watchdog() {
  local drop_in=/run/systemd/system/littleboxd.service.d pid
  mkdir -p $drop_in
  printf '[Service]\nWatchdogSec=20\n' >$drop_in/watchdog.conf
  systemctl daemon-reload
  systemctl restart littleboxd.service
  pid=$(main_pid)
  kill -STOP "$pid"
  until_true test ! -d "/proc/$pid"
  api /health | jq -e '.status == "ok"'
  rm -r $drop_in
  systemctl daemon-reload
  systemctl restart littleboxd.service
}

an_upgrade_replaces_the_programs_under_live_containers() {
  counter
  local pid inode
  pid=$(pid_of count)
  inode=$(stat -c %i /usr/local/bin/littleboxd)
  echo 'event_retention = 5000' >>/etc/littlebox/config.toml
  installer install
  grep -q 'event_retention = 5000' /etc/littlebox/config.toml
  test "$(stat -c %i /usr/local/bin/littleboxd)" != "$inode"
  # The old daemon still serves.
  is "$(pid_of count)" "$pid"
  systemctl restart littleboxd.service
  is "$(readlink "/proc/$(main_pid)/exe")" /usr/local/bin/littleboxd
  is "$(pid_of count)" "$pid"
  tell 0
  is "$(lbctl wait count)" 0
  numbers count
  lbctl rm count
}

many_containers_survive_many_restarts() {
  for n in 1 2 3 4 5; do run "many$n" -- sleep 1000; done
  local before
  before=$(lbctl ps -q | sort)
  for _ in 1 2 3; do
    systemctl restart littleboxd.service
    systemctl kill -s KILL littleboxd.service
  done
  is "$(lbctl ps -q | sort)" "$before"
  for n in 1 2 3 4 5; do lbctl exec "many$n" true; done
  remove_all
  is "$(find /sys/fs/cgroup/littlebox.slice -mindepth 3 -type d)" ""
}

a_service_that_is_restarted_often_is_not_left_dead() {
  run web -- sleep 1000
  local pid
  pid=$(pid_of web)
  for unit in littleboxd.service littleboxd.socket littlebox-containers.service; do
    is "$(systemctl show -P StartLimitIntervalUSec $unit)" 0
  done
  for _ in 1 2 3 4 5 6 7 8 9 10 11 12; do systemctl restart littleboxd.service; done
  active littleboxd.socket
  is "$(pid_of web)" "$pid"
  remove_all
}

_restarts() { test "$(systemctl show -P NRestarts littleboxd.service)" -ge "$1"; }

a_daemon_that_could_not_start_for_a_while_comes_back_by_itself() {
  local drop_in=/run/systemd/system/littleboxd.service.d asking
  mkdir -p $drop_in
  printf '[Service]\nExecStart=\nExecStart=/bin/false\n' >$drop_in/broken.conf
  systemctl daemon-reload
  systemctl kill -s KILL littleboxd.service
  # A client that waits all the while, as the socket lets it.
  api /health >/run/vm-asked &
  asking=$!
  until_true _restarts 12
  active littleboxd.socket
  rm -r $drop_in
  systemctl daemon-reload
  wait $asking
  jq -e '.status == "ok"' /run/vm-asked
  active littleboxd.service
}

systemd_has_nothing_to_complain_about() {
  is "$(systemctl --failed --no-legend --plain 'littlebox*')" ""
  fails says 'left-over process' journalctl -b -o cat
  # A daemon that does not end when it is told to.
  fails says "State 'stop.* timed out" journalctl -b -u littleboxd.service -o cat
}
