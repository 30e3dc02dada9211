//! A time namespace whose clocks are set: made and entered by the child itself.
//!
//! What `clone3(CLONE_NEWTIME)` makes is entered at once, and from then on its offsets are fixed.
//! `unshare` makes one for the children to come only: its offsets can be written until the first
//! process is in it, which then is this one (time_namespaces(7), "/proc/PID/timens_offsets").

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{Mode, OFlags, open};
use rustix::io::Errno;

use super::namespaces::join;
use crate::fault::{Fault, OrFault};
use crate::sys;
use littlebox_protocol::{NamespaceKind, TimeClock, TimeOffset};

/// The helper's part: the file in which the child `pid` sets its clocks. Opened here, because
/// root of a user namespace may not open it.
pub fn open_offsets(pid: u32) -> Result<OwnedFd, Fault> {
    let path = format!("/proc/{pid}/timens_offsets");
    open(&path, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty()).fault_at("open", path)
}

/// The child's part, while the host's `/proc` is still there.
pub fn enter_own(
    offsets: &BTreeMap<TimeClock, TimeOffset>,
    file: Option<OwnedFd>,
) -> Result<(), Fault> {
    let file = file.ok_or_else(|| Fault::refused("the file of the clocks' offsets got lost"))?;
    sys::unshare_time_namespace().fault("unshare")?;
    File::from(file)
        .write_all(render(offsets).as_bytes())
        .fault_at("write", "timens_offsets")
        .map_err(explain)?;
    enter_made()
}

/// Makes one with the clocks of the one before, and enters it.
pub fn enter_new() -> Result<(), Fault> {
    sys::unshare_time_namespace().fault("unshare")?;
    enter_made()
}

fn enter_made() -> Result<(), Fault> {
    let path = "/proc/self/ns/time_for_children";
    let made =
        open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).fault_at("open", path)?;
    join(NamespaceKind::Time, made.as_fd())
}

/// A line per clock, in one write.
fn render(offsets: &BTreeMap<TimeClock, TimeOffset>) -> String {
    let line = |(clock, offset): (&TimeClock, &TimeOffset)| {
        format!("{} {} {}\n", clock.name(), offset.secs, offset.nanos)
    };
    offsets.iter().map(line).collect()
}

fn explain(fault: Fault) -> Fault {
    if fault.is(Errno::RANGE) {
        return fault.because("a clock would be before its zero, or more than 146 years after it");
    }
    fault
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offsets_are_written_as_the_kernel_reads_them() {
        let offset = |secs, nanos| TimeOffset { secs, nanos };
        let offsets = BTreeMap::from([
            (TimeClock::Boottime, offset(-7, 5)),
            (TimeClock::Monotonic, offset(86_400, 0)),
        ]);
        assert_eq!(render(&offsets), "monotonic 86400 0\nboottime -7 5\n");
    }
}
