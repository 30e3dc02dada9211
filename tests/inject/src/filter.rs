//! Which system calls are noticed: those of the native entry that can fail and mean something.

use syscalls::Sysno;

use crate::sys::Instruction;

/// Calls that go on unnoticed: those that cannot fail, those whose failure only stands for a
/// programming error, and those of the memory allocator and the threads' scheduler, whose failure
/// ends a Rust program as a kill does.
const UNNOTICED: &[Sysno] = &[
    Sysno::brk,
    Sysno::clock_gettime,
    Sysno::clock_nanosleep,
    Sysno::close,
    Sysno::close_range,
    Sysno::epoll_pwait,
    Sysno::epoll_wait,
    Sysno::exit,
    Sysno::exit_group,
    Sysno::futex,
    Sysno::getegid,
    Sysno::geteuid,
    Sysno::getgid,
    Sysno::getpid,
    Sysno::getppid,
    Sysno::getrandom,
    Sysno::getresgid,
    Sysno::getresuid,
    Sysno::gettid,
    Sysno::getuid,
    Sysno::lseek,
    Sysno::madvise,
    Sysno::mmap,
    Sysno::mprotect,
    Sysno::mremap,
    Sysno::munmap,
    Sysno::nanosleep,
    Sysno::poll,
    Sysno::ppoll,
    Sysno::restart_syscall,
    Sysno::rseq,
    Sysno::rt_sigaction,
    Sysno::rt_sigprocmask,
    Sysno::rt_sigreturn,
    Sysno::sched_getaffinity,
    Sysno::sched_yield,
    Sysno::set_robust_list,
    Sysno::set_tid_address,
    Sysno::sigaltstack,
    Sysno::umask,
    Sysno::uname,
];

/// `AUDIT_ARCH_*` of `linux/audit.h`.
#[cfg(target_arch = "x86_64")]
const ARCHITECTURE: u32 = 0xc000_003e;
#[cfg(target_arch = "aarch64")]
const ARCHITECTURE: u32 = 0xc000_00b7;

const LOAD: u16 = 0x20;
const JUMP_IF_EQUAL: u16 = 0x15;
const RETURN: u16 = 0x06;
/// Offsets in `struct seccomp_data`.
const NUMBER: u32 = 0;
const ENTRY: u32 = 4;

fn instruction(code: u16, k: u32) -> Instruction {
    Instruction {
        code,
        if_true: 0,
        if_false: 0,
        k,
    }
}

/// The program.
pub fn program() -> Vec<Instruction> {
    let jump = |k, if_true, if_false| Instruction {
        if_true,
        if_false,
        ..instruction(JUMP_IF_EQUAL, k)
    };
    let allow = instruction(RETURN, libc::SECCOMP_RET_ALLOW);
    let mut program = vec![
        instruction(LOAD, ENTRY),
        jump(ARCHITECTURE, 1, 0),
        allow,
        instruction(LOAD, NUMBER),
    ];
    for call in UNNOTICED {
        let number = u32::try_from(call.id()).expect("numbers are small");
        program.extend([jump(number, 0, 1), allow]);
    }
    program.push(instruction(RETURN, libc::SECCOMP_RET_USER_NOTIF));
    program
}
