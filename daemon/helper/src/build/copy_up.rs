//! A tmpfs that starts with a copy of what the image has at its destination.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{
    AtFlags, Dir, FileType, Gid, Mode, OFlags, Stat, Uid, chmodat, chownat, fchmod, fchown, fstat,
    mkdirat, mknodat, openat, readlinkat, statat, symlinkat,
};
use rustix::io::Errno;

use crate::fault::{Fault, OrFault};

/// Deeper trees than this are not copied: the walk keeps a descriptor per level.
const DEPTH_LIMIT: usize = 64;

/// Copies the content of `from` (opened as a path) into `to`, with owners and modes.
pub fn copy(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> Result<(), Fault> {
    let meta = fstat(from).fault("fstat")?;
    // The new root looks like the directory it stands on.
    let to = open_dir(to, c".")?;
    fchown(
        &to,
        Some(Uid::from_raw(meta.st_uid)),
        Some(Gid::from_raw(meta.st_gid)),
    )
    .fault("fchown")?;
    fchmod(&to, Mode::from_raw_mode(meta.st_mode & 0o7777)).fault("fchmod")?;
    copy_dir(open_dir(from, c".")?, to.as_fd(), 0)
}

fn open_dir(at: BorrowedFd<'_>, name: &std::ffi::CStr) -> Result<OwnedFd, Fault> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    openat(at, name, flags, Mode::empty()).fault_at("openat", name.to_string_lossy())
}

fn copy_dir(from: OwnedFd, to: BorrowedFd<'_>, depth: usize) -> Result<(), Fault> {
    if depth > DEPTH_LIMIT {
        return Err(Fault::of("openat", Errno::LOOP));
    }
    let entries = Dir::read_from(&from).fault("getdents64")?;
    for entry in entries {
        let entry = entry.fault("getdents64")?;
        let name = entry.file_name();
        if name == c"." || name == c".." {
            continue;
        }
        copy_entry(from.as_fd(), to, name, depth)
            .map_err(|fault| fault.at(name.to_string_lossy()))?;
    }
    Ok(())
}

fn copy_entry(
    from: BorrowedFd<'_>,
    to: BorrowedFd<'_>,
    name: &std::ffi::CStr,
    depth: usize,
) -> Result<(), Fault> {
    let meta = statat(from, name, AtFlags::SYMLINK_NOFOLLOW).fault("fstatat")?;
    let kind = FileType::from_raw_mode(meta.st_mode);
    match kind {
        FileType::Directory => {
            mkdirat(to, name, Mode::from_raw_mode(0o700)).fault("mkdirat")?;
            copy_dir(
                open_dir(from, name)?,
                open_dir(to, name)?.as_fd(),
                depth + 1,
            )?;
        }
        FileType::RegularFile => copy_file(from, to, name)?,
        FileType::Symlink => {
            let target = readlinkat(from, name, Vec::new()).fault("readlinkat")?;
            symlinkat(target, to, name).fault("symlinkat")?;
        }
        FileType::Fifo | FileType::Socket | FileType::CharacterDevice | FileType::BlockDevice => {
            let mode = Mode::from_raw_mode(meta.st_mode & 0o7777);
            mknodat(to, name, kind, mode, meta.st_rdev).fault("mknodat")?;
        }
        FileType::Unknown => return Ok(()),
    }
    copy_metadata(to, name, &meta, kind)
}

fn copy_metadata(
    to: BorrowedFd<'_>,
    name: &std::ffi::CStr,
    meta: &Stat,
    kind: FileType,
) -> Result<(), Fault> {
    let (uid, gid) = (Uid::from_raw(meta.st_uid), Gid::from_raw(meta.st_gid));
    chownat(to, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW).fault("fchownat")?;
    if kind == FileType::Symlink {
        return Ok(());
    }
    // After chown, which clears the set-id bits.
    chmodat(
        to,
        name,
        Mode::from_raw_mode(meta.st_mode & 0o7777),
        AtFlags::empty(),
    )
    .fault("fchmodat")
}

fn copy_file(from: BorrowedFd<'_>, to: BorrowedFd<'_>, name: &std::ffi::CStr) -> Result<(), Fault> {
    // Non-blocking: it was a regular file a moment ago, and may have become a FIFO since.
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let source = openat(from, name, flags, Mode::empty()).fault("openat")?;
    if FileType::from_raw_mode(fstat(&source).fault("fstat")?.st_mode) != FileType::RegularFile {
        return Err(Fault::of("openat", Errno::INVAL));
    }
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let target = openat(to, name, flags, Mode::from_raw_mode(0o600)).fault("openat")?;
    std::io::copy(
        &mut std::fs::File::from(source),
        &mut std::fs::File::from(target),
    )
    .map(drop)
    .fault("write")
}
