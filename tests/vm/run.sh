#!/usr/bin/env bash
# `make test-vm`: boots a Debian with systemd on a pure cgroup v2 tree under software emulation,
# installs littlebox in it and runs the suites of guest/ there. Needs root.
#
# From the environment: LITTLEBOX_BIN_DIR (the built programs); VM_DEBIAN (bookworm, trixie);
# VM_SUITES (names of guest/*.sh in order, after `install`; default: all); VM_TIMEOUT (seconds for one boot, 2400).
#
# The guest tells its results on its second serial port, a line for each test. It has no way back:
# the whole suite is one command inside, so a hung guest costs no more than its time.
set -euo pipefail
cd "$(dirname "$0")"
debian=${VM_DEBIAN:-bookworm}
timeout=${VM_TIMEOUT:-2400}
target=${CARGO_TARGET_DIR:-$PWD/../../target}/vm
: "${LITTLEBOX_BIN_DIR:?set it to the directory of the built programs, or use make test-vm}"
if [ "$(id -u)" -ne 0 ]; then echo "tests/vm/run.sh needs root" >&2; exit 2; fi

mkdir -p "$target"
exec 9>"$target/lock"
flock 9
./image.sh "$target/$debian" "$debian"

work=$target/run
rm -rf "$work"
mkdir -p "$work/payload/bin"
qemu=
end_qemu() { if [ -n "$qemu" ]; then kill "$qemu" 2>/dev/null || true; fi; }
trap end_qemu EXIT

# The drive with what is tested, and the guest's own disk, which remembers over its reboots.
install -m 0755 -t "$work/payload/bin" "$LITTLEBOX_BIN_DIR"/{littleboxd,lbctl,littlebox-helper,littlebox-runtime}
strip "$work"/payload/bin/* 2>/dev/null || true
cp -r ../../systemd guest "$work/payload/"
echo "${VM_SUITES:-}" >"$work/payload/suites"
size=$(du -sm "$work/payload" | cut -f1)
truncate -s $((size + size / 5 + 32))M "$work/payload.img"
mkfs.ext4 -q -F -L payload -O ^has_journal -d "$work/payload" "$work/payload.img"
rm -rf "$work/payload"
cp --sparse=always "$target/$debian/root.img" "$work/root.img"
# A disk of its own for limits on block devices.
truncate -s 256M "$work/spare.img"

stood_still() { grep -aqs 'systemd\[1\]: Freezing execution' "$work/console.$1"; }

# boot N: runs the machine until it ends: 0 when it ended by itself.
boot() {
  : >"$work/results.$1"
  # Emulation, not /dev/kvm, which is not everywhere: the same machine on every host. NVMe is built
  # into the kernel, so the root needs no initramfs; never two of them, they may swap.
  timeout "$timeout" nice qemu-system-x86_64 -M q35 -cpu Nehalem -accel tcg,thread=multi,tb-size=512 \
    -smp "$([ "$debian" = bookworm ] && echo 2 || echo 1)" -m 1536 \
    -nodefaults -display none -no-reboot -kernel "$target/$debian/vmlinuz" \
    -append "root=/dev/nvme0n1 rw console=ttyS0 mitigations=off nokaslr tsc=reliable no_timer_check psi=1 quiet panic=-1" \
    -drive "file=$work/root.img,format=raw,if=none,id=root,cache=unsafe" \
    -device nvme,drive=root,serial=root \
    -drive "file=$work/payload.img,format=raw,if=none,id=payload,readonly=on" \
    -device virtio-blk-pci,drive=payload \
    -drive "file=$work/spare.img,format=raw,if=none,id=spare,cache=unsafe" \
    -device virtio-blk-pci,drive=spare,serial=spare \
    -serial "file:$work/console.$1" -serial "file:$work/results.$1" </dev/null 9>&- &
  qemu=$!
  # systemd gives its generators ninety seconds, and without them stands still for good.
  while sleep 5 && kill -0 "$qemu" 2>/dev/null; do
    if stood_still "$1"; then kill "$qemu"; fi
  done 9>&- &
  tail -n +1 -f --pid="$qemu" "$work/results.$1" 2>/dev/null | sed -u '/^#/d; s/\r$//' 9>&- &
  local shown=$! status=0
  wait "$qemu" || status=$?
  qemu=
  wait "$shown" || true
  return "$status"
}

# The last word of a boot: `done`, `reboot`, or nothing.
last_word() { tr -d '\r' <"$work/results.$1" | sed -n 's/^# \(done\|reboot\)$/\1/p' | tail -n1; }

started=$SECONDS
n=1
again=
while true; do
  echo "--- boot $n of Debian $debian ($((SECONDS - started)) s)"
  status=0
  boot "$n" || status=$?
  case $(last_word "$n") in
    reboot) n=$((n + 1)); continue ;;
    done) break ;;
  esac
  if [ -z "$again" ] && [ ! -s "$work/results.$n" ] &&
    { stood_still "$n" || grep -aq 'Kernel panic' "$work/console.$n"; }; then
    echo "the guest's kernel panicked at boot, or systemd stood still (known of emulation): booting again, once"
    again=yes
    continue
  fi
  echo "FAILED  the machine ended without having run everything (qemu: $status); its console:"
  tail -n 40 "$work/console.$n"
  echo "# lost" >>"$work/results.$n"
  break
done

count() { cat "$work"/results.* | tr -d '\r' | grep -c "$1" || true; }
passed=$(count '^ok ')
failed=$(count '^FAILED ')
if [ "$(count '^# lost')" -ne 0 ]; then failed=$((failed + 1)); fi
echo "test-vm: $passed passed, $failed failed (Debian $debian, $((SECONDS - started)) s)"
if [ "$failed" -ne 0 ] || [ "$passed" -eq 0 ]; then
  echo "consoles and results are kept in $work"
  exit 1
fi
rm -rf "$work"
