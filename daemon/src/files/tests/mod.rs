//! Real directories as roots. These need root: owners, devices, `trusted.*` attributes, mounts.
#![allow(clippy::unwrap_used, reason = "tests")]

mod changes;
mod hostile;
mod large;
mod pack;
mod sparse;

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{self, File, Permissions};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, FileType, Mode, XattrFlags};

use super::*;

fn root_of(path: &Path) -> File {
    File::open(path).unwrap()
}

fn pack_path(root: &Path, path: &str) -> Result<Vec<u8>, FileError> {
    let mut out = Vec::new();
    pack(root_of(root).as_fd(), path, &IdView::identity())?.write(&mut out)?;
    Ok(out)
}

fn unpack_into(root: &Path, dir: &str, archive: &[u8]) -> Result<(), FileError> {
    unpack(
        (root_of(root).as_fd(), RootOf::Program),
        dir,
        &IdView::identity(),
        archive,
        &Bounds::default(),
    )
}

fn mknod(path: &Path, kind: FileType, device: (u32, u32)) {
    let device = rustix::fs::makedev(device.0, device.1);
    rustix::fs::mknodat(CWD, path, kind, Mode::from_raw_mode(0o640), device).unwrap();
}

/// Everything that an archive keeps, by path.
fn listing(top: &Path) -> BTreeMap<PathBuf, String> {
    let mut found = BTreeMap::new();
    let mut left = vec![top.to_owned()];
    while let Some(path) = left.pop() {
        let metadata = path.symlink_metadata().unwrap();
        let name = path.strip_prefix(top).unwrap().to_owned();
        let content = if metadata.is_file() {
            format!("{:?}", fs::read(&path).unwrap())
        } else if metadata.is_symlink() {
            format!("{:?}", fs::read_link(&path).unwrap())
        } else {
            String::new()
        };
        if metadata.is_dir() {
            left.extend(
                fs::read_dir(&path)
                    .unwrap()
                    .map(|entry| entry.unwrap().path()),
            );
        }
        let linked = if metadata.nlink() > 1 && !metadata.is_dir() {
            format!(" with {} links", metadata.nlink())
        } else {
            String::new()
        };
        let mode = if metadata.is_symlink() {
            0
        } else {
            metadata.mode()
        };
        let xattrs = xattrs(&path);
        found.insert(
            name,
            format!(
                "{mode:o} {}:{} {}.{} dev {} {xattrs:?}{linked} {content}",
                metadata.uid(),
                metadata.gid(),
                metadata.mtime(),
                metadata.mtime_nsec(),
                metadata.rdev(),
            ),
        );
    }
    found
}

fn xattrs(path: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut names = [0u8; 4096];
    let len = rustix::fs::llistxattr(path, &mut names[..]).unwrap();
    let names = String::from_utf8(names[..len].to_vec()).unwrap();
    let value = |name: &str| {
        let mut value = [0u8; 4096];
        let len = rustix::fs::lgetxattr(path, name, &mut value[..]).unwrap();
        value[..len].to_vec()
    };
    names
        .split_terminator('\0')
        .filter(|name| !name.starts_with("security.selinux"))
        .map(|name| (name.to_owned(), value(name)))
        .collect()
}

