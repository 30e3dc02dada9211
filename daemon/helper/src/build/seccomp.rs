//! The seccomp filter: loaded last, so that a profile need not allow what a start takes.
//!
//! Between the filter and execve(2) stands one call at most: without no_new_privs loading takes
//! CAP_SYS_ADMIN, which is kept for it (see [`identity::restrict`]) and given back after it, so
//! there a profile must allow capset(2). Nothing else is called in between: no clock is read and no
//! memory allocated, because a strict profile may kill for it.
//!
//! [`identity::restrict`]: super::identity::restrict

use rustix::io::Errno;

use super::identity;
use crate::fault::{Fault, OrFault};
use crate::protocol::ProcessPlan;
use crate::sys;

/// Whether CAP_SYS_ADMIN must be there when the filter is loaded (seccomp(2), `EACCES`).
pub fn needs_privilege(process: &ProcessPlan) -> bool {
    process.seccomp.is_some() && !process.no_new_privileges
}

/// Loads the filter of a plan, if it has one, and leaves what it took.
pub fn load(process: &ProcessPlan) -> Result<(), Fault> {
    let Some(plan) = &process.seccomp else {
        return Ok(());
    };
    match sys::load_seccomp_filter(&plan.program.0, plan.flags) {
        Ok(()) => {}
        Err(Errno::ACCESS) => {
            return Err(Fault::of("seccomp", Errno::ACCESS).because(
                "without no_new_privs a filter needs CAP_SYS_ADMIN, which this host does not grant",
            ));
        }
        Err(errno) => return Err(Fault::of("seccomp", errno)),
    }
    if needs_privilege(process) {
        identity::give_back(&process.capabilities)
            .fault("capset")
            .map_err(|fault| {
                fault.because("without no_new_privs a seccomp profile must allow capset")
            })?;
    }
    Ok(())
}
