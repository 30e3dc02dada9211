//! The filesystems of a container: littlebox's own and the request's.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use littlebox_protocol::NamespaceKind;
use littlebox_types::{ContainerConfig, DirectoryMode, MountConfig, MountKind, Propagation};
use oci_spec::runtime::Mount;

use super::check::{at_most, error, error_with, path, shown};
use super::namespaces::Sources;
use super::{ConfigError, NamespaceOrigin, RootSource};

/// Bytes of the tmpfs on `/dev/shm` and, in a `host` root, on `/run`: memory that no limit of the
/// container need cover, so it is bounded by itself.
const SMALL_TMPFS: &str = "size=64m";

/// All mounts.
#[derive(Debug, Default)]
pub(super) struct Mounts {
    /// As the spec has them.
    pub(super) spec: Vec<Mount>,
    /// Bind sources to make when they are missing.
    pub(super) create: Vec<PathBuf>,
    /// Indices of binds that are idmapped where that is possible.
    pub(super) idmap_where_possible: BTreeSet<usize>,
}

/// littlebox's own and the request's.
pub(super) fn for_spec(
    config: &ContainerConfig,
    root: &RootSource,
    sources: &Sources,
) -> Result<Mounts, ConfigError> {
    at_most(config.mounts.len(), 256, "/mounts", "mounts")?;
    let mut mounts = Mounts {
        spec: defaults(config.privileged, root, sources),
        ..Mounts::default()
    };
    let user_namespace = sources.get(&NamespaceKind::User) != Some(&NamespaceOrigin::Host);
    for (i, wanted) in by_depth(&config.mounts)? {
        if wanted.idmap == Some(true) && !user_namespace {
            return Err(error_with(
                format!("/mounts/{i}/idmap"),
                "the container is in the host's user namespace, which has no id map",
                "leave out idmap, or set namespaces.user to new",
            ));
        }
        if wanted.kind == MountKind::Bind && wanted.idmap.is_none() {
            mounts.idmap_where_possible.insert(mounts.spec.len());
        }
        let mount = user_mount(wanted, i, &mut mounts.create)?;
        mounts.spec.push(mount);
    }
    Ok(mounts)
}

/// The request's mounts with their indices, a directory before what is mounted below it: in a request
/// their order says nothing, and a parent that came later would hide them.
fn by_depth(mounts: &[MountConfig]) -> Result<Vec<(usize, &MountConfig)>, ConfigError> {
    let steps =
        |mount: &MountConfig| -> PathBuf { Path::new(&mount.destination).components().collect() };
    let mut seen = BTreeMap::new();
    for (i, mount) in mounts.iter().enumerate() {
        if let Some(first) = seen.insert(steps(mount), i) {
            return Err(error_with(
                format!("/mounts/{i}/destination"),
                format!(
                    "{} has a mount already, /mounts/{first}",
                    shown(&mount.destination)
                ),
                "mount each directory once",
            ));
        }
    }
    let mut sorted: Vec<_> = mounts.iter().enumerate().collect();
    sorted.sort_by_key(|(_, mount)| steps(mount).components().count());
    Ok(sorted)
}

/// What every container has.
fn defaults(privileged: bool, root: &RootSource, sources: &Sources) -> Vec<Mount> {
    let host = |kind| sources.get(&kind) == Some(&NamespaceOrigin::Host);
    let system = ["nosuid", "noexec", "nodev"];
    let sys = if privileged {
        &system[..]
    } else {
        &["nosuid", "noexec", "nodev", "ro"]
    };
    let dev = ["nosuid", "noexec", "strictatime", "mode=755", "size=65536k"];
    let pts = [
        "nosuid",
        "noexec",
        "newinstance",
        "ptmxmode=0666",
        "mode=0620",
        "gid=5",
    ];

    let mut mounts = Vec::with_capacity(8);
    mounts.push(mount("/proc", "proc", "proc", &system));
    mounts.push(mount("/dev", "tmpfs", "tmpfs", &dev));
    mounts.push(mount("/dev/pts", "devpts", "devpts", &pts));
    if host(NamespaceKind::Ipc) {
        // POSIX shared memory is files there: sharing IPC with the host means sharing them.
        mounts.push(mount(
            "/dev/shm",
            "bind",
            "/dev/shm",
            &["bind", "nosuid", "noexec", "nodev"],
        ));
    } else {
        let shm = ["nosuid", "noexec", "nodev", "mode=1777", SMALL_TMPFS];
        mounts.push(mount("/dev/shm", "tmpfs", "shm", &shm));
    }
    mounts.push(mount("/dev/mqueue", "mqueue", "mqueue", &system));
    mounts.push(mount("/sys", "sysfs", "sysfs", sys));
    mounts.push(mount("/sys/fs/cgroup", "cgroup", "cgroup", sys));
    if *root == RootSource::Host {
        // The machine's sockets and locks are not the container's.
        let run = ["nosuid", "nodev", "mode=755", SMALL_TMPFS];
        mounts.push(mount("/run", "tmpfs", "tmpfs", &run));
    }
    mounts
}

fn mount(destination: &str, typ: &str, source: &str, options: &[&str]) -> Mount {
    let mut mount = Mount::default();
    mount.set_destination(PathBuf::from(destination));
    mount.set_typ(Some(typ.to_owned()));
    mount.set_source(Some(PathBuf::from(source)));
    mount.set_options(Some(options.iter().map(|o| (*o).to_owned()).collect()));
    mount
}

