//! Identifiers and names, parsed once at the edge.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// The id of a container: a UUIDv7, shown in its hyphenated lower-case form.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ContainerId(pub Uuid);

/// The id of an exec: a UUIDv7.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ExecId(pub Uuid);

macro_rules! id {
    ($name:ident) => {
        impl $name {
            /// A new id; later ids sort after earlier ones.
            pub fn generate() -> Self {
                Self(Uuid::now_v7())
            }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.as_hyphenated().fmt(f)
            }
        }
        impl FromStr for $name {
            type Err = uuid::Error;
            fn from_str(s: &str) -> Result<Self, Self::Err> {
                Uuid::from_str(s).map(Self)
            }
        }
    };
}
id!(ContainerId);
id!(ExecId);

/// A container's name: `[a-zA-Z0-9][a-zA-Z0-9_.-]{0,62}`, and not of the form of an id.
///
/// The grammar keeps it usable as a file name, a cgroup name and a host name label.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Name(String);

/// Why a string is no [`Name`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Empty.
    #[error("a name has at least one character")]
    Empty,
    /// Over 63 bytes.
    #[error("a name has at most 63 characters")]
    TooLong,
    /// A character outside the grammar.
    #[error(
        "a name starts with a letter or digit and goes on with letters, digits, '_', '.' or '-'"
    )]
    Grammar,
    /// It would be taken for an id.
    #[error("a name may not look like an id")]
    LooksLikeId,
}

impl Name {
    /// The name as a string.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for Name {
    type Error = NameError;
    fn try_from(s: String) -> Result<Self, NameError> {
        if s.len() > 63 {
            return Err(NameError::TooLong);
        }
        let mut bytes = s.bytes();
        let first = bytes.next().ok_or(NameError::Empty)?;
        let rest_ok = bytes.all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-'));
        if !first.is_ascii_alphanumeric() || !rest_ok {
            return Err(NameError::Grammar);
        }
        if Uuid::try_parse(&s).is_ok() {
            return Err(NameError::LooksLikeId);
        }
        Ok(Name(s))
    }
}

impl FromStr for Name {
    type Err = NameError;
    fn from_str(s: &str) -> Result<Self, NameError> {
        Name::try_from(s.to_owned())
    }
}

impl From<Name> for String {
    fn from(n: Name) -> String {
        n.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
