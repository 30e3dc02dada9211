//! Archives in: they may say anything.

use std::io::{self, Read};

use tar::{EntryType, Header};

use super::{BLOCK, Bounds, Entry, Kind, Segment, Time, bad, lossy, padding, sparse, writer};
use crate::FileError;

/// Reads an archive that may say anything; memory stays within the bounds.
pub struct Reader<'b, R> {
    input: R,
    bounds: &'b Bounds,
    headers: u64,
    /// Bytes of the present entry's content that were not read yet.
    content: u64,
    padding: usize,
    /// Bytes that the present entry's extended headers may still have, all together.
    extended_left: u64,
    /// Entries that the archive itself lists as left out.
    left_out: Vec<String>,
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
    /// GNU.sparse.major, minor and realsize.
    sparse: (Option<u64>, Option<u64>, Option<u64>),
    comment: Option<Vec<u8>>,
}

impl<'b, R: Read> Reader<'b, R> {
    /// Reads from `input`.
    pub fn new(input: R, bounds: &'b Bounds) -> Self {
        Self {
            input,
            bounds,
            headers: 0,
            content: 0,
            padding: 0,
            extended_left: 0,
            left_out: Vec::new(),
        }
    }

    /// The next entry; the rest of the last one's content is passed over.
    ///
    /// # Errors
    /// [`FileError::BadArchive`], [`FileError::Limit`], [`FileError::Stream`].
    pub fn next_entry(&mut self) -> Result<Option<Entry>, FileError> {
        self.skip_content()?;
        let mut extension = Extension::default();
        self.extended_left = self.bounds.header_bytes;
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
                    let records = self.extended(size)?;
                    self.note(&records);
                }
                _ => return self.entry(&header, extension).map(Some),
            }
        }
        self.drain()?;
        Ok(None)
    }

    /// What the archive says was left out of it, so far.
    pub fn left_out(&mut self) -> Vec<String> {
        std::mem::take(&mut self.left_out)
    }

    /// Keeps our own comments, as many as one list shows and no longer than one with a whole path:
    /// anybody may write such comments.
    fn note(&mut self, records: &[u8]) {
        const MOST: usize = 1000;
        const LENGTH: usize = 8 * 1024;
        let mut global = Extension::default();
        if self.left_out.len() < MOST && parse_pax(records, &mut global).is_ok() {
            let comment = global.comment.unwrap_or_default();
            let ours = comment.strip_prefix(writer::LEFT_OUT);
            self.left_out
                .extend(ours.map(|text| lossy(&text[..text.len().min(LENGTH)])));
        }
    }

    /// The next part of the entry's content; 0 at its end.
    ///
    /// # Errors
    /// As [`Reader::next_entry`].
    pub fn read_content(&mut self, buffer: &mut [u8]) -> Result<usize, FileError> {
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
        let stored = match kind {
            Kind::File => match extension.size {
                Some(size) => size,
                None => header
                    .entry_size()
                    .map_err(|_| bad("a size that is no number"))?,
            },
            _ => 0,
        };
        self.content = stored;
        self.padding = padding(stored);
        let (size, sparse) = self.holes(header, &path, stored, extension.sparse)?;
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
                    // Of GNU tar in base 256, which is signed.
                    secs: number(header.mtime(), "time")?.cast_signed(),
                    nanos: 0,
                },
            },
            size,
            sparse,
            link,
            device: (0, 0),
            xattrs: extension.xattrs,
            path,
        })
    }

    /// The size of a file with its holes, and where the data is.
    fn holes(
        &mut self,
        header: &Header,
        path: &[u8],
        stored: u64,
        format: (Option<u64>, Option<u64>, Option<u64>),
    ) -> Result<(u64, Option<Vec<Segment>>), FileError> {
        if header.entry_type() == EntryType::GNUSparse {
            let (size, map) = sparse::read_map(header, path, |block| self.map_block(block))?;
            return Ok((size, Some(sparse::checked(path, size, stored, map)?)));
        }
        match format {
            (None, None, None) => Ok((stored, None)),
            (Some(1), Some(0), Some(size)) => {
                let (taken, map) = sparse::read_lines(path, |block| {
                    let read = self.content.min(block.len() as u64);
                    self.content -= read;
                    match read == block.len() as u64 {
                        true => self.map_block(block),
                        false => Err(bad("a map of a sparse file that ends too early")),
                    }
                })?;
                let map = sparse::checked(path, size, stored - taken, map)?;
                Ok((size, Some(map)))
            }
            _ => Err(bad(&format!(
                "{}: unknown format of a sparse file; use --sparse-version=1.0",
                lossy(path)
            ))),
        }
    }

    fn map_block(&mut self, block: &mut [u8]) -> Result<(), FileError> {
        match self.read_full(block)? == block.len() {
            true => Ok(()),
            false => Err(bad("it ends in the middle of a map of a sparse file")),
        }
    }

    fn check_name(&self, name: &[u8]) -> Result<(), FileError> {
        if name.len() as u64 > self.bounds.name_bytes {
            return Err(FileError::Limit {
                path: lossy(&name[..64.min(name.len())]),
                what: "bytes in a name".into(),
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
                what: "entries".into(),
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
            return Err(match compression(header.as_bytes()) {
                Some(name) if self.headers == 1 => bad(&format!(
                    "it is compressed with {name}; send it decompressed: {name} -dc FILE | ..."
                )),
                _ => bad("a header's check sum is wrong, or this is no tar archive"),
            });
        }
        Ok(Some(header))
    }

    /// The content of an extended header. An entry may have several, and what they say is kept
    /// until it comes: so the bound is for all of them.
    fn extended(&mut self, size: u64) -> Result<Vec<u8>, FileError> {
        let too_long = || FileError::Limit {
            path: String::from("archive"),
            what: "bytes in an entry's extended headers".into(),
            limit: self.bounds.header_bytes,
        };
        let left = self.extended_left.checked_sub(size).ok_or_else(too_long)?;
        let len = usize::try_from(size).map_err(|_| too_long())?;
        self.extended_left = left;
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
        EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => Kind::File,
        EntryType::Link => Kind::HardLink,
        EntryType::Symlink => Kind::Symlink,
        EntryType::Char => Kind::Char,
        EntryType::Block => Kind::Block,
        EntryType::Directory => Kind::Directory,
        EntryType::Fifo => Kind::Fifo,
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
        b"comment" => extension.comment = Some(value.to_vec()),
        b"GNU.sparse.name" => extension.path = Some(value.to_vec()),
        b"GNU.sparse.major" => extension.sparse.0 = Some(number()?),
        b"GNU.sparse.minor" => extension.sparse.1 = Some(number()?),
        b"GNU.sparse.realsize" => extension.sparse.2 = Some(number()?),
        // Formats 0.0 and 0.1: anything that makes the entry one of an unknown format.
        _ if key.starts_with(b"GNU.sparse.") => extension.sparse.0 = Some(0),
        _ => {
            if let Some(name) = key.strip_prefix(b"SCHILY.xattr.") {
                extension.xattrs.push((name.to_vec(), value.to_vec()));
            }
        }
    }
    Ok(())
}

/// What a file is compressed with, by its first bytes.
fn compression(block: &[u8]) -> Option<&'static str> {
    let known: [(&[u8], &str); 5] = [
        (b"\x1f\x8b", "gzip"),
        (b"\xfd7zXZ\0", "xz"),
        (b"\x28\xb5\x2f\xfd", "zstd"),
        (b"BZh", "bzip2"),
        (b"\x04\x22\x4d\x18", "lz4"),
    ];
    let found = known.iter().find(|(magic, _)| block.starts_with(magic));
    found.map(|(_, name)| *name)
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
