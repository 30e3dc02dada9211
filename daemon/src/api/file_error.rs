//! What is wrong with files and archives, as problems. Neither an archive nor what a container has at
//! its paths is a fault of littlebox: only a lack of descriptors or memory is no client's doing.

use std::io;

use rustix::io::Errno;

use super::error::{ApiError, io_problem};
use crate::files::FileError;

pub(super) fn problem(error: FileError, detail: String) -> ApiError {
    let mut out = match &error {
        FileError::NotFound { .. } => ApiError::new("path_not_found", detail),
        FileError::NotADirectory { .. }
        | FileError::IsADirectory { .. }
        | FileError::Escape { .. } => ApiError::invalid(detail),
        FileError::Limit { .. } => ApiError::new("body_too_large", detail),
        FileError::BadArchive { .. } => ApiError::new("bad_archive", detail),
        FileError::NoSpace { .. } => ApiError::new("no_space", detail),
        FileError::Stream(source) => ApiError::invalid(format!("{detail}: {source}")),
        FileError::Refused { op, source, .. } => refused(op, source, format!("{detail}: {source}")),
        FileError::Io { source, .. } => io_problem(source, format!("{detail}: {source}")),
    };
    out.set_path(match error {
        FileError::NotFound { path }
        | FileError::NotADirectory { path }
        | FileError::IsADirectory { path, .. }
        | FileError::Escape { path }
        | FileError::Limit { path, .. }
        | FileError::NoSpace { path }
        | FileError::Refused { path, .. }
        | FileError::Io { path, .. } => Some(path),
        FileError::BadArchive { .. } | FileError::Stream(_) => None,
    });
    out
}

/// The container's own filesystem, or what is mounted there, does not let it be done.
fn refused(op: &str, source: &io::Error, detail: String) -> ApiError {
    let errno = Errno::from_io_error(source).unwrap_or(Errno::IO);
    ApiError::new("file_refused", detail)
        .hint(hint(op, errno))
        .errno(errno.raw_os_error())
}

fn hint(op: &str, errno: Errno) -> &'static str {
    match errno {
        Errno::NOSPC | Errno::DQUOT if op == "fsetxattr" => {
            "its extended attributes need more room than the filesystem there has for them"
        }
        Errno::NOSPC | Errno::DQUOT => {
            "the filesystem there, or the quota on it, is full; make room in the container"
        }
        Errno::ROFS => "it is mounted read-only there; choose a path that can be written to",
        Errno::ACCESS | Errno::PERM => {
            "root inside the container may not do that there; choose another path, or do it on the host"
        }
        Errno::TXTBSY => "a program is running from that file; stop it first",
        Errno::BUSY => "something is mounted there; unmount it, or choose another path",
        Errno::FBIG | Errno::OVERFLOW => "it is too large for the filesystem there",
        Errno::MLINK => "the file has as many hard links as the filesystem there allows",
        Errno::EXIST | Errno::ISDIR | Errno::NOTEMPTY | Errno::STALE => {
            "somebody else changes the same path; try again when that has ended"
        }
        Errno::NOENT | Errno::NOTDIR => {
            "a directory that the container was made from is not there any more"
        }
        Errno::AGAIN => {
            "a program holds a lease on that file, or renames directories of its path; try again"
        }
        Errno::INVAL | Errno::ILSEQ => "the filesystem there takes no such name or value",
        Errno::OPNOTSUPP | Errno::NOSYS => "the filesystem there cannot do that",
        Errno::NOTCONN | Errno::CONNABORTED => {
            "the server of a FUSE mount there has gone; unmount it, or choose another path"
        }
        _ => "the filesystem there failed; where it is the host's, the kernel's log says why",
    }
}

#[cfg(test)]
mod tests {
    use littlebox_archive::failed;
    use littlebox_types::Problem;

    use super::*;

    fn of(errno: Errno) -> Problem {
        let error = failed("open", b"/f", errno);
        let detail = error.to_string();
        problem(error, detail).into_problem()
    }

    #[test]
    fn no_errno_of_a_file_in_a_container_is_a_fault_of_the_daemon() {
        // A FUSE server in a container answers with any of them (fuse_dev_do_write in the kernel).
        for number in 1..512 {
            let problem = of(Errno::from_raw_os_error(number));
            assert_ne!(problem.code, "internal", "{number}");
            let ours = matches!(problem.code.as_str(), "no_space" | "resources_exhausted");
            assert!(problem.status < 500 || ours, "{number}: {problem:?}");
        }
    }

    #[test]
    fn a_name_that_two_make_at_once_is_a_conflict_with_a_hint() {
        let problem = of(Errno::EXIST);
        assert_eq!((problem.status, &*problem.code), (409, "file_refused"));
        assert!(problem.hint.unwrap().contains("somebody else"));
    }
}
