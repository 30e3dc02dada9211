//! How mounts spread between peers.

use std::fmt;
use std::str::FromStr;

use super::text::{ValueError, serde_as_text};

/// Mount propagation (mount_namespaces(7)); `r`: of a whole tree of mounts. Unbindable mounts are left to
/// OCI specs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Propagation {
    /// `rprivate`: nothing in, nothing out.
    Rprivate,
    /// `private`.
    Private,
    /// `rslave`: the host's later mounts come in, none go out.
    Rslave,
    /// `slave`.
    Slave,
    /// `rshared`: both ways.
    Rshared,
    /// `shared`.
    Shared,
}

serde_as_text!(Propagation);

impl Propagation {
    const ALL: [Self; 6] = [
        Self::Rprivate,
        Self::Private,
        Self::Rslave,
        Self::Slave,
        Self::Rshared,
        Self::Shared,
    ];

    /// As the API, OCI specs and mount(8) write it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Rprivate => "rprivate",
            Self::Private => "private",
            Self::Rslave => "rslave",
            Self::Slave => "slave",
            Self::Rshared => "rshared",
            Self::Shared => "shared",
        }
    }

    /// Whether nothing comes in and nothing goes out.
    pub fn is_private(self) -> bool {
        matches!(self, Self::Rprivate | Self::Private)
    }
}

impl FromStr for Propagation {
    type Err = ValueError;
    fn from_str(text: &str) -> Result<Self, ValueError> {
        let found = Self::ALL.into_iter().find(|p| p.name() == text);
        found.ok_or_else(|| {
            let hint = "use rprivate, private, rslave, slave, rshared or shared";
            ValueError::new(text, "is not a mount propagation", hint)
        })
    }
}

impl fmt::Display for Propagation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn six_are_known() {
        for propagation in Propagation::ALL {
            assert_eq!(propagation.to_string().parse(), Ok(propagation));
        }
        for text in ["", "both", "unbindable", "RSLAVE"] {
            assert!(text.parse::<Propagation>().is_err(), "{text:?}");
        }
    }
}
