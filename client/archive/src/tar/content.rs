//! A file's content, out of an archive.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};

use rustix::io::Errno;

use super::{Entry, Reader};
use crate::FileError;
use crate::sys::failed;

/// Writes an entry's content into an empty file; holes stay holes.
///
/// # Errors
/// The reader's, and [`FileError`] of what the filesystem refuses.
pub fn write_content(
    reader: &mut Reader<'_, impl Read>,
    entry: &Entry,
    file: &mut File,
    buffer: &mut [u8],
) -> Result<(), FileError> {
    let refused = |op: &'static str| {
        move |error: std::io::Error| {
            let errno = Errno::from_io_error(&error).unwrap_or(Errno::IO);
            failed(op, &entry.path, errno)
        }
    };
    let Some(segments) = &entry.sparse else {
        while let read @ 1.. = reader.read_content(buffer)? {
            file.write_all(&buffer[..read]).map_err(refused("write"))?;
        }
        return Ok(());
    };
    for segment in segments {
        // Only a position beyond the filesystem's largest file is refused (lseek(2), EINVAL).
        file.seek(SeekFrom::Start(segment.offset))
            .map_err(|_| failed("lseek", &entry.path, Errno::FBIG))?;
        let mut left = segment.len;
        while left > 0 {
            let most = usize::try_from(left)
                .unwrap_or(usize::MAX)
                .min(buffer.len());
            let read = reader.read_content(&mut buffer[..most])?;
            file.write_all(&buffer[..read]).map_err(refused("write"))?;
            left -= read as u64;
        }
    }
    file.set_len(entry.size).map_err(refused("ftruncate"))
}
