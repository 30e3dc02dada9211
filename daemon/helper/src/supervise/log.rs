//! The log's writer: what a program printed, as records in a file (format: [`littlebox_protocol`]).
//!
//! One call takes everything that one read of the program's output gave, and makes one `write` of
//! it however many lines it has. Nothing here ever waits: a disk that is full costs output, which
//! is counted, and never the program's time.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, SeekFrom};
use rustix::io::{Errno, retry_on_intr};

use crate::defence::stands;
use littlebox_protocol::{
    Decoded, Defence, FILE_HEADER_LEN, FILE_MAGIC, LOG_PAYLOAD_LIMIT, LOG_START, LogPlan,
    LogStream, RECORD_HEADER_LEN, decode_record, record_header, seal_header,
};

/// A batch of records is written when it has grown to this many bytes.
const BATCH_LIMIT: usize = 128 * 1024;

/// Why a log could not be opened.
#[derive(Debug)]
pub struct LogError {
    /// The system call that failed.
    pub syscall: &'static str,
    /// Its errno.
    pub errno: Errno,
    /// The file.
    pub path: PathBuf,
}

/// An open log.
#[derive(Debug)]
pub struct LogWriter {
    /// The file's directory: every name is resolved in it, so nobody can put another in its place.
    dir: OwnedFd,
    name: OsString,
    file: OwnedFd,
    /// Bytes of whole records in the file, its header not counted.
    len: u64,
    /// Position of the file's first record.
    base: u64,
    max_size: Option<u64>,
    max_files: u32,
    /// Bytes of records after which the file is full: `max_size`, or more after a failed rotation.
    full_at: u64,
    /// A write stopped inside a record, and the file could not be cut behind the last whole one.
    torn: bool,
    lost: u64,
}

impl LogWriter {
    /// Opens or makes the log, cuts a torn tail off, and continues behind the last whole record.
    /// The file's directory is made (0700) when only it is missing.
    ///
    /// # Errors
    /// The system call that failed. A file that is a link, a device, a directory is refused.
    pub fn open(plan: &LogPlan) -> Result<Self, LogError> {
        let fail = |syscall| {
            move |errno| LogError {
                syscall,
                errno,
                path: plan.path.clone(),
            }
        };
        let (Some(parent), Some(name)) = (plan.path.parent(), plan.path.file_name()) else {
            return Err(fail("openat")(Errno::INVAL));
        };
        let dir = open_dir(parent).map_err(fail("openat"))?;
        let mut file = open_log_file(&dir, name).map_err(fail("openat"))?;
        let mut tail = recover(&file).map_err(fail("read"))?;
        if tail.is_none() {
            // Not a log: its bytes are kept, out of the way.
            let aside = suffixed(name, "corrupt");
            rustix::fs::renameat(&dir, name, &dir, &aside).map_err(fail("renameat"))?;
            file = open_log_file(&dir, name).map_err(fail("openat"))?;
            tail = Some(Tail::Fresh);
        }
        let (base, len) = match tail {
            Some(Tail::Records { base, len }) => {
                let end = FILE_HEADER_LEN as u64 + len;
                rustix::fs::ftruncate(&file, end).map_err(fail("ftruncate"))?;
                (base, len)
            }
            Some(Tail::Fresh) | None => {
                let rotates = plan.max_size.is_some();
                let base = if rotates {
                    end_of_rotated(&dir, name)
                } else {
                    LOG_START
                };
                rustix::fs::ftruncate(&file, 0).map_err(fail("ftruncate"))?;
                write_header(&file, base).map_err(fail("write"))?;
                (base, 0)
            }
        };
        Ok(Self {
            dir,
            name: name.to_owned(),
            file,
            len,
            base,
            max_size: plan.max_size,
            max_files: plan.max_files.max(1),
            full_at: records_limit(plan.max_size),
            torn: false,
            lost: 0,
        })
    }

    /// The position behind the last record, counted over rotations.
    pub fn position(&self) -> u64 {
        self.base + self.len
    }

    /// Bytes of output (newlines included) that could not be written since the log was opened.
    pub fn lost_bytes(&self) -> u64 {
        self.lost
    }

    /// Appends what a program printed. `batch` is scratch space, left empty.
    pub fn append(&mut self, batch: &mut Vec<u8>, stream: LogStream, data: &[u8], time_ns: u64) {
        batch.clear();
        let mut rest = data;
        while !rest.is_empty() {
            let line;
            (line, rest) = next_piece(rest);
            let (payload, partial) = match line.strip_suffix(b"\n") {
                Some(payload) => (payload, false),
                None => (line, true),
            };
            let size = RECORD_HEADER_LEN + payload.len();
            if self.len + (batch.len() + size) as u64 > self.full_at {
                self.write_batch(batch);
                self.rotate_unless_empty();
            } else if batch.len() + size > BATCH_LIMIT {
                self.write_batch(batch);
            }
            push_record(batch, stream, payload, partial, time_ns);
        }
        self.write_batch(batch);
    }

