# littlebox-runtime with a real systemd.
# shellcheck shell=bash

readonly BUNDLE=/var/lib/vm/bundle

_runtime() { littlebox-runtime --systemd-cgroup --root /run/vm-runtime "$@"; }

# _bundle CGROUPS_PATH: a container that waits, with limits.
_bundle() {
  mkdir -p $BUNDLE
  jq -n --arg root "$ROOT" --arg cgroup "$1" '{
    ociVersion: "1.2.0",
    root: {path: $root, readonly: true},
    process: {args: ["sh", "-c", "trap \"exit 3\" TERM; echo ready; while :; do sleep 0.1; done"],
      env: ["PATH=/bin"], cwd: "/", user: {uid: 0, gid: 0}},
    mounts: [{destination: "/proc", type: "proc", source: "proc"}],
    linux: {
      namespaces: (["pid", "mount", "ipc", "uts", "network", "cgroup"] | map({type: .})),
      cgroupsPath: $cgroup,
      resources: {memory: {limit: 67108864}, pids: {limit: 20}, cpu: {shares: 512, quota: 50000, period: 100000}}
    }}' >$BUNDLE/config.json
}

_state() { _runtime state "$1" | jq -r .status; }
_is() { is "$(_state "$1")" "$2"; }
_show() { systemctl show -P "$2" "$1"; }

# The container's own cgroup, in that of its scope.
readonly SCOPE=/sys/fs/cgroup/vm.slice/vm-boxes.slice/lb-one.scope
readonly DIR=$SCOPE/container

readonly LIMITS='67108864 20 50000 100000'
_limits() { (cd "$1" && echo "$(cat memory.max pids.max cpu.max | tr '\n' ' ')" | sed 's/ $//'); }

a_container_has_a_scope_from_create_to_delete() {
  _bundle vm-boxes.slice:lb:one
  _runtime create --bundle $BUNDLE --pid-file /run/vm-one.pid one >/run/vm-one.out 2>&1 </dev/null
  local scope=lb-one.scope
  is "$(_state one)" created
  active $scope
  is "$(_show $scope ControlGroup)" /vm.slice/vm-boxes.slice/lb-one.scope
  is "$(_show $scope Slice) $(_show $scope Delegate)" "vm-boxes.slice yes"
  is "$(_show $scope Description)" "littlebox container one"
  is "$(_show $scope TasksMax)" infinity
  is "$(cat $DIR/cgroup.procs)" "$(cat /run/vm-one.pid)"
  is "$(cat $SCOPE/cgroup.procs)" ""
  is "$(_limits $DIR)" "$LIMITS"
  for controller in cpuset cpu io memory pids; do grep -qw $controller $DIR/cgroup.controllers; done
}

exec_joins_the_scope_and_a_reload_of_systemd_changes_no_limit() {
  _runtime start one
  until_true says ready cat /run/vm-one.out
  _is one running
  is "$(_runtime exec one cat /proc/self/cgroup)" 0::/
  is "$(_runtime exec one sh -c 'exit 9' || echo $?)" 9
  systemctl daemon-reload
  # What makes systemd realize the cgroups of all its units anew.
  systemctl set-property --runtime vm-boxes.slice CPUWeight=200
  is "$(_limits $DIR)" "$LIMITS"
}

limits_are_updated_and_stay() {
  _runtime update --memory 100663296 --pids-limit 30 one
  systemctl daemon-reload
  systemctl set-property --runtime vm-boxes.slice CPUWeight=100
  is "$(_limits $DIR)" '100663296 30 50000 100000'
}

it_freezes_and_is_killed_and_its_scope_goes_with_it() {
  local scope=lb-one.scope
  _runtime pause one
  _is one paused
  is "$(cat $DIR/cgroup.freeze)" 1
  _runtime resume one
  _runtime kill one TERM
  until_true _is one stopped
  _runtime delete one
  fails _runtime state one
  until_true test ! -d $SCOPE
  fails active $scope
  is "$(_show $scope LoadState)" not-found
}

the_default_scope_and_a_forced_deletion() {
  _bundle ''
  _runtime create --bundle $BUNDLE two >/dev/null 2>&1 </dev/null
  local dir=/sys/fs/cgroup/system.slice/littlebox-two.scope
  active littlebox-two.scope
  test -d $dir
  _runtime start two
  _runtime delete --force two
  until_true test ! -d $dir
}

systemd_ends_a_container_by_its_scope() {
  _bundle system.slice:lb:three
  _runtime create --bundle $BUNDLE three >/dev/null 2>&1 </dev/null
  _runtime start three
  systemctl stop lb-three.scope
  until_true _is three stopped
  _runtime delete three
}

a_scope_that_exists_is_a_clear_error_and_leaves_nothing() {
  systemd-run -q --scope --unit=lb-taken.scope --slice=system.slice sleep 1000 &
  until_true active lb-taken.scope
  _bundle system.slice:lb:taken
  local said
  said=$(_runtime create --bundle $BUNDLE taken 2>&1 </dev/null) && false
  says lb-taken.scope echo "$said"
  active lb-taken.scope
  fails _runtime state taken
  systemctl stop lb-taken.scope
  is "$(ls /run/vm-runtime)" ""
}
