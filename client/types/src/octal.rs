//! Permission bits.

use std::fmt;
use std::str::FromStr;

use super::text::{ValueError, serde_as_text};

/// An octal number of one to five digits, at most `MAX`; written with the digits that it was given with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Octal<const MAX: u32> {
    bits: u32,
    digits: usize,
}

/// What umask(2) takes.
pub type Umask = Octal<0o777>;
/// Permissions of a directory, with its sticky bit.
pub type DirectoryMode = Octal<0o1777>;

serde_as_text!(Umask, DirectoryMode);

impl<const MAX: u32> Octal<MAX> {
    /// The number.
    pub fn bits(self) -> u32 {
        self.bits
    }
}

impl<const MAX: u32> FromStr for Octal<MAX> {
    type Err = ValueError;
    fn from_str(text: &str) -> Result<Self, ValueError> {
        let digits = text.len();
        let plain = (1..=5).contains(&digits) && text.bytes().all(|b| (b'0'..=b'7').contains(&b));
        match u32::from_str_radix(text, 8) {
            Ok(bits) if plain && bits <= MAX => Ok(Self { bits, digits }),
            _ => {
                let hint = format!("use octal digits, from 0 to {MAX:o}");
                Err(ValueError::new(text, "is not a valid octal number", hint))
            }
        }
    }
}

impl<const MAX: u32> fmt::Display for Octal<MAX> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:0width$o}", self.bits, width = self.digits)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_digits_stay_as_they_were_given() {
        for (text, bits) in [("22", 0o22), ("0022", 0o22), ("777", 0o777), ("00000", 0)] {
            let mask: Umask = text.parse().unwrap();
            assert_eq!((mask.bits(), &*mask.to_string()), (bits, text));
        }
        assert!("1777".parse::<DirectoryMode>().is_ok());
    }

    #[test]
    fn what_is_no_mask_or_too_high_is_refused() {
        for text in ["9", "1000", "-22", "+22", "", "000022", "é"] {
            assert!(text.parse::<Umask>().is_err(), "{text:?}");
        }
        let error = "4755".parse::<DirectoryMode>().unwrap_err();
        assert!(error.to_string().ends_with("from 0 to 1777"), "{error}");
    }
}
