//! Resource limits and the OOM score of a process.

use std::fs::OpenOptions;
use std::io::Write;

use rustix::io::Errno;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::identity;
use super::steps::Warnings;
use crate::fault::{Fault, OrFault};
use littlebox_protocol::RlimitPlan;

/// Sets the limits. A hard limit that may not be raised (it takes CAP_SYS_RESOURCE) stays, with a
/// warning.
pub fn set(rlimits: &[RlimitPlan], warnings: &mut Warnings) -> Result<(), Fault> {
    if rlimits.is_empty() {
        return Ok(());
    }
    identity::raise_effective()?;
    rlimits
        .iter()
        .try_for_each(|limit| set_one(limit, warnings))
}

fn set_one(plan: &RlimitPlan, warnings: &mut Warnings) -> Result<(), Fault> {
    let resource = resource(&plan.resource)
        .ok_or_else(|| Fault::refused("there is no such resource limit").at(&plan.resource))?;
    let wanted = Rlimit {
        current: plan.soft,
        maximum: plan.hard,
    };
    match setrlimit(resource, wanted) {
        Ok(()) => Ok(()),
        Err(Errno::PERM) => {
            let hard = lower(plan.hard, getrlimit(resource).maximum);
            let possible = Rlimit {
                current: lower(plan.soft, hard),
                maximum: hard,
            };
            setrlimit(resource, possible).fault_at("setrlimit", &plan.resource)?;
            warnings.push(format!(
                "the hard limit {} stays at {}: raising it needs CAP_SYS_RESOURCE",
                plan.resource,
                hard.map_or("unlimited".to_owned(), |hard| hard.to_string())
            ));
            Ok(())
        }
        Err(errno) => Err(Fault::of("setrlimit", errno).at(&plan.resource)),
    }
}

/// The lower of two limits, where `None` is none.
fn lower(a: Option<u64>, b: Option<u64>) -> Option<u64> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (limit, None) | (None, limit) => limit,
    }
}

fn resource(name: &str) -> Option<Resource> {
    Some(match name {
        "as" => Resource::As,
        "core" => Resource::Core,
        "cpu" => Resource::Cpu,
        "data" => Resource::Data,
        "fsize" => Resource::Fsize,
        "locks" => Resource::Locks,
        "memlock" => Resource::Memlock,
        "msgqueue" => Resource::Msgqueue,
        "nice" => Resource::Nice,
        "nofile" => Resource::Nofile,
        "nproc" => Resource::Nproc,
        "rss" => Resource::Rss,
        "rtprio" => Resource::Rtprio,
        "rttime" => Resource::Rttime,
        "sigpending" => Resource::Sigpending,
        "stack" => Resource::Stack,
        _ => return None,
    })
}

/// Writes `/proc/self/oom_score_adj` of the host's procfs, so before this process leaves the
/// host's mount namespace.
pub fn set_oom_score(score: i32, warnings: &mut Warnings) {
    let written = OpenOptions::new()
        .write(true)
        .open("/proc/self/oom_score_adj")
        .and_then(|mut file| file.write_all(score.to_string().as_bytes()));
    if let Err(error) = written {
        warnings.push(format!(
            "oom_score_adj could not be set to {score}: {error}"
        ));
    }
}
