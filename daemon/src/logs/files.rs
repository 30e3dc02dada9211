//! The files of one log: finding them, reading whole records from them.

use std::fs::File;
use std::io::{self, IoSliceMut};
use std::ops::ControlFlow;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use littlebox_protocol::{
    Decoded, FILE_HEADER_LEN, FILE_MAGIC, LOG_PAYLOAD_LIMIT, LogRecord, LogStream,
    RECORD_HEADER_LEN, decode_record,
};
use rustix::fs::{Mode, OFlags};
use rustix::io::{Errno, ReadWriteFlags};

/// The most bytes read at once. More than one record at its longest, so that a chunk that starts
/// at a record and is full always holds a whole one.
pub(super) const CHUNK: usize = 256 * 1024;
const _: () = assert!(CHUNK > LOG_PAYLOAD_LIMIT + RECORD_HEADER_LEN);

const HEADER_LEN: u64 = FILE_HEADER_LEN as u64;

/// One record of a log. `payload` shares the memory of the chunk it was read in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Position after this record: where a reader that saw it resumes.
    pub position: u64,
    /// Nanoseconds since the epoch.
    pub time_ns: u64,
    /// Which stream.
    pub stream: LogStream,
    /// The line goes on in the stream's next record.
    pub partial: bool,
    /// The bytes, without the newline that ends a line.
    pub payload: Bytes,
}

/// One open file of a log.
#[derive(Debug)]
pub(super) struct LogFile {
    file: Arc<File>,
    dev: u64,
    ino: u64,
    /// Position of its first record.
    pub(super) base: u64,
}

