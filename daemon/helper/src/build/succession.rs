//! A child of the helper that ends and lets a sibling go on in its place.
//!
//! The helper knows of the sibling by the child's word, and the child may be killed before it gives
//! it (the OOM killer, `cgroup.kill`). So the sibling waits for that word, and runs no program that
//! nobody supervises; and it is found by its process group, which no other child of the helper is in.

use std::os::fd::BorrowedFd;

use rustix::process::{Pid, PidfdFlags, getpgid, pidfd_open};

use super::guard::Child;
use super::report::Report;
use super::view;
use crate::fault::{Fault, OrFault};
use crate::sys::{self, Forked};

/// Clones a sibling (`CLONE_PARENT`), has the helper told of its PID and pidfd, and ends. Returns in
/// the sibling alone, once the helper was told.
///
/// This process must lead a session of its own (setsid(2)).
///
/// # Errors
/// In this process: there is no sibling. In the sibling: the helper was not told of it.
pub fn hand_over(
    tell: impl FnOnce(u32, BorrowedFd<'_>) -> rustix::io::Result<()>,
) -> Result<(), Fault> {
    let (ours, siblings) = Report::pair()?;
    let flags = u64::from(libc::CLONE_PARENT.unsigned_abs());
    match sys::fork_into(flags, None).fault("clone3")? {
        Forked::Child => {
            drop(ours);
            let told = siblings.wait_for_go().map(drop);
            told.map_err(|fault| fault.because("the process that made this one was killed"))
        }
        Forked::Parent { pid, pidfd } => {
            let sibling = Child { pid, pidfd };
            let told = tell(pid, sibling.pidfd()).fault("sendmsg");
            if let Err(fault) = told.and_then(|()| ours.go(None)) {
                // Nobody else ends it.
                sibling.kill();
                return Err(fault);
            }
            sys::exit_now(0)
        }
    }
}

/// The sibling that a dead child has made and told nobody of. The child must not be reaped yet, so
/// that the number of its process group is its own.
pub fn untold(dead: &Child) -> Option<Child> {
    let group = Pid::from_raw(i32::try_from(dead.pid).ok()?)?;
    let is_in_group = |pid: &Pid| *pid != group && getpgid(Some(*pid)).is_ok_and(|of| of == group);
    let pids = view::own_children().into_iter();
    let mut pids = pids.filter_map(|pid| Pid::from_raw(i32::try_from(pid).ok()?));
    let pid = pids.find(is_in_group)?;
    // A child that this process has not reaped keeps its number.
    let pidfd = pidfd_open(pid, PidfdFlags::empty()).ok()?;
    Some(Child {
        pid: pid.as_raw_nonzero().get().unsigned_abs(),
        pidfd,
    })
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::Read;
    use std::time::Duration;

    use rustix::pipe::pipe;
    use rustix::process::setsid;

    use super::*;
    use crate::build::dying;

    /// A child that hands over; its sibling writes a byte and waits. What comes out of the pipe until
    /// all its writers are gone or wait.
    fn child_that_hands_over(tell: impl FnOnce() -> rustix::io::Result<()>) -> (Child, File) {
        let (read, write) = pipe().unwrap();
        let Forked::Parent { pid, pidfd } = sys::fork_into(0, None).unwrap() else {
            drop(read);
            let _ = setsid();
            if hand_over(|_, _| tell()).is_ok() {
                let _ = rustix::io::write(&write, b"runs");
                std::thread::sleep(Duration::from_secs(600));
            }
            sys::exit_now(0)
        };
        (Child { pid, pidfd }, File::from(read))
    }

    fn ends(child: &Child) -> bool {
        dying::ends_within(child.pidfd(), Duration::from_secs(30))
    }

    #[test]
    fn a_sibling_goes_on_when_the_helper_was_told_of_it() {
        let (child, mut pipe) = child_that_hands_over(|| Ok(()));
        let mut said = [0; 4];
        pipe.read_exact(&mut said).unwrap();
        assert_eq!(&said, b"runs");
        assert!(ends(&child));
        let sibling = untold(&child).unwrap();
        sibling.kill();
        assert!(ends(&sibling) && dying::reap(sibling.pidfd()) && dying::reap(child.pidfd()));
    }

    #[test]
    fn a_sibling_of_a_child_that_is_killed_before_its_word_does_not_run_and_is_found() {
        let (child, mut pipe) = child_that_hands_over(|| {
            let own = rustix::process::getpid();
            let _ = rustix::process::kill_process(own, rustix::process::Signal::KILL);
            Ok(())
        });
        let mut said = Vec::new();
        pipe.read_to_end(&mut said).unwrap();
        assert_eq!(said, b"", "it went on");
        assert!(ends(&child));
        let sibling = untold(&child).unwrap();
        assert!(ends(&sibling) && dying::reap(sibling.pidfd()) && dying::reap(child.pidfd()));
    }

    #[test]
    fn a_child_that_is_given_up_takes_the_sibling_with_it_that_nobody_was_told_of() {
        let (report, _childs) = Report::pair().unwrap();
        let (child, mut pipe) = child_that_hands_over(|| Ok(()));
        pipe.read_exact(&mut [0; 4]).unwrap();
        dying::give_up(child, None, report);
        dying::wait(Duration::from_secs(30));
        // Both are dead and reaped, or the sleeper would keep the pipe open.
        let mut rest = Vec::new();
        pipe.read_to_end(&mut rest).unwrap();
        assert_eq!(view::own_children(), Vec::<u32>::new());
    }
}
