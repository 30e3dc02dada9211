//! Memory that a process shares with the children it forks.

use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::io::{Errno, Result};

use super::last_errno;

/// A number that the children of this process write and it reads, without a descriptor and without
/// waiting. It goes from a child when that executes a program.
#[derive(Debug)]
pub struct SharedNumber(NonNull<AtomicU32>);

impl SharedNumber {
    /// A new one; it is 0.
    pub fn new() -> Result<SharedNumber> {
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        let flags = libc::MAP_SHARED | libc::MAP_ANONYMOUS;
        let (anywhere, length) = (std::ptr::null_mut(), size_of::<AtomicU32>());
        // SAFETY: a new mapping at a place that the kernel chooses touches no other memory.
        let page = unsafe { libc::mmap(anywhere, length, protection, flags, -1, 0) };
        if page == libc::MAP_FAILED {
            return Err(last_errno());
        }
        NonNull::new(page.cast()).map(Self).ok_or(Errno::NOMEM)
    }

    /// Writes it.
    pub fn set(&self, number: u32) {
        self.number().store(number, Ordering::Relaxed);
    }

    /// Reads it.
    pub fn get(&self) -> u32 {
        self.number().load(Ordering::Relaxed)
    }

    fn number(&self) -> &AtomicU32 {
        // SAFETY: the mapping is page-aligned, zeroed, writable, and there until `drop`; both
        // processes access it as an atomic alone.
        unsafe { self.0.as_ref() }
    }
}

impl Drop for SharedNumber {
    fn drop(&mut self) {
        // SAFETY: this is the mapping that `new` made, and nothing borrows from it any more.
        unsafe { libc::munmap(self.0.as_ptr().cast(), size_of::<AtomicU32>()) };
    }
}
