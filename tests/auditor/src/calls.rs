//! The verdict of the seccomp filter on every call.
//!
//! No call is made. A child adds a filter of its own that hands each probed call to its tracer,
//! which skips it. Of several filters' answers the kernel takes the strictest (seccomp(2)): so a
//! call comes to the tracer if, and only if, the container's filter allows it.

use std::str::FromStr;
use std::sync::atomic::{AtomicI64, Ordering};

use syscalls::x86_64::Sysno;

use crate::sys;

/// The highest number that is probed; well above the last call of any kernel.
const LAST: u32 = 600;
/// The fifth argument of probed calls.
const MAGIC: u32 = 0x5ec_c0de;
/// Calls that the kernel itself makes on return from a probe and lets pass every filter.
const PASSED_BY_THE_KERNEL: [u32; 2] = [335, 336];

/// An entry into the kernel.
#[derive(Clone, Copy)]
enum Entry {
    Native,
    X32,
    Int80,
}

/// The number of a call: its name, or a number.
pub fn number(text: &str) -> u64 {
    text.parse().unwrap_or_else(|_| {
        let call = Sysno::from_str(text).unwrap_or_else(|()| panic!("{text} is no system call"));
        call.id().unsigned_abs().into()
    })
}

/// A line per call.
pub fn tell() {
    tell_entry("x86_64", Entry::Native);
    tell_entry("x32", Entry::X32);
    tell_entry("x86", Entry::Int80);
}

fn tell_entry(label: &str, entry: Entry) {
    let verdicts = probe(entry);
    let mut run: Option<(usize, usize)> = None;
    let end = |run: &mut Option<(usize, usize)>| {
        if let Some((first, last)) = run.take() {
            println!("syscall {label} {first}-{last}: {}", verdicts[first]);
        }
    };
    for (number, verdict) in verdicts.iter().enumerate() {
        let name = match entry {
            Entry::Native => Sysno::new(number).map(|call| call.name()),
            Entry::X32 | Entry::Int80 => None,
        };
        if let Some(name) = name {
            end(&mut run);
            println!("syscall {label} {number} {name}: {verdict}");
            continue;
        }
        match &mut run {
            Some((first, last)) if verdicts[*first] == *verdict => *last = number,
            _ => {
                end(&mut run);
                run = Some((number, number));
            }
        }
    }
    end(&mut run);
}

/// Words of the memory that is shared with the child: the number it is at, then what each returned.
const AT: usize = 0;
const RESULTS: usize = 1;

fn probe(entry: Entry) -> Vec<String> {
    let memory = sys::shared(RESULTS + LAST as usize + 1);
    let mut verdicts: Vec<Option<String>> = vec![None; LAST as usize + 1];
    for passed in PASSED_BY_THE_KERNEL {
        if matches!(entry, Entry::Native) {
            verdicts[passed as usize] = Some("passed by the kernel".to_owned());
        }
    }
    // A child per call that kills.
    while let Some(next) = verdicts.iter().position(Option::is_none) {
        let todo: Vec<u32> = (0..=LAST)
            .skip(next)
            .filter(|n| verdicts[*n as usize].is_none())
            .collect();
        let Some(pid) = sys::fork() else {
            try_all(entry, &todo, memory);
            sys::exit();
        };
        watch(pid, memory, &mut verdicts);
        for (number, verdict) in verdicts.iter_mut().enumerate() {
            let result = memory[RESULTS + number].load(Ordering::SeqCst);
            if verdict.is_none() && result != 0 {
                *verdict = Some(format!("errno {}", -result));
            }
        }
    }
    verdicts.into_iter().flatten().collect()
}

fn try_all(entry: Entry, numbers: &[u32], memory: &[AtomicI64]) {
    /// `__X32_SYSCALL_BIT`.
    const X32: u64 = 0x4000_0000;
    sys::be_traced();
    sys::ask_tracer_about(MAGIC);
    let args = [0, 0, 0, 0, u64::from(MAGIC), 0];
    for number in numbers {
        memory[AT].store(i64::from(*number), Ordering::SeqCst);
        let result = match entry {
            Entry::Native => sys::call(u64::from(*number), args),
            Entry::X32 => sys::call(X32 | u64::from(*number), args),
            Entry::Int80 => sys::call32(*number, args),
        };
        memory[RESULTS + *number as usize].store(result, Ordering::SeqCst);
    }
}

/// Follows the child to its end: marks what is allowed, and what killed it.
fn watch(pid: i32, memory: &[AtomicI64], verdicts: &mut [Option<String>]) {
    let at = || usize::try_from(memory[AT].load(Ordering::SeqCst)).unwrap();
    let stopped = sys::wait(pid);
    assert!(
        libc::WIFSTOPPED(stopped),
        "the child did not stop: {stopped:#x}"
    );
    sys::trace_seccomp(pid);
    let mut signal = 0;
    loop {
        sys::go_on(pid, signal);
        let status = sys::wait(pid);
        signal = 0;
        if libc::WIFSIGNALED(status) {
            verdicts[at()] = Some(format!("killed by signal {}", libc::WTERMSIG(status)));
            return;
        }
        if libc::WIFEXITED(status) {
            return;
        }
        if status >> 16 == libc::PTRACE_EVENT_SECCOMP {
            verdicts[at()] = Some("allowed".to_owned());
            sys::skip_call(pid);
        } else {
            // A trap, or a fault in place of the 32-bit entry: deadly, and named when it kills.
            signal = libc::WSTOPSIG(status);
        }
    }
}
