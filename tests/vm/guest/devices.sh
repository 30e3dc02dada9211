# Block devices on cgroup v2: rates, weights, and the filter of device nodes, a BPF program.
# shellcheck shell=bash

# The machine's spare disk.
_disk() { readlink -f /dev/disk/by-id/virtio-spare; }
_numbers() { lsblk -ndo MAJ:MIN "$(_disk)" | tr -d ' '; }
_cg() { cat "$(field "$1" .cgroups.unified)/$2"; }

# _stat CONTAINER KEY: a counter of the disk in its io.stat.
_stat() { _cg "$1" io.stat | sed -n "s/^$(_numbers) .*\b$2=\([0-9]*\).*/\1/p"; }

a_rate_of_a_disk_holds_and_is_counted() {
  mkfs.ext4 -q -F "$(_disk)"
  mkdir -p /var/lib/vm/spare
  mount "$(_disk)" /var/lib/vm/spare
  run rate --device-write-bps "$(_disk):1m" -v /var/lib/vm/spare:/data -- sleep 1000
  is "$(_cg rate io.max)" "$(_numbers) rbps=max wbps=1048576 riops=max wiops=max"
  # Six megabytes at one a second; a slow machine only takes longer. The first is free.
  local began=$SECONDS
  lbctl exec rate dd if=/dev/zero of=/data/file bs=64k count=96 oflag=direct
  test $((SECONDS - began)) -ge 4
  test "$(_stat rate wbytes)" -ge $((6 << 20))
  api /containers/rate/stats | jq -e '.io_write >= 6291456 and .io_write_ops > 0'
}

a_rate_changes_while_the_container_runs() {
  lbctl update --device-write-bps "$(_disk):200m" --device-read-iops "$(_disk):77" rate
  is "$(_cg rate io.max)" "$(_numbers) rbps=max wbps=209715200 riops=77 wiops=max"
  lbctl update --lift io_limits rate
  is "$(_cg rate io.max)" ""
  remove_all
  umount /var/lib/vm/spare
}

a_weight_is_an_error_where_no_scheduler_takes_it_and_works_with_bfq() {
  if [ ! -e /sys/fs/cgroup/littlebox.slice/io.weight ] && [ ! -e /sys/fs/cgroup/littlebox.slice/io.bfq.weight ]; then
    fails run refused --io-weight 200 -- sleep 1000
    remove_all
  fi
  modprobe bfq
  echo bfq >"/sys/block/$(basename "$(_disk)")/queue/scheduler"
  run weighty --io-weight 200 -- sleep 1000
  says '200$' _cg weighty io.bfq.weight
  lbctl update --io-weight 300 weighty
  says '300$' _cg weighty io.bfq.weight
  remove_all
}

# _opens CONTAINER NODE: its root can open the node.
_opens() { lbctl exec "$1" sh -c "exec 3<$2"; }

# _verdicts CONTAINER: the standard devices, and the disk by a node that the container makes itself.
_verdicts() {
  lbctl exec "$1" sh -c 'echo x >/dev/null; head -c 4 /dev/zero >/dev/null; head -c 4 /dev/urandom >/dev/null; exec 3<>/dev/ptmx'
  lbctl exec "$1" sh -c "rm -f /tmp/disk; mknod /tmp/disk b $(_numbers | tr : ' ')"
  fails _opens "$1" /tmp/disk
  lbctl exec "$1" sh -c 'rm -f /tmp/mem; mknod /tmp/mem c 1 1'
  fails _opens "$1" /tmp/mem
}

the_filter_lets_standard_devices_through_and_no_disk() {
  # With the host's ids and the right to make nodes, so that nothing else stands in the way.
  run filtered --userns host --cap-add MKNOD -- sleep 1000
  _verdicts filtered
}

a_change_of_limits_keeps_the_filter() {
  lbctl update -m 64m --pids-limit 30 filtered
  _verdicts filtered
  remove_all
}

a_device_that_is_handed_over_opens_and_only_as_asked() {
  local disk
  disk=$(_disk)
  run handed --userns host --cap-add MKNOD --device "$disk:/dev/spare:r" -- sleep 1000
  lbctl exec handed dd if=/dev/spare of=/dev/null bs=4k count=1
  fails lbctl exec handed dd if=/dev/zero of=/dev/spare bs=4k count=1 conv=notrunc
  lbctl update --pids-limit 30 handed
  lbctl exec handed dd if=/dev/spare of=/dev/null bs=4k count=1
  fails lbctl exec handed dd if=/dev/zero of=/dev/spare bs=4k count=1 conv=notrunc
  remove_all
  # Ids of its own are no obstacle.
  run mapped --device "$disk:/dev/spare:rw" -- sleep 1000
  lbctl exec mapped dd if=/dev/spare of=/dev/null bs=4k count=1
  lbctl exec mapped dd if=/dev/zero of=/dev/spare bs=4k count=1 conv=notrunc
  remove_all
}

privileged_means_every_device() {
  run all --privileged -- sleep 1000
  lbctl exec all sh -c "mknod /tmp/disk b $(_numbers | tr : ' ')"
  _opens all /tmp/disk
  remove_all
}