impl LogFile {
    /// Opens a file; `None` when there is none, or its header is not written yet.
    pub(super) fn open(path: &Path) -> io::Result<Option<Self>> {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK;
        let file = match rustix::fs::open(path, flags, Mode::empty()) {
            Ok(fd) => File::from(fd),
            Err(Errno::NOENT) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let metadata = file.metadata()?;
        let mut header = [0u8; FILE_HEADER_LEN];
        if !metadata.is_file() || metadata.len() < HEADER_LEN {
            return Ok(None);
        }
        file.read_exact_at(&mut header, 0)?;
        let [m0, m1, m2, m3, m4, m5, m6, m7, base @ ..] = header;
        if [m0, m1, m2, m3, m4, m5, m6, m7] != FILE_MAGIC {
            return Ok(None);
        }
        Ok(Some(Self {
            dev: metadata.dev(),
            ino: metadata.ino(),
            base: u64::from_le_bytes(base),
            file: Arc::new(file),
        }))
    }

    /// Position of the end, which may lie inside a record that is just being written.
    pub(super) fn end(&self) -> io::Result<u64> {
        let len = self.file.metadata()?.len();
        Ok(self.base.saturating_add(len.saturating_sub(HEADER_LEN)))
    }

    /// Whether the file still has its name (it has not been rotated away).
    pub(super) fn is_at(&self, path: &Path) -> io::Result<bool> {
        match path.symlink_metadata() {
            Ok(metadata) => Ok(metadata.dev() == self.dev && metadata.ino() == self.ino),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }

    pub(super) fn same(&self, other: &Self) -> bool {
        self.dev == other.dev && self.ino == other.ino
    }

    fn offset(&self, position: u64) -> u64 {
        position
            .saturating_sub(self.base)
            .saturating_add(HEADER_LEN)
    }

    /// Reads up to `len` bytes at a position without blocking the caller's thread: what is cached
    /// is copied at once (`RWF_NOWAIT`, preadv2(2)), the rest is read on a blocking thread.
    pub(super) async fn read(&self, position: u64, len: usize) -> io::Result<Bytes> {
        let offset = self.offset(position);
        let mut buffer = BytesMut::zeroed(len);
        let mut filled = 0;
        while filled < len {
            let mut slices = [IoSliceMut::new(&mut buffer[filled..])];
            let at = offset + filled as u64;
            match rustix::io::preadv2(&*self.file, &mut slices, at, ReadWriteFlags::NOWAIT) {
                Ok(0) => {
                    buffer.truncate(filled);
                    return Ok(buffer.freeze());
                }
                Ok(read) => filled += read,
                Err(Errno::INTR) => {}
                // Not cached, or a filesystem that cannot tell.
                Err(Errno::AGAIN | Errno::OPNOTSUPP) => break,
                Err(error) => return Err(error.into()),
            }
        }
        if filled == len {
            return Ok(buffer.freeze());
        }
        let file = Arc::clone(&self.file);
        let read = move || {
            let rest = read_full(&file, &mut buffer[filled..], offset + filled as u64)?;
            buffer.truncate(filled + rest);
            Ok(buffer.freeze())
        };
        tokio::task::spawn_blocking(read)
            .await
            .map_err(io::Error::other)?
    }

    /// Calls `visit` with every record in order and the position after it, until it breaks.
    /// Blocks; holds one chunk in memory.
    pub(super) fn visit(
        &self,
        mut visit: impl FnMut(u64, &LogRecord<'_>) -> ControlFlow<()>,
    ) -> io::Result<Visited> {
        let mut buffer = vec![0u8; CHUNK];
        let mut position = self.base;
        loop {
            let read = read_full(&self.file, &mut buffer, self.offset(position))?;
            let mut rest = &buffer[..read];
            let stop = loop {
                match decode_record(rest, crc32fast::hash) {
                    Decoded::Record(record, len) => {
                        rest = &rest[len..];
                        position += len as u64;
                        if visit(position, &record).is_break() {
                            return Ok(Visited {
                                position,
                                corrupt: false,
                            });
                        }
                    }
                    Decoded::Incomplete => break false,
                    Decoded::Corrupt => break true,
                }
            };
            if stop || read < CHUNK {
                return Ok(Visited {
                    position,
                    corrupt: stop,
                });
            }
        }
    }
}

/// Where [`LogFile::visit`] stopped: after the last whole record it saw.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Visited {
    /// A record's boundary.
    pub(super) position: u64,
    /// What follows is no record (not merely an incomplete one).
    pub(super) corrupt: bool,
}

fn read_full(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match file.read_at(&mut buffer[filled..], offset + filled as u64) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

/// What a chunk holds.
#[derive(Debug, Default)]
pub(super) struct Batch {
    /// Whole records, in order.
    pub(super) records: Vec<Record>,
    /// Bytes that they take.
    pub(super) consumed: usize,
    /// What follows them is no record.
    pub(super) corrupt: bool,
}

/// Decodes the whole records at the beginning of a chunk that was read at `position`.
pub(super) fn decode(chunk: &Bytes, position: u64) -> Batch {
    let mut batch = Batch::default();
    loop {
        let rest = &chunk[batch.consumed..];
        match decode_record(rest, crc32fast::hash) {
            Decoded::Record(record, len) => {
                batch.consumed += len;
                batch.records.push(Record {
                    position: position + batch.consumed as u64,
                    time_ns: record.time_ns,
                    stream: record.stream,
                    partial: record.partial,
                    payload: chunk.slice_ref(record.payload),
                });
            }
            Decoded::Incomplete => return batch,
            Decoded::Corrupt => {
                batch.corrupt = true;
                return batch;
            }
        }
    }
}

/// All files of the log at `path`, oldest first. Blocks.
///
/// A rotation may happen meanwhile. It moves files from `N` to `N + 1`, the oldest first: looking
/// upwards meets each at least once, with at most one hole at a time, and a set with a gap between
/// one's end and the next one's base is looked at again.
pub(super) fn files_of(path: &Path) -> io::Result<Vec<LogFile>> {
    const ATTEMPTS: u32 = 5;
    let mut attempt = 0;
    loop {
        attempt += 1;
        let files = look(path)?;
        if attempt == ATTEMPTS || is_contiguous(&files)? {
            return Ok(files);
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn look(path: &Path) -> io::Result<Vec<LogFile>> {
    let mut files: Vec<LogFile> = Vec::new();
    let mut missing = 0;
    let mut number = 0u32;
    while missing < 2 {
        match LogFile::open(&rotated(path, number))? {
            Some(file) => {
                missing = 0;
                if !files.iter().any(|known| known.same(&file)) {
                    files.push(file);
                }
            }
            None => missing += 1,
        }
        number += 1;
    }
    files.sort_by_key(|file| file.base);
    Ok(files)
}

fn is_contiguous(files: &[LogFile]) -> io::Result<bool> {
    for (older, newer) in files.iter().zip(files.iter().skip(1)) {
        if older.end()? != newer.base {
            return Ok(false);
        }
    }
    Ok(true)
}

/// `FILE`, `FILE.1`, `FILE.2`...
fn rotated(path: &Path, number: u32) -> PathBuf {
    if number == 0 {
        return path.to_owned();
    }
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{number}"));
    PathBuf::from(name)
}
