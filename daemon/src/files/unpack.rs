//! Into a container: tar, trusting nothing.

use std::io::Read;
use std::os::fd::BorrowedFd;

use super::{FileError, IdView};

/// What an archive may have at most.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// Entries.
    pub entries: u64,
    /// Bytes of all files together.
    pub bytes: u64,
    /// Bytes of one name or link target.
    pub name_bytes: u64,
    /// Bytes of one extended header (PAX records, GNU long names).
    pub header_bytes: u64,
}

impl Default for Bounds {
    fn default() -> Self {
        Self { entries: 10_000_000, bytes: u64::MAX, name_bytes: 4095, header_bytes: 1024 * 1024 }
    }
}

/// Unpacks a tar archive into the directory `dir` of the container.
///
/// Every entry is resolved inside the root, as by a tar that runs chrooted there: links out of it
/// lead back into it. Refused: `..` in names, devices, sparse files of the PAX formats.
///
/// # Errors
/// [`FileError::NotADirectory`] and [`FileError::NotFound`] for `dir`, [`FileError::BadArchive`],
/// [`FileError::Limit`], [`FileError::NoSpace`]; what was unpacked before stays.
pub fn unpack(
    _root: BorrowedFd<'_>,
    _dir: &str,
    _ids: &IdView,
    _input: impl Read,
    _bounds: &Bounds,
) -> Result<(), FileError> {
    unimplemented!()
}
