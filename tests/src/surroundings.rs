//! What tests need of the process they run in, whoever started it: on one CPU, with another niceness,
//! under a strict umask, with few descriptors.
//!
//! The beds of other packages' tests take this file in by its path.

use rustix::fs::Mode;
use rustix::process::{Resource, Rlimit, getrlimit, setpriority_process, setrlimit, umask};
use rustix::thread::{CpuSet, sched_setaffinity};

/// So many descriptors a login session usually has.
const DESCRIPTORS: u64 = 1024;

/// Makes them so, for the calling thread and for the processes that it starts from now on.
pub fn settle() {
    umask(Mode::from_raw_mode(0o022));
    setpriority_process(None, 0).expect("root may lower a nice value");
    let mut cpus = CpuSet::new();
    (0..CpuSet::MAX_CPU).for_each(|cpu| cpus.set(cpu));
    sched_setaffinity(None, &cpus).expect("CPUs that are not there are left out");
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current.is_some_and(|soft| soft < DESCRIPTORS) {
        // Not above the hard limit, which only CAP_SYS_RESOURCE raises.
        let current = Some(maximum.map_or(DESCRIPTORS, |hard| hard.min(DESCRIPTORS)));
        setrlimit(Resource::Nofile, Rlimit { current, maximum }).expect("a soft limit may rise");
    }
}
