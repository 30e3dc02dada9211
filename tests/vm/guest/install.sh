# The machine, and littlebox's way onto it. Always the first suite.
# shellcheck shell=bash

_busybox() {
  mkdir -p "$ROOT"/{bin,dev,etc,proc,sys,tmp}
  cp /bin/busybox "$ROOT/bin/"
  chroot "$ROOT" /bin/busybox --install -s /bin
}

the_machine_is_a_pure_cgroup_v2_host() {
  is "$(stat -f -c %T /sys/fs/cgroup)" cgroup2fs
  for controller in cpuset cpu io memory pids; do grep -qw "$controller" /sys/fs/cgroup/cgroup.controllers; done
  echo "note: kernel $(uname -r), $(systemctl --version | head -n1)"
  _busybox
}

install_puts_programs_units_and_group_in_place() {
  installer install
  for program in bin/littleboxd bin/lbctl bin/littlebox-runtime lib/littlebox/littlebox-helper; do test -x "/usr/local/$program"; done
  getent group littlebox
  test -e /etc/littlebox/config.toml
  littleboxd --check-config
  systemctl cat littleboxd.service littleboxd.socket littlebox-containers.service
  fails active littleboxd.service
}

the_units_have_no_faults() {
  local said
  said=$(systemd-analyze verify /etc/systemd/system/littlebox*.{service,socket} 2>&1)
  is "$said" ""
  echo "note: $(systemd-analyze --no-pager security littleboxd.service | tail -n1 | tr -cd '[:print:]')"
}

the_first_connection_starts_the_service() {
  systemctl enable -q littleboxd.socket littleboxd.service
  systemctl start littleboxd.socket
  fails active littleboxd.service
  is "$(stat -c '%U:%G %a' "$SOCKET")" "root:littlebox 660"
  api '' | jq -e .version
  active littleboxd.service
}
