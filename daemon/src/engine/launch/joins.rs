//! Namespaces of others that a container joins: opened before its helper is asked, so that what is
//! joined is what was looked at.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::path::Path;

use littlebox_protocol::NamespaceKind;
use littlebox_types::{IdMap, IdMaps};

use crate::engine::{Engine, EngineError};
use crate::spec::{ConfigError, NamespaceOrigin};

impl Engine {
    /// Opens the namespaces that are to be joined.
    pub(super) fn open_namespaces(
        &self,
        sources: &BTreeMap<NamespaceKind, NamespaceOrigin>,
    ) -> Result<(BTreeMap<NamespaceKind, usize>, Vec<OwnedFd>), EngineError> {
        let mut joins = BTreeMap::new();
        let mut fds = Vec::new();
        for (kind, source) in sources {
            let fd = match source {
                NamespaceOrigin::New | NamespaceOrigin::Host => continue,
                NamespaceOrigin::Container(reference) => {
                    self.open_container_ns(*kind, reference)?
                }
                NamespaceOrigin::Path(path) => open_given_ns(*kind, path)?,
                NamespaceOrigin::Pid(pid) => {
                    let path = format!("/proc/{pid}/ns/{}", kind.name());
                    open(Path::new(&path)).map_err(|e| {
                        namespace_error(
                            *kind,
                            format!("process {pid} has no namespace to join: {e}"),
                        )
                    })?
                }
            };
            joins.insert(*kind, fds.len());
            fds.push(fd);
        }
        Ok((joins, fds))
    }

    /// The maps of a user namespace that is joined; `None`: it is not, or it is the host's.
    pub(super) fn joined_ids(
        &self,
        sources: &BTreeMap<NamespaceKind, NamespaceOrigin>,
    ) -> Result<Option<IdMaps>, EngineError> {
        match sources.get(&NamespaceKind::User) {
            Some(NamespaceOrigin::Container(reference)) => {
                Ok(self.find(reference)?.record().id_maps)
            }
            Some(NamespaceOrigin::Pid(pid)) => {
                let read = |file: &str| {
                    let path = format!("/proc/{pid}/{file}");
                    crate::procfs::id_map(&path).map_err(EngineError::io("read", path))
                };
                let maps = IdMaps {
                    uid: read("uid_map")?,
                    gid: read("gid_map")?,
                };
                let whole = |map: &[IdMap]| {
                    matches!(
                        map,
                        [IdMap {
                            container_id: 0,
                            host_id: 0,
                            size: u32::MAX
                        }]
                    )
                };
                Ok((!whole(&maps.uid) || !whole(&maps.gid)).then_some(maps))
            }
            // Of a path it is not known whose it is.
            Some(NamespaceOrigin::New | NamespaceOrigin::Host | NamespaceOrigin::Path(_))
            | None => Ok(None),
        }
    }

    fn open_container_ns(
        &self,
        kind: NamespaceKind,
        reference: &str,
    ) -> Result<OwnedFd, EngineError> {
        let other = self
            .find(reference)
            .map_err(|e| namespace_error(kind, e.to_string()))?;
        let record = other.record();
        let Some(process) = record.process else {
            return Err(namespace_error(
                kind,
                format!(
                    "container {} is {}; only a running one's namespaces can be joined",
                    record.name, record.state
                ),
            ));
        };
        let path = format!("/proc/{}/ns/{}", process.pid, kind.name());
        let fd = open(Path::new(&path)).map_err(EngineError::io("open", path))?;
        // The descriptor is of that container only if its process still lives now.
        if crate::procfs::start_time(process.pid).ok() != Some(process.start_time) {
            return Err(namespace_error(
                kind,
                format!("container {} has just ended", record.name),
            ));
        }
        Ok(fd)
    }
}

fn open(path: &Path) -> std::io::Result<OwnedFd> {
    Ok(std::fs::File::open(path)?.into())
}

/// A namespace of the file that a spec names: `/proc/PID/ns/TYPE`, or where that is bound.
fn open_given_ns(kind: NamespaceKind, path: &Path) -> Result<OwnedFd, EngineError> {
    let wrong = |e: &dyn std::fmt::Display| {
        namespace_error(kind, format!("'{}' cannot be joined: {e}", path.display()))
    };
    let fd = open(path).map_err(|e| wrong(&e))?;
    // Any other file would be found out at setns only, when much is made already.
    const NSFS_MAGIC: u64 = 0x6e73_6673;
    let found = rustix::fs::fstatfs(&fd).map_err(|e| wrong(&e))?.f_type;
    if u64::try_from(found) != Ok(NSFS_MAGIC) {
        return Err(wrong(&"it is not a namespace"));
    }
    Ok(fd)
}

fn namespace_error(kind: NamespaceKind, detail: String) -> EngineError {
    EngineError::Config(ConfigError {
        pointer: format!("/namespaces/{}", kind.name()),
        detail,
        hint: None,
    })
}
