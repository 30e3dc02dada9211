//! The tar format (pax(1), POSIX.1-2008): headers and their extensions, both ways.
//!
//! The crate's own reader is not used: it keeps extended headers of any size in memory, and
//! splits PAX records at newlines, which a binary attribute may hold.

use std::io::{self, Read, Write};

use tar::{EntryType, Header};

use super::{Bounds, FileError};

const BLOCK: usize = 512;

/// What an entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    File,
    HardLink,
    Symlink,
    Char,
    Block,
    Directory,
    Fifo,
}

impl Kind {
    fn entry_type(self) -> EntryType {
        match self {
            Kind::File => EntryType::Regular,
            Kind::HardLink => EntryType::Link,
            Kind::Symlink => EntryType::Symlink,
            Kind::Char => EntryType::Char,
            Kind::Block => EntryType::Block,
            Kind::Directory => EntryType::Directory,
            Kind::Fifo => EntryType::Fifo,
        }
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Kind::File => "file",
            Kind::HardLink => "hard link",
            Kind::Symlink => "symbolic link",
            Kind::Char | Kind::Block => "device",
            Kind::Directory => "directory",
            Kind::Fifo => "fifo",
        }
    }
}

/// A time as the kernel has it: `nanos` counts forwards from `secs`, also before the epoch.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Time {
    pub(super) secs: i64,
    pub(super) nanos: u32,
}

/// One entry without its content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) path: Vec<u8>,
    pub(super) kind: Kind,
    /// Permission bits with set-id and sticky bits.
    pub(super) mode: u32,
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) mtime: Time,
    /// Bytes of content; 0 for all but files.
    pub(super) size: u64,
    /// Target of a symbolic or hard link.
    pub(super) link: Vec<u8>,
    /// Major and minor number of a device.
    pub(super) device: (u32, u32),
    /// Names and values.
    pub(super) xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

/// Writes an archive.
pub(super) struct Writer<W> {
    out: W,
}

impl<W: Write> Writer<W> {
    pub(super) fn new(out: W) -> Self {
        Self { out }
    }

    /// Writes an entry's headers. A file's content of exactly `size` bytes follows by
    /// [`Writer::content`].
    pub(super) fn entry(&mut self, entry: &Entry) -> io::Result<()> {
        let records = pax_records(entry);
        if !records.is_empty() {
            let mut header = Header::new_ustar();
            set_name(&mut header, b"PaxHeader", b"");
            header.set_entry_type(EntryType::XHeader);
            header.set_mode(0o644);
            header.set_uid(0);
            header.set_gid(0);
            header.set_mtime(0);
            header.set_size(records.len() as u64);
            header.set_cksum();
            self.out.write_all(header.as_bytes())?;
            self.out.write_all(&records)?;
            self.pad(records.len() as u64)?;
        }
        self.out.write_all(ustar_header(entry)?.as_bytes())
    }

    /// Writes a part of a file's content.
    pub(super) fn content(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.out.write_all(bytes)
    }

    /// Fills the last block of a content of `size` bytes.
    pub(super) fn pad(&mut self, size: u64) -> io::Result<()> {
        let rest = padding(size);
        self.out.write_all(&[0u8; BLOCK][..rest])
    }

    /// Writes the end of the archive.
    pub(super) fn finish(mut self) -> io::Result<()> {
        self.out.write_all(&[0u8; 2 * BLOCK])?;
        self.out.flush()
    }
}

/// Bytes between a content's end and the next block.
fn padding(size: u64) -> usize {
    let over = usize::try_from(size % BLOCK as u64).unwrap_or(0);
    if over == 0 { 0 } else { BLOCK - over }
}

fn ustar_header(entry: &Entry) -> io::Result<Header> {
    let mut header = Header::new_ustar();
    header.set_entry_type(entry.kind.entry_type());
    set_name(&mut header, &entry.path, &entry.link);
    header.set_mode(entry.mode);
    header.set_uid(entry.uid.into());
    header.set_gid(entry.gid.into());
    header.set_mtime(u64::try_from(entry.mtime.secs).unwrap_or(0));
    header.set_size(entry.size);
    if matches!(entry.kind, Kind::Char | Kind::Block) {
        header.set_device_major(entry.device.0)?;
        header.set_device_minor(entry.device.1)?;
    }
    header.set_cksum();
    Ok(header)
}

/// Puts as much of the names into the header as it holds; the PAX records have them whole.
fn set_name(header: &mut Header, path: &[u8], link: &[u8]) {
    if let Some(ustar) = header.as_ustar_mut() {
        copy_into(&mut ustar.name, path);
        copy_into(&mut ustar.linkname, link);
    }
}

