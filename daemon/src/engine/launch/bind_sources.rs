//! Bind sources that are made because they are missing.
//!
//! A directory on the way may be a bind of another container, whose root can leave links there that
//! belong to the host's root like everything else. So what is missing is made by descriptor, and
//! no link on the way is followed, whoever it belongs to.

use std::os::fd::OwnedFd;
use std::path::{Component, Path};

use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, Uid};
use rustix::io::Errno;

use crate::engine::EngineError;
use crate::engine::host::looking::Wanted;

/// Makes a directory with its parents. `owner` is who gets it, when it was made here. Once nobody
/// wants it any more, nothing is made.
pub(super) fn make(
    source: &Path,
    owner: Option<(Option<u32>, Option<u32>)>,
    wanted: &Wanted,
) -> Result<(), EngineError> {
    let failed = |op: &'static str| {
        move |errno: Errno| EngineError::io(op, source)(std::io::Error::from(errno))
    };
    let mut at = open_below(rustix::fs::CWD, Path::new("/")).map_err(failed("open"))?;
    let mut made = false;
    for component in source.components() {
        let name = match component {
            Component::Normal(name) => Path::new(name),
            Component::ParentDir => Path::new(".."),
            Component::RootDir | Component::CurDir | Component::Prefix(_) => continue,
        };
        made = false;
        let below = match open_below(&at, name) {
            Err(Errno::NOENT) => {
                wanted.check().map_err(failed("make"))?;
                made = match rustix::fs::mkdirat(&at, name, Mode::from_raw_mode(0o755)) {
                    Ok(()) => true,
                    Err(Errno::EXIST) => false,
                    Err(errno) => return Err(failed("make")(errno)),
                };
                open_below(&at, name)
            }
            result => result,
        };
        at = below.map_err(|errno| match is_link(&at, name) {
            true => through_a_link(source, name),
            false => failed("make")(errno),
        })?;
    }
    match owner {
        Some((user, group)) if made => {
            let (user, group) = (user.map(Uid::from_raw), group.map(Gid::from_raw));
            rustix::fs::chownat(&at, c"", user, group, AtFlags::EMPTY_PATH).map_err(failed("chown"))
        }
        _ => Ok(()),
    }
}

fn open_below(at: impl std::os::fd::AsFd, name: &Path) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(at, name, flags, Mode::empty())
}

fn is_link(at: &OwnedFd, name: &Path) -> bool {
    rustix::fs::statat(at, name, AtFlags::SYMLINK_NOFOLLOW)
        .is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Symlink)
}

fn through_a_link(source: &Path, name: &Path) -> EngineError {
    EngineError::Request(format!(
        "bind source '{}' is missing, and its part '{}' is a symbolic link: nothing is made \
         through links; make it yourself, or give the path without the link",
        source.display(),
        name.display()
    ))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use std::fs;
    use std::os::unix::fs::{MetadataExt, symlink};

    use super::*;

    #[test]
    fn what_is_missing_is_made_and_given_to_its_owner() {
        let dir = tempfile::tempdir().unwrap();
        let there = dir.path().join("there");
        fs::create_dir(&there).unwrap();
        let source = there.join("new/source");
        let wanted = Wanted::default();
        make(&source, Some((Some(12), Some(34))), &wanted).unwrap();
        let owner = |path: &Path| {
            let metadata = path.metadata().unwrap();
            (metadata.uid(), metadata.gid())
        };
        assert_eq!(owner(&source), (12, 34));
        assert_eq!(owner(&there.join("new")), owner(dir.path()));
        // What another one has made meanwhile stays as it is.
        make(&there, Some((Some(12), Some(34))), &wanted).unwrap();
        assert_eq!(owner(&there), owner(dir.path()));
    }

    #[test]
    fn what_nobody_waits_for_any_more_is_not_made() {
        let dir = tempfile::tempdir().unwrap();
        let late = make(&dir.path().join("new/source"), None, &Wanted::by_nobody());
        let why = late.unwrap_err().errno();
        assert_eq!(why.as_deref(), Some("ECANCELED"));
        assert_eq!(fs::read_dir(&dir).unwrap().count(), 0);
    }

    #[test]
    fn nothing_is_made_or_given_away_through_a_link() {
        let dir = tempfile::tempdir().unwrap();
        let (outside, shared) = (dir.path().join("outside"), dir.path().join("shared"));
        fs::create_dir(&outside).unwrap();
        fs::create_dir(&shared).unwrap();
        symlink(&outside, shared.join("planted")).unwrap();
        symlink(outside.join("dangling"), shared.join("last")).unwrap();
        for source in ["planted/new", "last", "last/new"] {
            let refused = make(
                &shared.join(source),
                Some((Some(12), Some(34))),
                &Wanted::default(),
            );
            let text = refused.unwrap_err().to_string();
            assert!(text.contains("symbolic link"), "{source}: {text}");
        }
        assert_eq!(fs::read_dir(&outside).unwrap().count(), 0);
    }
}
