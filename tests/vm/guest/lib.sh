# Words that the suites share. Each test runs in a shell of its own with `set -eux`.
# shellcheck shell=bash

readonly SOCKET=/run/littlebox.sock ROOT=/var/lib/vm/busybox

# install_or_uninstall ACTION: as `make install` calls it, on this machine.
installer() {
  BIN=/payload/bin PREFIX=/usr/local DESTDIR='' SYSCONFDIR=/etc UNITDIR=/etc/systemd/system SUDO='' \
    bash /payload/systemd/install.sh "$1"
}

# api PATH [CURL ARGUMENT...]
api() {
  local path=$1
  shift
  curl -sS --fail-with-body --max-time 300 --unix-socket "$SOCKET" "$@" "http://localhost/v1$path"
}

# run NAME [FLAG...] -- COMMAND...: a container of busybox in the background.
run() {
  local name=$1 flags=()
  shift
  while [ "$1" != -- ]; do flags+=("$1"); shift; done
  shift
  lbctl run -d --name "$name" "${flags[@]}" "dir:$ROOT" "$@" >/dev/null
}

# field NAME JQ: of what inspect shows.
field() { api "/containers/$1" | jq -r "$2"; }

pid_of() { field "$1" .pid; }

# until_true WHAT...: polls a command until it succeeds, for four minutes: a busy host starves the machine.
until_true() {
  local end=$((SECONDS + 240))
  set +x
  until "$@" >/dev/null 2>&1; do
    if [ $SECONDS -ge $end ]; then echo "not within four minutes: $*"; return 1; fi
    sleep 0.2
  done
  set -x
}

# fails COMMAND...: `!` does not count for `set -e`.
fails() { if "$@"; then echo "succeeded: $*"; return 1; fi; }

# says PATTERN COMMAND...: its output has a line like that.
says() {
  local pattern=$1
  shift
  # Not `grep -q`: it would end before the command, which pipefail takes for a failure.
  "$@" | grep -e "$pattern" >/dev/null
}

# is A B: the same.
is() { if [ "$1" != "$2" ]; then echo "'$1' is not '$2'"; return 1; fi; }

active() { systemctl is-active -q "$1"; }

main_pid() { systemctl show -P MainPID littleboxd.service; }

remove_all() {
  local ids
  ids=$(lbctl ps -aq)
  # shellcheck disable=SC2086 # words
  if [ -n "$ids" ]; then lbctl rm -f $ids >/dev/null; fi
}

# numbers NAME: the container's log is 1, 2, 3, ... without a gap.
numbers() { lbctl logs "$1" | awk '$1 != NR { print "line " NR " is " $0; exit 1 } END { if (NR < 2) exit 1 }'; }

# counter: the container `count`, which counts aloud until it is told a code to end with.
counter() {
  rm -rf /var/lib/vm/tell
  mkdir -p /var/lib/vm/tell
  # shellcheck disable=SC2016 # a script for the container
  run count -v /var/lib/vm/tell:/tell:ro -- sh -c \
    'i=0; while [ ! -s /tell/stop ]; do i=$((i + 1)); echo $i; sleep 0.1; done; exit $(cat /tell/stop)'
}

# tell CODE: has it end, also while no daemon runs.
tell() { echo "$1" >/var/lib/vm/tell/stop; }
