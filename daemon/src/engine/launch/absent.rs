//! What a container must not see of its lower layers: it is absent, not covered, so that nothing inside
//! can uncover it, whatever capabilities it has.
//!
//! A whiteout in the container's own layer hides the name below (overlayfs.rst, "whiteouts and opaque
//! directories"). Nobody inside can remove one: what they make in its place is opaque.

use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Component, Path, PathBuf};

use rustix::fs::{
    AtFlags, FileType, Gid, Mode, OFlags, ResolveFlags, Stat, Timespec, Timestamps, Uid,
    XattrFlags, fchmod, fchown, fsetxattr, fstat, futimens, makedev, mkdirat, mknodat, open,
    openat, openat2, statat,
};
use rustix::io::Errno;

use crate::engine::host::looking::Wanted;

/// Makes each of these paths absent from an overlay of one lower directory. The container may have
/// changed its layer before: it is walked by descriptors, and no link in it is followed. Once nobody
/// wants it any more, nothing is made.
pub(super) fn make(
    upper: &Path,
    lower: &Path,
    paths: &[PathBuf],
    wanted: &Wanted,
) -> io::Result<()> {
    if paths.is_empty() {
        return Ok(());
    }
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let upper = open(upper, flags, Mode::empty())?;
    let lower = open(lower, flags, Mode::empty())?;
    paths
        .iter()
        .try_for_each(|path| Ok(make_one(&upper, &lower, path, wanted)?))
}

fn make_one(
    upper: &OwnedFd,
    lower: &OwnedFd,
    path: &Path,
    wanted: &Wanted,
) -> rustix::io::Result<()> {
    let names: Vec<&OsStr> = path
        .components()
        .filter_map(|part| match part {
            Component::Normal(name) => Some(name),
            _ => None,
        })
        .collect();
    let Some((last, parents)) = names.split_last() else {
        return Ok(());
    };
    let below: PathBuf = names.iter().collect();
    if below_of(lower, &below)?.is_none() {
        return Ok(());
    }
    let mut made: Vec<(OwnedFd, Stat)> = Vec::new();
    let mut at = rustix::io::fcntl_dupfd_cloexec(upper, 0)?;
    let mut here = PathBuf::new();
    for name in parents {
        here.push(name);
        at = match openat(&at, *name, DIRECTORY, Mode::empty()) {
            Ok(next) => next,
            Err(Errno::NOENT) => {
                let Some(model) = below_of(lower, &here)? else {
                    return Ok(());
                };
                wanted.check()?;
                let next = make_like(&at, name, &model)?;
                made.push((rustix::io::fcntl_dupfd_cloexec(&next, 0)?, model));
                next
            }
            // The container has something else there, which hides all below already.
            Err(Errno::NOTDIR | Errno::LOOP) => return Ok(()),
            Err(errno) => return Err(errno),
        };
    }
    wanted.check()?;
    white_out(&at, last)?;
    // Last, because what is made in a directory changes its times.
    made.iter().rev().try_for_each(|(dir, model)| {
        let time = |tv_sec, tv_nsec: u64| Timespec {
            tv_sec,
            tv_nsec: tv_nsec.cast_signed(),
        };
        let times = Timestamps {
            last_access: time(model.st_atime, model.st_atime_nsec),
            last_modification: time(model.st_mtime, model.st_mtime_nsec),
        };
        futimens(dir, &times)
    })
}

const DIRECTORY: OFlags = OFlags::RDONLY
    .union(OFlags::DIRECTORY)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::CLOEXEC);

/// A directory of the lower layer, where overlayfs sees one: not beyond links and other mounts.
fn below_of(lower: &OwnedFd, path: &Path) -> rustix::io::Result<Option<Stat>> {
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    match openat2(lower, path, flags, Mode::empty(), resolve) {
        Ok(found) => fstat(&found).map(Some),
        Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::XDEV) => Ok(None),
        Err(errno) => Err(errno),
    }
}

