#!/usr/bin/env bash
# image.sh DIR [SUITE]: makes the virtual machine's disk DIR/root.img and kernel DIR/vmlinuz, a
# minimal Debian (SUITE: bookworm or trixie) with systemd, unless DIR has what this script would
# make. Needs root for the owners of files; no loop device, and no network but apt's.
#
# The image knows nothing of littlebox: at the end of its boot it mounts the drive labelled
# `payload` and runs /payload/guest/main there.
set -euo pipefail
dir=${1:?where to} suite=${2:-bookworm}

packages=(systemd systemd-sysv dbus udev kmod util-linux procps iproute2 nftables jq curl
  busybox-static sqlite3 socat e2fsprogs acl attr)

# What is made depends on this file alone, and on the month: security updates come in.
key=$(cat "$0" - <<<"$suite $(date +%Y-%m)" | sha256sum | cut -c1-16)
if [ -e "$dir/root.img" ] && [ "$(cat "$dir/key" 2>/dev/null)" = "$key" ]; then exit 0; fi

rm -rf "$dir"
mkdir -p "$dir"
root=$dir/root
trap 'rm -rf "$root"' EXIT

# The kernel is unpacked, not installed: no initramfs is wanted, and no boot loader. NVMe and ext4
# are built into Debian's cloud kernel.
cat >"$dir/kernel-hook" <<'END'
#!/usr/bin/env bash
set -euo pipefail
export APT_CONFIG=$MMDEBSTRAP_APT_CONFIG
package=$(apt-cache depends linux-image-cloud-amd64 | awk '/Depends: linux-image-[0-9]/ && !n++ { print $2 }')
tmp=$(mktemp -d)
cd "$tmp"
apt-get -q -o APT::Sandbox::User=root download "$package"
dpkg-deb -x ./*.deb unpacked
mv unpacked/boot/vmlinuz-* "$VM_DIR/vmlinuz"
mkdir -p "$1/usr/lib/modules"
# trixie has them in usr already
for modules in unpacked/lib/modules unpacked/usr/lib/modules; do
  if [ -d "$modules" ]; then cp -a "$modules/." "$1/usr/lib/modules/"; fi
done
cd /
rm -rf "$tmp"
chroot "$1" depmod "$(ls "$1/usr/lib/modules")"
END
chmod 755 "$dir/kernel-hook"

echo "making a virtual machine's image of Debian $suite" >&2
export VM_DIR=$dir
mmdebstrap --quiet --variant=minbase --include="$(IFS=,; echo "${packages[*]}")" \
  --aptopt='Acquire::Retries "5"' --customize-hook="$dir/kernel-hook" "$suite" "$root" </dev/null

cat >"$root/etc/fstab" <<'END'
/dev/nvme0n1 / ext4 defaults,noatime 0 0
END
echo guest >"$root/etc/hostname"
echo '127.0.0.1 localhost guest' >"$root/etc/hosts"
: >"$root/etc/machine-id"
# The journal is among what is tested over a reboot: it has to be on the disk.
mkdir -p "$root/var/log/journal" "$root/payload"
# The console is read by nobody but a person after a failure.
mkdir -p "$root/etc/systemd/system.conf.d"
cat >"$root/etc/systemd/system.conf.d/vm.conf" <<'END'
[Manager]
ShowStatus=no
DefaultTimeoutStartSec=300
DefaultTimeoutStopSec=60
END
cat >"$root/etc/systemd/system/payload.service" <<'END'
[Unit]
Description=What this machine was booted for
# Type=idle: the boot is over, as far as this unit is not part of it.
After=multi-user.target
[Service]
Type=idle
ExecStartPre=-udevadm settle --timeout=900
ExecStartPre=mount -o ro /dev/disk/by-label/payload /payload
ExecStart=/payload/guest/main
StandardOutput=journal+console
StandardError=journal+console
TimeoutStartSec=infinity
[Install]
WantedBy=default.target
END
chroot "$root" systemctl -q enable payload.service
# Slow under emulation, and of no use here.
for unit in apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer e2scrub_all.timer \
  e2scrub_reap.service fstrim.timer systemd-timesyncd.service getty@tty1.service serial-getty@ttyS0.service; do
  ln -sf /dev/null "$root/etc/systemd/system/$unit"
done

truncate -s 4G "$dir/root.img.new"
mkfs.ext4 -q -F -E lazy_itable_init=0,lazy_journal_init=0 -O ^metadata_csum_seed -d "$root" "$dir/root.img.new"
mv "$dir/root.img.new" "$dir/root.img"
echo "$key" >"$dir/key"
