//! Into an archive: files of ours.

use std::ffi::OsString;
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStringExt;

use littlebox_archive::{Owners, Scope};

use super::flat;

/// What to pack.
#[derive(Debug)]
pub struct Packing {
    /// The file or directory, by an `O_PATH` descriptor.
    pub source: OwnedFd,
    /// Its name in the archive.
    pub name: OsString,
    /// Our owners; else everything is root's.
    pub keep_owners: bool,
}

/// Writes a file or directory as a tar archive; returns what was left out.
///
/// What lies below it may be a container's, which changes it meanwhile: see `littlebox-archive`.
pub fn pack(packing: Packing, out: &mut impl Write) -> io::Result<Vec<String>> {
    let owners = match packing.keep_owners {
        true => Whose::Ours,
        false => Whose::Roots,
    };
    let name = packing.name.into_vec();
    littlebox_archive::Packing::new(packing.source, name, owners, Scope::Mounts)
        .and_then(|packing| packing.write(out))
        .map_err(flat)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Whose {
    Ours,
    Roots,
}

impl Owners for Whose {
    fn user(&self, id: u32) -> u32 {
        match self {
            Whose::Ours => id,
            Whose::Roots => 0,
        }
    }

    fn group(&self, id: u32) -> u32 {
        self.user(id)
    }

    fn capability_root(&self, id: u32) -> Option<u32> {
        Some(id)
    }

    fn attributes(&self) -> bool {
        *self == Whose::Ours
    }

    /// The daemon unpacks none.
    fn devices(&self) -> bool {
        false
    }
}