/// A directory that merges with the one below it and looks the same.
fn make_like(at: &OwnedFd, name: &OsStr, model: &Stat) -> rustix::io::Result<OwnedFd> {
    mkdirat(at, name, Mode::from_raw_mode(0o700))?;
    let made = openat(at, name, DIRECTORY, Mode::empty())?;
    let (uid, gid) = (Uid::from_raw(model.st_uid), Gid::from_raw(model.st_gid));
    fchown(&made, Some(uid), Some(gid))?;
    fchmod(&made, Mode::from_raw_mode(model.st_mode & 0o7777))?;
    Ok(made)
}

fn white_out(at: impl AsFd, name: &OsStr) -> rustix::io::Result<()> {
    match statat(&at, name, AtFlags::SYMLINK_NOFOLLOW) {
        Err(Errno::NOENT) => mknodat(
            &at,
            name,
            FileType::CharacterDevice,
            Mode::empty(),
            makedev(0, 0),
        ),
        Err(errno) => Err(errno),
        // A directory of the container's own, which must not merge.
        Ok(stat) if FileType::from_raw_mode(stat.st_mode) == FileType::Directory => {
            let own = openat(&at, name, DIRECTORY, Mode::empty())?;
            fsetxattr(&own, "trusted.overlay.opaque", b"y", XattrFlags::empty())
        }
        Ok(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, symlink};

    use super::*;

    fn layers() -> (tempfile::TempDir, PathBuf, PathBuf) {
        let dir = tempfile::tempdir_in("/var/tmp").unwrap();
        let (upper, lower) = (dir.path().join("upper"), dir.path().join("lower"));
        fs::create_dir(&upper).unwrap();
        fs::create_dir_all(lower.join("var/lib/secret")).unwrap();
        fs::set_permissions(lower.join("var"), fs::Permissions::from_mode(0o751)).unwrap();
        (dir, upper, lower)
    }

    fn hide_secret(upper: &Path, lower: &Path, wanted: &Wanted) -> io::Result<()> {
        make(upper, lower, &["/var/lib/secret".into()], wanted)
    }

    #[test]
    fn a_path_is_whited_out_below_directories_that_look_the_same() {
        let (_dir, upper, lower) = layers();
        for _again in 0..2 {
            make(
                &upper,
                &lower,
                &["/var/lib/secret".into(), "/not/there".into()],
                &Wanted::default(),
            )
            .unwrap();
        }
        let whiteout = fs::symlink_metadata(upper.join("var/lib/secret")).unwrap();
        assert!(whiteout.file_type().is_char_device() && whiteout.rdev() == 0);
        let (made, model) = (
            fs::metadata(upper.join("var")).unwrap(),
            fs::metadata(lower.join("var")).unwrap(),
        );
        assert_eq!(made.mode(), model.mode());
        assert_eq!(
            (made.mtime(), made.mtime_nsec()),
            (model.mtime(), model.mtime_nsec())
        );
        assert!(!upper.join("not").exists());
    }

    #[test]
    fn what_nobody_waits_for_any_more_is_not_made() {
        let (_dir, upper, lower) = layers();
        let late = hide_secret(&upper, &lower, &Wanted::by_nobody());
        assert_eq!(late.unwrap_err().raw_os_error(), Some(125), "ECANCELED");
        assert_eq!(fs::read_dir(upper).unwrap().count(), 0);
    }

    #[test]
    fn links_that_a_container_has_left_are_not_followed() {
        let (dir, upper, lower) = layers();
        let outside = dir.path().join("outside");
        fs::create_dir_all(outside.join("lib")).unwrap();
        symlink(&outside, upper.join("var")).unwrap();
        hide_secret(&upper, &lower, &Wanted::default()).unwrap();
        assert_eq!(fs::read_dir(outside.join("lib")).unwrap().count(), 0);
    }

    #[test]
    fn a_directory_in_its_place_does_not_merge() {
        let (_dir, upper, lower) = layers();
        fs::create_dir_all(upper.join("var/lib/secret")).unwrap();
        hide_secret(&upper, &lower, &Wanted::default()).unwrap();
        let mut value = [0; 8];
        let own = upper.join("var/lib/secret");
        let read = rustix::fs::getxattr(&own, "trusted.overlay.opaque", &mut value).unwrap();
        assert_eq!(&value[..read], b"y");
    }
}
