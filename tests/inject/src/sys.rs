//! The system calls of seccomp(2)'s user notification: the only file with `unsafe`.
#![expect(
    unsafe_code,
    reason = "neither rustix nor nix has seccomp user notification"
)]

use std::io::{Error, Result};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

/// One instruction of a classic BPF program (`struct sock_filter` of `linux/filter.h`).
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct Instruction {
    /// Operation.
    pub code: u16,
    /// Instructions to skip when the comparison holds.
    pub if_true: u8,
    /// Instructions to skip when it does not.
    pub if_false: u8,
    /// Operand.
    pub k: u32,
}

#[repr(C)]
struct Program {
    len: u16,
    filter: *const Instruction,
}

/// A system call that waits for a verdict.
#[derive(Debug, Clone, Copy)]
pub struct Notification {
    /// What the verdict refers to.
    pub id: u64,
    /// The thread that made the call.
    pub thread: u32,
    /// The system call's number.
    pub number: i32,
    /// Its first argument, of many calls a descriptor.
    pub first: u64,
    /// Its second argument, of some calls the command.
    pub second: u64,
}

fn check(result: libc::c_long) -> Result<libc::c_long> {
    if result < 0 {
        return Err(Error::last_os_error());
    }
    Ok(result)
}

/// Loads a filter for this thread and all that it starts; the listener is at the returned
/// descriptor, close-on-exec.
pub fn load_with_listener(filter: &[Instruction]) -> Result<OwnedFd> {
    let program = Program {
        len: u16::try_from(filter.len()).expect("a filter has at most 4096 instructions"),
        filter: filter.as_ptr(),
    };
    let flags =
        libc::SECCOMP_FILTER_FLAG_NEW_LISTENER | libc::SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV;
    // SAFETY: the program has the layout of linux/filter.h and outlives the call, which only reads
    // it; what comes back is a descriptor that nobody else owns.
    unsafe {
        let fd = check(libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_SET_MODE_FILTER,
            flags,
            &raw const program,
        ))?;
        Ok(OwnedFd::from_raw_fd(
            fd.try_into().expect("descriptors are small"),
        ))
    }
}

/// A duplicate of another process' descriptor (pidfd_getfd(2)).
pub fn descriptor_of(process: BorrowedFd<'_>, number: i32) -> Result<OwnedFd> {
    // SAFETY: plain numbers; what comes back is a descriptor that nobody else owns.
    unsafe {
        let fd = check(libc::syscall(
            libc::SYS_pidfd_getfd,
            process.as_raw_fd(),
            number,
            0,
        ))?;
        Ok(OwnedFd::from_raw_fd(
            fd.try_into().expect("descriptors are small"),
        ))
    }
}

/// The next call that waits; blocks. ENOENT: its thread was killed meanwhile.
pub fn next(listener: BorrowedFd<'_>) -> Result<Notification> {
    // SAFETY: all zeros is a value of this structure, and what the kernel asks for.
    let mut notification: libc::seccomp_notif = unsafe { std::mem::zeroed() };
    // SAFETY: the structure is the one that this request writes, and outlives the call.
    let result = unsafe {
        libc::ioctl(
            listener.as_raw_fd(),
            libc::SECCOMP_IOCTL_NOTIF_RECV,
            &raw mut notification,
        )
    };
    check(result.into())?;
    Ok(Notification {
        id: notification.id,
        thread: notification.pid,
        number: notification.data.nr,
        first: notification.data.args[0],
        second: notification.data.args[1],
    })
}

/// The verdict: `None` lets the call go on, an errno is its result. ENOENT: its thread was killed
/// meanwhile.
pub fn answer(listener: BorrowedFd<'_>, id: u64, errno: Option<i32>) -> Result<()> {
    let response = libc::seccomp_notif_resp {
        id,
        val: 0,
        error: errno.map_or(0, |errno| -errno),
        flags: match errno {
            Some(_) => 0,
            None => u32::try_from(libc::SECCOMP_USER_NOTIF_FLAG_CONTINUE).expect("it is 1"),
        },
    };
    // SAFETY: the structure is the one that this request reads, and outlives the call.
    let result = unsafe {
        libc::ioctl(
            listener.as_raw_fd(),
            libc::SECCOMP_IOCTL_NOTIF_SEND,
            &raw const response,
        )
    };
    check(result.into()).map(drop)
}
