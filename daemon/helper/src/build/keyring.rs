//! The session keyring (session-keyring(7)).

use rustix::io::Errno;

use super::steps::Warnings;
use crate::fault::Fault;
use crate::sys;

/// Leaves the keyring that came from the daemon for a fresh one without a name: what the host's
/// administrator keeps in it, other containers' keys among it, is not the program's.
///
/// Without a name, because one of the same user could join by it. An exec therefore has a
/// keyring of its own, too.
///
/// Where the kernel has no keyrings, or the filter around littlebox itself denies them (it binds
/// the program as well), there is nothing to protect: a warning.
pub fn leave_session(warnings: &mut Warnings) -> Result<(), Fault> {
    match sys::join_new_session_keyring() {
        Ok(()) => Ok(()),
        Err(errno @ (Errno::NOSYS | Errno::PERM | Errno::ACCESS)) => {
            warnings.push(format!(
                "no session keyring of its own: keyctl fails here with {errno}"
            ));
            Ok(())
        }
        Err(errno) => Err(explain(Fault::of("keyctl", errno))),
    }
}

fn explain(fault: Fault) -> Fault {
    if fault.is(Errno::DQUOT) {
        return fault.because(
            "the user of this container has used up its keys; see kernel.keys.maxkeys, or for \
             root kernel.keys.root_maxkeys",
        );
    }
    fault
}
