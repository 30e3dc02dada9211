//! Which namespaces there are, and who lives in them.

use std::collections::BTreeMap;
use std::io;

use littlebox_protocol::{NamespaceKind, NamespaceRef, NamespaceRelation};
use littlebox_types::{ContainerNamespace, NamespaceInfo};

use crate::procfs::{ProcDir, ProcessId, parse_status, pids};

/// One namespace of a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ns {
    /// The inode, as `ls -Li /proc/PID/ns` prints it.
    pub inode: u64,
}

/// The namespaces of a process. A kind that the kernel lacks is absent. Callers verify the
/// process' identity.
///
/// # Errors
/// `ENOENT`/`ESRCH` when the process is gone, `EACCES`.
pub fn of_process(pid: u32) -> io::Result<BTreeMap<NamespaceKind, Ns>> {
    of_dir(&ProcDir::open(pid)?)
}

fn of_dir(process: &ProcDir) -> io::Result<BTreeMap<NamespaceKind, Ns>> {
    let mut namespaces = BTreeMap::new();
    for kind in NamespaceKind::ALL {
        if let Some(inode) = process.namespace(kind.name())? {
            namespaces.insert(kind, Ns { inode });
        }
    }
    Ok(namespaces)
}

/// What to ask a helper about the namespaces of one process.
pub fn refs_of(pid: u32, namespaces: &BTreeMap<NamespaceKind, Ns>) -> Vec<NamespaceRef> {
    namespaces
        .iter()
        .map(|(kind, namespace)| NamespaceRef {
            pid,
            kind: *kind,
            inode: namespace.inode,
        })
        .collect()
}

/// The namespaces of one container as clients see them, with the other containers (name and PID
/// of PID 1) that share each; others that are gone meanwhile are passed over.
///
/// # Errors
/// The daemon's own namespaces cannot be read.
pub fn of_container(
    namespaces: &BTreeMap<NamespaceKind, Ns>,
    relations: &[NamespaceRelation],
    others: &[(String, u32)],
) -> io::Result<Vec<ContainerNamespace>> {
    let host = of_dir(&ProcDir::own()?)?;
    let others: Vec<(&String, BTreeMap<NamespaceKind, Ns>)> = others
        .iter()
        .filter_map(|(name, pid)| Some((name, of_process(*pid).ok()?)))
        .collect();
    let describe = |(kind, namespace): (&NamespaceKind, &Ns)| {
        let relation = find(relations, *kind, namespace.inode);
        let host_inode = host.get(kind).map_or(0, |own| own.inode);
        let shares = |theirs: &BTreeMap<NamespaceKind, Ns>| theirs.get(kind) == Some(namespace);
        ContainerNamespace {
            kind: kind.name().to_owned(),
            inode: namespace.inode,
            id: relation.and_then(|relation| relation.id),
            host_inode,
            is_host: host_inode == namespace.inode,
            owner_user_inode: relation.and_then(|relation| relation.owner_inode),
            shared_with: others
                .iter()
                .filter(|(_, theirs)| shares(theirs))
                .map(|(name, _)| (*name).clone())
                .collect(),
        }
    };
    Ok(namespaces.iter().map(describe).collect())
}

fn find(
    relations: &[NamespaceRelation],
    kind: NamespaceKind,
    inode: u64,
) -> Option<&NamespaceRelation> {
    relations
        .iter()
        .find(|relation| relation.kind == kind && relation.inode == inode)
}

/// All namespaces in which processes live at one moment.
#[derive(Debug, Clone, Default)]
pub struct Scan {
    found: BTreeMap<(NamespaceKind, u64), Found>,
    processes: BTreeMap<u32, Process>,
}

/// One namespace: how many processes it has, and the lowest PID.
#[derive(Debug, Clone, Copy)]
struct Found {
    processes: u32,
    pid: u32,
}

#[derive(Debug, Clone)]
struct Process {
    namespaces: BTreeMap<NamespaceKind, Ns>,
    /// Of those alone that are the lowest in a namespace.
    description: Option<Description>,
}

#[derive(Debug, Clone, Default)]
struct Description {
    uid: u32,
    start_time: u64,
    /// Its command line, or the kernel's short name in brackets.
    command: String,
}