fn copy_into(field: &mut [u8], bytes: &[u8]) {
    for (to, from) in field.iter_mut().zip(bytes) {
        *to = *from;
    }
}

/// What the ustar header cannot say: long names, fractions of seconds, large numbers, attributes.
fn pax_records(entry: &Entry) -> Vec<u8> {
    const NAME: usize = 100;
    const OCTAL_SIZE: u64 = 0o77_777_777_777;
    const OCTAL_ID: u32 = 0o7_777_777;
    let mut records = Vec::new();
    if entry.path.len() > NAME {
        pax_record(&mut records, b"path", &entry.path);
    }
    if entry.link.len() > NAME {
        pax_record(&mut records, b"linkpath", &entry.link);
    }
    if entry.size > OCTAL_SIZE {
        pax_record(&mut records, b"size", entry.size.to_string().as_bytes());
    }
    for (key, id) in [(&b"uid"[..], entry.uid), (b"gid", entry.gid)] {
        if id > OCTAL_ID {
            pax_record(&mut records, key, id.to_string().as_bytes());
        }
    }
    if entry.mtime.nanos != 0 || entry.mtime.secs < 0 {
        pax_record(&mut records, b"mtime", decimal(entry.mtime).as_bytes());
    }
    for (name, value) in &entry.xattrs {
        let key = [&b"SCHILY.xattr."[..], name].concat();
        pax_record(&mut records, &key, value);
    }
    records
}

/// `LENGTH KEY=VALUE\n`, where the length counts its own digits.
fn pax_record(records: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    let rest = key.len() + value.len() + 3;
    let mut len = rest + 1;
    while rest + digits(len) != len {
        len = rest + digits(len);
    }
    records.extend_from_slice(len.to_string().as_bytes());
    records.push(b' ');
    records.extend_from_slice(key);
    records.push(b'=');
    records.extend_from_slice(value);
    records.push(b'\n');
}

fn digits(number: usize) -> usize {
    number.to_string().len()
}

/// Seconds since the epoch as a decimal fraction.
fn decimal(time: Time) -> String {
    let total = i128::from(time.secs) * 1_000_000_000 + i128::from(time.nanos);
    let (sign, total) = if total < 0 {
        ("-", -total)
    } else {
        ("", total)
    };
    format!(
        "{sign}{}.{:09}",
        total / 1_000_000_000,
        total % 1_000_000_000
    )
}

fn parse_decimal(text: &[u8]) -> Option<Time> {
    let text = std::str::from_utf8(text).ok()?;
    let (negative, digits) = match text.strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, text),
    };
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    if !fraction.bytes().all(|digit| digit.is_ascii_digit()) {
        return None;
    }
    let nanos: String = fraction
        .chars()
        .chain("000000000".chars())
        .take(9)
        .collect();
    let total =
        i128::from(whole.parse::<u64>().ok()?) * 1_000_000_000 + nanos.parse::<i128>().ok()?;
    let total = if negative { -total } else { total };
    Some(Time {
        secs: i64::try_from(total.div_euclid(1_000_000_000)).ok()?,
        nanos: u32::try_from(total.rem_euclid(1_000_000_000)).ok()?,
    })
}

/// Reads an archive that may say anything; memory stays within the bounds.
pub(super) struct Reader<'b, R> {
    input: R,
    bounds: &'b Bounds,
    headers: u64,
    /// Bytes of the present entry's content that were not read yet.
    content: u64,
    padding: usize,
}

/// What extended headers say of the next entry.
#[derive(Default)]
struct Extension {
    path: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    size: Option<u64>,
    uid: Option<u64>,
    gid: Option<u64>,
    mtime: Option<Time>,
    xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

impl<'b, R: Read> Reader<'b, R> {
    pub(super) fn new(input: R, bounds: &'b Bounds) -> Self {
        Self {
            input,
            bounds,
            headers: 0,
            content: 0,
            padding: 0,
        }
    }

    /// The next entry; the rest of the last one's content is passed over.
    pub(super) fn next(&mut self) -> Result<Option<Entry>, FileError> {
        self.skip_content()?;
        let mut extension = Extension::default();
        while let Some(header) = self.header()? {
            let size = header
                .entry_size()
                .map_err(|_| bad("a size that is no number"))?;
            match header.entry_type() {
                EntryType::XHeader => {
                    let records = self.extended(size)?;
                    parse_pax(&records, &mut extension)?;
                }
                EntryType::GNULongName => extension.path = Some(self.gnu_name(size)?),
                EntryType::GNULongLink => extension.link = Some(self.gnu_name(size)?),
                // Comments and defaults of whoever made the archive.
                EntryType::XGlobalHeader => {
                    self.extended(size)?;
                }
                _ => return self.entry(&header, extension).map(Some),
            }
        }
        self.drain()?;
        Ok(None)
    }

