//! A seccomp filter on its way to the helper.

use std::fmt;
use std::path::PathBuf;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// A compiled filter (seccomp(2), `SECCOMP_SET_MODE_FILTER`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SeccompPlan {
    /// The program.
    pub program: BpfProgram,
    /// `SECCOMP_FILTER_FLAG_*`.
    #[serde(default)]
    pub flags: u32,
    /// What people call the profile that it was compiled from, for explanations.
    #[serde(default)]
    pub profile: String,
    /// Names in the profile that no system call here has; they were passed over.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unknown: Vec<String>,
    /// Who decides about calls for which the program returns `SECCOMP_RET_USER_NOTIF`; `None`: it
    /// returns that for none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub listener: Option<ListenerPlan>,
}

/// A seccomp agent: a process of the host that is given the filter's listener and decides about the
/// calls that the filter leaves to it (OCI config-linux.md, "Seccomp"; seccomp_unotify(2)).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListenerPlan {
    /// Absolute path of its socket on the host (`AF_UNIX`, `SOCK_STREAM`).
    pub path: PathBuf,
    /// Passed on to it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metadata: Option<String>,
    /// Names of the calls that are left to it.
    pub calls: Vec<String>,
    /// Whether those that no rule names are left to it too.
    #[serde(default)]
    pub others: bool,
    /// The container's state (OCI runtime.md, "State"); the helper adds `status` and `pid` where they
    /// are missing.
    #[serde(default)]
    pub state: serde_json::Map<String, serde_json::Value>,
}

/// One instruction of classic BPF, `struct sock_filter` of `linux/filter.h`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(C)]
pub struct BpfInstruction {
    /// Operation.
    pub code: u16,
    /// Instructions to skip when a comparison is true.
    pub jt: u8,
    /// Instructions to skip when it is false.
    pub jf: u8,
    /// Operand.
    pub k: u32,
}

/// A program. In JSON a string of 16 hexadecimal digits per instruction: code, jt, jf, k.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct BpfProgram(pub Vec<BpfInstruction>);

/// Hexadecimal digits of one instruction.
const DIGITS: usize = 16;

impl Serialize for BpfProgram {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use fmt::Write;
        let mut text = String::with_capacity(self.0.len() * DIGITS);
        for i in &self.0 {
            write!(text, "{:04x}{:02x}{:02x}{:08x}", i.code, i.jt, i.jf, i.k)
                .map_err(serde::ser::Error::custom)?;
        }
        serializer.serialize_str(&text)
    }
}

impl<'de> Deserialize<'de> for BpfProgram {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Hex;
        impl de::Visitor<'_> for Hex {
            type Value = BpfProgram;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("16 hexadecimal digits per BPF instruction")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<BpfProgram, E> {
                let (chunks, rest) = text.as_bytes().as_chunks::<DIGITS>();
                let program = chunks.iter().map(instruction).collect::<Option<_>>();
                match (program, rest) {
                    (Some(program), []) => Ok(BpfProgram(program)),
                    _ => Err(E::invalid_value(de::Unexpected::Str("other text"), &self)),
                }
            }
        }
        deserializer.deserialize_str(Hex)
    }
}

fn instruction(digits: &[u8; DIGITS]) -> Option<BpfInstruction> {
    let word = digits.iter().try_fold(0u64, |word, digit| {
        let nibble = char::from(*digit).to_digit(16)?;
        Some(word << 4 | u64::from(nibble))
    })?;
    let [c0, c1, jt, jf, k @ ..] = word.to_be_bytes();
    Some(BpfInstruction {
        code: u16::from_be_bytes([c0, c1]),
        jt,
        jf,
        k: u32::from_be_bytes(k),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_survives_the_way() {
        let program = BpfProgram(vec![
            BpfInstruction {
                code: 0x20,
                jt: 0,
                jf: 0,
                k: 4,
            },
            BpfInstruction {
                code: 0x15,
                jt: 255,
                jf: 1,
                k: 0xc000_003e,
            },
            BpfInstruction {
                code: 0x06,
                jt: 0,
                jf: 0,
                k: 0x7fff_0000,
            },
        ]);
        let json = serde_json::to_string(&program).unwrap();
        assert_eq!(
            json,
            r#""00200000000000040015ff01c000003e000600007fff0000""#
        );
        assert_eq!(serde_json::from_str::<BpfProgram>(&json).unwrap(), program);
        for bad in [
            r#""0""#,
            r#""zz20000000000004""#,
            "[]",
            r#""+020000000000004""#,
        ] {
            assert!(serde_json::from_str::<BpfProgram>(bad).is_err(), "{bad}");
        }
    }
}