impl Scan {
    /// Reads `/proc`.
    ///
    /// # Errors
    /// `/proc` cannot be read; processes that end meanwhile are left out.
    pub fn take() -> io::Result<Self> {
        let mut scan = Self::default();
        let mut pids = pids()?;
        // The lowest first: it stands for the namespace.
        pids.sort_unstable();
        for pid in pids {
            if let Ok(process) = ProcDir::open(pid) {
                // An error means that it has ended, or (a zombie) left its namespaces.
                let _ = scan.add(pid, &process);
            }
        }
        Ok(scan)
    }

    fn add(&mut self, pid: u32, process: &ProcDir) -> io::Result<()> {
        let namespaces = of_dir(process)?;
        let is_first = |(kind, namespace): (&NamespaceKind, &Ns)| {
            !self.found.contains_key(&(*kind, namespace.inode))
        };
        let description = match namespaces.iter().any(is_first) {
            true => Some(describe(process)?),
            false => None,
        };
        for (kind, namespace) in &namespaces {
            let found = self
                .found
                .entry((*kind, namespace.inode))
                .or_insert(Found { processes: 0, pid });
            found.processes += 1;
        }
        self.processes.insert(
            pid,
            Process {
                namespaces,
                description,
            },
        );
        Ok(())
    }

    /// The processes whose command lines the list shows.
    pub fn described(&self) -> Vec<ProcessId> {
        let described = |(pid, process): (&u32, &Process)| {
            let start_time = process.description.as_ref()?.start_time;
            Some(ProcessId {
                pid: *pid,
                start_time,
            })
        };
        self.processes.iter().filter_map(described).collect()
    }

    /// Takes command lines, by PID. Without one the list shows the kernel's short name.
    pub fn set_commands(&mut self, commands: BTreeMap<u32, String>) {
        for (pid, command) in commands {
            let process = self.processes.get_mut(&pid);
            if let Some(description) = process.and_then(|p| p.description.as_mut()) {
                description.command = command;
            }
        }
    }

    /// What to ask a helper: every namespace once.
    pub fn refs(&self) -> Vec<NamespaceRef> {
        self.found
            .iter()
            .map(|((kind, inode), found)| NamespaceRef {
                pid: found.pid,
                kind: *kind,
                inode: *inode,
            })
            .collect()
    }

    /// The list, like lsns(8), with the containers (name and PID of PID 1) that live in each; by
    /// type and inode.
    pub fn list(
        &self,
        containers: &[(String, u32)],
        relations: &[NamespaceRelation],
    ) -> Vec<NamespaceInfo> {
        let mut living: BTreeMap<(NamespaceKind, u64), Vec<String>> = BTreeMap::new();
        for (name, pid) in containers {
            for (kind, namespace) in self
                .processes
                .get(pid)
                .into_iter()
                .flat_map(|process| &process.namespaces)
            {
                living
                    .entry((*kind, namespace.inode))
                    .or_default()
                    .push(name.clone());
            }
        }
        let relations: BTreeMap<(NamespaceKind, u64), &NamespaceRelation> = relations
            .iter()
            .map(|relation| ((relation.kind, relation.inode), relation))
            .collect();
        self.found
            .iter()
            .map(|(key, found)| {
                let relation = relations.get(key);
                let Description { command, uid, .. } = self.description(found.pid);
                NamespaceInfo {
                    kind: key.0.name().to_owned(),
                    inode: key.1,
                    processes: found.processes,
                    pid: found.pid,
                    command,
                    uid,
                    owner_user_inode: relation.and_then(|relation| relation.owner_inode),
                    parent_inode: relation.and_then(|relation| relation.parent_inode),
                    containers: living.remove(key).unwrap_or_default(),
                }
            })
            .collect()
    }

    fn description(&self, pid: u32) -> Description {
        let process = self.processes.get(&pid);
        process
            .and_then(|process| process.description.clone())
            .unwrap_or_default()
    }
}

fn describe(process: &ProcDir) -> io::Result<Description> {
    let status = parse_status(&process.read("status")?)
        .ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData))?;
    let stat = process.stat()?;
    Ok(Description {
        uid: status.uid,
        start_time: stat.start_time,
        command: format!("[{}]", stat.comm),
    })
}
