//! Capabilities by name and by number (capabilities(7), `linux/capability.h`).

use littlebox_protocol::CapabilityPlan;
use oci_spec::runtime::{Capabilities, Capability, LinuxCapabilities};

/// Every capability, by number.
pub const ALL: [(&str, Capability); 41] = [
    ("CHOWN", Capability::Chown),
    ("DAC_OVERRIDE", Capability::DacOverride),
    ("DAC_READ_SEARCH", Capability::DacReadSearch),
    ("FOWNER", Capability::Fowner),
    ("FSETID", Capability::Fsetid),
    ("KILL", Capability::Kill),
    ("SETGID", Capability::Setgid),
    ("SETUID", Capability::Setuid),
    ("SETPCAP", Capability::Setpcap),
    ("LINUX_IMMUTABLE", Capability::LinuxImmutable),
    ("NET_BIND_SERVICE", Capability::NetBindService),
    ("NET_BROADCAST", Capability::NetBroadcast),
    ("NET_ADMIN", Capability::NetAdmin),
    ("NET_RAW", Capability::NetRaw),
    ("IPC_LOCK", Capability::IpcLock),
    ("IPC_OWNER", Capability::IpcOwner),
    ("SYS_MODULE", Capability::SysModule),
    ("SYS_RAWIO", Capability::SysRawio),
    ("SYS_CHROOT", Capability::SysChroot),
    ("SYS_PTRACE", Capability::SysPtrace),
    ("SYS_PACCT", Capability::SysPacct),
    ("SYS_ADMIN", Capability::SysAdmin),
    ("SYS_BOOT", Capability::SysBoot),
    ("SYS_NICE", Capability::SysNice),
    ("SYS_RESOURCE", Capability::SysResource),
    ("SYS_TIME", Capability::SysTime),
    ("SYS_TTY_CONFIG", Capability::SysTtyConfig),
    ("MKNOD", Capability::Mknod),
    ("LEASE", Capability::Lease),
    ("AUDIT_WRITE", Capability::AuditWrite),
    ("AUDIT_CONTROL", Capability::AuditControl),
    ("SETFCAP", Capability::Setfcap),
    ("MAC_OVERRIDE", Capability::MacOverride),
    ("MAC_ADMIN", Capability::MacAdmin),
    ("SYSLOG", Capability::Syslog),
    ("WAKE_ALARM", Capability::WakeAlarm),
    ("BLOCK_SUSPEND", Capability::BlockSuspend),
    ("AUDIT_READ", Capability::AuditRead),
    ("PERFMON", Capability::Perfmon),
    ("BPF", Capability::Bpf),
    ("CHECKPOINT_RESTORE", Capability::CheckpointRestore),
];

/// The mask of all capabilities of [`ALL`].
pub const ALL_MASK: u64 = (1 << ALL.len()) - 1;

/// The number of a capability by name, `NET_ADMIN` or `CAP_NET_ADMIN`, in any case.
pub fn number(name: &str) -> Option<u32> {
    let bare = match name.get(..4) {
        Some(prefix) if prefix.eq_ignore_ascii_case("CAP_") => &name[4..],
        _ => name,
    };
    (0u32..)
        .zip(ALL)
        .find(|(_, (known, _))| known.eq_ignore_ascii_case(bare))
        .map(|(n, _)| n)
}

/// The OCI set of a mask; bits without a name are passed over.
pub fn from_mask(mask: u64) -> Capabilities {
    (0u32..)
        .zip(ALL)
        .filter(|(n, _)| mask >> n & 1 == 1)
        .map(|(_, (_, c))| c)
        .collect()
}

/// The mask of an OCI set.
pub fn to_mask(set: &Capabilities) -> u64 {
    set.iter()
        .fold(0, |mask, capability| mask | 1 << bit(*capability))
}

/// The names in a mask, `cap_chown` style, by number.
pub fn names(mask: u64) -> impl Iterator<Item = String> {
    (0u32..)
        .zip(ALL)
        .filter(move |(n, _)| mask >> n & 1 == 1)
        .map(|(_, (name, _))| format!("cap_{}", name.to_ascii_lowercase()))
}

/// The five sets of a process. A set that the spec does not name is empty, and so are all of them
/// without a `capabilities` object (OCI config.md, "capabilities").
pub fn plan(sets: Option<&LinuxCapabilities>) -> CapabilityPlan {
    let mask = |set: &Option<Capabilities>| set.as_ref().map_or(0, to_mask);
    let Some(sets) = sets else {
        return CapabilityPlan::default();
    };
    CapabilityPlan {
        bounding: mask(sets.bounding()),
        permitted: mask(sets.permitted()),
        effective: mask(sets.effective()),
        inheritable: mask(sets.inheritable()),
        ambient: mask(sets.ambient()),
    }
}

/// The number of a capability. An exhaustive match: a new one does not compile without its number.
const fn bit(capability: Capability) -> u32 {
    match capability {
        Capability::Chown => 0,
        Capability::DacOverride => 1,
        Capability::DacReadSearch => 2,
        Capability::Fowner => 3,
        Capability::Fsetid => 4,
        Capability::Kill => 5,
        Capability::Setgid => 6,
        Capability::Setuid => 7,
        Capability::Setpcap => 8,
        Capability::LinuxImmutable => 9,
        Capability::NetBindService => 10,
        Capability::NetBroadcast => 11,
        Capability::NetAdmin => 12,
        Capability::NetRaw => 13,
        Capability::IpcLock => 14,
        Capability::IpcOwner => 15,
        Capability::SysModule => 16,
        Capability::SysRawio => 17,
        Capability::SysChroot => 18,
        Capability::SysPtrace => 19,
        Capability::SysPacct => 20,
        Capability::SysAdmin => 21,
        Capability::SysBoot => 22,
        Capability::SysNice => 23,
        Capability::SysResource => 24,
        Capability::SysTime => 25,
        Capability::SysTtyConfig => 26,
        Capability::Mknod => 27,
        Capability::Lease => 28,
        Capability::AuditWrite => 29,
        Capability::AuditControl => 30,
        Capability::Setfcap => 31,
        Capability::MacOverride => 32,
        Capability::MacAdmin => 33,
        Capability::Syslog => 34,
        Capability::WakeAlarm => 35,
        Capability::BlockSuspend => 36,
        Capability::AuditRead => 37,
        Capability::Perfmon => 38,
        Capability::Bpf => 39,
        Capability::CheckpointRestore => 40,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn table_and_match_agree() {
        for (n, (_, capability)) in (0u32..).zip(ALL) {
            assert_eq!(bit(capability), n, "{capability}");
        }
        assert_eq!(to_mask(&from_mask(ALL_MASK)), ALL_MASK);
    }

    #[test]
    fn names_are_found_with_and_without_prefix_in_any_case() {
        assert_eq!(number("NET_ADMIN"), Some(12));
        assert_eq!(number("cap_net_admin"), Some(12));
        assert_eq!(number("CAP_"), None);
        assert_eq!(number("CAP_CAP_KILL"), None);
        assert_eq!(number("é€"), None);
    }
}
