//! Classic BPF as the kernel runs it on `struct seccomp_data`: what its checker refuses panics here.

use littlebox_protocol::BpfProgram;

use super::super::Arch;

/// A system call as a filter sees it.
#[derive(Debug, Clone)]
pub(super) struct Call {
    pub(super) nr: u32,
    pub(super) arch: u32,
    pub(super) args: [u64; 6],
}

impl Call {
    pub(super) fn new(arch: Arch, nr: u32, args: &[u64]) -> Self {
        let mut all = [0; 6];
        all[..args.len()].copy_from_slice(args);
        Self {
            nr,
            arch: arch.audit(),
            args: all,
        }
    }

    fn word(&self, offset: u32) -> u32 {
        match offset {
            0 => self.nr,
            4 => self.arch,
            16..64 if offset.is_multiple_of(4) => {
                let arg = self.args[usize::try_from((offset - 16) / 8).unwrap()];
                let shift = if offset.is_multiple_of(8) { 0 } else { 32 };
                u32::try_from(arg >> shift & u64::from(u32::MAX)).unwrap()
            }
            _ => panic!("a load from {offset}"),
        }
    }
}

/// What the program returns, and after how many instructions.
pub(super) fn run_counting(program: &BpfProgram, call: &Call) -> (u32, usize) {
    let (mut at, mut a, mut steps) = (0, 0u32, 0);
    loop {
        let i = program.0[at];
        at += 1;
        steps += 1;
        let branch = |yes: bool| usize::from(if yes { i.jt } else { i.jf });
        match i.code {
            0x20 => a = call.word(i.k),
            0x54 => a &= i.k,
            0x05 => at += usize::try_from(i.k).unwrap(),
            0x15 => at += branch(a == i.k),
            0x25 => at += branch(a > i.k),
            0x35 => at += branch(a >= i.k),
            0x06 => return (i.k, steps),
            code => panic!("{code:#x} is not allowed in a filter"),
        }
    }
}

pub(super) fn run(program: &BpfProgram, call: &Call) -> u32 {
    run_counting(program, call).0
}
