//! What an unpacked file is beside its content: owner, mode, extended attributes, times.

use std::os::fd::{AsFd, OwnedFd};

use littlebox_archive::{Entry, Time, bad, capability_from_archive, is_portable};
use rustix::fs::{
    AtFlags, CWD, FileType, Gid, Mode, OFlags, Timespec, Timestamps, Uid, XattrFlags,
};
use rustix::io::Errno;

use super::kernel_trees::not_the_kernels;
use super::place::Place;
use super::{FileError, IdView, failed, magic_path, shown};

/// Owner first: a change of owner takes set-id bits away (chown(2)).
pub(super) fn set_owner_and_mode(
    fd: impl AsFd,
    ids: &IdView,
    (uid, gid, mode): (u32, u32, u32),
    path: &[u8],
) -> Result<(), FileError> {
    let (uid, gid) = owner(ids, uid, gid, path)?;
    rustix::fs::fchown(&fd, Some(uid), Some(gid)).map_err(|errno| failed("fchown", path, errno))?;
    rustix::fs::fchmod(&fd, Mode::from_raw_mode(mode))
        .map_err(|errno| failed("fchmod", path, errno))
}

/// All but the time, of a file or directory that is open.
pub(super) fn set(
    fd: impl AsFd,
    ids: &IdView,
    entry: &Entry,
    path: &[u8],
) -> Result<(), FileError> {
    set_owner_and_mode(&fd, ids, (entry.uid, entry.gid, entry.mode), path)?;
    for (name, value) in entry.xattrs.iter().filter(|(name, _)| is_portable(name)) {
        let Some(value) = on_disk(ids, name, value) else {
            continue;
        };
        match rustix::fs::fsetxattr(&fd, &name[..], &value, XattrFlags::empty()) {
            // A filesystem without attributes.
            Ok(()) | Err(Errno::OPNOTSUPP) => {}
            Err(errno) => return Err(refused_attribute(name, path, errno)),
        }
    }
    Ok(())
}

/// All of a symbolic link or a fifo, which cannot be opened, by a descriptor from [`made`].
pub(super) fn set_unopened(fd: &OwnedFd, ids: &IdView, entry: &Entry) -> Result<(), FileError> {
    let path = &entry.path;
    let (uid, gid) = owner(ids, entry.uid, entry.gid, path)?;
    rustix::fs::chownat(fd, c"", Some(uid), Some(gid), AtFlags::EMPTY_PATH)
        .map_err(|errno| failed("fchownat", path, errno))?;
    if entry.kind != littlebox_archive::Kind::Symlink {
        rustix::fs::chmod(magic_path(fd), Mode::from_raw_mode(entry.mode))
            .map_err(|errno| failed("chmod", path, errno))?;
    }
    rustix::fs::utimensat(
        CWD,
        magic_path(fd),
        &timestamps(entry.mtime),
        AtFlags::empty(),
    )
    .map_err(|errno| failed("utimensat", path, errno))
}

/// What was just made under a name, as an `O_PATH` descriptor. `None` when somebody inside, or
/// another archive, has put something else there since: that must not get this entry's owner.
pub(super) fn made(
    parent: &OwnedFd,
    place: &Place,
    kind: FileType,
) -> Result<Option<OwnedFd>, FileError> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let fd = match rustix::fs::openat(parent, place.name(), flags, Mode::empty()) {
        Ok(fd) => fd,
        Err(Errno::NOENT) => return Ok(None),
        Err(errno) => return Err(failed("openat", &place.path, errno)),
    };
    let fd = not_the_kernels(fd, &place.path)?;
    let stat = rustix::fs::fstat(&fd).map_err(|errno| failed("fstat", &place.path, errno))?;
    Ok((FileType::from_raw_mode(stat.st_mode) == kind).then_some(fd))
}

pub(super) fn timestamps(time: Time) -> Timestamps {
    let time = Timespec {
        tv_sec: time.secs,
        tv_nsec: time.nanos.into(),
    };
    Timestamps {
        last_access: time,
        last_modification: time,
    }
}

fn owner(ids: &IdView, uid: u32, gid: u32, path: &[u8]) -> Result<(Uid, Gid), FileError> {
    let known = |on_host: Option<u32>, id: u32| {
        on_host
            .filter(|id| *id != u32::MAX)
            .ok_or_else(|| bad(&format!("{}: owner {id} does not exist here", shown(path))))
    };
    let (user, group) = (ids.user_on_host(uid), ids.group_on_host(gid));
    Ok((
        Uid::from_raw(known(user, uid)?),
        Gid::from_raw(known(group, gid)?),
    ))
}

/// An attribute's value on the disk. Capabilities of a root that the container does not have
/// would count for nobody.
fn on_disk(ids: &IdView, name: &[u8], value: &[u8]) -> Option<Vec<u8>> {
    match name {
        b"security.capability" => capability_from_archive(value, |id| ids.user_on_host(id)),
        _ => Some(value.to_vec()),
    }
}

/// What setxattr(2) says of a name and a value is the archive's doing; the room for them is the
/// filesystem's, and far smaller than its disk.
fn refused_attribute(name: &[u8], path: &[u8], errno: Errno) -> FileError {
    let name = shown(&name[..name.len().min(64)]);
    match errno {
        Errno::INVAL => bad(&format!(
            "{}: the attribute {name} is malformed",
            shown(path)
        )),
        Errno::RANGE | Errno::TOOBIG => bad(&format!(
            "{}: the attribute {name} is too long (255 bytes of name, 64 KiB of value)",
            shown(path)
        )),
        Errno::NOSPC | Errno::DQUOT => FileError::Refused {
            op: "fsetxattr".into(),
            path: shown(path),
            source: errno.into(),
        },
        errno => failed("fsetxattr", path, errno),
    }
}
