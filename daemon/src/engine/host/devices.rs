//! Devices of this machine.

use std::fs::{self, Metadata};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use crate::spec::{HostDevice, WantedDevice};

/// The most nodes below one directory.
const NODES: usize = 1024;
/// The most names below one directory, devices or not.
const NAMES: usize = 16 * 1024;
/// The deepest directory below one that is asked for.
const DEPTH: usize = 8;
/// What a container's `/dev` has of its own.
const OWN: [&str; 5] = ["console", "mqueue", "ptmx", "pts", "shm"];

/// The node that is wanted, or all below the directory that is. Links are followed to what was
/// asked for, and not below it.
pub(super) fn find(wanted: &WantedDevice) -> Result<Vec<HostDevice>, String> {
    let shown = wanted.source.display();
    let meta = fs::metadata(&wanted.source)
        .map_err(|error| format!("the device {shown} cannot be used: {error}"))?;
    if !meta.is_dir() {
        return device(&meta, wanted.path.clone(), &wanted.permissions)
            .map(|found| vec![found])
            .ok_or_else(|| format!("{shown} is not a device"));
    }
    let mut walk = Walk::of(wanted);
    walk.enter(Path::new(""), &[], DEPTH);
    match walk.found.len() {
        _ if walk.names > NAMES => Err(format!(
            "there are more than {NAMES} files below {shown}: name the devices that are meant"
        )),
        0 => Err(format!("there is no device below {shown}")),
        n if n > NODES => Err(format!("there are more than {NODES} devices below {shown}")),
        _ => Ok(walk.found),
    }
}

/// Every device of the host, for a privileged container.
pub(super) fn all() -> Vec<HostDevice> {
    let dev = WantedDevice {
        source: "/dev".into(),
        path: "/dev".into(),
        permissions: "rwm".into(),
    };
    let mut walk = Walk::of(&dev);
    walk.enter(Path::new(""), &OWN, DEPTH);
    walk.found
}

/// A walk below a directory.
struct Walk<'a> {
    wanted: &'a WantedDevice,
    found: Vec<HostDevice>,
    /// How many names it has come by.
    names: usize,
}

impl<'a> Walk<'a> {
    fn of(wanted: &'a WantedDevice) -> Self {
        Self {
            wanted,
            found: Vec::new(),
            names: 0,
        }
    }

    /// What cannot be read, or goes away meanwhile, is passed over.
    fn enter(&mut self, below: &Path, skipped: &[&str], depth: usize) {
        let Ok(entries) = fs::read_dir(self.wanted.source.join(below)) else {
            return;
        };
        let names = entries.filter_map(|entry| Some(PathBuf::from(entry.ok()?.file_name())));
        let left = (NAMES + 1).saturating_sub(self.names);
        let mut names: Vec<PathBuf> = names.take(left).collect();
        self.names += names.len();
        names.sort();
        for name in names {
            if self.found.len() > NODES || skipped.iter().any(|s| Path::new(s) == name) {
                continue;
            }
            let path = below.join(&name);
            let Ok(meta) = fs::symlink_metadata(self.wanted.source.join(&path)) else {
                continue;
            };
            if meta.is_dir() && depth > 0 {
                self.enter(&path, &[], depth - 1);
            } else {
                let target = self.wanted.path.join(&path);
                let found = device(&meta, target, &self.wanted.permissions);
                self.found.extend(found);
            }
        }
    }
}

fn device(meta: &Metadata, path: PathBuf, permissions: &str) -> Option<HostDevice> {
    let kind = meta.file_type();
    if !kind.is_block_device() && !kind.is_char_device() {
        return None;
    }
    Some(HostDevice {
        path,
        block: kind.is_block_device(),
        major: rustix::fs::major(meta.rdev()),
        minor: rustix::fs::minor(meta.rdev()),
        mode: meta.mode() & 0o777,
        uid: meta.uid(),
        gid: meta.gid(),
        permissions: permissions.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(source: &Path, path: &str) -> WantedDevice {
        WantedDevice {
            source: source.into(),
            path: path.into(),
            permissions: "r".into(),
        }
    }

    #[test]
    fn a_node_is_found_through_a_link() {
        let dir = tempfile::tempdir().unwrap();
        let link = dir.path().join("link");
        std::os::unix::fs::symlink("/dev/null", &link).unwrap();
        let found = find(&wanted(&link, "/dev/mine")).unwrap();
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].path, Path::new("/dev/mine"));
        assert_eq!(
            (found[0].major, found[0].minor, found[0].block),
            (1, 3, false)
        );
        assert_eq!(found[0].permissions, "r");
    }

    #[test]
    fn what_is_no_device_is_told() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("file"), "").unwrap();
        std::os::unix::fs::symlink("/dev/null", dir.path().join("link")).unwrap();
        for (path, why) in [
            ("file", "is not a device"),
            ("none", "cannot be used"),
            (".", "no device below"),
        ] {
            let error = find(&wanted(&dir.path().join(path), "/dev/x")).unwrap_err();
            assert!(error.contains(why), "{path}: {error}");
        }
    }

    #[test]
    fn a_directory_of_many_other_files_is_refused_before_it_is_read_to_the_end() {
        let dir = tempfile::tempdir().unwrap();
        for n in 0..2 {
            let below = dir.path().join(format!("{n}"));
            fs::create_dir(&below).unwrap();
            let first = below.join("first");
            fs::write(&first, "").unwrap();
            for more in 0..NAMES / 2 {
                fs::hard_link(&first, below.join(format!("{more}"))).unwrap();
            }
        }
        let error = find(&wanted(dir.path(), "/dev/x")).unwrap_err();
        assert!(error.contains("name the devices"), "{error}");
    }

    #[test]
    fn all_are_below_dev_and_none_is_the_containers_own() {
        let all = all();
        assert!(all.iter().any(|d| d.path == Path::new("/dev/null")));
        for device in all {
            assert!(device.path.starts_with("/dev"));
            assert!(!device.path.starts_with("/dev/pts"), "{device:?}");
        }
    }
}
