//! The launch plan.

use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};

use littlebox_protocol::{
    DevicePlan, HooksPlan, LaunchPlan, LayerIdmap, NamespaceKind, NamespacePlan, PROTOCOL_VERSION,
    Propagation, RootfsPlan, RootfsSource,
};
use oci_spec::runtime::{
    Linux, LinuxDevice, LinuxDeviceType, LinuxNamespace, LinuxNamespaceType, Spec,
};

use crate::process::About;
use crate::{
    Authority, Envelope, PlanError, cgroup, clocks, foreign_mounts, hooks, idmap, labels, mount,
    process, scheduling, seccomp, sysctl, unsupported,
};

type Namespaces = BTreeMap<NamespaceKind, NamespacePlan>;

/// Makes the plan of a container from its OCI runtime spec.
///
/// # Errors
/// A [`PlanError`] names the first value that is wrong or cannot be expressed.
pub fn launch_plan(spec: &Spec, envelope: Envelope) -> Result<LaunchPlan, PlanError> {
    unsupported::spec(spec)?;
    let linux = spec.linux().as_ref();
    let namespaces = namespaces(linux, &envelope.joins)?;
    foreign_mounts::check_authority(&namespaces, envelope.authority)?;
    let is_new = |kind| namespaces.get(&kind) == Some(&NamespacePlan::New);
    // Which namespaces this container may change beyond what is made with it.
    let is_own = |kind| match envelope.authority {
        Authority::Client => is_new(kind),
        Authority::Host => namespaces.contains_key(&kind),
    };
    let (uid_map, gid_map) = match (linux, &envelope.joined_ids) {
        (_, Some(joined)) => joined.clone(),
        // Who joins a user namespace may tell its maps, and nothing is done with them.
        (Some(_), None) if !is_new(NamespaceKind::User) && is_own(NamespaceKind::User) => {
            (Vec::new(), Vec::new())
        }
        (Some(linux), None) => idmap::plan(linux, is_new(NamespaceKind::User))?,
        (None, None) => (Vec::new(), Vec::new()),
    };
    let hooks = match (spec.hooks(), envelope.authority) {
        (Some(refused), Authority::Client) => {
            hooks::refuse(refused)?;
            HooksPlan::default()
        }
        (hooks, _) => hooks::plan(hooks.as_ref())?,
    };
    let user_namespace = namespaces.contains_key(&NamespaceKind::User);
    let mut mounts = mount::plan(
        spec.mounts().as_deref().unwrap_or_default(),
        &envelope.rootfs,
        user_namespace,
        &envelope.idmap_where_possible,
    )?;
    labels::label_mounts(&mut mounts, labels::mount_label(linux)?.as_deref());
    let devices = devices(linux, mount::dev_is_fresh(&mounts))?;
    let mut masked_paths = paths(
        linux.and_then(|l| l.masked_paths().as_deref()),
        "/linux/maskedPaths",
    )?;
    masked_paths.extend(envelope.hidden);
    let mut filter = match envelope.seccomp {
        Some(compiled) => Some(compiled),
        None => seccomp::of_spec(spec)?,
    };
    if let Some(filter) = filter.as_ref().filter(|_| envelope.init) {
        seccomp::check_init(filter).map_err(|error| error.below(seccomp::OF_SPEC))?;
    }
    seccomp::introduce(filter.as_mut(), envelope.state);
    let about = About {
        user: envelope.user,
        create_cwd: envelope.create_cwd,
        terminal_size: envelope.terminal_size,
        seccomp: filter,
    };
    let Some(process) = spec.process() else {
        return Err(PlanError::new(
            "/process",
            "a container needs a process to start",
        ));
    };
    let mut process = process::plan(process, about, "/process")?;
    process.scheduling.personality = scheduling::personality(linux)?;
    process.scheduling.memory_policy = scheduling::memory_policy(linux)?;
    let plan = LaunchPlan {
        version: PROTOCOL_VERSION,
        id: envelope.id,
        run_dir: envelope.run_dir,
        uid_map,
        gid_map,
        time_offsets: clocks::plan(linux, is_new)?,
        hostname: uts_name(
            spec.hostname().as_deref(),
            "hostname",
            is_own(NamespaceKind::Uts),
        )?,
        domainname: uts_name(
            spec.domainname().as_deref(),
            "domainname",
            is_own(NamespaceKind::Uts),
        )?,
        rootfs: rootfs(spec, envelope.rootfs, envelope.layer_idmap)?,
        mounts,
        devices,
        masked_paths,
        readonly_paths: paths(
            linux.and_then(|l| l.readonly_paths().as_deref()),
            "/linux/readonlyPaths",
        )?,
        sysctls: sysctls(linux, UtsNames::of(spec, envelope.authority), is_own)?,
        process,
        init: envelope.init,
        stdin: envelope.stdin,
        cgroup: cgroup::plan(
            linux,
            envelope.cgroup_path,
            envelope.existing_cgroup,
            envelope.cgroup_best_effort,
        )?,
        log: envelope.log,
        loopback_up: is_new(NamespaceKind::Net),
        gate: envelope.gate,
        hooks,
        start_timeout_ms: envelope.start_timeout_ms,
        inject: envelope.inject,
        weaken: envelope.weaken,
        namespaces,
    };
    foreign_mounts::check(&plan)?;
    Ok(plan)
}

