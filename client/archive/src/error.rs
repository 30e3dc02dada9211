//! What can go wrong with files and archives.

use std::borrow::Cow;
use std::io;

use serde::{Deserialize, Serialize};

/// Why a file operation did not succeed. It travels from the process that does it to the one that
/// tells of it.
#[derive(Debug, thiserror::Error, Serialize, Deserialize)]
pub enum FileError {
    /// Nothing there.
    #[error("{path}: no such file or directory")]
    NotFound {
        /// The path.
        path: String,
    },
    /// A directory was needed.
    #[error("{path}: not a directory")]
    NotADirectory {
        /// The path.
        path: String,
    },
    /// A directory stands where the archive has something else.
    #[error("{path}: is a directory, and the archive has a {kind} there")]
    IsADirectory {
        /// The path.
        path: String,
        /// What the archive has.
        kind: Cow<'static, str>,
    },
    /// A path that would leave the container's root (a magic link, a loop of links).
    #[error("{path}: leads out of the container or through too many links")]
    Escape {
        /// The path.
        path: String,
    },
    /// More than the bounds allow.
    #[error("{path}: more than {limit} {what}")]
    Limit {
        /// Where.
        path: String,
        /// What there is too much of (`bytes`, `entries`...).
        what: Cow<'static, str>,
        /// The bound.
        limit: u64,
    },
    /// The archive is malformed or has an entry that is refused.
    #[error("bad archive: {detail}")]
    BadArchive {
        /// What is wrong.
        detail: String,
    },
    /// The disk or a quota is full.
    #[error("{path}: no space left")]
    NoSpace {
        /// The path.
        path: String,
    },
    /// The archive could not be read from, or written to, the client.
    #[error("the archive's stream broke")]
    Stream(
        #[source]
        #[serde(with = "io_error")]
        io::Error,
    ),
    /// The filesystem does not let it be done: read-only, somebody else's, busy, broken.
    #[error("{op} {path}")]
    Refused {
        /// The system call.
        op: Cow<'static, str>,
        /// The path.
        path: String,
        /// Why.
        #[source]
        #[serde(with = "io_error")]
        source: io::Error,
    },
    /// A failure of this process or the host: no descriptors or memory left, or an internal error.
    #[error("{op} {path}")]
    Io {
        /// The system call.
        op: Cow<'static, str>,
        /// The path.
        path: String,
        /// Why.
        #[source]
        #[serde(with = "io_error")]
        source: io::Error,
    },
}

/// An error of a system call by its number, any other by its text.
mod io_error {
    use std::io;

    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    #[derive(Serialize, Deserialize)]
    enum Wire {
        Errno(i32),
        Text(String),
    }

    pub(super) fn serialize<S: Serializer>(error: &io::Error, to: S) -> Result<S::Ok, S::Error> {
        let wire = match error.raw_os_error() {
            Some(errno) => Wire::Errno(errno),
            None => Wire::Text(error.to_string()),
        };
        wire.serialize(to)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<io::Error, D::Error> {
        Ok(match Wire::deserialize(from)? {
            Wire::Errno(errno) => io::Error::from_raw_os_error(errno),
            Wire::Text(text) => io::Error::other(text),
        })
    }
}
