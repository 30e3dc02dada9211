#!/usr/bin/env bash
# `make install` and `make uninstall`. From the environment: BIN (the built programs), PREFIX,
# DESTDIR, SYSCONFDIR, UNITDIR, SUDO (empty when root). Nothing on the running system is touched
# when DESTDIR is set: no group, no systemctl.
set -euo pipefail
cd "$(dirname "$0")"
action=${1:?install or uninstall}

# Root rights are needed for the machine's own directories only.
if [ -n "$DESTDIR" ]; then SUDO=; fi
as_root() { if [ -n "$SUDO" ]; then $SUDO "$@"; else "$@"; fi; }

bindir=$DESTDIR$PREFIX/bin
libdir=$DESTDIR$PREFIX/lib/littlebox
mandir=$DESTDIR$PREFIX/share/man
bash_dir=$DESTDIR$PREFIX/share/bash-completion/completions
zsh_dir=$DESTDIR$PREFIX/share/zsh/site-functions
fish_dir=$DESTDIR$PREFIX/share/fish/vendor_completions.d
confdir=$DESTDIR$SYSCONFDIR/littlebox
unitdir=$DESTDIR$UNITDIR
units=(littleboxd.service littleboxd.socket littlebox-containers.service)

on_running_systemd() { [ -z "$DESTDIR" ] && [ -d /run/systemd/system ]; }

do_install() {
  local work
  work=$(mktemp -d)
  trap 'rm -rf "$work"' RETURN

  as_root install -D -m 0755 -t "$bindir" "$BIN/littleboxd" "$BIN/lbctl" "$BIN/littlebox-runtime"
  as_root install -D -m 0755 -t "$libdir" "$BIN/littlebox-helper"

  for unit in "${units[@]}"; do
    sed "s|/usr/local/|$PREFIX/|g; s|/etc/littlebox|$SYSCONFDIR/littlebox|g" "$unit" >"$work/$unit"
    as_root install -D -m 0644 -t "$unitdir" "$work/$unit"
  done
  # An administrator's configuration is never overwritten.
  if [ ! -e "$confdir/config.toml" ]; then
    cp config.toml "$work/config.toml"
    case $PREFIX in
      /usr | /usr/local) ;; # where littleboxd looks by itself
      *) sed -i "s|^#helper = .*|helper = \"$PREFIX/lib/littlebox/littlebox-helper\"|" "$work/config.toml" ;;
    esac
    as_root install -D -m 0644 -t "$confdir" "$work/config.toml"
  fi

  "$BIN/lbctl" completion bash >"$work/lbctl"
  "$BIN/lbctl" completion zsh >"$work/_lbctl"
  "$BIN/lbctl" completion fish >"$work/lbctl.fish"
  as_root install -D -m 0644 -t "$bash_dir" "$work/lbctl"
  as_root install -D -m 0644 -t "$zsh_dir" "$work/_lbctl"
  as_root install -D -m 0644 -t "$fish_dir" "$work/lbctl.fish"
  mkdir "$work/man"
  "$BIN/lbctl" man "$work/man"
  as_root install -D -m 0644 -t "$mandir/man1" "$work"/man/*.1

  if [ -z "$DESTDIR" ]; then
    getent group littlebox >/dev/null || as_root groupadd --system littlebox
  fi
  if on_running_systemd; then
    as_root systemctl daemon-reload
    echo "installed; now: systemctl enable --now littleboxd.socket littleboxd.service"
  else
    echo "installed below ${DESTDIR:-/}; start it with: $PREFIX/bin/littleboxd"
  fi
}

do_uninstall() {
  if on_running_systemd; then
    as_root systemctl disable --now littleboxd.service littleboxd.socket 2>/dev/null || true
  fi
  as_root rm -f "$bindir/littleboxd" "$bindir/lbctl" "$bindir/littlebox-runtime" "$libdir/littlebox-helper" \
    "${units[@]/#/$unitdir/}" \
    "$bash_dir/lbctl" "$zsh_dir/_lbctl" "$fish_dir/lbctl.fish" \
    "$mandir"/man1/lbctl.1 "$mandir"/man1/lbctl-*.1
  as_root rmdir --ignore-fail-on-non-empty "$libdir" 2>/dev/null || true
  if on_running_systemd; then as_root systemctl daemon-reload; fi
  echo "removed; containers that run go on running. Left: $confdir, /var/lib/littlebox, group littlebox"
}

case $action in
  install) do_install ;;
  uninstall) do_uninstall ;;
  *) echo "usage: $0 install|uninstall" >&2; exit 2 ;;
esac