/// The path of a namespace that is to be joined; an empty one, which some engines write, is none.
pub fn namespace_path(namespace: &LinuxNamespace) -> Option<&Path> {
    let path = namespace.path().as_deref();
    path.filter(|path| !path.as_os_str().is_empty())
}

/// New ones, and joined ones by their descriptor. The caller's joins come first: a namespace that
/// it opened need not be in the spec.
fn namespaces(
    linux: Option<&Linux>,
    joins: &BTreeMap<NamespaceKind, usize>,
) -> Result<Namespaces, PlanError> {
    let listed = linux
        .and_then(|l| l.namespaces().as_deref())
        .unwrap_or_default();
    let mut plan = Namespaces::new();
    for (i, namespace) in listed.iter().enumerate() {
        let kind = namespace_kind(namespace.typ());
        let source = match (namespace_path(namespace), joins.get(&kind)) {
            (_, Some(index)) => NamespacePlan::Join(*index),
            (None, None) => NamespacePlan::New,
            (Some(path), None) => {
                return Err(PlanError::new(
                    format!("/linux/namespaces/{i}/path"),
                    format!("the namespace '{}' has not been opened", path.display()),
                ));
            }
        };
        if plan.insert(kind, source).is_some() {
            return Err(PlanError::new(
                format!("/linux/namespaces/{i}/type"),
                format!("the namespace type {} is given twice", kind.name()),
            ));
        }
    }
    plan.extend(
        joins
            .iter()
            .map(|(kind, index)| (*kind, NamespacePlan::Join(*index))),
    );
    Ok(plan)
}

/// The kind of a spec's namespace type.
pub fn namespace_kind(typ: LinuxNamespaceType) -> NamespaceKind {
    match typ {
        LinuxNamespaceType::Mount => NamespaceKind::Mnt,
        LinuxNamespaceType::Cgroup => NamespaceKind::Cgroup,
        LinuxNamespaceType::Uts => NamespaceKind::Uts,
        LinuxNamespaceType::Ipc => NamespaceKind::Ipc,
        LinuxNamespaceType::User => NamespaceKind::User,
        LinuxNamespaceType::Pid => NamespaceKind::Pid,
        LinuxNamespaceType::Network => NamespaceKind::Net,
        LinuxNamespaceType::Time => NamespaceKind::Time,
    }
}

/// A host or NIS domain name: at most 64 bytes (`__NEW_UTS_LEN`, uname(2)).
fn uts_name(name: Option<&str>, field: &str, new_uts: bool) -> Result<Option<String>, PlanError> {
    let Some(name) = name.filter(|n| !n.is_empty()) else {
        return Ok(None);
    };
    if !new_uts {
        return Err(PlanError::new(
            format!("/{field}"),
            format!("a {field} needs a new uts namespace; it would rename another's"),
        ));
    }
    if name.len() > 64 || name.contains('\0') {
        return Err(PlanError::new(
            format!("/{field}"),
            format!("a {field} has at most 64 bytes and no zero byte"),
        ));
    }
    Ok(Some(name.to_owned()))
}

fn rootfs(spec: &Spec, source: RootfsSource, idmap: LayerIdmap) -> Result<RootfsPlan, PlanError> {
    let name = spec
        .linux()
        .as_ref()
        .and_then(|l| l.rootfs_propagation().as_deref())
        .unwrap_or("");
    let propagation = match name {
        "" => Propagation::default(),
        name => mount::propagation(name).ok_or_else(|| {
            PlanError::new(
                "/linux/rootfsPropagation",
                format!("'{name}' is not a propagation that is supported: private, slave, shared, unbindable and their r forms are"),
            )
        })?,
    };
    let read_only = spec.root().as_ref().and_then(|root| root.readonly()) == Some(true);
    // What is bound keeps the labels that it has.
    let label = match source {
        RootfsSource::Overlay { .. } => labels::mount_label(spec.linux().as_ref())?,
        RootfsSource::Bind { .. } => None,
    };
    Ok(RootfsPlan {
        source,
        read_only,
        propagation,
        label,
        idmap,
    })
}

fn paths(list: Option<&[String]>, pointer: &str) -> Result<Vec<PathBuf>, PlanError> {
    let list = list.unwrap_or_default();
    match list
        .iter()
        .position(|p| !p.starts_with('/') || p.contains('\0'))
    {
        Some(i) => Err(PlanError::new(
            format!("{pointer}/{i}"),
            "the path must be absolute, without a zero byte",
        )),
        None => {
            // Engines add their own list to a client's, and one mount on a path is enough.
            let mut seen = HashSet::new();
            let first = list.iter().filter(|path| seen.insert(*path));
            Ok(first.map(PathBuf::from).collect())
        }
    }
}

