//! Detach keys: a sequence of keys that leaves the program to itself.

use std::str::FromStr;

/// Ctrl-P Ctrl-Q, as everywhere in the field.
pub const DEFAULT: &str = "ctrl-p,ctrl-q";

/// A sequence of keys, as the bytes that they send. Empty: none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DetachKeys(Vec<u8>);

impl FromStr for DetachKeys {
    type Err = String;

    /// Characters and `ctrl-X`, X one of `a-z @ [ \ ] ^ _`, separated by commas; or nothing.
    fn from_str(s: &str) -> Result<Self, String> {
        if s.is_empty() {
            return Ok(Self(Vec::new()));
        }
        s.split(',').map(key).collect::<Result<_, _>>().map(Self)
    }
}

fn key(text: &str) -> Result<u8, String> {
    let wrong = || format!("unknown key '{text}'; use a character, or ctrl- and one of a-z@[\\]^_");
    let lower = text.to_ascii_lowercase();
    match (
        lower.strip_prefix("ctrl-").map(str::as_bytes),
        text.as_bytes(),
    ) {
        (Some(&[letter @ b'a'..=b'z']), _) => Ok(letter - b'a' + 1),
        (Some(&[sign @ (b'@' | b'['..=b'_')]), _) => Ok(sign - b'@'),
        (None, &[byte]) if byte.is_ascii_graphic() => Ok(byte),
        _ => Err(wrong()),
    }
}

/// Finds the keys in what is typed, also when they come in different reads.
#[derive(Debug)]
pub struct Scanner {
    keys: Vec<u8>,
    /// Typed bytes that may be the sequence's beginning; held back until that is decided.
    held: Vec<u8>,
}

/// What a scan found.
#[derive(Debug, PartialEq, Eq)]
pub struct Scanned {
    /// What belongs to the program.
    pub forward: Vec<u8>,
    /// The sequence was typed; what came after it is dropped.
    pub detach: bool,
}

impl Scanner {
    /// For these keys.
    pub fn new(keys: DetachKeys) -> Self {
        Self {
            keys: keys.0,
            held: Vec::new(),
        }
    }

    /// Looks through what was read.
    pub fn scan(&mut self, input: &[u8]) -> Scanned {
        if self.keys.is_empty() {
            return Scanned {
                forward: input.to_vec(),
                detach: false,
            };
        }
        let mut forward = Vec::with_capacity(input.len());
        for &byte in input {
            self.held.push(byte);
            // Of what is held, the longest end that can still become the sequence stays held.
            let beginning = (0..=self.held.len())
                .find(|&i| self.keys.starts_with(&self.held[i..]))
                .unwrap_or(self.held.len());
            forward.extend(self.held.drain(..beginning));
            if self.held == self.keys {
                self.held.clear();
                return Scanned {
                    forward,
                    detach: true,
                };
            }
        }
        Scanned {
            forward,
            detach: false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scanner(keys: &str) -> Scanner {
        Scanner::new(keys.parse().unwrap())
    }

    fn forward(bytes: &[u8]) -> Scanned {
        Scanned {
            forward: bytes.to_vec(),
            detach: false,
        }
    }

    #[test]
    fn keys_are_parsed() {
        assert_eq!(DEFAULT.parse(), Ok(DetachKeys(vec![16, 17])));
        assert_eq!(
            "ctrl-@,ctrl-[,a,Q".parse(),
            Ok(DetachKeys(vec![0, 27, b'a', b'Q']))
        );
        assert_eq!("".parse(), Ok(DetachKeys(vec![])));
        for bad in ["ctrl-", "ctrl-1", "ab", "a,", "ctrl-pp", "\u{1}", "é"] {
            assert!(bad.parse::<DetachKeys>().is_err(), "{bad}");
        }
    }

    #[test]
    fn the_sequence_is_found_in_one_read_and_over_two() {
        let found = Scanned {
            forward: b"ls\n".to_vec(),
            detach: true,
        };
        assert_eq!(scanner(DEFAULT).scan(b"ls\n\x10\x11rest"), found);
        let mut split = scanner(DEFAULT);
        assert_eq!(split.scan(b"a\x10"), forward(b"a"));
        assert_eq!(
            split.scan(b"\x11"),
            Scanned {
                forward: vec![],
                detach: true
            }
        );
    }

    #[test]
    fn a_beginning_that_leads_nowhere_is_forwarded() {
        let mut s = scanner(DEFAULT);
        assert_eq!(s.scan(b"\x10"), forward(b""));
        assert_eq!(s.scan(b"x"), forward(b"\x10x"));
        assert_eq!(s.scan(b"\x10\x10"), forward(b"\x10"));
        assert_eq!(
            s.scan(b"\x11"),
            Scanned {
                forward: vec![],
                detach: true
            }
        );
    }

    #[test]
    fn overlapping_beginnings_are_not_missed() {
        let mut s = scanner("a,a,b");
        assert_eq!(
            s.scan(b"aaab"),
            Scanned {
                forward: b"a".to_vec(),
                detach: true
            }
        );
    }

    #[test]
    fn without_keys_everything_is_forwarded() {
        assert_eq!(scanner("").scan(b"\x10\x11"), forward(b"\x10\x11"));
    }
}
