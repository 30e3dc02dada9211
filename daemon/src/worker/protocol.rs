//! What the daemon and a worker say to each other. Both are of one program, so nothing here must be
//! understood by another version.

use std::path::PathBuf;

use littlebox_types::FileStat;
use serde::{Deserialize, Serialize};

use crate::files::{FileError, IdView, RootOf};
use crate::procfs::ProcessId;

/// What a worker is to do. Descriptors behind those that a request names are only kept until it is
/// done.
#[derive(Debug, Serialize, Deserialize)]
pub enum Request {
    /// Say what lies at a path of a container. Beside it: the container's root directory. Answered
    /// with [`Answer::Stat`].
    Stat {
        /// Container path.
        path: String,
        /// Whose ids it is told with.
        ids: IdView,
    },
    /// Pack an archive. Beside it: the root directory, and the pipe that the archive goes to.
    /// Answered with [`Answer::Ready`] when nothing that could be known before stands in the way, and
    /// with [`Answer::Done`] behind the last byte.
    Pack {
        /// Container path of what is packed; everything below the root without it.
        path: Option<String>,
        /// Whose ids the archive has.
        ids: IdView,
    },
    /// Unpack an archive. Beside it: the root directory, and the pipe that the archive comes from.
    /// Answered with [`Answer::Ready`] when there is the directory, and with [`Answer::Done`].
    Unpack {
        /// Container path of the directory.
        path: String,
        /// Whose ids the archive has.
        ids: IdView,
        /// Whose root directory it is.
        of: RootOf,
    },
    /// Compare a container with what it was made from. Beside it: the pipe that the JSON of
    /// [`littlebox_types::Changes`] goes to. Answered with [`Answer::Ready`] when it is complete, and with
    /// [`Answer::Done`].
    Changes {
        /// What the container has written.
        upper: PathBuf,
        /// Below it, uppermost first.
        lower: Vec<PathBuf>,
        /// Directories of the host that no container sees: that they are missing is not its doing.
        hidden: Vec<PathBuf>,
    },
    /// Look at paths of the host. Answered with [`Answer::Done`], whatever is found.
    Probe(Vec<Probe>),
    /// Write to a program. Beside it: the socket with the input, and the program's standard input. Answered
    /// with [`Answer::Ready`] at once, with another when the daemon has shut the socket down and everything
    /// is written, and with [`Answer::Done`] when both are closed.
    Feed,
    /// Say whether there is no such file. Answered with [`Answer::IsMissing`], which is true only when
    /// that is known.
    IsMissing(PathBuf),
    /// Say with which arguments processes were executed. Answered with [`Answer::Ready`], with one
    /// [`Answer::CommandLine`] for each, in this order, and with [`Answer::Done`].
    CommandLines(Vec<ProcessId>),
}

/// A path of the host, and how far it is looked at.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Probe {
    /// The file or directory itself.
    Path(PathBuf),
    /// The content of a small file.
    Content(PathBuf),
    /// A directory, and all that lies below it.
    Tree(PathBuf),
}

impl Probe {
    /// The path.
    pub fn path(&self) -> &PathBuf {
        match self {
            Probe::Path(path) | Probe::Content(path) | Probe::Tree(path) => path,
        }
    }
}

/// What a worker answers.
#[derive(Debug, Serialize, Deserialize)]
pub enum Answer {
    /// The bytes begin.
    Ready,
    /// It is done.
    Done,
    /// What lies at a path.
    Stat(FileStat),
    /// Whether it is known that there is no such file.
    IsMissing(bool),
    /// The arguments of a process, joined by spaces; empty for a kernel thread, and for a process that
    /// has ended.
    CommandLine(String),
    /// It could not be done.
    Failed(FileError),
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use std::io;

    use super::*;

    #[test]
    fn an_error_arrives_as_the_one_that_it_was() {
        let path = String::from("/a\u{fffd}\"b");
        let errno = || rustix::io::Errno::TXTBSY.into();
        for error in [
            FileError::NotFound { path: path.clone() },
            FileError::Limit {
                path: path.clone(),
                what: "entries".into(),
                limit: u64::MAX,
            },
            FileError::Refused {
                op: "open".into(),
                path,
                source: errno(),
            },
            FileError::Stream(io::Error::other("the client has gone")),
        ] {
            let sent = words(&error);
            let wire = serde_json::to_vec(&Answer::Failed(error)).unwrap();
            let Answer::Failed(error) = serde_json::from_slice(&wire).unwrap() else {
                panic!("another answer");
            };
            assert_eq!(words(&error), sent);
        }
    }

    /// An error's text, and errno and text of what it is based on.
    fn words(error: &FileError) -> (String, Option<(Option<i32>, String)>) {
        let io = std::error::Error::source(error).and_then(|e| e.downcast_ref::<io::Error>());
        let io = io.map(|e| (e.raw_os_error(), e.to_string()));
        (error.to_string(), io)
    }
}
