# The last suite: littlebox leaves the machine.
# shellcheck shell=bash

uninstall_removes_what_install_put_there_and_leaves_containers_alone() {
  run left -- sleep 1000
  local pid
  pid=$(pid_of left)
  installer uninstall
  test -d "/proc/$pid"
  fails active littleboxd.service
  fails active littleboxd.socket
  test ! -e "$SOCKET"
  is "$(find /usr/local /etc/systemd/system -iname '*littlebox*' -o -iname '*lbctl*')" ""
  test -e /etc/littlebox/config.toml
  test -d /var/lib/littlebox
}

after_another_installation_everything_is_there_again() {
  installer install
  systemctl enable -q --now littleboxd.socket littleboxd.service
  is "$(field left .state)" running
  remove_all
  installer uninstall
}
