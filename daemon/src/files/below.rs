//! Where directories of the host are in a root.

use std::path::{Path, PathBuf};

/// The paths by which a container with this root would see these directories of the host, which are
/// real paths: of those that lie below it.
pub fn below(root: &Path, directories: &[PathBuf]) -> Vec<PathBuf> {
    // The path may lead over links.
    let root = root.canonicalize().unwrap_or_else(|_| root.to_owned());
    directories
        .iter()
        .filter_map(|directory| directory.strip_prefix(&root).ok())
        .filter(|below| !below.as_os_str().is_empty())
        .map(|below| Path::new("/").join(below))
        .collect()
}
