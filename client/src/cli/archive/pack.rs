//! Into an archive: files of ours.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use tar::{Builder, Header};

/// What to pack.
#[derive(Debug)]
pub struct Packing {
    /// The file or directory; not followed when it is a link.
    pub source: PathBuf,
    /// Its name in the archive.
    pub name: OsString,
    /// Our owners; else everything is root's.
    pub keep_owners: bool,
}

/// Writes a file or directory as a tar archive.
pub fn pack(packing: &Packing, out: &mut impl Write) -> io::Result<()> {
    let mut builder = Builder::new(out);
    append(
        &mut builder,
        packing,
        &packing.source,
        Path::new(&packing.name),
    )?;
    builder.finish()
}

fn append(
    builder: &mut Builder<impl Write>,
    packing: &Packing,
    path: &Path,
    name: &Path,
) -> io::Result<()> {
    let named = |e: io::Error| io::Error::new(e.kind(), format!("{}: {e}", path.display()));
    let metadata = path.symlink_metadata().map_err(named)?;
    let mut header = Header::new_gnu();
    header.set_metadata(&metadata);
    if !packing.keep_owners {
        header.set_uid(0);
        header.set_gid(0);
    }
    let kind = metadata.file_type();
    if kind.is_symlink() {
        header.set_size(0);
        let target = path.read_link().map_err(named)?;
        return builder.append_link(&mut header, name, target);
    }
    if kind.is_file() {
        let file = File::open(path).map_err(named)?;
        // A file that grows meanwhile must not run into the next header; one that shrinks cannot
        // be told any more.
        return builder.append_data(&mut header, name, file.take(metadata.len()));
    }
    if !kind.is_dir() {
        eprintln!(
            "lbctl: left out: {} is neither file, directory nor link",
            path.display()
        );
        return Ok(());
    }
    header.set_size(0);
    builder.append_data(&mut header, name, io::empty())?;
    let mut children: Vec<_> = path
        .read_dir()
        .map_err(named)?
        .collect::<io::Result<_>>()
        .map_err(named)?;
    children.sort_by_key(std::fs::DirEntry::file_name);
    for child in children {
        append(
            builder,
            packing,
            &child.path(),
            &name.join(child.file_name()),
        )?;
    }
    Ok(())
}
