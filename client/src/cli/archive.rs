//! tar archives on this side of `cp`.
//!
//! What comes out of a container is its own: names, links and modes may be chosen to hit this
//! machine. So every name is resolved below the destination with `openat2(2)` and
//! `RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS`, existing files are replaced rather than written
//! through, devices are left out, and set-user-id bits are kept only on demand.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Component, Path, PathBuf};

use rustix::fs::{AtFlags, Gid, Mode, OFlags, ResolveFlags, Timespec, Timestamps, UTIME_OMIT, Uid};
use rustix::io::Errno;
use tar::{Archive, Builder, Entry, EntryType, Header};

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

/// Where to unpack.
#[derive(Debug)]
pub struct Unpacking {
    /// An existing directory.
    pub directory: PathBuf,
    /// Stands for the first name of every entry; `.` for none.
    pub rename: Option<OsString>,
    /// The archive's owners and set-user-id bits.
    pub keep_owners: bool,
}

/// Unpacks an archive; returns what was left out.
pub fn unpack(input: impl Read, unpacking: &Unpacking) -> io::Result<Vec<String>> {
    let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC;
    let root = rustix::fs::open(&unpacking.directory, flags, Mode::empty())
        .map_err(|e| named(&unpacking.directory, e))?;
    let mut unpacker = Unpacker {
        unpacking,
        root,
        directories: Vec::new(),
        skipped: Vec::new(),
    };
    let mut archive = Archive::new(input);
    for entry in archive.entries()? {
        unpacker.entry(&mut entry?)?;
    }
    unpacker.finish()
}

struct Unpacker<'a> {
    unpacking: &'a Unpacking,
    root: OwnedFd,
    /// Made or met; their modes and times are set at the end, when nothing is written below any
    /// more.
    directories: Vec<(PathBuf, Attributes)>,
    skipped: Vec<String>,
}

#[derive(Debug, Clone, Copy)]
struct Attributes {
    mode: Mode,
    owner: Option<(Uid, Gid)>,
    modified: i64,
}

fn named(path: &Path, e: Errno) -> io::Error {
    let e = io::Error::from(e);
    io::Error::new(e.kind(), format!("{}: {e}", path.display()))
}

impl Unpacker<'_> {
    fn entry(&mut self, entry: &mut Entry<'_, impl Read>) -> io::Result<()> {
        let Some(path) = target(&entry.path()?, self.unpacking.rename.as_deref())? else {
            return Ok(());
        };
        let attributes = self.attributes(entry.header())?;
        let kind = entry.header().entry_type();
        let result = match kind {
            EntryType::Directory => self.directory(&path, attributes),
            EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => {
                return self.file(&path, attributes, entry);
            }
            EntryType::Symlink => {
                let link = entry.link_name_bytes().unwrap_or_default().into_owned();
                self.symlink(&path, OsStr::from_bytes(&link), attributes)
            }
            EntryType::Link => {
                let Some(link) = entry.link_name()? else {
                    return Err(bad(&path, "a hard link to nothing"));
                };
                match target(&link, self.unpacking.rename.as_deref())? {
                    Some(existing) => self.hard_link(&path, &existing),
                    None => return Err(bad(&path, "a hard link to a directory")),
                }
            }
            _ => {
                self.skipped
                    .push(format!("{} (a device or pipe)", path.display()));
                Ok(())
            }
        };
        result.map_err(|e| named(&path, e))
    }

    fn attributes(&self, header: &Header) -> io::Result<Attributes> {
        let keep = self.unpacking.keep_owners;
        // Root's copy of a container's setuid file would be a way to become root.
        let bits = header.mode()? & if keep { 0o7777 } else { 0o777 };
        let id = |n: u64| {
            // -1 means "unchanged" to chown(2).
            u32::try_from(n)
                .ok()
                .filter(|&n| n != u32::MAX)
                .ok_or_else(|| {
                    io::Error::new(
                        io::ErrorKind::InvalidData,
                        format!("{n} is no user or group id"),
                    )
                })
        };
        let owner = if keep {
            Some((
                Uid::from_raw(id(header.uid()?)?),
                Gid::from_raw(id(header.gid()?)?),
            ))
        } else {
            None
        };
        let modified = i64::try_from(header.mtime()?).unwrap_or(0);
        Ok(Attributes {
            mode: Mode::from_raw_mode(bits),
            owner,
            modified,
        })
    }

    /// The directory that a path lies in, and its last name.
    fn parent<'p>(&self, path: &'p Path) -> Result<(OwnedFd, &'p OsStr), Errno> {
        let name = path.file_name().ok_or(Errno::INVAL)?;
        let parent = path.parent().filter(|p| !p.as_os_str().is_empty());
        let fd = open_below(
            &self.root,
            parent.unwrap_or(Path::new(".")),
            OFlags::DIRECTORY | OFlags::RDONLY,
        )?;
        Ok((fd, name))
    }

    fn directory(&mut self, path: &Path, attributes: Attributes) -> Result<(), Errno> {
        let (parent, name) = self.parent(path)?;
        match rustix::fs::mkdirat(&parent, name, Mode::RWXU) {
            // One that is there keeps its attributes, as with cp(1).
            Err(Errno::EXIST) => {
                let there = rustix::fs::statat(&parent, name, AtFlags::SYMLINK_NOFOLLOW)?;
                let kind = rustix::fs::FileType::from_raw_mode(there.st_mode);
                if kind.is_dir() {
                    Ok(())
                } else {
                    Err(Errno::NOTDIR)
                }
            }
            Err(e) => Err(e),
            Ok(()) => {
                self.directories.push((path.to_owned(), attributes));
                Ok(())
            }
        }
    }

    fn file(&self, path: &Path, attributes: Attributes, entry: &mut impl Read) -> io::Result<()> {
        let create = || {
            let (parent, name) = self.parent(path)?;
            remove(&parent, name)?;
            let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW;
            rustix::fs::openat(
                &parent,
                name,
                flags | OFlags::CLOEXEC,
                Mode::RUSR | Mode::WUSR,
            )
        };
        let mut file = File::from(create().map_err(|e| named(path, e))?);
        io::copy(entry, &mut file)?;
        set_attributes(&file, attributes).map_err(|e| named(path, e))
    }

    fn symlink(&self, path: &Path, link: &OsStr, attributes: Attributes) -> Result<(), Errno> {
        let (parent, name) = self.parent(path)?;
        remove(&parent, name)?;
        rustix::fs::symlinkat(link, &parent, name)?;
        if let Some((uid, gid)) = attributes.owner {
            let flags = AtFlags::SYMLINK_NOFOLLOW;
            rustix::fs::chownat(&parent, name, Some(uid), Some(gid), flags)?;
        }
        Ok(())
    }

    fn hard_link(&self, path: &Path, existing: &Path) -> Result<(), Errno> {
        let (from_parent, from) = self.parent(existing)?;
        let (to_parent, to) = self.parent(path)?;
        remove(&to_parent, to)?;
        rustix::fs::linkat(&from_parent, from, &to_parent, to, AtFlags::empty())
    }

    fn finish(self) -> io::Result<Vec<String>> {
        for (path, attributes) in self.directories.iter().rev() {
            let set = || {
                let fd = open_below(&self.root, path, OFlags::DIRECTORY | OFlags::RDONLY)?;
                set_attributes(&fd, *attributes)
            };
            set().map_err(|e| named(path, e))?;
        }
        Ok(self.skipped)
    }
}

