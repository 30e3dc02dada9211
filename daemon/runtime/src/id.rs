//! The id of a container.

use std::fmt;
use std::str::FromStr;

use crate::error::Error;

/// A container's id: one component of a path, and safe in one.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Id(String);

impl Id {
    /// Its text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Id {
    type Err = Error;

    fn from_str(text: &str) -> Result<Id, Error> {
        let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'+' | b'-' | b'.');
        let good = (1..=255).contains(&text.len())
            && text.bytes().all(allowed)
            && !matches!(text, "." | "..");
        if good {
            Ok(Id(text.to_owned()))
        } else {
            Err(Error::BadId(text.to_owned()))
        }
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_cannot_leave_its_directory() {
        for bad in ["", ".", "..", "a/b", "../x", "a b", "a\n", "\u{e9}"] {
            assert!(bad.parse::<Id>().is_err(), "{bad:?}");
        }
        for good in ["a", "A-1_2.3+4", "..."] {
            assert!(good.parse::<Id>().is_ok(), "{good:?}");
        }
    }
}
