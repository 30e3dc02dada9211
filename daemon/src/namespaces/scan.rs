//! Which namespaces there are, and who lives in them.

use std::collections::BTreeMap;
use std::io;

use lbctl::types::NamespaceInfo;
use littlebox_helper::protocol::{NamespaceKind, NamespaceRef, NamespaceRelation};

/// One namespace of a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ns {
    /// The inode, as `ls -Li /proc/PID/ns` prints it.
    pub inode: u64,
}

/// The namespaces of a process, the daemon's own for PID "self". A kind that the kernel lacks is
/// absent. Callers verify the process' identity.
///
/// # Errors
/// `ENOENT`/`ESRCH` when the process is gone, `EACCES`.
pub fn of_process(_pid: u32) -> io::Result<BTreeMap<NamespaceKind, Ns>> {
    unimplemented!()
}

/// What to ask a helper about the namespaces of one process.
pub fn refs_of(_pid: u32, _namespaces: &BTreeMap<NamespaceKind, Ns>) -> Vec<NamespaceRef> {
    unimplemented!()
}

/// All namespaces in which processes live at one moment.
#[derive(Debug, Clone, Default)]
pub struct Scan {}

impl Scan {
    /// Reads `/proc`.
    ///
    /// # Errors
    /// `/proc` cannot be read; processes that end meanwhile are left out.
    pub fn take() -> io::Result<Self> {
        unimplemented!()
    }

    /// What to ask a helper: every namespace once.
    pub fn refs(&self) -> Vec<NamespaceRef> {
        unimplemented!()
    }

    /// The list, like lsns(8), with the containers (name and PID of PID 1) that live in each; by
    /// type and inode.
    pub fn list(
        &self,
        _containers: &[(String, u32)],
        _relations: &[NamespaceRelation],
    ) -> Vec<NamespaceInfo> {
        unimplemented!()
    }
}
