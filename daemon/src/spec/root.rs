//! What the root is made from.

use std::path::{Path, PathBuf};

use oci_spec::runtime::Root;

use super::ConfigError;
use super::check::{error_with, path, shown};

/// What the root is made from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RootSource {
    /// A copy-on-write view of the machine's own root.
    Host,
    /// An absolute host path of a directory, below an overlay.
    Dir(PathBuf),
    /// An absolute host path of a directory, used as it is.
    Bind(PathBuf),
}

/// Reads the request's `rootfs`.
pub(super) fn parse(rootfs: &str) -> Result<RootSource, ConfigError> {
    if rootfs == "host" {
        return Ok(RootSource::Host);
    }
    let Some(dir) = rootfs.strip_prefix("dir:") else {
        return Err(error_with(
            "/rootfs",
            format!(
                "{} is not a root that a container can be made from",
                shown(rootfs)
            ),
            "use host, or dir:/absolute/path of a directory",
        ));
    };
    let dir = path(dir, "/rootfs")?;
    if dir == Path::new("/") {
        return Err(error_with(
            "/rootfs",
            "the machine's own root cannot be used as a plain directory",
            "use host: a copy-on-write view of it, without what must stay hidden",
        ));
    }
    Ok(RootSource::Dir(dir))
}

/// The spec's `root` object.
pub(super) fn for_spec(root: &RootSource, read_only: bool) -> Root {
    let mut spec = Root::default();
    spec.set_path(match root {
        RootSource::Host => PathBuf::from("/"),
        RootSource::Dir(dir) | RootSource::Bind(dir) => dir.clone(),
    });
    spec.set_readonly(Some(read_only));
    spec
}