/// Which properties of a spec say the names in its UTS namespace. Engines mean `hostname` by a container's
/// name, so that no sysctl sets another, as with runc and crun; there is one for the domain name, which
/// specs had no word for before 1.1. A client of the daemon's has its own rules.
#[derive(Debug, Clone, Copy, Default)]
struct UtsNames {
    hostname: bool,
    domainname: bool,
}

impl UtsNames {
    fn of(spec: &Spec, authority: Authority) -> UtsNames {
        match authority {
            Authority::Client => UtsNames::default(),
            Authority::Host => UtsNames {
                hostname: true,
                domainname: spec.domainname().is_some(),
            },
        }
    }

    fn of_sysctl(self, name: &str) -> Option<&'static str> {
        match name {
            "kernel.hostname" => self.hostname.then_some("hostname"),
            "kernel.domainname" => self.domainname.then_some("domainname"),
            _ => None,
        }
    }
}

fn sysctls(
    linux: Option<&Linux>,
    names: UtsNames,
    is_new: impl Fn(NamespaceKind) -> bool,
) -> Result<BTreeMap<String, String>, PlanError> {
    let Some(wanted) = linux.and_then(|l| l.sysctl().as_ref()) else {
        return Ok(BTreeMap::new());
    };
    let mut plan = BTreeMap::new();
    for (name, value) in wanted {
        let wrong = |message| PlanError::new(crate::pointer::below("/linux/sysctl", name), message);
        sysctl::check(name, value, &is_new).map_err(wrong)?;
        if let Some(property) = names.of_sysctl(name) {
            return Err(wrong(format!(
                "this is said by /{property}, not by a sysctl"
            )));
        }
        plan.insert(name.clone(), value.clone());
    }
    Ok(plan)
}

/// Name, major and minor number of the nodes that every container has (OCI config-linux.md,
/// "Default Devices"; `console` and `ptmx` are the terminal's and devpts' own).
const DEFAULT_DEVICES: [(&str, u32, u32); 6] = [
    ("null", 1, 3),
    ("zero", 1, 5),
    ("full", 1, 7),
    ("random", 1, 8),
    ("urandom", 1, 9),
    ("tty", 5, 0),
];

/// The default nodes and the spec's; a spec's node of the same path comes instead of a default one.
/// In a `/dev` that is not the plan's own tmpfs no nodes are made; elsewhere they are, wherever they
/// are asked for.
fn devices(linux: Option<&Linux>, dev_is_fresh: bool) -> Result<Vec<DevicePlan>, PlanError> {
    let listed = linux
        .and_then(|l| l.devices().as_deref())
        .unwrap_or_default();
    let asked = listed
        .iter()
        .enumerate()
        .map(|(i, d)| device(d, i))
        .collect::<Result<Vec<_>, _>>()?;
    if !dev_is_fresh {
        let elsewhere = asked.into_iter().filter(|d| !d.path.starts_with("/dev"));
        return Ok(elsewhere.collect());
    }
    let mut plan: Vec<DevicePlan> = DEFAULT_DEVICES
        .iter()
        .map(|&(name, major, minor)| DevicePlan {
            path: Path::new("/dev").join(name),
            kind: 'c',
            major,
            minor,
            mode: 0o666,
            uid: 0,
            gid: 0,
        })
        .filter(|default| asked.iter().all(|d| d.path != default.path))
        .collect();
    plan.extend(asked);
    Ok(plan)
}

fn device(device: &LinuxDevice, index: usize) -> Result<DevicePlan, PlanError> {
    let at = |field: &str| format!("/linux/devices/{index}/{field}");
    let kind = match device.typ() {
        LinuxDeviceType::C | LinuxDeviceType::U => 'c',
        LinuxDeviceType::B => 'b',
        LinuxDeviceType::P => 'p',
        LinuxDeviceType::A => {
            return Err(PlanError::new(
                at("type"),
                "a device node is c, u, b or p; a is for rules",
            ));
        }
    };
    let path: PathBuf = device.path().components().collect();
    let names_a_node =
        path.is_absolute() && path.file_name().is_some() && path != Path::new("/dev");
    let plain = path
        .components()
        .all(|c| !matches!(c, std::path::Component::ParentDir));
    if !names_a_node || !plain || path.as_os_str().as_encoded_bytes().contains(&0) {
        return Err(PlanError::new(
            at("path"),
            "a device node has an absolute path without '..' and without a zero byte",
        ));
    }
    let number = |n: i64, field: &str| {
        u32::try_from(n)
            .map_err(|_| PlanError::new(at(field), format!("{n} is not a device number")))
    };
    Ok(DevicePlan {
        path,
        kind,
        major: number(device.major(), "major")?,
        minor: number(device.minor(), "minor")?,
        // Some generators put the type's bits beside the permission's.
        mode: device.file_mode().unwrap_or(0o666) & 0o777,
        uid: device.uid().unwrap_or(0),
        gid: device.gid().unwrap_or(0),
    })
}
