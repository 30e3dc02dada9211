//! The processes of a container.

use std::collections::BTreeMap;
use std::io;

use lbctl::types::TopProcess;

/// The processes of the container whose PID 1 is `pid`, by PID: those in its cgroup (and below),
/// without one those in its PID namespace, and where that is the host's, PID 1's descendants.
///
/// # Errors
/// `ENOENT`/`ESRCH` when the container has ended.
pub fn top(_cgroups: &BTreeMap<String, String>, _pid: u32) -> io::Result<Vec<TopProcess>> {
    unimplemented!()
}
