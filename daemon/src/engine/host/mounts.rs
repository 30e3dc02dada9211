//! Which paths of the host lie on file systems that answer from this machine alone.
//!
//! Nothing here asks any other: a path is followed as the kernel does it, and at every mount point on
//! the way the mount table says what lies behind it, before anybody looks there.

use std::collections::{BTreeMap, VecDeque};
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read, Seek};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Component, Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use crate::worker::Probe;

/// What answers without anybody's help. Of any other (FUSE, network, autofs, an overlay that may lie
/// on one of these, what is not known yet) that must be found out. So it must of procfs, whose
/// links lead anywhere.
const LOCAL: [&str; 33] = [
    "bcachefs",
    "binfmt_misc",
    "bpf",
    "btrfs",
    "cgroup",
    "cgroup2",
    "configfs",
    "debugfs",
    "devpts",
    "devtmpfs",
    "efivarfs",
    "erofs",
    "exfat",
    "ext2",
    "ext3",
    "ext4",
    "f2fs",
    "hugetlbfs",
    "iso9660",
    "mqueue",
    "nsfs",
    "ntfs3",
    "pstore",
    "ramfs",
    "rootfs",
    "securityfs",
    "squashfs",
    "sysfs",
    "tmpfs",
    "tracefs",
    "vfat",
    "xfs",
    "zfs",
];
/// The most symbolic links in a path (path_resolution(7)).
const LINKS: usize = 40;

/// Mount points, and whether what is mounted there is local.
type Table = BTreeMap<PathBuf, bool>;

/// The mounts of this machine, as the daemon sees them.
#[derive(Debug, Default)]
pub(in crate::engine) struct HostMounts {
    read: Mutex<Option<(File, Arc<Table>)>>,
}

impl HostMounts {
    /// The paths that do not lie wholly on local file systems.
    ///
    /// # Errors
    /// The mount table cannot be read.
    pub(super) fn foreign(&self, paths: &[Probe]) -> io::Result<Vec<Probe>> {
        if paths.is_empty() {
            return Ok(Vec::new());
        }
        let table = self.table()?;
        let mut foreign = paths.to_vec();
        foreign.retain(|probe| !is_local(&table, probe));
        Ok(foreign)
    }

    /// The table as it is now. It is only read again when it has changed, which the kernel says of an
    /// open one (proc_pid_mountinfo(5), poll(2)).
    fn table(&self) -> io::Result<Arc<Table>> {
        // Nothing panics while it holds this lock.
        let mut read = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        let known = read.take();
        let mut file = match known {
            Some((file, table)) if !has_changed(&file)? => {
                *read = Some((file, table.clone()));
                return Ok(table);
            }
            Some((file, _)) => file,
            None => File::open("/proc/self/mountinfo")?,
        };
        let mut text = Vec::new();
        file.rewind()?;
        file.read_to_end(&mut text)?;
        let table = Arc::new(parse(&text));
        *read = Some((file, table.clone()));
        Ok(table)
    }
}

fn has_changed(file: &File) -> io::Result<bool> {
    let mut polled = [PollFd::new(file, PollFlags::PRI)];
    let now = Timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    poll(&mut polled, Some(&now))?;
    Ok(polled[0]
        .revents()
        .intersects(PollFlags::PRI | PollFlags::ERR))
}

fn parse(text: &[u8]) -> Table {
    let mut table = Table::new();
    for line in text.split(|byte| *byte == b'\n') {
        let mut fields = line.split(|byte| *byte == b' ');
        let (Some(point), Some(kind)) = (fields.nth(4), fields.skip_while(|f| f != b"-").nth(1))
        else {
            continue;
        };
        let point = PathBuf::from(unescaped(point));
        let kind = str::from_utf8(kind).unwrap_or_default();
        // An overlay at the root is what the whole machine stands on.
        let local = LOCAL.contains(&kind) || (kind == "overlay" && point == Path::new("/"));
        // Where several lie upon each other, all count.
        let all = table.entry(point).or_insert(true);
        *all &= local;
    }
    table
}

/// The kernel writes blanks and backslashes as three octal digits.
fn unescaped(field: &[u8]) -> OsString {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((first, behind)) = rest.split_first() {
        let digits = behind.get(..3).and_then(|d| str::from_utf8(d).ok());
        let octal = digits.and_then(|digits| u8::from_str_radix(digits, 8).ok());
        let (byte, behind) = match octal {
            Some(byte) if *first == b'\\' => (byte, &behind[3..]),
            _ => (*first, behind),
        };
        bytes.push(byte);
        rest = behind;
    }
    OsString::from_vec(bytes)
}

