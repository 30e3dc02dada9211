//! The one thing the helper does with a network device: bring `lo` up.

use std::os::fd::{AsRawFd, BorrowedFd};

use rustix::io::Result;

use super::check;

/// `IFF_UP | IFF_RUNNING`, which `ifreq` holds as a short.
const UP_AND_RUNNING: libc::c_short = 0x41;

/// `ioctl(SIOCSIFFLAGS)` on `lo` (netdevice(7)), in the network namespace of `socket`. One ioctl
/// on any socket, where rtnetlink would be a socket, two messages and a parser.
pub fn loopback_up(socket: BorrowedFd<'_>) -> Result<()> {
    // SAFETY: ifreq is plain data, for which zeroes are valid.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    request.ifr_name[0] = b'l'.cast_signed();
    request.ifr_name[1] = b'o'.cast_signed();
    request.ifr_ifru.ifru_flags = UP_AND_RUNNING;
    // SAFETY: SIOCSIFFLAGS reads an ifreq, which outlives the call.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS, &raw const request) };
    check(result.into()).map(drop)
}