fn user_mount(
    wanted: &MountConfig,
    i: usize,
    create: &mut Vec<PathBuf>,
) -> Result<Mount, ConfigError> {
    let at = |field: &str| format!("/mounts/{i}/{field}");
    let destination = path(&wanted.destination, &at("destination"))?;
    check_destination(&destination, &at("destination"))?;
    let (typ, source, options) = match wanted.kind {
        MountKind::Bind => {
            let source = bind_source(wanted, &at)?;
            if wanted.create {
                create.push(source.clone());
            }
            ("bind", source, bind_options(wanted, &at)?)
        }
        MountKind::Tmpfs => ("tmpfs", PathBuf::from("tmpfs"), tmpfs_options(wanted, &at)?),
    };
    let mut mount = Mount::default();
    mount.set_destination(destination);
    mount.set_typ(Some(typ.to_owned()));
    mount.set_source(Some(source));
    mount.set_options(Some(options));
    Ok(mount)
}

/// Over `/proc` nothing is mounted: programs and the engine itself believe what stands there.
fn check_destination(destination: &std::path::Path, pointer: &str) -> Result<(), ConfigError> {
    if destination == std::path::Path::new("/") {
        return Err(error_with(
            pointer,
            "nothing can be mounted over the container's root itself",
            "use rootfs dir:PATH, or mount at a directory below",
        ));
    }
    if destination.starts_with("/proc") {
        return Err(error(
            pointer,
            format!(
                "nothing can be mounted at {}, because /proc is the kernel's",
                shown(&destination.to_string_lossy())
            ),
        ));
    }
    Ok(())
}

fn bind_source(wanted: &MountConfig, at: &impl Fn(&str) -> String) -> Result<PathBuf, ConfigError> {
    if wanted.size.is_some() || wanted.mode.is_some() {
        let field = if wanted.size.is_some() {
            "size"
        } else {
            "mode"
        };
        return Err(error_with(
            at(field),
            format!("a bind mount has no {field} of its own"),
            "leave it out, or use the type tmpfs",
        ));
    }
    match &wanted.source {
        Some(source) => path(source, &at("source")),
        None => Err(error_with(
            at("source"),
            "a bind mount needs a source",
            "give an absolute host path",
        )),
    }
}

fn bind_options(
    wanted: &MountConfig,
    at: &impl Fn(&str) -> String,
) -> Result<Vec<String>, ConfigError> {
    let recursive = wanted.recursive.unwrap_or(true);
    // With everything below the source come that everything's writes: the r forms reach it all.
    let prefix = if recursive { "r" } else { "" };
    let mut options = vec![format!("{prefix}bind")];
    if wanted.read_only {
        options.push(format!("{prefix}ro"));
    }
    for flag in flags(wanted, at)? {
        options.push(format!("{prefix}{flag}"));
    }
    let propagation = wanted.propagation.unwrap_or(Propagation::Rprivate);
    options.push(propagation.to_string());
    if wanted.idmap == Some(true) {
        options.push(format!("{prefix}idmap"));
    }
    Ok(options)
}

fn tmpfs_options(
    wanted: &MountConfig,
    at: &impl Fn(&str) -> String,
) -> Result<Vec<String>, ConfigError> {
    let refused = [
        ("source", wanted.source.is_some()),
        ("recursive", wanted.recursive.is_some()),
        ("create", wanted.create),
        ("idmap", wanted.idmap.is_some()),
    ];
    if let Some((field, _)) = refused.iter().find(|(_, present)| *present) {
        return Err(error_with(
            at(field),
            format!("a tmpfs has no {field}"),
            "leave it out, or use the type bind",
        ));
    }
    let mode = wanted.mode.map_or(0o1777, DirectoryMode::bits);
    let mut options = vec![
        "nosuid".to_owned(),
        "nodev".to_owned(),
        format!("mode={mode:o}"),
    ];
    match wanted.size {
        Some(size) if (1..=i64::MAX.unsigned_abs()).contains(&size) => {
            options.push(format!("size={size}"))
        }
        Some(size) => {
            return Err(error(
                at("size"),
                format!("{size} bytes are not a size for a tmpfs"),
            ));
        }
        None => {}
    }
    if wanted.read_only {
        options.push("ro".to_owned());
    }
    options.extend(flags(wanted, at)?.map(str::to_owned));
    options.extend(wanted.propagation.map(|p| p.to_string()));
    Ok(options)
}

fn flags<'a>(
    wanted: &'a MountConfig,
    at: &impl Fn(&str) -> String,
) -> Result<impl Iterator<Item = &'a str>, ConfigError> {
    const KNOWN: [&str; 5] = ["nosuid", "nodev", "noexec", "noatime", "nosymfollow"];
    if let Some(i) = wanted
        .options
        .iter()
        .position(|o| !KNOWN.contains(&o.as_str()))
    {
        return Err(error_with(
            at(&format!("options/{i}")),
            format!("{} is not an option of a mount", shown(&wanted.options[i])),
            "the options are nosuid, nodev, noexec, noatime and nosymfollow; read_only, size, mode and \
             propagation are fields of their own",
        ));
    }
    Ok(wanted.options.iter().map(String::as_str))
}
