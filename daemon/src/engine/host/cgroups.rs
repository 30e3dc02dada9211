//! The names of containers' directories in the cgroup hierarchies.

use std::io;
use std::path::{Path, PathBuf};

/// The entries of a directory; one that is missing has none.
///
/// # Errors
/// Any other: what is in it is not known then.
pub(crate) fn names(dir: &Path) -> io::Result<Vec<String>> {
    let entries = match std::fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(e),
    };
    let mut names = Vec::new();
    for entry in entries {
        // A name that is not UTF-8 is none that was derived from an id.
        names.extend(entry?.file_name().into_string());
    }
    Ok(names)
}

/// The containers' cgroups below the instance's, in whichever hierarchies are mounted.
pub(crate) fn cgroup_names(instance: &Path) -> io::Result<Vec<String>> {
    let mut found = Vec::new();
    for hierarchy in hierarchies()? {
        let dir = below(&hierarchy, instance);
        let mut names = names(&dir)?;
        names.retain(|n| dir.join(n).is_dir());
        found.append(&mut names);
    }
    found.sort();
    found.dedup();
    Ok(found)
}

/// Whether a cgroup has a directory in any hierarchy.
pub(crate) fn cgroup_exists(cgroup: &Path) -> io::Result<bool> {
    for hierarchy in hierarchies()? {
        if below(&hierarchy, cgroup).try_exists()? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Where hierarchies are mounted by convention: the one of v2, or one per v1 controller.
pub(crate) fn hierarchies() -> io::Result<Vec<PathBuf>> {
    let root = Path::new("/sys/fs/cgroup");
    if root.join("cgroup.controllers").try_exists()? {
        return Ok(vec![root.to_owned()]);
    }
    let mut found = names(root)?;
    // Files of tmpfs, and links from one controller's name to another's mount.
    found.retain(|n| root.join(n).symlink_metadata().is_ok_and(|m| m.is_dir()));
    Ok(found.into_iter().map(|n| root.join(n)).collect())
}

pub(crate) fn below(hierarchy: &Path, cgroup: &Path) -> PathBuf {
    hierarchy.join(cgroup.strip_prefix("/").unwrap_or(cgroup))
}
