//! The switch with which tests turn one defence off.

use serde::{Deserialize, Serialize};

/// The environment variable that must be `1`, for the daemon and for the zygote, before anything
/// in a plan that is for tests has an effect.
pub const TEST_FAULTS: &str = "LITTLEBOX_TEST_FAULTS";

/// A defence of the helper that a test may turn off, to see that the attack it stops is real.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Defence {
    /// Container paths are resolved inside the root (CVE-2021-30465, CVE-2024-45310).
    InRoot,
    /// `/proc` and `/sys` are mounted on no link of the image (CVE-2019-19921).
    RealProc,
    /// What covers a masked file is the null device (CVE-2025-31133).
    MaskDevice,
    /// The working directory is reached through no descriptor and lies inside (CVE-2024-21626).
    CwdInside,
    /// No descriptor of the helper is open when the program is looked up (CVE-2024-21626).
    ClosedDescriptors,
    /// A process on its way into a container is not dumpable (CVE-2016-9962).
    NotDumpable,
    /// Where the container could trace a process that joins it, that has no rights of the helper
    /// by the time it is seen (CVE-2016-9962).
    JoinsLast,
    /// The inheritable set is the plan's, which is empty (CVE-2022-24769, CVE-2022-29162).
    Inheritable,
    /// The container's view of its cgroup is read-only (CVE-2022-0492).
    ReadOnlyCgroup,
    /// The host's device nodes come in through read-only mounts.
    ReadOnlyDevices,
    /// Device nodes are made in a tmpfs that is held by its descriptor (CVE-2026-41579).
    DevByDescriptor,
    /// A log is no link.
    LogNoFollow,
    /// A container's user namespace belongs to its own range of ids, and what the kernel counts per
    /// user is charged to that and not to the host's root.
    OwnAccount,
}

impl Defence {
    /// Every one.
    pub const ALL: [Defence; 13] = [
        Defence::InRoot,
        Defence::RealProc,
        Defence::MaskDevice,
        Defence::CwdInside,
        Defence::ClosedDescriptors,
        Defence::NotDumpable,
        Defence::JoinsLast,
        Defence::Inheritable,
        Defence::ReadOnlyCgroup,
        Defence::ReadOnlyDevices,
        Defence::DevByDescriptor,
        Defence::LogNoFollow,
        Defence::OwnAccount,
    ];

    /// The wire name (`in_root`).
    pub fn name(self) -> &'static str {
        match self {
            Defence::InRoot => "in_root",
            Defence::RealProc => "real_proc",
            Defence::MaskDevice => "mask_device",
            Defence::CwdInside => "cwd_inside",
            Defence::ClosedDescriptors => "closed_descriptors",
            Defence::NotDumpable => "not_dumpable",
            Defence::JoinsLast => "joins_last",
            Defence::Inheritable => "inheritable",
            Defence::ReadOnlyCgroup => "read_only_cgroup",
            Defence::ReadOnlyDevices => "read_only_devices",
            Defence::DevByDescriptor => "dev_by_descriptor",
            Defence::LogNoFollow => "log_no_follow",
            Defence::OwnAccount => "own_account",
        }
    }
}
