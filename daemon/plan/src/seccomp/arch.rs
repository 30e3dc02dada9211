//! Architectures: what the kernel calls them, what profiles call them, and their system calls.

use std::str::FromStr;

use syscalls::{aarch64, arm, riscv64, x86, x86_64};

/// An architecture whose system calls are known here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Arch {
    /// 64-bit x86, `syscall`.
    X86_64,
    /// 32-bit x86: on a 64-bit kernel the entry by `int 0x80`.
    X86,
    /// 64-bit ARM.
    Aarch64,
    /// 32-bit ARM, EABI.
    Arm,
    /// 64-bit RISC-V.
    Riscv64,
}

impl Arch {
    /// The one that this program was built for.
    #[cfg(target_arch = "x86_64")]
    pub const NATIVE: Arch = Arch::X86_64;
    /// The one that this program was built for.
    #[cfg(target_arch = "aarch64")]
    pub const NATIVE: Arch = Arch::Aarch64;
    /// The one that this program was built for.
    #[cfg(target_arch = "riscv64")]
    pub const NATIVE: Arch = Arch::Riscv64;

    /// `AUDIT_ARCH_*` of `linux/audit.h`: the ELF machine, with bits for 64 bits and little endian.
    pub const fn audit(self) -> u32 {
        const BITS_64: u32 = 0x8000_0000;
        const LITTLE: u32 = 0x4000_0000;
        match self {
            Arch::X86_64 => 62 | BITS_64 | LITTLE,
            Arch::X86 => 3 | LITTLE,
            Arch::Aarch64 => 183 | BITS_64 | LITTLE,
            Arch::Arm => 40 | LITTLE,
            Arch::Riscv64 => 243 | BITS_64 | LITTLE,
        }
    }

    /// Its name under `includes.arches` of a profile, which is Go's.
    pub const fn short_name(self) -> &'static str {
        match self {
            Arch::X86_64 => "amd64",
            Arch::X86 => "x86",
            Arch::Aarch64 => "arm64",
            Arch::Arm => "arm",
            Arch::Riscv64 => "riscv64",
        }
    }

    /// The architectures whose programs run on it beside its own.
    pub const fn guests(self) -> &'static [Arch] {
        match self {
            Arch::X86_64 => &[Arch::X86],
            Arch::Aarch64 => &[Arch::Arm],
            Arch::X86 | Arch::Arm | Arch::Riscv64 => &[],
        }
    }

    /// The number of a system call.
    pub fn number(self, name: &str) -> Option<u32> {
        let id = match self {
            Arch::X86_64 => x86_64::Sysno::from_str(name).ok()?.id(),
            Arch::X86 => x86::Sysno::from_str(name).ok()?.id(),
            Arch::Aarch64 => aarch64::Sysno::from_str(aarch64_name(name)).ok()?.id(),
            Arch::Arm => return arm_number(name),
            Arch::Riscv64 => riscv64::Sysno::from_str(name).ok()?.id(),
        };
        u32::try_from(id).ok()
    }

    /// What a `SCMP_ARCH_*` name of a profile stands for; `None` for a name that is none.
    pub(super) fn from_profile(name: &str) -> Option<Named> {
        let arch = match name {
            "SCMP_ARCH_X86_64" => Arch::X86_64,
            "SCMP_ARCH_X86" => Arch::X86,
            "SCMP_ARCH_AARCH64" => Arch::Aarch64,
            "SCMP_ARCH_ARM" => Arch::Arm,
            "SCMP_ARCH_RISCV64" => Arch::Riscv64,
            other => return OTHERS.contains(&other).then_some(Named::NotBuiltFor),
        };
        Some(Named::Arch(arch))
    }
}

/// What the name of an architecture in a profile stands for.
pub(super) enum Named {
    /// One whose calls are known here.
    Arch(Arch),
    /// One that no machine has on which this program runs.
    NotBuiltFor,
}

/// Names of libseccomp for architectures that are not built for. X32 is among them because its
/// calls are never let in: few kernels have it, and its numbers are x86_64's with a bit set.
const OTHERS: [&str; 19] = [
    "SCMP_ARCH_X32",
    "SCMP_ARCH_MIPS",
    "SCMP_ARCH_MIPS64",
    "SCMP_ARCH_MIPS64N32",
    "SCMP_ARCH_MIPSEL",
    "SCMP_ARCH_MIPSEL64",
    "SCMP_ARCH_MIPSEL64N32",
    "SCMP_ARCH_PPC",
    "SCMP_ARCH_PPC64",
    "SCMP_ARCH_PPC64LE",
    "SCMP_ARCH_S390",
    "SCMP_ARCH_S390X",
    "SCMP_ARCH_PARISC",
    "SCMP_ARCH_PARISC64",
    "SCMP_ARCH_RISCV32",
    "SCMP_ARCH_LOONGARCH64",
    "SCMP_ARCH_M68K",
    "SCMP_ARCH_SH",
    "SCMP_ARCH_SHEB",
];

/// Whether any architecture that is known here has a system call of this name.
pub(super) fn is_known(name: &str) -> bool {
    use Arch::{Aarch64, Arm, Riscv64, X86, X86_64};
    [X86_64, X86, Aarch64, Arm, Riscv64]
        .iter()
        .any(|arch| arch.number(name).is_some())
}

/// Profiles use the kernel's name of call 79, the table the C library's.
fn aarch64_name(name: &str) -> &str {
    if name == "newfstatat" {
        "fstatat"
    } else {
        name
    }
}

/// From here on ARM has calls of its own (`asm/unistd.h`, `__ARM_NR_BASE`).
pub(super) const PRIVATE: u32 = 0x0f_0000;

fn arm_number(name: &str) -> Option<u32> {
    match name {
        "breakpoint" => Some(PRIVATE + 1),
        "cacheflush" => Some(PRIVATE + 2),
        "set_tls" => Some(PRIVATE + 5),
        name => u32::try_from(arm::Sysno::from_str(name).ok()?.id()).ok(),
    }
}
