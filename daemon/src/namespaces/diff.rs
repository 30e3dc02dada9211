//! What differs inside two namespaces.

use std::collections::BTreeMap;
use std::io;

use lbctl::types::Difference;
use littlebox_helper::protocol::NamespaceKind;

/// One side of a comparison.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Side {
    /// A process in it.
    pub pid: u32,
    /// nodename, as the container's helper (or uname(2) for the host) told.
    pub hostname: Option<String>,
    /// domainname, likewise.
    pub domainname: Option<String>,
}

/// What differs between the namespaces of one kind of two processes, by subject: `hostname`,
/// `domainname` (uts); `interfaces`, `addresses`, `routes` (net); `mounts` (mnt); `uid_map`,
/// `gid_map` (user); `cgroup`; `offsets` (time); `depth` (pid). Values that both have alike are
/// left out; of lists only what one side alone has is shown.
///
/// # Errors
/// A process is gone.
pub fn differences(
    _kind: NamespaceKind,
    _a: &Side,
    _b: &Side,
) -> io::Result<BTreeMap<String, Difference>> {
    unimplemented!()
}
