//! What a program does is compared with what its profile says, in a machine of our own.

mod machine;
mod notify;
mod profiles;
mod random;

use littlebox_protocol::BpfProgram;
use serde_json::{Value, json};

use super::*;
use machine::{Call, run};

/// ERRNO with this number.
fn errno(n: u32) -> u32 {
    0x0005_0000 | n
}

const ALLOW: u32 = 0x7fff_0000;
const KILL_PROCESS: u32 = 0x8000_0000;
const USER_NOTIF: u32 = 0x7fc0_0000;
const EPERM: u32 = 0x0005_0001;

/// The eleven of the default.
const DEFAULT_CAPABILITIES: u64 =
    1 | 1 << 1 | 1 << 3 | 1 << 4 | 1 << 5 | 1 << 6 | 1 << 7 | 1 << 8 | 1 << 10 | 1 << 18 | 1 << 31;
const SYS_ADMIN: u64 = 1 << 21;

fn target(arch: Arch, capabilities: u64) -> Target {
    Target {
        arch,
        capabilities,
        kernel: (6, 1),
    }
}

fn x86_64() -> Target {
    target(Arch::X86_64, DEFAULT_CAPABILITIES)
}

fn compiled(profile: &Value, target: &Target) -> BpfProgram {
    let profile = Profile::read(profile).unwrap();
    compile::program(&profile, target)
}

fn default_profile() -> Value {
    serde_json::from_str(DEFAULT_PROFILE).unwrap()
}

fn call(arch: Arch, name: &str, args: &[u64]) -> Call {
    let nr = arch
        .number(name)
        .unwrap_or_else(|| panic!("no call {name}"));
    Call::new(arch, nr, args)
}

fn verdict(program: &BpfProgram, name: &str, args: &[u64]) -> u32 {
    run(program, &call(Arch::X86_64, name, args))
}