    /// Writes the records of a batch; those that do not fit on the disk are lost and counted.
    fn write_batch(&mut self, batch: &mut Vec<u8>) {
        if self.torn {
            self.cut_torn_record();
        }
        let mut written = 0;
        while written < batch.len() && !self.torn {
            match retry_on_intr(|| rustix::io::write(&self.file, &batch[written..])) {
                Ok(0) | Err(_) => break,
                Ok(n) => written += n,
            }
        }
        if written == batch.len() {
            self.len += written as u64;
        } else {
            let whole = whole_records(batch, written);
            self.len += whole as u64;
            self.lost += output_bytes(&batch[whole..]);
            if written > whole {
                self.cut_torn_record();
            }
        }
        batch.clear();
    }

    /// Cuts the file behind its last whole record. Tried again before the next write when it fails.
    fn cut_torn_record(&mut self) {
        let end = FILE_HEADER_LEN as u64 + self.len;
        self.torn = rustix::fs::ftruncate(&self.file, end).is_err();
    }

    /// Begins a new file. Where that is not possible (a full disk) the old one grows on: a file too
    /// large is better than output lost.
    fn rotate_unless_empty(&mut self) {
        if self.len == 0 || self.torn {
            return;
        }
        match self.rotate() {
            Ok(file) => {
                self.file = file;
                self.base += self.len;
                self.len = 0;
                self.full_at = records_limit(self.max_size);
            }
            // Not at every line: tried again after a while.
            Err(_) => self.full_at = self.len + BATCH_LIMIT as u64,
        }
    }

    /// `FILE.1` becomes `FILE.2` and so on, `FILE` becomes `FILE.1`, a new file becomes `FILE`.
    /// There is a `FILE` at every moment: it is linked to its new name, then replaced.
    fn rotate(&self) -> Result<OwnedFd, Errno> {
        let fresh_name = suffixed(&self.name, "new");
        unlink_if_there(&self.dir, &fresh_name)?;
        let fresh = open_log_file(&self.dir, &fresh_name)?;
        write_header(&fresh, self.position())?;
        let numbered = |n: u32| suffixed(&self.name, &n.to_string());
        unlink_if_there(&self.dir, &numbered(self.max_files))?;
        for n in (1..self.max_files).rev() {
            match rustix::fs::renameat(&self.dir, numbered(n), &self.dir, numbered(n + 1)) {
                Ok(()) | Err(Errno::NOENT) => {}
                Err(errno) => return Err(errno),
            }
        }
        rustix::fs::linkat(
            &self.dir,
            &self.name,
            &self.dir,
            numbered(1),
            AtFlags::empty(),
        )?;
        rustix::fs::renameat(&self.dir, &fresh_name, &self.dir, &self.name)?;
        Ok(fresh)
    }
}

/// How many bytes of records a file of this size has room for.
fn records_limit(max_size: Option<u64>) -> u64 {
    max_size.map_or(u64::MAX, |max| max.saturating_sub(FILE_HEADER_LEN as u64))
}

/// The first line of `data` with its newline, or as much of it as one record takes.
fn next_piece(data: &[u8]) -> (&[u8], &[u8]) {
    // A newline directly behind a payload of the largest size still belongs to its record.
    let window = &data[..data.len().min(LOG_PAYLOAD_LIMIT + 1)];
    match memchr::memchr(b'\n', window) {
        Some(at) => data.split_at(at + 1),
        None => data.split_at(data.len().min(LOG_PAYLOAD_LIMIT)),
    }
}

/// Adds one record to a batch.
fn push_record(
    batch: &mut Vec<u8>,
    stream: LogStream,
    payload: &[u8],
    partial: bool,
    time_ns: u64,
) {
    let len = u32::try_from(payload.len()).expect("a payload is at most LOG_PAYLOAD_LIMIT bytes");
    let start = batch.len();
    batch.extend_from_slice(&record_header(time_ns, stream, partial, len));
    batch.extend_from_slice(payload);
    // One pass over bytes that lie side by side: for short lines that is what a record costs.
    let record = &mut batch[start..];
    let crc = crc32fast::hash(&record[8..]);
    if let Some(header) = record.first_chunk_mut() {
        seal_header(header, crc);
    }
}

/// The lengths of the records in a batch, header included, and the bytes of output that each holds.
fn records(batch: &[u8]) -> impl Iterator<Item = (usize, u64)> + '_ {
    let mut at = 0;
    std::iter::from_fn(move || {
        let header = batch.get(at..)?.first_chunk::<RECORD_HEADER_LEN>()?;
        let [l0, l1, l2, l3, ..] = *header;
        let payload = u32::from_le_bytes([l0, l1, l2, l3]);
        let newline = u64::from(header[17] == 0);
        let size = RECORD_HEADER_LEN + payload as usize;
        at += size;
        Some((size, u64::from(payload) + newline))
    })
}

/// How many of the first `written` bytes of a batch are whole records.
fn whole_records(batch: &[u8], written: usize) -> usize {
    let mut whole = 0;
    for (size, _) in records(batch) {
        if whole + size > written {
            break;
        }
        whole += size;
    }
    whole
}

