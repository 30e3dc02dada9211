//! What can go wrong with files and archives.

use std::io;

/// Why a file operation did not succeed.
#[derive(Debug, thiserror::Error)]
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
        kind: &'static str,
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
        what: &'static str,
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
    Stream(#[source] io::Error),
    /// The filesystem does not let it be done: read-only, somebody else's, busy.
    #[error("{op} {path}")]
    Refused {
        /// The system call.
        op: &'static str,
        /// The path.
        path: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Any other failure of a system call.
    #[error("{op} {path}")]
    Io {
        /// The system call.
        op: &'static str,
        /// The path.
        path: String,
        /// Why.
        #[source]
        source: io::Error,
    },
}