/// A root with one of everything in `/data`.
fn zoo() -> tempfile::TempDir {
    let root = tempfile::tempdir().unwrap();
    let data = root.path().join("data");
    fs::create_dir_all(data.join("deep/er")).unwrap();
    fs::write(data.join("file"), b"hello\n").unwrap();
    fs::write(data.join("empty"), b"").unwrap();
    fs::write(data.join("block"), [7u8; 512]).unwrap();
    fs::write(data.join("deep/er/more"), vec![9u8; 300_001]).unwrap();
    fs::hard_link(data.join("file"), data.join("deep/hard")).unwrap();
    symlink("/etc/passwd", data.join("absolute")).unwrap();
    symlink(format!("../{}", "x".repeat(200)), data.join("long-link")).unwrap();
    fs::write(data.join("n".repeat(250)), b"long name").unwrap();
    fs::write(data.join(OsStr::from_bytes(b"not \xff utf8")), b"bytes").unwrap();
    mknod(&data.join("fifo"), FileType::Fifo, (0, 0));
    fs::set_permissions(data.join("file"), Permissions::from_mode(0o4755)).unwrap();
    fs::set_permissions(data.join("deep"), Permissions::from_mode(0o1777)).unwrap();
    std::os::unix::fs::chown(data.join("empty"), Some(1234), Some(3_000_000)).unwrap();
    std::os::unix::fs::lchown(data.join("absolute"), Some(5), Some(6)).unwrap();
    rustix::fs::setxattr(
        data.join("block"),
        "user.binary",
        b"a\nb=\0c",
        XattrFlags::empty(),
    )
    .unwrap();
    rustix::fs::setxattr(data.join("deep"), "user.note", b"dir", XattrFlags::empty()).unwrap();
    for (name, secs, nanos) in [
        ("file", 1_000_000_000, 5),
        ("empty", -2, 500_000_000),
        ("deep", 7, 0),
    ] {
        let times = rustix::fs::Timestamps {
            last_access: rustix::fs::Timespec {
                tv_sec: secs,
                tv_nsec: nanos,
            },
            last_modification: rustix::fs::Timespec {
                tv_sec: secs,
                tv_nsec: nanos,
            },
        };
        rustix::fs::utimensat(CWD, data.join(name), &times, rustix::fs::AtFlags::empty()).unwrap();
    }
    root
}

/// An entry of a made-up archive.
struct Made {
    header: ::tar::Header,
    name: Vec<u8>,
    content: Vec<u8>,
}

impl Made {
    fn new(kind: ::tar::EntryType, name: &str, link: &str, content: &[u8]) -> Self {
        let mut header = ::tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(0o644);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(1);
        header.set_size(content.len() as u64);
        let gnu = header.as_gnu_mut().unwrap();
        gnu.linkname[..link.len()].copy_from_slice(link.as_bytes());
        Self {
            header,
            name: name.as_bytes().to_vec(),
            content: content.to_vec(),
        }
    }

    fn file(name: &str, content: &[u8]) -> Self {
        Self::new(::tar::EntryType::Regular, name, "", content)
    }

    fn symlink(name: &str, target: &str) -> Self {
        Self::new(::tar::EntryType::Symlink, name, target, b"")
    }

    fn bytes(&self) -> Vec<u8> {
        let mut header = self.header.clone();
        header.as_old_mut().name[..self.name.len()].copy_from_slice(&self.name);
        header.set_cksum();
        let mut bytes = header.as_bytes().to_vec();
        bytes.extend_from_slice(&self.content);
        bytes.resize(bytes.len().next_multiple_of(512), 0);
        bytes
    }
}

fn archive(entries: &[Made]) -> Vec<u8> {
    let mut bytes: Vec<u8> = entries.iter().flat_map(Made::bytes).collect();
    bytes.extend_from_slice(&[0; 1024]);
    bytes
}

/// A root beside a directory that must stay as it is.
struct Target {
    _whole: tempfile::TempDir,
    root: PathBuf,
    outside: PathBuf,
}

impl Target {
    fn new() -> Self {
        let whole = tempfile::tempdir().unwrap();
        let (root, outside) = (whole.path().join("root"), whole.path().join("outside"));
        fs::create_dir(&root).unwrap();
        fs::create_dir(&outside).unwrap();
        fs::write(outside.join("canary"), b"canary").unwrap();
        Self {
            _whole: whole,
            root,
            outside,
        }
    }

    fn unpack(&self, entries: &[Made]) -> Result<(), FileError> {
        let before = listing(&self.outside);
        let result = unpack_into(&self.root, "/", &archive(entries));
        assert_eq!(listing(&self.outside), before, "the outside changed");
        result
    }

    fn has(&self, path: &str) -> bool {
        self.root.join(path).symlink_metadata().is_ok()
    }
}
