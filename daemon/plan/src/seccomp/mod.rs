//! seccomp: which system calls a program may make (seccomp(2)).
//!
//! A [`Profile`] is read from JSON, once; for a [`Target`] (architecture, capabilities, kernel) it
//! is compiled to a filter, and a [`Compiler`] remembers what it has compiled. Everything is pure:
//! the helper loads what comes out.
//!
//! Names that no architecture has are passed over, as by everyone who reads such profiles: one
//! profile serves many kernels. They are told in [`SeccompPlan::unknown`].

mod arch;
mod assembler;
mod cache;
mod compile;
mod errno;
mod notify;
mod profile;
mod rules;
#[cfg(test)]
mod tests;

use littlebox_protocol::SeccompPlan;
use oci_spec::runtime::Spec;

pub use arch::Arch;
pub use cache::Compiler;
pub use notify::{check_init, introduce};
pub use profile::{FLAGS, Profile};

use crate::{PlanError, capability};

/// littlebox's own profile, in the format of Docker and Podman.
pub const DEFAULT_PROFILE: &str = include_str!("default.json");

/// Where the profile stands in a spec.
pub(crate) const OF_SPEC: &str = "/linux/seccomp";

/// The kernel's limit (`BPF_MAXINSNS`).
const MAX_INSTRUCTIONS: usize = 4096;

/// ENOSYS.
const ENOSYS: u16 = 38;

/// For what a profile is compiled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Target {
    /// The machine's architecture.
    pub arch: Arch,
    /// The capabilities that the program can have (its bounding set), bit n for capability n.
    pub capabilities: u64,
    /// The kernel's version, for rules that need a certain one.
    pub kernel: (u32, u32),
}

/// Compiles a profile. `name` is what people call it.
///
/// # Errors
/// The program would be larger than the kernel takes, nothing could be executed under it, or nobody is
/// named to whom it leaves calls.
pub fn compile(profile: &Profile, target: &Target, name: &str) -> Result<SeccompPlan, PlanError> {
    if !rules::may_execute(profile, target) {
        return Err(PlanError::new(
            "/syscalls",
            "the profile does not allow execve, with which the program begins",
        ));
    }
    let program = compile::program(profile, target);
    if program.0.len() > MAX_INSTRUCTIONS {
        return Err(PlanError::new(
            "/syscalls",
            format!(
                "the profile makes a filter of {} instructions; the kernel takes {MAX_INSTRUCTIONS}: write fewer rules with arguments",
                program.0.len()
            ),
        ));
    }
    let listener = notify::listener(profile, target)?;
    let mut flags = profile.flags;
    if listener.is_none() {
        // Nothing waits that could be killable (EINVAL).
        flags &= !profile::WAIT_KILLABLE_RECV;
    }
    Ok(SeccompPlan {
        program,
        flags,
        profile: name.to_owned(),
        unknown: rules::unknown_names(profile, target),
        listener,
    })
}

/// The filter that `linux.seccomp` of a spec asks for. What depends on a kernel's version is not in
/// that format.
///
/// # Errors
/// As [`Profile::read`] and [`compile`], with the pointer into `config.json`.
pub fn of_spec(spec: &Spec) -> Result<Option<SeccompPlan>, PlanError> {
    let Some(seccomp) = spec.linux().as_ref().and_then(|l| l.seccomp().as_ref()) else {
        return Ok(None);
    };
    let below = |error: PlanError| error.below(OF_SPEC);
    let json = serde_json::to_value(seccomp).map_err(|e| PlanError::new(OF_SPEC, e.to_string()))?;
    let capabilities = spec
        .process()
        .as_ref()
        .and_then(|p| p.capabilities().as_ref());
    let target = Target {
        arch: Arch::NATIVE,
        capabilities: capability::plan(capabilities).bounding,
        kernel: (0, 0),
    };
    let profile = Profile::read(&json).map_err(below)?;
    compile(&profile, &target, "the spec's")
        .map(Some)
        .map_err(below)
}

/// The first two numbers of a kernel's version, `6.18.44-x`.
pub fn kernel_version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}