    /// The next part of the entry's content; 0 at its end.
    pub(super) fn read_content(&mut self, buffer: &mut [u8]) -> Result<usize, FileError> {
        let len = usize::try_from(self.content)
            .unwrap_or(usize::MAX)
            .min(buffer.len());
        if len == 0 {
            return Ok(0);
        }
        let read = self.read_some(&mut buffer[..len])?;
        if read == 0 {
            return Err(bad("it ends in the middle of a file"));
        }
        self.content -= read as u64;
        Ok(read)
    }

    fn entry(&mut self, header: &Header, extension: Extension) -> Result<Entry, FileError> {
        let path = extension
            .path
            .unwrap_or_else(|| header.path_bytes().into_owned());
        let kind = kind_of(header, &path)?;
        let size = match kind {
            Kind::File => match extension.size {
                Some(size) => size,
                None => header
                    .entry_size()
                    .map_err(|_| bad("a size that is no number"))?,
            },
            _ => 0,
        };
        self.content = size;
        self.padding = padding(size);
        let number = |value: io::Result<u64>, what: &str| {
            value.map_err(|_| bad(&format!("{}: a {what} that is no number", lossy(&path))))
        };
        let id = |value: u64, what: &str| {
            u32::try_from(value)
                .map_err(|_| bad(&format!("{}: a {what} above 4294967295", lossy(&path))))
        };
        let link = match extension.link {
            Some(link) => link,
            None => header.link_name_bytes().unwrap_or_default().into_owned(),
        };
        self.check_name(&path)?;
        self.check_name(&link)?;
        Ok(Entry {
            kind,
            mode: header.mode().map_err(|_| bad("a mode that is no number"))? & 0o7777,
            uid: id(
                extension
                    .uid
                    .map_or_else(|| number(header.uid(), "uid"), Ok)?,
                "uid",
            )?,
            gid: id(
                extension
                    .gid
                    .map_or_else(|| number(header.gid(), "gid"), Ok)?,
                "gid",
            )?,
            mtime: match extension.mtime {
                Some(time) => time,
                None => Time {
                    secs: i64::try_from(number(header.mtime(), "time")?).unwrap_or(i64::MAX),
                    nanos: 0,
                },
            },
            size,
            link,
            device: (0, 0),
            xattrs: extension.xattrs,
            path,
        })
    }

    fn check_name(&self, name: &[u8]) -> Result<(), FileError> {
        if name.len() as u64 > self.bounds.name_bytes {
            return Err(FileError::Limit {
                path: lossy(&name[..64.min(name.len())]),
                what: "bytes in a name",
                limit: self.bounds.name_bytes,
            });
        }
        Ok(())
    }

    /// The next header block; `None` at the archive's end.
    fn header(&mut self) -> Result<Option<Header>, FileError> {
        let mut header = Header::new_old();
        let block = header.as_mut_bytes();
        match self.read_full(block)? {
            0 => return Ok(None),
            BLOCK => {}
            _ => return Err(bad("it ends in the middle of a header")),
        }
        if block.iter().all(|byte| *byte == 0) {
            return Ok(None);
        }
        self.headers += 1;
        if self.headers > self.bounds.entries {
            return Err(FileError::Limit {
                path: String::from("archive"),
                what: "entries",
                limit: self.bounds.entries,
            });
        }
        let sum: u32 = block[..148]
            .iter()
            .chain(&block[156..])
            .map(|byte| u32::from(*byte))
            .sum();
        let sum = sum + 8 * u32::from(b' ');
        if header.cksum().ok() != Some(sum) {
            return Err(bad(
                "a header's check sum is wrong, or this is no tar archive",
            ));
        }
        Ok(Some(header))
    }

    /// The content of an extended header.
    fn extended(&mut self, size: u64) -> Result<Vec<u8>, FileError> {
        let limit = self.bounds.header_bytes;
        let len = usize::try_from(size)
            .ok()
            .filter(|_| size <= limit)
            .ok_or_else(|| FileError::Limit {
                path: String::from("archive"),
                what: "bytes in an extended header",
                limit,
            })?;
        let mut bytes = vec![0u8; len + padding(size)];
        if self.read_full(&mut bytes)? != bytes.len() {
            return Err(bad("it ends in the middle of an extended header"));
        }
        bytes.truncate(len);
        Ok(bytes)
    }

    fn gnu_name(&mut self, size: u64) -> Result<Vec<u8>, FileError> {
        let mut name = self.extended(size)?;
        while name.last() == Some(&0) {
            name.pop();
        }
        Ok(name)
    }

