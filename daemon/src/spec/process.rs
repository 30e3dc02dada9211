//! The program: who runs it, with what environment, rights and limits.

use std::collections::BTreeMap;
use std::path::PathBuf;

use littlebox_plan::{capability, pointer};
use littlebox_protocol::{TerminalSize, UserPlan, UserRef};
use littlebox_types::{CapabilityChange, ContainerConfig, Rlimit, TermSize, Umask, UserSpec};
use oci_spec::runtime::{
    LinuxCapabilities, PosixRlimit, PosixRlimitBuilder, PosixRlimitType, Process, User,
};

use super::check::{at_most, error, error_with, shown, variable};
use super::{ConfigError, labels};

/// Where programs are looked for when the request does not say.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// What a terminal measures when nobody says it.
pub(super) const TERMINAL: TerminalSize = TerminalSize { rows: 24, cols: 80 };
/// umask(2) when the request does not say.
const UMASK: u32 = 0o022;

/// The eleven capabilities that a container has by default. Not among them, unlike elsewhere in
/// the field: MKNOD (no devices but the plan's), NET_RAW (no forged packets), AUDIT_WRITE (no
/// lines in the host's audit log).
const DEFAULT_CAPABILITIES: [&str; 11] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "FSETID",
    "FOWNER",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "NET_BIND_SERVICE",
    "SYS_CHROOT",
    "KILL",
    "SETFCAP",
];

/// Whether a container has this capability by default; `NET_ADMIN` style.
pub fn is_default_capability(name: &str) -> bool {
    DEFAULT_CAPABILITIES.contains(&name)
}

/// All resource limits of setrlimit(2).
const RLIMITS: [PosixRlimitType; 16] = [
    PosixRlimitType::RlimitCpu,
    PosixRlimitType::RlimitFsize,
    PosixRlimitType::RlimitData,
    PosixRlimitType::RlimitStack,
    PosixRlimitType::RlimitCore,
    PosixRlimitType::RlimitRss,
    PosixRlimitType::RlimitNproc,
    PosixRlimitType::RlimitNofile,
    PosixRlimitType::RlimitMemlock,
    PosixRlimitType::RlimitAs,
    PosixRlimitType::RlimitLocks,
    PosixRlimitType::RlimitSigpending,
    PosixRlimitType::RlimitMsgqueue,
    PosixRlimitType::RlimitNice,
    PosixRlimitType::RlimitRtprio,
    PosixRlimitType::RlimitRttime,
];

/// Who runs the container's program.
pub(super) fn user_plan(config: &ContainerConfig) -> Result<UserPlan, ConfigError> {
    at_most(config.groups.len(), 1024, "/groups", "groups")?;
    let root = (UserRef::Id(0), None);
    let (user, group) = config.user.as_ref().map_or(root, user_and_group);
    Ok(UserPlan {
        user,
        group,
        additional_groups: config.groups.iter().map(user_ref).collect(),
        umask: Some(config.umask.map_or(UMASK, Umask::bits)),
    })
}

/// A user with its primary group.
pub(super) fn user_and_group(spec: &UserSpec) -> (UserRef, Option<UserRef>) {
    (user_ref(&spec.user), spec.group.as_ref().map(user_ref))
}

fn user_ref(asked: &littlebox_types::UserRef) -> UserRef {
    match asked {
        littlebox_types::UserRef::Id(id) => UserRef::Id(*id),
        littlebox_types::UserRef::Name(name) => UserRef::Name(name.clone()),
    }
}

/// The numbers of a user, for the spec; names stand for 0 there and are resolved in the container.
pub(super) fn spec_user(plan: &UserPlan) -> User {
    let id = |r: &UserRef| {
        if let UserRef::Id(n) = r {
            Some(*n)
        } else {
            None
        }
    };
    let mut user = User::default();
    user.set_uid(id(&plan.user).unwrap_or(0));
    user.set_gid(plan.group.as_ref().and_then(id).unwrap_or(0));
    user.set_umask(plan.umask);
    let groups: Vec<u32> = plan.additional_groups.iter().filter_map(id).collect();
    user.set_additional_gids((!groups.is_empty()).then_some(groups));
    user
}

/// The environment: defaults, then each of `layers`, where a later one comes instead of an earlier.
/// `HOME` is the helper's work: it reads the container's passwd.
pub(super) fn env(
    hostname: Option<&str>,
    terminal: bool,
    layers: &[&BTreeMap<String, String>],
) -> Result<Vec<String>, ConfigError> {
    let mut defaults = vec![("PATH", PATH)];
    defaults.extend(hostname.map(|name| ("HOSTNAME", name)));
    if terminal {
        defaults.push(("TERM", "xterm"));
    }
    let given = |key: &str, layers: &[&BTreeMap<String, String>]| {
        layers.iter().any(|l| l.contains_key(key))
    };
    let mut env: Vec<String> = defaults
        .iter()
        .filter(|(key, _)| !given(key, layers))
        .map(|(key, value)| format!("{key}={value}"))
        .collect();
    for (i, layer) in layers.iter().enumerate() {
        at_most(layer.len(), 4096, "/env", "variables")?;
        for (key, value) in *layer {
            variable(key, value)?;
            if !given(key, &layers[i + 1..]) {
                env.push(format!("{key}={value}"));
            }
        }
    }
    Ok(env)
}

