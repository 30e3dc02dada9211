//! Which namespaces a container gets.

use std::collections::BTreeMap;
use std::path::PathBuf;

use littlebox_protocol::{IdMapping, NamespaceKind};
use littlebox_types::{ContainerConfig, NamespaceSource, NamespaceType};
use oci_spec::runtime::{
    LinuxIdMapping, LinuxIdMappingBuilder, LinuxNamespace, LinuxNamespaceType,
};

use super::check::{error, error_with};
use super::{ConfigError, NamespaceOrigin};
use crate::idpool::IdRange;

/// Sources of all eight kinds.
pub(super) type Sources = BTreeMap<NamespaceKind, NamespaceOrigin>;

/// Whether the container gets a fresh namespace of this kind.
pub(super) fn is_new(sources: &Sources, kind: NamespaceKind) -> bool {
    sources.get(&kind) == Some(&NamespaceOrigin::New)
}

/// The request's sources over the defaults.
pub(super) fn sources(config: &ContainerConfig) -> Result<Sources, ConfigError> {
    let mut sources: Sources = NamespaceKind::ALL
        .into_iter()
        .map(|kind| (kind, NamespaceOrigin::New))
        .collect();
    sources.insert(NamespaceKind::User, user_source(config).into());
    let asked = config.namespaces.iter();
    sources.extend(asked.map(|(typ, source)| (kind(*typ), source.clone().into())));
    check_mount_namespace(&sources)?;
    check_dependents(config, &sources)?;
    Ok(sources)
}

/// Where the user namespace comes from. A privileged container is to do what the machine's root
/// can, and that takes the machine's own.
pub(super) fn user_source(config: &ContainerConfig) -> NamespaceSource {
    match config.namespaces.get(&NamespaceType::User) {
        Some(source) => source.clone(),
        None if config.privileged && config.id_maps.is_none() => NamespaceSource::Host,
        None => NamespaceSource::New,
    }
}

fn kind(typ: NamespaceType) -> NamespaceKind {
    match typ {
        NamespaceType::Mnt => NamespaceKind::Mnt,
        NamespaceType::Uts => NamespaceKind::Uts,
        NamespaceType::Ipc => NamespaceKind::Ipc,
        NamespaceType::Net => NamespaceKind::Net,
        NamespaceType::Pid => NamespaceKind::Pid,
        NamespaceType::User => NamespaceKind::User,
        NamespaceType::Cgroup => NamespaceKind::Cgroup,
        NamespaceType::Time => NamespaceKind::Time,
    }
}

/// A container's root is made in its mount namespace; in somebody else's, `pivot_root` would take
/// that one's root away.
fn check_mount_namespace(sources: &Sources) -> Result<(), ConfigError> {
    if is_new(sources, NamespaceKind::Mnt) {
        return Ok(());
    }
    Err(error_with(
        "/namespaces/mnt",
        "a container cannot live in another mount namespace, because its root is made in its own",
        "to run a program among another container's files, use exec; for the machine's, use the root \
         'host' or a bind mount",
    ))
}

/// What needs a namespace of the container's own.
fn check_dependents(config: &ContainerConfig, sources: &Sources) -> Result<(), ConfigError> {
    let needs = [
        (
            NamespaceKind::Uts,
            "/hostname",
            config.hostname.is_some(),
            "a host name",
        ),
        (
            NamespaceKind::Uts,
            "/domainname",
            config.domainname.is_some(),
            "a domain name",
        ),
        (
            NamespaceKind::User,
            "/id_maps",
            config.id_maps.is_some(),
            "an id map",
        ),
        (NamespaceKind::Pid, "/init", config.init, "the reaping init"),
    ];
    for (kind, pointer, asked, what) in needs {
        if asked && !is_new(sources, kind) {
            let kind = kind.name();
            return Err(error_with(
                pointer,
                format!("{what} needs a {kind} namespace of the container's own"),
                format!("set namespaces.{kind} to new, or leave this out"),
            ));
        }
    }
    Ok(())
}

/// The namespaces of the spec: new ones, and those of a process by path. One of another container
/// is opened by the daemon and handed over in the envelope.
pub(super) fn for_spec(sources: &Sources) -> Vec<LinuxNamespace> {
    let mut list = Vec::with_capacity(8);
    for (kind, source) in sources {
        let path = match source {
            NamespaceOrigin::New => None,
            NamespaceOrigin::Pid(pid) => {
                Some(PathBuf::from(format!("/proc/{pid}/ns/{}", kind.name())))
            }
            NamespaceOrigin::Path(path) => Some(path.clone()),
            NamespaceOrigin::Host | NamespaceOrigin::Container(_) => continue,
        };
        let mut namespace = LinuxNamespace::default();
        namespace.set_typ(spec_type(*kind));
        namespace.set_path(path);
        list.push(namespace);
    }
    list
}

fn spec_type(kind: NamespaceKind) -> LinuxNamespaceType {
    match kind {
        NamespaceKind::Mnt => LinuxNamespaceType::Mount,
        NamespaceKind::Uts => LinuxNamespaceType::Uts,
        NamespaceKind::Ipc => LinuxNamespaceType::Ipc,
        NamespaceKind::Net => LinuxNamespaceType::Network,
        NamespaceKind::Pid => LinuxNamespaceType::Pid,
        NamespaceKind::User => LinuxNamespaceType::User,
        NamespaceKind::Cgroup => LinuxNamespaceType::Cgroup,
        NamespaceKind::Time => LinuxNamespaceType::Time,
    }
}

/// Maps of users and of groups.
type SpecMaps = (Vec<LinuxIdMapping>, Vec<LinuxIdMapping>);

/// The id maps of a new user namespace, users and groups: the request's, else the container's
/// range of the pool from 0 on.
pub(super) fn id_maps(
    config: &ContainerConfig,
    sources: &Sources,
    range: Option<IdRange>,
) -> Result<Option<SpecMaps>, ConfigError> {
    if !is_new(sources, NamespaceKind::User) {
        return Ok(None);
    }
    let own = |range: IdRange| {
        vec![IdMapping {
            container_id: 0,
            host_id: range.first,
            size: range.size,
        }]
    };
    let (uid, gid) = match (&config.id_maps, range) {
        (Some(maps), _) => (wire_map(&maps.uid), wire_map(&maps.gid)),
        (None, Some(range)) => (own(range), own(range)),
        (None, None) => {
            return Err(error("/namespaces/user", "the container has no id range"));
        }
    };
    for (map, name) in [(&uid, "uid"), (&gid, "gid")] {
        littlebox_plan::idmap::check(map).map_err(|(i, message)| {
            let pointer = if map.is_empty() {
                format!("/id_maps/{name}")
            } else {
                format!("/id_maps/{name}/{i}")
            };
            error(pointer, message)
        })?;
    }
    Ok(Some((spec_map(&uid), spec_map(&gid))))
}

fn wire_map(map: &[littlebox_types::IdMap]) -> Vec<IdMapping> {
    map.iter()
        .map(|m| IdMapping {
            container_id: m.container_id,
            host_id: m.host_id,
            size: m.size,
        })
        .collect()
}

fn spec_map(map: &[IdMapping]) -> Vec<LinuxIdMapping> {
    map.iter()
        .map(|m| {
            LinuxIdMappingBuilder::default()
                .container_id(m.container_id)
                .host_id(m.host_id)
                .size(m.size)
                .build()
                .expect("every field of an id mapping has a default")
        })
        .collect()
}