    fn skip_content(&mut self) -> Result<(), FileError> {
        let mut buffer = [0u8; 16 * BLOCK];
        while self.read_content(&mut buffer)? > 0 {}
        let padding = std::mem::take(&mut self.padding);
        // Some writers leave the last padding out.
        self.read_full(&mut buffer[..padding])?;
        Ok(())
    }

    /// Reads what follows the end mark (writers fill up a record of 10 KiB), so that a client
    /// whose archive is whole never sees its connection break.
    fn drain(&mut self) -> Result<(), FileError> {
        const MOST: usize = 1024 * 1024;
        let mut buffer = [0u8; 16 * BLOCK];
        let mut left = MOST;
        while left > 0 {
            match self.read_some(&mut buffer)? {
                0 => break,
                read => left = left.saturating_sub(read),
            }
        }
        Ok(())
    }

    fn read_full(&mut self, buffer: &mut [u8]) -> Result<usize, FileError> {
        let mut filled = 0;
        while filled < buffer.len() {
            match self.read_some(&mut buffer[filled..])? {
                0 => break,
                read => filled += read,
            }
        }
        Ok(filled)
    }

    fn read_some(&mut self, buffer: &mut [u8]) -> Result<usize, FileError> {
        loop {
            match self.input.read(buffer) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                result => return result.map_err(FileError::Stream),
            }
        }
    }
}

fn kind_of(header: &Header, path: &[u8]) -> Result<Kind, FileError> {
    Ok(match header.entry_type() {
        // Before POSIX, a directory was a file whose name ends in a slash.
        EntryType::Regular if path.ends_with(b"/") => Kind::Directory,
        EntryType::Regular | EntryType::Continuous => Kind::File,
        EntryType::Link => Kind::HardLink,
        EntryType::Symlink => Kind::Symlink,
        EntryType::Char => Kind::Char,
        EntryType::Block => Kind::Block,
        EntryType::Directory => Kind::Directory,
        EntryType::Fifo => Kind::Fifo,
        EntryType::GNUSparse => return Err(sparse(path)),
        other => {
            let flag = char::from(other.as_byte()).escape_default().to_string();
            return Err(bad(&format!(
                "{}: unknown entry type '{flag}'",
                lossy(path)
            )));
        }
    })
}

/// Reads PAX records: `LENGTH KEY=VALUE\n`. A value may hold any byte.
fn parse_pax(mut records: &[u8], extension: &mut Extension) -> Result<(), FileError> {
    while !records.is_empty() {
        let (key, value, rest) =
            split_pax(records).ok_or_else(|| bad("a malformed extended header"))?;
        records = rest;
        apply_pax(key, value, extension)?;
    }
    Ok(())
}

fn split_pax(records: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let space = records.iter().take(20).position(|byte| *byte == b' ')?;
    let len: usize = std::str::from_utf8(&records[..space]).ok()?.parse().ok()?;
    let record = records.get(space + 1..len)?.strip_suffix(b"\n")?;
    let equals = record.iter().position(|byte| *byte == b'=')?;
    Some((&record[..equals], &record[equals + 1..], &records[len..]))
}

fn apply_pax(key: &[u8], value: &[u8], extension: &mut Extension) -> Result<(), FileError> {
    let number = || {
        let text = std::str::from_utf8(value).ok();
        let parsed = text.and_then(|text| text.parse::<u64>().ok());
        parsed.ok_or_else(|| bad(&format!("{}: not a number", lossy(key))))
    };
    match key {
        b"path" => extension.path = Some(value.to_vec()),
        b"linkpath" => extension.link = Some(value.to_vec()),
        b"size" => extension.size = Some(number()?),
        b"uid" => extension.uid = Some(number()?),
        b"gid" => extension.gid = Some(number()?),
        b"mtime" => {
            let time = parse_decimal(value).ok_or_else(|| bad("mtime: not a number"))?;
            extension.mtime = Some(time);
        }
        _ if key.starts_with(b"GNU.sparse.") => {
            return Err(sparse(extension.path.as_deref().unwrap_or_default()));
        }
        _ => {
            if let Some(name) = key.strip_prefix(b"SCHILY.xattr.") {
                extension.xattrs.push((name.to_vec(), value.to_vec()));
            }
        }
    }
    Ok(())
}

fn sparse(path: &[u8]) -> FileError {
    bad(&format!(
        "{}: sparse files are not supported; make it without --sparse",
        lossy(path)
    ))
}

pub(super) fn bad(detail: &str) -> FileError {
    FileError::BadArchive {
        detail: detail.to_owned(),
    }
}

fn lossy(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
