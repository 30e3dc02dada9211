//! What `/proc`, `/dev` and the process itself tell.
//!
//! Machines differ: host ids of maps, which files a kernel has below `/proc` and `/sys`, which
//! cgroup hierarchies there are, inherited limits. Those are told in a form that does not depend on
//! them: whether something is closed, not how it looks.

use std::collections::BTreeSet;
use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::Path;

use crate::{calls, sys};

/// Everything; `host` are the host's namespaces, `TYPE=INODE`, and its capabilities, `caps=MASK`.
pub fn tell(host: &[String]) {
    status(told(host, "caps"));
    descriptors();
    id_maps();
    namespaces(host);
    limits();
    keyring();
    mounts();
    devices();
    paths();
}

fn read(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_else(|e| panic!("{path}: {e}"))
}

fn told<'h>(host: &'h [String], name: &str) -> Option<&'h str> {
    let mut pairs = host.iter().filter_map(|pair| pair.split_once('='));
    pairs.find(|(key, _)| *key == name).map(|(_, value)| value)
}

fn status(of_the_host: Option<&str>) {
    let wanted = [
        "Uid",
        "Gid",
        "Groups",
        "Umask",
        "CapInh",
        "CapPrm",
        "CapEff",
        "CapBnd",
        "CapAmb",
        "NoNewPrivs",
        "Seccomp",
    ];
    for line in read("/proc/self/status").lines() {
        let Some((key, value)) = line.split_once(':') else {
            continue;
        };
        if !wanted.contains(&key) {
            continue;
        }
        let words: Vec<&str> = value.split_whitespace().collect();
        if key.starts_with("Cap") && Some(words[0]) == of_the_host {
            println!("{key}: all of the host's");
        } else if key.starts_with("Cap") {
            let mask = u64::from_str_radix(words[0], 16).unwrap();
            println!("{key}: {}", capabilities(mask));
        } else {
            println!("{key}: {}", words.join(" "));
        }
    }
    println!("oom_score_adj: {}", read("/proc/self/oom_score_adj").trim());
}

/// capabilities(7), by number.
const CAPABILITIES: &str = "chown dac_override dac_read_search fowner fsetid kill setgid setuid \
setpcap linux_immutable net_bind_service net_broadcast net_admin net_raw ipc_lock ipc_owner \
sys_module sys_rawio sys_chroot sys_ptrace sys_pacct sys_admin sys_boot sys_nice sys_resource \
sys_time sys_tty_config mknod lease audit_write audit_control setfcap mac_override mac_admin syslog \
wake_alarm block_suspend audit_read perfmon bpf checkpoint_restore";

fn capabilities(mask: u64) -> String {
    let names = CAPABILITIES.split(' ').enumerate();
    let held: Vec<&str> = names
        .filter(|(n, _)| mask >> n & 1 == 1)
        .map(|(_, name)| name)
        .collect();
    if held.is_empty() {
        return "none".to_owned();
    }
    held.join(" ")
}

fn descriptors() {
    let mut open: Vec<i32> = (0..1024)
        .filter(|fd| sys::call(calls::number("fcntl"), [*fd, 1, 0, 0, 0, 0]) >= 0)
        .filter_map(|fd| i32::try_from(fd).ok())
        .collect();
    open.sort_unstable();
    println!("descriptors: {open:?}");
}

/// Where ids go: to the same ones of the parent, or to others.
fn id_maps() {
    for file in ["uid_map", "gid_map"] {
        for line in read(&format!("/proc/self/{file}")).lines() {
            let words: Vec<&str> = line.split_whitespace().collect();
            let [inside, outside, size] = words[..] else {
                panic!("{file}: {line}");
            };
            let other = if inside == outside {
                "the same"
            } else {
                "others"
            };
            println!("{file}: {inside} +{size} to {other}");
        }
    }
    println!("setgroups: {}", read("/proc/self/setgroups").trim());
}

fn namespaces(host: &[String]) {
    for kind in ["mnt", "uts", "ipc", "net", "pid", "user", "cgroup", "time"] {
        let link = fs::read_link(format!("/proc/self/ns/{kind}")).unwrap();
        let link = link.to_string_lossy().into_owned();
        let inode = link.trim_matches(|c: char| !c.is_ascii_digit());
        let verdict = match told(host, kind) {
            None => "not told",
            Some(theirs) if theirs == inode => "the host's",
            Some(_) => "own",
        };
        println!("namespace {kind}: {verdict}");
    }
}

fn limits() {
    let names = [
        "cpu",
        "fsize",
        "data",
        "stack",
        "core",
        "rss",
        "nproc",
        "nofile",
        "memlock",
        "as",
        "locks",
        "sigpending",
        "msgqueue",
        "nice",
        "rtprio",
        "rttime",
    ];
    for (resource, name) in (0..).zip(names) {
        let (soft, hard) = sys::rlimit(resource).unwrap();
        // The others are inherited and differ from machine to machine.
        if name == "core" {
            println!("rlimit {name}: {soft} {hard}");
        }
    }
}

/// The session keyring (keyrings(7)).
fn keyring() {
    const GET_KEYRING_ID: u64 = 0;
    const SESSION: u64 = (-3i64).cast_unsigned();
    match sys::call(
        calls::number("keyctl"),
        [GET_KEYRING_ID, SESSION, 0, 0, 0, 0],
    ) {
        errno @ ..0 => println!("keyctl: errno {}", -errno),
        _ => println!("keyctl: open"),
    }
}

