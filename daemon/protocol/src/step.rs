//! The steps of a start.

use serde::{Deserialize, Serialize};

/// The steps of a start, in order; each is timed, and a failure names one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Step {
    /// The plan read and checked, the helper hardened (not dumpable, oom score).
    Checks,
    /// The helper's directory, socket and log opened.
    RunDir,
    /// cgroup directories made and limits written.
    Cgroup,
    /// The root filesystem made, detached (`fsopen` overlay, `open_tree`).
    Rootfs,
    /// Pipes made.
    Stdio,
    /// `clone3` with the new namespaces.
    Clone,
    /// `uid_map` and `gid_map` written.
    IdMaps,
    /// The child put into its cgroup where `CLONE_INTO_CGROUP` could not.
    CgroupAttach,
    /// `setns` into given namespaces.
    JoinNamespaces,
    /// Own cgroup namespace.
    CgroupNamespace,
    /// `sethostname`, `setdomainname`.
    Hostname,
    /// `lo` up.
    Loopback,
    /// Own time namespace, where its clocks are set before it is entered.
    TimeNamespace,
    /// Propagation of the inherited tree cut.
    Propagation,
    /// The root attached.
    AttachRoot,
    /// The mounts of the plan.
    Mounts,
    /// Device nodes and links in `/dev`.
    Devices,
    /// `/dev/console` and the pty.
    Terminal,
    /// Namespaced sysctls.
    Sysctls,
    /// Labels of security modules for the execve to come.
    SecurityLabels,
    /// Masked and read-only paths.
    MaskedPaths,
    /// Hooks before `pivot_root`, on the host and in the container's namespaces.
    Hooks,
    /// `pivot_root` and detach of the old root.
    PivotRoot,
    /// The root made read-only.
    ReadonlyRoot,
    /// A session keyring of its own.
    Keyring,
    /// New session, controlling terminal.
    Session,
    /// Scheduler, I/O priority, CPUs, execution domain.
    Scheduling,
    /// Working directory entered and checked; after the change of user where only that one may enter.
    Cwd,
    /// User database read, groups and ids set.
    User,
    /// Resource limits.
    Rlimits,
    /// Capability sets.
    Capabilities,
    /// no_new_privs.
    NoNewPrivileges,
    /// Every other descriptor closed.
    CloseFds,
    /// The seccomp filter loaded, its agent reached.
    Seccomp,
    /// `execve`.
    Exec,
}

impl Step {
    /// The wire name (`pivot_root`).
    pub fn name(self) -> &'static str {
        match self {
            Step::Checks => "checks",
            Step::RunDir => "run_dir",
            Step::Cgroup => "cgroup",
            Step::Rootfs => "rootfs",
            Step::Stdio => "stdio",
            Step::Clone => "clone",
            Step::IdMaps => "id_maps",
            Step::CgroupAttach => "cgroup_attach",
            Step::JoinNamespaces => "join_namespaces",
            Step::CgroupNamespace => "cgroup_namespace",
            Step::Hostname => "hostname",
            Step::Loopback => "loopback",
            Step::TimeNamespace => "time_namespace",
            Step::Propagation => "propagation",
            Step::AttachRoot => "attach_root",
            Step::Mounts => "mounts",
            Step::Devices => "devices",
            Step::Terminal => "terminal",
            Step::Sysctls => "sysctls",
            Step::SecurityLabels => "security_labels",
            Step::MaskedPaths => "masked_paths",
            Step::Hooks => "hooks",
            Step::PivotRoot => "pivot_root",
            Step::ReadonlyRoot => "readonly_root",
            Step::Keyring => "keyring",
            Step::Session => "session",
            Step::Scheduling => "scheduling",
            Step::User => "user",
            Step::Cwd => "cwd",
            Step::Rlimits => "rlimits",
            Step::Capabilities => "capabilities",
            Step::NoNewPrivileges => "no_new_privileges",
            Step::CloseFds => "close_fds",
            Step::Seccomp => "seccomp",
            Step::Exec => "exec",
        }
    }

    /// Every step, in the order of the helper's work.
    pub const ALL: [Step; 35] = [
        Step::Checks,
        Step::RunDir,
        Step::Cgroup,
        Step::Rootfs,
        Step::Stdio,
        Step::Clone,
        Step::IdMaps,
        Step::CgroupAttach,
        Step::JoinNamespaces,
        Step::CgroupNamespace,
        Step::Hostname,
        Step::Loopback,
        Step::TimeNamespace,
        Step::Propagation,
        Step::AttachRoot,
        Step::Mounts,
        Step::Devices,
        Step::Terminal,
        Step::Sysctls,
        Step::SecurityLabels,
        Step::MaskedPaths,
        Step::Hooks,
        Step::PivotRoot,
        Step::ReadonlyRoot,
        Step::Keyring,
        Step::Session,
        Step::Scheduling,
        Step::Cwd,
        Step::User,
        Step::Rlimits,
        Step::Capabilities,
        Step::NoNewPrivileges,
        Step::CloseFds,
        Step::Seccomp,
        Step::Exec,
    ];
}