/// A terminal's first size, when there is a terminal.
pub(super) fn terminal_size(terminal: bool, size: Option<TermSize>) -> Option<TerminalSize> {
    terminal.then(|| {
        size.map_or(TERMINAL, |s| TerminalSize {
            rows: s.rows,
            cols: s.cols,
        })
    })
}

/// The mask of the container's capabilities.
pub(super) fn container_capabilities(config: &ContainerConfig) -> Result<u64, ConfigError> {
    let base = if config.privileged {
        capability::ALL_MASK
    } else {
        DEFAULT_CAPABILITIES
            .iter()
            .filter_map(|name| capability::number(name))
            .fold(0, |m, n| m | 1 << n)
    };
    change(base, &config.capabilities)
}

/// A mask after `drop` and then `add`.
pub(super) fn change(base: u64, change: &CapabilityChange) -> Result<u64, ConfigError> {
    let dropped = mask(&change.drop, "/capabilities/drop")?;
    let added = mask(&change.add, "/capabilities/add")?;
    Ok(base & !dropped | added)
}

fn mask(names: &[String], pointer: &str) -> Result<u64, ConfigError> {
    let mut mask = 0;
    for (i, name) in names.iter().enumerate() {
        mask |= if name.eq_ignore_ascii_case("ALL") {
            capability::ALL_MASK
        } else {
            let number = capability::number(name).ok_or_else(|| {
                error_with(
                    format!("{pointer}/{i}"),
                    format!("{} is not a capability", shown(name)),
                    "use a name of capabilities(7) like NET_ADMIN or CAP_NET_ADMIN, or ALL",
                )
            })?;
            1 << number
        };
    }
    Ok(mask)
}

/// The five sets: inheritable and ambient stay empty (CVE-2022-24769).
pub(super) fn spec_capabilities(mask: u64) -> LinuxCapabilities {
    let set = capability::from_mask(mask);
    let mut sets = LinuxCapabilities::default();
    sets.set_bounding(Some(set.clone()));
    sets.set_effective(Some(set.clone()));
    sets.set_permitted(Some(set));
    sets.set_inheritable(None);
    sets.set_ambient(None);
    sets
}

/// Resource limits; no core dumps unless asked for. One byte is what the kernel takes for "none" also
/// where `core_pattern` is a pipe: there 0 is no limit (core(5), "Piping core dumps to a program";
/// `do_coredump` in the kernel).
pub(super) fn rlimits(wanted: &BTreeMap<String, Rlimit>) -> Result<Vec<PosixRlimit>, ConfigError> {
    let mut limits = Vec::with_capacity(wanted.len() + 1);
    if !wanted.contains_key("core") {
        limits.push(rlimit(PosixRlimitType::RlimitCore, 1, 1));
    }
    for (name, limit) in wanted {
        let pointer = pointer::below("/rlimits", name);
        let Some(typ) = RLIMITS
            .into_iter()
            .find(|t| littlebox_plan::rlimit_name(*t) == name)
        else {
            return Err(error_with(
                pointer,
                format!("{} is not a resource limit", shown(name)),
                "use a name of setrlimit(2) in lower case without RLIMIT_, like nofile",
            ));
        };
        // RLIM_INFINITY is the highest number, so absent compares as it should.
        let (soft, hard) = (
            limit.soft.unwrap_or(u64::MAX),
            limit.hard.unwrap_or(u64::MAX),
        );
        if soft > hard {
            return Err(error_with(
                pointer,
                format!("the soft limit of {name} is above its hard limit"),
                "lower soft or raise hard; an absent one is unlimited",
            ));
        }
        limits.push(rlimit(typ, soft, hard));
    }
    Ok(limits)
}

fn rlimit(typ: PosixRlimitType, soft: u64, hard: u64) -> PosixRlimit {
    PosixRlimitBuilder::default()
        .typ(typ)
        .soft(soft)
        .hard(hard)
        .build()
        .expect("every field of a resource limit has a default")
}

/// How willingly the kernel kills it when memory runs out.
pub(super) fn oom_score_adj(config: &ContainerConfig) -> Result<Option<i32>, ConfigError> {
    match config.oom_score_adj {
        Some(n) if !(-1000..=1000).contains(&n) => Err(error(
            "/oom_score_adj",
            format!("{n} is not a number from -1000 to 1000"),
        )),
        other => Ok(other),
    }
}

/// The working directory.
pub(super) fn cwd(text: Option<&str>) -> Result<PathBuf, ConfigError> {
    match text {
        Some(text) => super::check::path(text, "/working_dir"),
        None => Ok(PathBuf::from("/")),
    }
}

/// The spec's `process` object of a container.
pub(super) fn for_spec(
    config: &ContainerConfig,
    user: &UserPlan,
    hostname: Option<&str>,
) -> Result<Process, ConfigError> {
    let mut process = Process::default();
    process.set_terminal(Some(config.terminal));
    process.set_user(spec_user(user));
    process.set_args(Some(config.command.clone()));
    process.set_env(Some(env(hostname, config.terminal, &[&config.env])?));
    process.set_cwd(cwd(config.working_dir.as_deref())?);
    process.set_capabilities(Some(spec_capabilities(container_capabilities(config)?)));
    process.set_rlimits(Some(rlimits(&config.rlimits)?));
    process.set_no_new_privileges(Some(config.no_new_privileges.unwrap_or(true)));
    process.set_oom_score_adj(oom_score_adj(config)?);
    labels::set(&mut process, config)?;
    Ok(process)
}