/// The bytes of output in these records.
fn output_bytes(records_bytes: &[u8]) -> u64 {
    records(records_bytes).map(|(_, output)| output).sum()
}

/// What a log file has when it is opened.
enum Tail {
    /// Nothing, or a header that was not finished.
    Fresh,
    /// So many bytes of whole records behind its header.
    Records { base: u64, len: u64 },
}

/// Reads a log file up to its last whole record; `None` when it is not a log.
fn recover(file: &OwnedFd) -> Result<Option<Tail>, Errno> {
    if rustix::fs::fstat(file)?.st_size == 0 {
        return Ok(Some(Tail::Fresh));
    }
    rustix::fs::seek(file, SeekFrom::Start(0))?;
    let mut reader = File::from(rustix::io::fcntl_dupfd_cloexec(file, 3)?);
    let mut buf = Vec::new();
    read_up_to(&mut reader, &mut buf, FILE_HEADER_LEN)?;
    let Some(header) = buf.first_chunk::<FILE_HEADER_LEN>() else {
        return Ok(Some(Tail::Fresh));
    };
    let Some(base) = parse_header(header) else {
        return Ok(None);
    };
    buf.clear();
    let mut len = 0;
    loop {
        let read = read_up_to(&mut reader, &mut buf, BATCH_LIMIT)?;
        let mut used = 0;
        let corrupt = loop {
            match decode_record(&buf[used..], crc32fast::hash) {
                Decoded::Record(_, size) => used += size,
                Decoded::Incomplete => break false,
                Decoded::Corrupt => break true,
            }
        };
        len += used as u64;
        buf.drain(..used);
        if corrupt || read == 0 {
            return Ok(Some(Tail::Records { base, len }));
        }
    }
}

/// The base position in a file's header, `None` when it is not one.
fn parse_header(header: &[u8; FILE_HEADER_LEN]) -> Option<u64> {
    let (magic, base) = header.split_at(FILE_MAGIC.len());
    if magic != FILE_MAGIC {
        return None;
    }
    Some(u64::from_le_bytes(base.try_into().ok()?))
}

/// Reads so many bytes more, or what there is; returns how many.
fn read_up_to(reader: &mut File, buf: &mut Vec<u8>, count: usize) -> Result<usize, Errno> {
    reader
        .take(count as u64)
        .read_to_end(buf)
        .map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))
}

/// Writes a file's header.
fn write_header(file: &OwnedFd, base: u64) -> Result<(), Errno> {
    let mut header = [0; FILE_HEADER_LEN];
    header[..FILE_MAGIC.len()].copy_from_slice(&FILE_MAGIC);
    header[FILE_MAGIC.len()..].copy_from_slice(&base.to_le_bytes());
    match retry_on_intr(|| rustix::io::write(file, &header))? {
        FILE_HEADER_LEN => Ok(()),
        _ => Err(Errno::NOSPC),
    }
}

/// The position behind the newest rotated file: where a log without its current file goes on.
fn end_of_rotated(dir: &OwnedFd, name: &OsStr) -> u64 {
    let newest = suffixed(name, "1");
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let Ok(file) = rustix::fs::openat(dir, newest, flags, Mode::empty()) else {
        return LOG_START;
    };
    match recover(&file) {
        Ok(Some(Tail::Records { base, len })) => base + len,
        Ok(Some(Tail::Fresh) | None) | Err(_) => LOG_START,
    }
}

/// Opens the directory of a log, and makes it when only it is missing.
fn open_dir(path: &Path) -> Result<OwnedFd, Errno> {
    let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::RDONLY | OFlags::CLOEXEC;
    match rustix::fs::open(path, flags, Mode::empty()) {
        Err(Errno::NOENT) => {
            rustix::fs::mkdir(path, Mode::RWXU)?;
            rustix::fs::open(path, flags, Mode::empty())
        }
        other => other,
    }
}

/// Opens a log file for appending, and makes it when it is missing.
fn open_log_file(dir: &OwnedFd, name: &OsStr) -> Result<OwnedFd, Errno> {
    // NONBLOCK: a FIFO in the file's place must not stop us here.
    let mut flags =
        OFlags::RDWR | OFlags::APPEND | OFlags::CREATE | OFlags::NONBLOCK | OFlags::CLOEXEC;
    if stands(Defence::LogNoFollow) {
        flags |= OFlags::NOFOLLOW;
    }
    let file = rustix::fs::openat(dir.as_fd(), name, flags, Mode::RUSR | Mode::WUSR)?;
    let stat = rustix::fs::fstat(&file)?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Err(Errno::INVAL);
    }
    Ok(file)
}

/// `NAME.SUFFIX`.
fn suffixed(name: &OsStr, suffix: &str) -> OsString {
    let mut suffixed = name.to_owned();
    suffixed.push(".");
    suffixed.push(suffix);
    suffixed
}

/// Unlinks a file; that it is not there is fine.
fn unlink_if_there(dir: &OwnedFd, name: &OsStr) -> Result<(), Errno> {
    match rustix::fs::unlinkat(dir, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(errno) => Err(errno),
    }
}