fn open_below(root: &OwnedFd, path: &Path, flags: OFlags) -> Result<OwnedFd, Errno> {
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    loop {
        let opened =
            rustix::fs::openat2(root, path, flags | OFlags::CLOEXEC, Mode::empty(), resolve);
        match opened {
            // A rename elsewhere made the kernel unsure (openat2(2)).
            Err(Errno::AGAIN | Errno::INTR) => {}
            other => return other,
        }
    }
}

/// Removes what is in the way, unless it is a directory.
fn remove(parent: &OwnedFd, name: &OsStr) -> Result<(), Errno> {
    match rustix::fs::unlinkat(parent, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(e) => Err(e),
    }
}

fn set_attributes(fd: impl AsFd, attributes: Attributes) -> Result<(), Errno> {
    let fd = fd.as_fd();
    // The owner first: chown(2) clears the set-user-id bit.
    if let Some((uid, gid)) = attributes.owner {
        rustix::fs::fchown(fd, Some(uid), Some(gid))?;
    }
    rustix::fs::fchmod(fd, attributes.mode)?;
    let times = Timestamps {
        last_access: Timespec {
            tv_sec: 0,
            tv_nsec: UTIME_OMIT,
        },
        last_modification: Timespec {
            tv_sec: attributes.modified,
            tv_nsec: 0,
        },
    };
    rustix::fs::futimens(fd, &times)
}

fn bad(path: &Path, what: &str) -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidData,
        format!("{}: {what}", path.display()),
    )
}

