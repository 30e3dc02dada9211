# What the engines' tests share. Each engine has daemons, directories and sockets of its own below
# $work, and everything is ended and removed by whoever made it.

: "${LITTLEBOX_BIN_DIR:?set it to the directory of littlebox-runtime, or use make test-engines}"
runtime=$LITTLEBOX_BIN_DIR/littlebox-runtime
failures=0

# is WHAT EXPECTED ACTUAL: one check, said on a line of its own.
is() {
  if [ "$2" = "$3" ]; then
    echo "ok: $1"
  else
    printf 'FAILED: %s\n  expected: %q\n  got:      %q\n' "$1" "$2" "$3"
    failures=$((failures + 1))
  fi
}

# has WHAT PART TEXT: the text contains the part.
has() {
  case $3 in
    *"$2"*) echo "ok: $1" ;;
    *) printf 'FAILED: %s\n  %q is not in:\n%s\n' "$1" "$2" "$3"; failures=$((failures + 1)) ;;
  esac
}

# code COMMAND...: its exit code, on stdout; its own output goes nowhere.
code() {
  local status=0
  "$@" >/dev/null 2>&1 </dev/null || status=$?
  echo $status
}

# wait_for COMMAND...: until it succeeds, for at most 20 seconds.
wait_for() {
  local until=$((SECONDS + 20))
  until "$@" >/dev/null 2>&1; do
    if [ $SECONDS -ge $until ]; then echo "FAILED: never: $*"; return 1; fi
    sleep 0.1
  done
}

# busybox_root DIR: a root filesystem of one static program.
busybox_root() {
  mkdir -p "$1"/{bin,etc,tmp,dev,proc,sys}
  cp /bin/busybox "$1/bin/busybox"
  local applet
  for applet in sh cat echo env false grep head id kill ls ps readlink sleep stty test true tty wc; do
    ln -sf busybox "$1/bin/$applet"
  done
  echo root:x:0:0:root:/:/bin/sh >"$1/etc/passwd"
}

# end PID: ends a daemon of ours and waits for it.
end() {
  kill "$1" 2>/dev/null || true
  wait "$1" 2>/dev/null || true
}

# nothing_left: no container, cgroup, mount or process of this run.
nothing_left() {
  is "no container is left" "" "$(ls -A "$1" 2>/dev/null)"
  is "no mount is left" "" "$(grep -F "$work" /proc/self/mountinfo | cut -d' ' -f5 || true)"
}
