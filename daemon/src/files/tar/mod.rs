//! The tar format (pax(1), POSIX.1-2008): headers and their extensions, both ways.
//!
//! The crate's own reader is not used: it keeps extended headers of any size in memory, and
//! splits PAX records at newlines, which a binary attribute may hold.

mod reader;
mod writer;

pub(super) use reader::Reader;
pub(super) use writer::Writer;

use tar::EntryType;

use super::FileError;

const BLOCK: usize = 512;

/// What an entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::files) enum Kind {
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

    pub(in crate::files) fn name(self) -> &'static str {
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
pub(in crate::files) struct Time {
    pub(in crate::files) secs: i64,
    pub(in crate::files) nanos: u32,
}

/// One entry without its content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::files) struct Entry {
    pub(in crate::files) path: Vec<u8>,
    pub(in crate::files) kind: Kind,
    /// Permission bits with set-id and sticky bits.
    pub(in crate::files) mode: u32,
    pub(in crate::files) uid: u32,
    pub(in crate::files) gid: u32,
    pub(in crate::files) mtime: Time,
    /// Bytes of content; 0 for all but files.
    pub(in crate::files) size: u64,
    /// Target of a symbolic or hard link.
    pub(in crate::files) link: Vec<u8>,
    /// Major and minor number of a device.
    pub(in crate::files) device: (u32, u32),
    /// Names and values.
    pub(in crate::files) xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}
/// Bytes between a content's end and the next block.
fn padding(size: u64) -> usize {
    let over = usize::try_from(size % BLOCK as u64).unwrap_or(0);
    if over == 0 { 0 } else { BLOCK - over }
}
pub(in crate::files) fn bad(detail: &str) -> FileError {
    FileError::BadArchive {
        detail: detail.to_owned(),
    }
}

fn lossy(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