/// Mount points outside of `/proc` and `/sys`, whose files differ from kernel to kernel; those are
/// [`paths`]' business.
fn mounts() {
    let mut lines = BTreeSet::new();
    for line in read("/proc/self/mountinfo").lines() {
        let words: Vec<&str> = line.split(' ').collect();
        let (point, options) = (words[4], words[5]);
        let dash = words.iter().position(|w| *w == "-").unwrap();
        // This program, bound from the host.
        if std::env::args().next().is_some_and(|own| own == point) {
            continue;
        }
        if point.starts_with("/sys/fs/cgroup") {
            lines.insert(format!("mount /sys/fs/cgroup and below: {options}"));
        } else if !point.starts_with("/proc/") && !point.starts_with("/sys/") {
            lines.insert(format!("mount {point}: {} {options}", words[dash + 1]));
        }
    }
    lines.iter().for_each(|line| println!("{line}"));
}

fn devices() {
    let mut names: Vec<_> = fs::read_dir("/dev")
        .unwrap()
        .map(|e| e.unwrap().path())
        .collect();
    names.sort();
    for path in names {
        let meta = fs::symlink_metadata(&path).unwrap();
        let kind = meta.file_type();
        let (mode, owner) = (meta.permissions().mode() & 0o7777, (meta.uid(), meta.gid()));
        let shown = path.display();
        if kind.is_symlink() {
            println!(
                "{shown}: link to {}",
                fs::read_link(&path).unwrap().display()
            );
        } else if kind.is_char_device() || kind.is_block_device() {
            let letter = if kind.is_char_device() { 'c' } else { 'b' };
            let (major, minor) = (libc::major(meta.rdev()), libc::minor(meta.rdev()));
            println!("{shown}: {letter} {major}:{minor} {mode:04o} {owner:?}");
        } else {
            println!("{shown}: directory {mode:04o} {owner:?}");
        }
    }
    for (what, kind, major, minor) in [
        ("mem", libc::S_IFCHR, 1, 1),
        ("kmsg", libc::S_IFCHR, 1, 11),
        ("sda", libc::S_IFBLK, 8, 0),
        ("fuse", libc::S_IFCHR, 10, 229),
    ] {
        println!(
            "device {what} {major}:{minor}: {}",
            make_and_open(kind, major, minor)
        );
    }
}

/// Whether a node of a foreign device can be made, and opened.
fn make_and_open(kind: u32, major: u32, minor: u32) -> String {
    let path = c"/tmp/auditor-node";
    let name = Path::new("/tmp/auditor-node");
    let at = path.as_ptr() as u64;
    let made = sys::call(
        calls::number("mknod"),
        [
            at,
            u64::from(kind | 0o600),
            libc::makedev(major, minor),
            0,
            0,
            0,
        ],
    );
    if made < 0 {
        return format!("not made, errno {}", -made);
    }
    let opened = fs::File::open(name);
    fs::remove_file(name).unwrap();
    match opened.map_err(|e| e.raw_os_error()) {
        Err(Some(errno @ (libc::EPERM | libc::EACCES))) => format!("not opened, errno {errno}"),
        // ENXIO, where the machine has no such device: nothing kept us from it.
        _ => "can be opened".to_owned(),
    }
}

/// What must read empty, or be missing.
const MASKED: [&str; 16] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/sysrq-trigger",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
    "/sys/kernel/debug",
    "/sys/kernel/security",
    "/sys/kernel/tracing",
];

/// What must not be written.
const READ_ONLY: [&str; 12] = [
    "/proc/bus",
    "/proc/fs",
    "/proc/irq",
    "/proc/sys",
    "/proc/sys/kernel/core_pattern",
    "/proc/sys/kernel/modprobe",
    "/proc/sys/vm/overcommit_memory",
    "/proc/sys/net",
    "/proc/sysrq-trigger",
    "/sys",
    "/sys/fs/cgroup",
    "/sys/kernel/uevent_helper",
];

fn paths() {
    for path in MASKED {
        println!("read {path}: {}", reading(Path::new(path)));
    }
    for path in READ_ONLY {
        println!("write {path}: {}", writing(path));
    }
}

fn reading(path: &Path) -> &'static str {
    let Ok(meta) = fs::metadata(path) else {
        return "closed";
    };
    if meta.is_dir() {
        let entries = fs::read_dir(path).map(Iterator::count).unwrap_or(0);
        return if entries == 0 { "closed" } else { "open" };
    }
    let mut byte = [0];
    let read = fs::File::open(path).and_then(|mut file| std::io::Read::read(&mut file, &mut byte));
    match read {
        Ok(1) => "open",
        Err(e) if e.kind() == ErrorKind::InvalidInput => "open",
        _ => "closed",
    }
}

/// Nothing is written: opening, and for a directory asking, is enough.
fn writing(path: &str) -> &'static str {
    const W_OK: u64 = 2;
    let Ok(meta) = fs::metadata(path) else {
        return "closed";
    };
    let open = if meta.is_dir() {
        let name = std::ffi::CString::new(path).unwrap();
        sys::call(
            calls::number("access"),
            [name.as_ptr() as u64, W_OK, 0, 0, 0, 0],
        ) == 0
    } else {
        fs::File::options().write(true).open(path).is_ok()
    };
    if open { "open" } else { "closed" }
}
