//! Classic BPF, written from its end.
//!
//! Jumps go forward only and a comparison skips at most 255 instructions, so a program is built
//! backwards: what is jumped to is there already, and equal tails are there once.

use std::collections::HashMap;

use littlebox_protocol::BpfInstruction;

/// A place in the program: how many instructions follow it.
pub(super) type Label = usize;

/// A comparison of the accumulator with a constant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Test {
    Eq,
    Gt,
    Ge,
}

/// The codes of `linux/bpf_common.h` that are used here.
mod code {
    pub(super) const LOAD: u16 = 0x20; // BPF_LD | BPF_W | BPF_ABS
    pub(super) const AND: u16 = 0x54; // BPF_ALU | BPF_AND | BPF_K
    pub(super) const JUMP: u16 = 0x05; // BPF_JMP | BPF_JA
    pub(super) const JEQ: u16 = 0x15; // BPF_JMP | BPF_JEQ | BPF_K
    pub(super) const JGT: u16 = 0x25; // BPF_JMP | BPF_JGT | BPF_K
    pub(super) const JGE: u16 = 0x35; // BPF_JMP | BPF_JGE | BPF_K
    pub(super) const RETURN: u16 = 0x06; // BPF_RET | BPF_K
}

/// The most that a comparison skips.
const REACH: usize = 255;

/// A program under construction.
#[derive(Debug, Default)]
pub(super) struct Assembler {
    reversed: Vec<BpfInstruction>,
    known: HashMap<Node, Label>,
}

/// What has been written, to be used again.
#[derive(Debug, PartialEq, Eq, Hash)]
enum Node {
    Return(u32),
    Test(Test, u32, Label, Label),
    Before(u16, u32, Label),
}

impl Assembler {
    /// Ends with `value`.
    pub(super) fn ret(&mut self, value: u32) -> Label {
        self.once(Node::Return(value), |this| {
            this.push(code::RETURN, value);
        })
    }

    /// Goes to `yes` or to `no`.
    pub(super) fn test(&mut self, test: Test, k: u32, yes: Label, no: Label) -> Label {
        if yes == no {
            return yes;
        }
        self.once(Node::Test(test, k, yes, no), |this| {
            // The helper jump for `yes` may still come in between.
            let no = this.within_reach(no, 1);
            let yes = this.within_reach(yes, 0);
            let code = match test {
                Test::Eq => code::JEQ,
                Test::Gt => code::JGT,
                Test::Ge => code::JGE,
            };
            let at = this.reversed.len();
            // `within_reach` has seen to it that both fit.
            let skip = |label: Label| u8::try_from(at - label - 1).unwrap_or(u8::MAX);
            this.reversed.push(BpfInstruction {
                code,
                jt: skip(yes),
                jf: skip(no),
                k,
            });
        })
    }

    /// Loads a word of `struct seccomp_data`, then goes on.
    pub(super) fn load(&mut self, offset: u32, then: Label) -> Label {
        self.before(code::LOAD, offset, then)
    }

    /// Masks the accumulator, then goes on.
    pub(super) fn and(&mut self, mask: u32, then: Label) -> Label {
        self.before(code::AND, mask, then)
    }

    /// The program that begins with what was written last.
    pub(super) fn finish(self) -> Vec<BpfInstruction> {
        let mut program = self.reversed;
        program.reverse();
        program
    }

    fn before(&mut self, code: u16, k: u32, then: Label) -> Label {
        self.once(Node::Before(code, k, then), |this| {
            if then + 1 != this.reversed.len() {
                this.jump(then);
            }
            this.push(code, k);
        })
    }

    fn once(&mut self, node: Node, write: impl FnOnce(&mut Self)) -> Label {
        if let Some(label) = self.known.get(&node) {
            return *label;
        }
        write(self);
        let label = self.reversed.len() - 1;
        self.known.insert(node, label);
        label
    }

    /// `label`, or a place nearby that leads to it, for the instruction that is written after
    /// `more` others.
    fn within_reach(&mut self, label: Label, more: usize) -> Label {
        if self.reversed.len() + more - label - 1 <= REACH {
            return label;
        }
        match self.reversed[label] {
            // A return costs no more than the way to it.
            found @ BpfInstruction {
                code: code::RETURN, ..
            } => self.reversed.push(found),
            _ => self.jump(label),
        }
        self.reversed.len() - 1
    }

    fn jump(&mut self, to: Label) {
        // A program has at most 4096 instructions, or is refused when it is done.
        let skip = u32::try_from(self.reversed.len() - to - 1).unwrap_or(u32::MAX);
        self.push(code::JUMP, skip);
    }

    fn push(&mut self, code: u16, k: u32) {
        self.reversed.push(BpfInstruction {
            code,
            jt: 0,
            jf: 0,
            k,
        });
    }
}
