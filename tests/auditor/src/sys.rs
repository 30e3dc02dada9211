//! System calls as they are: the only file with `unsafe`.
#![expect(unsafe_code, reason = "raw system calls are what this program is for")]

use std::io::{Error, Result};

use libc::{c_int, c_long, pid_t};

/// A call by the native entry: its result, negative for an errno.
pub fn call(number: u64, args: [u64; 6]) -> i64 {
    let [a, b, c, d, e, f] = args;
    // SAFETY: the caller asks for exactly this call; what it may do to this process is its wish.
    let result = unsafe { libc::syscall(number as c_long, a, b, c, d, e, f) };
    if result == -1 {
        return -i64::from(Error::last_os_error().raw_os_error().unwrap_or(0));
    }
    result
}

/// A call by the 32-bit entry of a 64-bit x86 kernel; the sixth argument is not passed.
pub fn call32(number: u32, args: [u64; 6]) -> i64 {
    let [a, b, c, d, e, _] =
        args.map(|arg| u32::try_from(arg).expect("arguments of this entry have 32 bits"));
    let result: u32;
    // SAFETY: as for `call`; rbx, which the compiler keeps for itself, is put back, and the
    // registers that old kernels clear are declared.
    unsafe {
        std::arch::asm!(
            "xchg rbx, {first}",
            "int 0x80",
            "xchg rbx, {first}",
            first = inout(reg) u64::from(a) => _,
            inlateout("eax") number => result,
            in("ecx") b,
            in("edx") c,
            in("esi") d,
            in("edi") e,
            lateout("r8") _,
            lateout("r9") _,
            lateout("r10") _,
            lateout("r11") _,
        );
    }
    i64::from(result as i32)
}

/// Memory that a fork shares with its parent.
pub fn shared(words: usize) -> &'static [std::sync::atomic::AtomicI64] {
    let flags = libc::MAP_SHARED | libc::MAP_ANONYMOUS;
    let access = libc::PROT_READ | libc::PROT_WRITE;
    // SAFETY: a fresh mapping of zeros, never unmapped, holds so many aligned words; they are only
    // used as atomics.
    unsafe {
        let at = libc::mmap(std::ptr::null_mut(), words * 8, access, flags, -1, 0);
        assert_ne!(at, libc::MAP_FAILED, "mmap: {}", Error::last_os_error());
        std::slice::from_raw_parts(at.cast(), words)
    }
}

/// fork(2): `None` in the child. This program has one thread.
pub fn fork() -> Option<pid_t> {
    // SAFETY: there is one thread, so the child has all of this process.
    match unsafe { libc::fork() } {
        0 => None,
        pid if pid > 0 => Some(pid),
        _ => panic!("fork: {}", Error::last_os_error()),
    }
}

/// Ends this process, without exit handlers.
pub fn exit() -> ! {
    // SAFETY: no precondition.
    unsafe { libc::_exit(0) }
}

/// waitpid(2): the status.
pub fn wait(pid: pid_t) -> c_int {
    let mut status = 0;
    // SAFETY: the status outlives the call.
    let waited = unsafe { libc::waitpid(pid, &raw mut status, libc::__WALL) };
    assert_eq!(waited, pid, "waitpid: {}", Error::last_os_error());
    status
}

/// Lets the parent trace this process, and stops until it does.
pub fn be_traced() {
    // SAFETY: neither touches memory.
    unsafe {
        let traced = libc::ptrace(libc::PTRACE_TRACEME, 0, 0, 0);
        assert_eq!(traced, 0, "ptrace: {}", Error::last_os_error());
        libc::raise(libc::SIGSTOP);
    }
}

/// Has a stopped child tell of calls that its filter lets a tracer decide about, and die with us.
pub fn trace_seccomp(pid: pid_t) {
    let options = libc::PTRACE_O_TRACESECCOMP | libc::PTRACE_O_EXITKILL;
    // SAFETY: takes plain numbers.
    let set = unsafe { libc::ptrace(libc::PTRACE_SETOPTIONS, pid, 0, options) };
    assert_eq!(set, 0, "ptrace: {}", Error::last_os_error());
}

/// Lets a stopped child go on, with a signal unless 0.
pub fn go_on(pid: pid_t, signal: c_int) {
    // SAFETY: takes plain numbers.
    unsafe { libc::ptrace(libc::PTRACE_CONT, pid, 0, signal) };
}

/// Has the call before which a child is stopped not be made.
pub fn skip_call(pid: pid_t) {
    /// `orig_rax` in `struct user_regs_struct`.
    const ORIG_RAX: usize = 15 * 8;
    // SAFETY: writes a register of the child.
    let set = unsafe { libc::ptrace(libc::PTRACE_POKEUSER, pid, ORIG_RAX, -1i64) };
    assert_eq!(set, 0, "ptrace: {}", Error::last_os_error());
}

/// Adds a filter that asks the tracer about each call whose fifth argument is `magic`.
pub fn ask_tracer_about(magic: u32) {
    let instruction = |code, jt, jf, k| libc::sock_filter { code, jt, jf, k };
    let mut filter = [
        instruction(0x20, 0, 0, 16 + 4 * 8),
        instruction(0x15, 0, 1, magic),
        instruction(0x06, 0, 0, 0x7ff0_0000),
        instruction(0x06, 0, 0, 0x7fff_0000),
    ];
    let program = libc::sock_fprog {
        len: 4,
        filter: filter.as_mut_ptr(),
    };
    // SAFETY: the program outlives the calls, which only read it.
    let loaded = unsafe {
        libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
        libc::prctl(libc::PR_SET_SECCOMP, 2, &raw const program)
    };
    assert_eq!(loaded, 0, "prctl: {}", Error::last_os_error());
}

/// getrlimit(2).
pub fn rlimit(resource: u32) -> Result<(u64, u64)> {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: the limit outlives the call.
    match unsafe { libc::getrlimit(resource, &raw mut limit) } {
        0 => Ok((limit.rlim_cur, limit.rlim_max)),
        _ => Err(Error::last_os_error()),
    }
}