fn is_local(table: &Table, probe: &Probe) -> bool {
    let Some(real) = followed(table, probe.path()) else {
        return false;
    };
    let below = || {
        table
            .range(real.clone()..)
            .take_while(|(at, _)| at.starts_with(&real))
    };
    !matches!(probe, Probe::Tree(_)) || below().all(|(_, local)| *local)
}

/// Where a path leads to, or as far as there is something; `None` when that is not told by local file
/// systems alone.
fn followed(table: &Table, path: &Path) -> Option<PathBuf> {
    let root = PathBuf::from("/");
    let mut here = (*table.get(&root)?).then_some(root)?;
    let mut left: VecDeque<OsString> = names(path).collect();
    let mut links = 0;
    while let Some(name) = left.pop_front() {
        if name == ".." {
            here.pop();
            continue;
        }
        let next = here.join(&name);
        if !table.get(&next).copied().unwrap_or(true) {
            return None;
        }
        match rustix::fs::readlink(&next, Vec::new()) {
            Ok(target) => {
                links += 1;
                if links > LINKS {
                    return None;
                }
                let target = PathBuf::from(OsStr::from_bytes(target.as_bytes()));
                if target.is_absolute() {
                    here = PathBuf::from("/");
                }
                names(&target).rev().for_each(|name| left.push_front(name));
            }
            // No link.
            Err(Errno::INVAL) => here = next,
            // Nothing more to ask.
            Err(_) => return Some(next),
        }
    }
    Some(here)
}

fn names(path: &Path) -> impl DoubleEndedIterator<Item = OsString> {
    path.components().filter_map(|component| match component {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some(OsString::from("..")),
        Component::RootDir | Component::CurDir | Component::Prefix(_) => None,
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn table(mounts: &[(&Path, &str)]) -> Table {
        let lines: Vec<String> = mounts
            .iter()
            .map(|(at, kind)| {
                let at = at.display().to_string().replace(' ', "\\040");
                format!("36 35 98:0 / {at} rw,noatime master:1 shared:2 - {kind} /dev/root rw")
            })
            .collect();
        parse(lines.join("\n").as_bytes())
    }

    #[test]
    fn a_path_is_foreign_from_the_mount_point_on() {
        let dir = tempfile::tempdir().unwrap();
        let base = dir.path().canonicalize().unwrap();
        let foreign = base.join("a share");
        let table = table(&[(Path::new("/"), "ext4"), (&foreign, "nfs4")]);
        let local = |path: &Path| is_local(&table, &Probe::Path(path.to_owned()));
        assert!(local(&base) && local(&base.join("missing/deeper")));
        assert!(!local(&foreign) && !local(&foreign.join("below")));
        // A directory with a mount below it is local itself, and as a tree it is not.
        assert!(!is_local(&table, &Probe::Tree(base.clone())));
        assert!(is_local(&table, &Probe::Tree(base.join("missing"))));
    }

    #[test]
    fn links_are_followed_to_where_they_lead() {
        let dir = tempfile::tempdir().unwrap();
        let base = dir.path().canonicalize().unwrap();
        let foreign = base.join("share");
        std::fs::create_dir(&foreign).unwrap();
        std::fs::create_dir(base.join("local")).unwrap();
        let table = table(&[(Path::new("/"), "xfs"), (&foreign, "fuse.sshfs")]);
        for (link, target, local) in [
            ("absolute", foreign.to_str().unwrap(), false),
            ("relative", "local/../share/x", false),
            ("chain", "relative", false),
            ("inside", "./local", true),
            ("loop", "loop", false),
        ] {
            symlink(target, base.join(link)).unwrap();
            let probe = Probe::Path(base.join(link).join("x"));
            assert_eq!(is_local(&table, &probe), local, "{link}");
        }
    }

    #[test]
    fn what_lies_upon_each_other_is_local_when_all_is() {
        let (root, at) = (Path::new("/"), Path::new("/data"));
        let probe = [Probe::Path(at.to_owned())];
        let local = |kinds: [&str; 2]| {
            let table = table(&[(root, "overlay"), (at, kinds[0]), (at, kinds[1])]);
            is_local(&table, &probe[0])
        };
        assert!(local(["ext4", "tmpfs"]));
        assert!(
            !local(["autofs", "ext4"]) && !local(["ext4", "ceph"]) && !local(["ext4", "overlay"])
        );
    }

    #[test]
    fn the_mounts_of_this_machine_are_read_again_when_they_change() {
        let mounts = HostMounts::default();
        let (first, second) = (mounts.table().unwrap(), mounts.table().unwrap());
        assert!(first.contains_key(Path::new("/")) && second.contains_key(Path::new("/")));
        let proc = [Probe::Path("/proc/self/ns/net".into())];
        assert_eq!(mounts.foreign(&proc).unwrap(), proc);
    }
}
