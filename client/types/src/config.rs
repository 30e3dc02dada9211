//! What a container is to be: the body of `POST /v1/containers`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{
    DeviceConfig, DirectoryMode, Name, NamespaceSource, NamespaceType, Propagation, Resources,
    RestartPolicy, Seccomp, Signal, TimeOffsets, Umask, UserRef, UserSpec,
};

/// `POST /v1/containers`: what a container is to be. Kept as it was asked for and shown by inspect.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ContainerConfig {
    /// Container name, unique (generated if omitted).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<Name>,
    /// `host` or `dir:/absolute/path`. Required, but for a bundle or a spec.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub rootfs: String,
    /// The program and its arguments. Required, not empty, but for a bundle or a spec.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub command: Vec<String>,
    /// Absolute host path of an OCI bundle: a directory with a `config.json`, which says instead of
    /// the fields here what the container is. It is read once, into `spec`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bundle: Option<String>,
    /// An OCI runtime spec, with an absolute `root.path`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub spec: Option<serde_json::Value>,
    /// Put an overlay over the root of the bundle or spec, instead of using it as it is.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub overlay: bool,
    /// Environment, beside the defaults `PATH`, `HOME`, `HOSTNAME` and, with a terminal, `TERM`.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, String>,
    /// Absolute working directory inside the container; `/` when absent. Made when missing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub working_dir: Option<String>,
    /// `0:0` when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<UserSpec>,
    /// Supplementary groups.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub groups: Vec<UserRef>,
    /// `022` when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub umask: Option<Umask>,
    /// Host name; the last 12 characters of the id when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hostname: Option<String>,
    /// NIS domain name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub domainname: Option<String>,
    /// Free labels for filters.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Give the program a terminal.
    pub terminal: bool,
    /// The terminal's first size.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub terminal_size: Option<TermSize>,
    /// Keep stdin open for attached clients; else it is `/dev/null`.
    pub stdin: bool,
    /// A foreground client will attach: output is lossless towards it (the program is held back
    /// when the client reads slowly), the log is not rotated, and with `auto_remove` the removal
    /// waits until the client has read everything or has gone.
    pub attach: bool,
    /// Remove the container when its program has ended.
    pub auto_remove: bool,
    /// Put littlebox's small init in front of the program: it reaps orphans and forwards signals.
    pub init: bool,
    /// Read-only root filesystem.
    pub read_only: bool,
    /// Of the root tree; `rprivate` when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub propagation: Option<Propagation>,
    /// Bind mounts, volumes by path and tmpfs.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub mounts: Vec<MountConfig>,
    /// Absent: `new`; `user` of a `privileged` container: `host`.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub namespaces: BTreeMap<NamespaceType, NamespaceSource>,
    /// For `user: new`; a range of the daemon's pool that no other container has when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id_maps: Option<IdMaps>,
    /// What the clocks of the new time namespace are ahead of the host's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub time_offsets: Option<TimeOffsets>,
    /// Limits.
    pub resources: Resources,
    /// By name (`nofile`, `core`, ...).
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub rlimits: BTreeMap<String, Rlimit>,
    /// Namespaced sysctls, `net.ipv4.ip_forward` style.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub sysctls: BTreeMap<String, String>,
    /// Capabilities to add to and drop from the default eleven, `NET_ADMIN` or `CAP_NET_ADMIN`
    /// style; `ALL` is understood.
    pub capabilities: CapabilityChange,
    /// Set no_new_privs; `true` when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub no_new_privileges: Option<bool>,
    /// Which system calls the program may make; `default` when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seccomp: Option<Seccomp>,
    /// All capabilities, no seccomp filter unless `seccomp` asks for one, nothing masked, `/sys`
    /// writable, the host's user namespace unless `namespaces.user` says otherwise.
    pub privileged: bool,
    /// Container paths that read empty, instead of the default ones
    /// ([`super::DEFAULT_MASKED_PATHS`], none when privileged).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub masked_paths: Option<Vec<String>>,
    /// Container paths that cannot be written, instead of the default ones
    /// ([`super::DEFAULT_READONLY_PATHS`], none when privileged).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub readonly_paths: Option<Vec<String>>,
    /// Devices of the host, beside null, zero, full, random, urandom and tty.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub devices: Vec<DeviceConfig>,
    /// Further devices that may be used once there is a node: `c 1:3 rwm`, `*` for any number.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub device_rules: Vec<String>,
    /// An AppArmor profile that is loaded, or `unconfined`, which is so when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub apparmor: Option<String>,
    /// An SELinux context, `USER:ROLE:TYPE:LEVEL`; littlebox's own when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub selinux: Option<String>,
    /// -1000 to 1000.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub oom_score_adj: Option<i32>,
    /// Signal that asks the program to end; `SIGTERM` when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stop_signal: Option<Signal>,
    /// Seconds between the stop signal and SIGKILL; 10 when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stop_timeout_s: Option<u32>,
    /// Whether the daemon starts it again when it has ended; `no` when absent. Not with
    /// `auto_remove`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub restart: Option<RestartPolicy>,
    /// The log's size.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub log: Option<LogConfig>,
}

/// One mount of a container.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MountConfig {
    /// What kind.
    #[serde(rename = "type")]
    pub kind: MountKind,
    /// Absolute host path for `bind`; absent for `tmpfs`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// Absolute container path.
    pub destination: String,
    /// No writes.
    #[serde(default)]
    pub read_only: bool,
    /// `bind`: with everything mounted below the source; true when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recursive: Option<bool>,
    /// `rprivate` when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub propagation: Option<Propagation>,
    /// `bind`: make the source as a directory when it is missing (a volume by path).
    #[serde(default)]
    pub create: bool,
    /// `bind`: seen through the id map of the container's user namespace, so that files of the
    /// host's 0 belong to the container's root. Absent: where the file system can do that; `true`:
    /// the start fails where it cannot; `false`: files keep the host's owners.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idmap: Option<bool>,
    /// `tmpfs`: bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<u64>,
    /// `tmpfs`: `1777` when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<DirectoryMode>,
    /// `nosuid`, `nodev`, `noexec`, `noatime`, `nosymfollow`, beside the type's defaults.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub options: Vec<String>,
}

/// A kind of mount.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MountKind {
    /// A host path.
    Bind,
    /// A fresh tmpfs.
    Tmpfs,
}

/// A terminal's size.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TermSize {
    /// Rows.
    pub rows: u16,
    /// Columns.
    pub cols: u16,
}

/// Id maps of a new user namespace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IdMaps {
    /// Users.
    pub uid: Vec<IdMap>,
    /// Groups.
    pub gid: Vec<IdMap>,
}

/// One line of an id map.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IdMap {
    /// First id inside.
    pub container_id: u32,
    /// First id on the host.
    pub host_id: u32,
    /// How many.
    pub size: u32,
}

/// A resource limit; absent values are unlimited.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Rlimit {
    /// Soft.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub soft: Option<u64>,
    /// Hard; not below `soft`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hard: Option<u64>,
}

/// Changes to the default capability set; `drop` is applied first, then `add`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CapabilityChange {
    /// To add.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub add: Vec<String>,
    /// To drop.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub drop: Vec<String>,
}

/// The log's bounds.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LogConfig {
    /// Bytes per file before it is rotated; 16 MiB when absent, 0 for no bound.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_size: Option<u64>,
    /// Rotated files kept beside the current one; 4 when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_files: Option<u32>,
}
