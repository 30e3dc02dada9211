//! Archives out.

use std::io::{self, Write};

use tar::{EntryType, Header};

use super::{BLOCK, Entry, Kind, Segment, Time, padding, sparse};

/// How a comment begins that says what was left out.
pub(super) const LEFT_OUT: &[u8] = b"littlebox: left out: ";

/// Writes an archive.
pub(crate) struct Writer<W> {
    out: W,
}

impl<W: Write> Writer<W> {
    pub(crate) fn new(out: W) -> Self {
        Self { out }
    }

    /// Writes an entry's headers. A file's content of exactly `size` bytes follows by
    /// [`Writer::content`].
    pub(crate) fn entry(&mut self, entry: &Entry) -> io::Result<()> {
        let records = pax_records(entry);
        if !records.is_empty() {
            self.records(EntryType::XHeader, &records)?;
        }
        match &entry.sparse {
            Some(segments) => self.sparse_header(entry, segments),
            None => self.out.write_all(ustar_header(entry)?.as_bytes()),
        }
    }

    /// Says that something was left out, as a comment (pax(1)): other readers pass over it.
    pub(crate) fn left_out(&mut self, what: &str) -> io::Result<()> {
        let mut records = Vec::new();
        let text = [LEFT_OUT, what.as_bytes()].concat();
        pax_record(&mut records, b"comment", &text);
        self.records(EntryType::XGlobalHeader, &records)
    }

    fn records(&mut self, kind: EntryType, records: &[u8]) -> io::Result<()> {
        let mut header = Header::new_ustar();
        set_name(&mut header, b"PaxHeader", b"");
        header.set_entry_type(kind);
        header.set_mode(0o644);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        header.set_size(records.len() as u64);
        header.set_cksum();
        self.out.write_all(header.as_bytes())?;
        self.out.write_all(records)?;
        self.pad(records.len() as u64)
    }

    fn sparse_header(&mut self, entry: &Entry, segments: &[Segment]) -> io::Result<()> {
        let mut header = Header::new_gnu();
        fill(&mut header, entry)?;
        header.set_entry_type(EntryType::GNUSparse);
        copy_into(&mut header.as_old_mut().name, &entry.path);
        let blocks = sparse::write_map(&mut header, entry, segments);
        header.set_cksum();
        self.out.write_all(header.as_bytes())?;
        self.out.write_all(&blocks)
    }

    /// Writes a part of a file's content.
    pub(crate) fn content(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.out.write_all(bytes)
    }

    /// Fills the last block of a content of `size` bytes.
    pub(crate) fn pad(&mut self, size: u64) -> io::Result<()> {
        let rest = padding(size);
        self.out.write_all(&[0u8; BLOCK][..rest])
    }

    /// Writes the end of the archive.
    pub(crate) fn finish(mut self) -> io::Result<()> {
        self.out.write_all(&[0u8; 2 * BLOCK])?;
        self.out.flush()
    }
}

fn ustar_header(entry: &Entry) -> io::Result<Header> {
    let mut header = Header::new_ustar();
    set_name(&mut header, &entry.path, &entry.link);
    fill(&mut header, entry)?;
    header.set_cksum();
    Ok(header)
}

fn fill(header: &mut Header, entry: &Entry) -> io::Result<()> {
    header.set_entry_type(entry.kind.entry_type());
    header.set_mode(entry.mode);
    header.set_uid(entry.uid.into());
    header.set_gid(entry.gid.into());
    header.set_mtime(u64::try_from(entry.mtime.secs).unwrap_or(0));
    header.set_size(entry.stored());
    if matches!(entry.kind, Kind::Char | Kind::Block) {
        header.set_device_major(entry.device.0)?;
        header.set_device_minor(entry.device.1)?;
    }
    Ok(())
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
    // A sparse file's header has it in base 256.
    if entry.size > OCTAL_SIZE && entry.sparse.is_none() {
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
