# Surroundings that are not simply there: nested cgroups, a read-only tree, file systems without id maps.
# shellcheck shell=bash

readonly NEST=/var/lib/vm/nest

_nested() { lbctl --socket $NEST/sock "$@"; }

_show() { curl -sS --fail-with-body --unix-socket $NEST/sock "http://localhost/v1/containers/$1"; }

# _nest CGROUP_PARENT COMMAND...: a second daemon as a service of its own slice, with its cgroup handed
# over. The command runs a shell script, standard input, that puts the daemon somewhere in it.
_nest() {
  mkdir -p $NEST
  printf 'cgroup_parent = "%s"\n' "$1" >$NEST/config.toml
  shift
  cat - >$NEST/start <<END
$(cat)
exec littleboxd --config $NEST/config.toml --socket $NEST/sock --state-dir $NEST/state --run-dir $NEST/run
END
  systemd-run -q --collect --unit=nested --slice=nest.slice -p Delegate=yes -p KillMode=process "$@" bash -eux $NEST/start
  until_true _nested ps || { journalctl -u nested -n 20 --no-pager -o cat; return 1; }
}

_end_nest() {
  local ids
  ids=$(_nested ps -aq)
  # shellcheck disable=SC2086 # words
  if [ -n "$ids" ]; then _nested rm -f $ids; fi
  systemctl stop nested
  rm -rf $NEST
}

# _holds MOUNT SHOWN: limits are in the kernel, pause and removal work. What the daemon calls SHOWN
# lies at MOUNT here.
_holds() {
  local dir
  _nested run -d --name inner -m 64m --cpus 0.5 "dir:$ROOT" sleep 1000
  dir=$1$(_show inner | jq -r .cgroups.unified | sed "s|^$2||")
  is "$(cat "$dir/memory.max") $(cat "$dir/cpu.max")" "$((64 << 20)) 50000 100000"
  _nested pause inner
  is "$(cat "$dir/cgroup.freeze")" 1
  _nested resume inner
  is "$(_nested exec inner echo works)" works
  _nested rm -f inner
  test ! -d "$dir"
}

a_daemon_in_a_delegated_service_has_its_containers_below_it() {
  _nest /nest.slice/nested.service/boxes env <<'END'
own=/sys/fs/cgroup$(sed s/^0::// /proc/self/cgroup)
mkdir $own/daemon
echo $$ >$own/daemon/cgroup.procs
END
  _holds /sys/fs/cgroup /sys/fs/cgroup
  test -d /sys/fs/cgroup/nest.slice/nested.service/boxes
  _end_nest
}

a_daemon_in_a_cgroup_namespace_sees_its_own_cgroup_as_the_root() {
  _nest /boxes unshare --cgroup --mount <<'END'
umount -l /sys/fs/cgroup
mount -t cgroup2 none /sys/fs/cgroup
mkdir /sys/fs/cgroup/daemon
echo $$ >/sys/fs/cgroup/daemon/cgroup.procs
END
  _holds /sys/fs/cgroup/nest.slice/nested.service /sys/fs/cgroup
  test -d /sys/fs/cgroup/nest.slice/nested.service/boxes
  _end_nest
}

processes_in_the_parent_cgroup_are_a_clear_error() {
  _nest /nest.slice/nested.service env </dev/null
  local said
  said=$(_nested run -d -m 64m "dir:$ROOT" sleep 1000 2>&1) && false
  says 'processes of its own' echo "$said"
  _end_nest
}

a_read_only_tree_is_a_clear_error_for_limits_and_a_warning_without() {
  _nest /boxes unshare --mount <<'END'
mount -o remount,bind,ro /sys/fs/cgroup
END
  local said
  said=$(_nested run -d -m 64m "dir:$ROOT" sleep 1000 2>&1) && false
  says read-only echo "$said"
  _nested run -d --name without "dir:$ROOT" sleep 1000
  _show without |
    jq -e '(.cgroups // {} | length == 0) and (.warnings | join(" ") | test("no control group.*read-only"))'
  _end_nest
}

# _owners_inside: what a container's root sees of the root's files and its own.
_owners_inside() { lbctl exec "$1" sh -c 'touch /made; stat -c %u /bin/busybox /made' | tr '\n' ' '; }

the_root_is_seen_through_the_containers_ids() {
  run mapped -- sleep 1000
  is "$(field mapped '.idmaps[] | select(.destination == "/") | .state')" mapped
  is "$(field mapped .warnings)" '[]'
  is "$(_owners_inside mapped)" "0 0 "
  remove_all
}

a_root_that_cannot_be_id_mapped_works_with_the_hosts_owners_and_says_so() {
  # An overlay cannot be id mapped as a layer of another.
  local base=/run/vm-overlay
  mkdir -p $base/{upper,work,root}
  mount -t overlay -o "lowerdir=$ROOT,upperdir=$base/upper,workdir=$base/work" overlay $base/root
  lbctl run -d --name refused "dir:$base/root" sleep 1000
  is "$(field refused '.idmaps[] | select(.destination == "/") | .state')" refused
  says idmapped field refused '.warnings[]'
  is "$(_owners_inside refused)" "65534 0 "
  remove_all
  umount $base/root
  rm -r $base
}
