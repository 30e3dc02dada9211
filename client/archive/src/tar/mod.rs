//! The tar format (pax(1), POSIX.1-2008): headers and their extensions, both ways.
//!
//! The crate's own reader is not used: it keeps extended headers of any size in memory, and
//! splits PAX records at newlines, which a binary attribute may hold.

mod content;
mod reader;
mod sparse;
mod writer;

pub use content::write_content;
pub use reader::Reader;
pub(crate) use sparse::SEGMENTS;
pub(crate) use writer::Writer;

use tar::EntryType;

use crate::FileError;

const BLOCK: usize = 512;

/// What an entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A regular file.
    File,
    /// Another name of an earlier entry.
    HardLink,
    /// A symbolic link.
    Symlink,
    /// A character device.
    Char,
    /// A block device.
    Block,
    /// A directory.
    Directory,
    /// A named pipe.
    Fifo,
}

impl Kind {
    pub(crate) fn entry_type(self) -> EntryType {
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

    /// For messages.
    pub fn name(self) -> &'static str {
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
pub struct Time {
    /// Seconds since the epoch.
    pub secs: i64,
    /// Less than a second.
    pub nanos: u32,
}

/// One entry without its content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Name in the archive; a directory's ends in a slash.
    pub path: Vec<u8>,
    /// What it is.
    pub kind: Kind,
    /// Permission bits with set-id and sticky bits.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Last modification.
    pub mtime: Time,
    /// Bytes of content with its holes; 0 for all but files.
    pub size: u64,
    /// Where there is data, in order, when not everywhere: what lies between are holes.
    pub sparse: Option<Vec<Segment>>,
    /// Target of a symbolic or hard link.
    pub link: Vec<u8>,
    /// Major and minor number of a device.
    pub device: (u32, u32),
    /// Names and values.
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

impl Entry {
    /// Bytes of content in the archive.
    pub fn stored(&self) -> u64 {
        match &self.sparse {
            Some(segments) => segments.iter().map(|segment| segment.len).sum(),
            None => self.size,
        }
    }
}

/// A part of a file that has data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Segment {
    /// Where it begins, in bytes.
    pub offset: u64,
    /// How long it is, in bytes.
    pub len: u64,
}

/// What an archive may have at most.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// Headers: entries and their extensions.
    pub entries: u64,
    /// Bytes of all files together, without holes.
    pub bytes: u64,
    /// Bytes of one name or link target.
    pub name_bytes: u64,
    /// Bytes of one extended header (PAX records, GNU long names).
    pub header_bytes: u64,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            entries: 10_000_000,
            bytes: u64::MAX,
            name_bytes: 4095,
            header_bytes: 1024 * 1024,
        }
    }
}

/// Bytes between a content's end and the next block.
fn padding(size: u64) -> usize {
    let over = usize::try_from(size % BLOCK as u64).unwrap_or(0);
    if over == 0 { 0 } else { BLOCK - over }
}

/// The error of an archive that says something wrong.
pub fn bad(detail: &str) -> FileError {
    FileError::BadArchive {
        detail: detail.to_owned(),
    }
}

fn lossy(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