/// The relative path of an entry, with its first name exchanged; `None` for the destination itself.
fn target(name: &Path, rename: Option<&OsStr>) -> io::Result<Option<PathBuf>> {
    let mut components = Vec::new();
    let mut rooted_in_dot = false;
    for (i, component) in name.components().enumerate() {
        match component {
            Component::CurDir => rooted_in_dot |= i == 0,
            Component::Normal(part) => components.push(part),
            Component::RootDir | Component::ParentDir | Component::Prefix(_) => {
                return Err(bad(name, "a name that leads out of the archive"));
            }
        }
    }
    let mut path = PathBuf::new();
    if let Some(first) = rename {
        if !rooted_in_dot && !components.is_empty() {
            components.remove(0);
        }
        if first != "." {
            path.push(first);
        }
    }
    path.extend(components);
    Ok(Some(path).filter(|p| !p.as_os_str().is_empty()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    /// An archive of entries (name, type, link or contents).
    fn archive(entries: &[(&str, EntryType, &str)]) -> Vec<u8> {
        let mut builder = Builder::new(Vec::new());
        for (name, kind, text) in entries {
            let mut header = Header::new_gnu();
            header.set_mode(0o4755);
            header.set_uid(0);
            header.set_gid(0);
            header.set_mtime(1_000_000);
            header.set_entry_type(*kind);
            // Builder::append_data refuses the hostile names that these tests are about.
            header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
            let link = matches!(kind, EntryType::Symlink | EntryType::Link);
            if link {
                header.as_old_mut().linkname[..text.len()].copy_from_slice(text.as_bytes());
            }
            let data = if link { "" } else { text };
            header.set_size(data.len() as u64);
            header.set_cksum();
            builder.append(&header, data.as_bytes()).unwrap();
        }
        builder.into_inner().unwrap()
    }

    fn unpack_into(dir: &Path, rename: Option<&str>, data: &[u8]) -> io::Result<Vec<String>> {
        let rename = rename.map(OsString::from);
        let directory = dir.to_owned();
        unpack(
            data,
            &Unpacking {
                directory,
                rename,
                keep_owners: false,
            },
        )
    }

    #[test]
    fn names_are_exchanged_and_never_lead_out() {
        let target = |name: &str, rename: Option<&str>| {
            target(Path::new(name), rename.map(OsStr::new))
                .map(|p| p.map(|p| p.display().to_string()))
        };
        assert_eq!(target("src/a", None).unwrap().as_deref(), Some("src/a"));
        assert_eq!(
            target("src/a", Some("dst")).unwrap().as_deref(),
            Some("dst/a")
        );
        assert_eq!(target("src", Some("dst")).unwrap().as_deref(), Some("dst"));
        assert_eq!(
            target("./a", Some("dst")).unwrap().as_deref(),
            Some("dst/a")
        );
        assert_eq!(target("./a/b", Some(".")).unwrap().as_deref(), Some("a/b"));
        assert_eq!(target(".", Some(".")).unwrap(), None);
        assert_eq!(target("./", Some("dst")).unwrap().as_deref(), Some("dst"));
        for hostile in ["/etc/passwd", "../a", "a/../../b"] {
            assert!(target(hostile, None).is_err(), "{hostile}");
        }
    }

    #[test]
    fn a_tree_comes_back_as_it_was() {
        let dir = tempfile::tempdir().unwrap();
        let src = dir.path().join("src");
        std::fs::create_dir_all(src.join("sub")).unwrap();
        std::fs::write(src.join("sub/file"), "text").unwrap();
        let mode = std::fs::Permissions::from_mode(0o640);
        std::fs::set_permissions(src.join("sub/file"), mode).unwrap();
        symlink("sub/file", src.join("link")).unwrap();
        let long = "n".repeat(200);
        std::fs::write(src.join(&long), "long").unwrap();
        let mut data = Vec::new();
        let packing = Packing {
            source: src,
            name: "src".into(),
            keep_owners: false,
        };
        pack(&packing, &mut data).unwrap();
        let to = dir.path().join("to");
        std::fs::create_dir(&to).unwrap();
        assert!(unpack_into(&to, Some("dst"), &data).unwrap().is_empty());
        let file = to.join("dst/sub/file");
        assert_eq!(std::fs::read_to_string(&file).unwrap(), "text");
        assert_eq!(file.metadata().unwrap().mode() & 0o7777, 0o640);
        assert_eq!(
            to.join("dst/link").read_link().unwrap(),
            Path::new("sub/file")
        );
        assert_eq!(
            std::fs::read_to_string(to.join("dst").join(long)).unwrap(),
            "long"
        );
    }

    #[test]
    fn links_in_an_archive_lead_nowhere() {
        let dir = tempfile::tempdir().unwrap();
        let (outside, to) = (dir.path().join("outside"), dir.path().join("to"));
        std::fs::create_dir(&outside).unwrap();
        std::fs::create_dir(&to).unwrap();
        let link = outside.to_str().unwrap();
        let through = archive(&[
            ("d", EntryType::Symlink, link),
            ("d/evil", EntryType::Regular, "x"),
        ]);
        assert!(unpack_into(&to, None, &through).is_err());
        let over = archive(&[
            ("f", EntryType::Symlink, &format!("{link}/evil")),
            ("f", EntryType::Regular, "x"),
        ]);
        unpack_into(&to, None, &over).unwrap();
        let hard = archive(&[("h", EntryType::Link, "d/secret")]);
        assert!(unpack_into(&to, None, &hard).is_err());
        assert_eq!(outside.read_dir().unwrap().count(), 0);
        assert!(to.join("f").symlink_metadata().unwrap().is_file());
    }

    #[test]
    fn setuid_bits_and_devices_are_left_out() {
        let dir = tempfile::tempdir().unwrap();
        let data = archive(&[
            ("su", EntryType::Regular, "x"),
            ("null", EntryType::Char, ""),
        ]);
        let skipped = unpack_into(dir.path(), None, &data).unwrap();
        assert_eq!(skipped, ["null (a device or pipe)"]);
        assert_eq!(
            dir.path().join("su").metadata().unwrap().mode() & 0o7777,
            0o755
        );
        assert!(!dir.path().join("null").exists());
    }
}
