//! Where a container's cgroup is.

use std::path::{Component, Path, PathBuf};

use oci_spec::runtime::Spec;

use crate::bundle::CONFIG;
use crate::error::{Error, Result};
use crate::id::Id;
use crate::systemd::Scope;

/// The parent of cgroups to which the spec gives no absolute path.
const PARENT: &str = "/littlebox-runtime";

/// The cgroup's path below each hierarchy's root: `linux.cgroupsPath` where it is absolute, below
/// `/littlebox-runtime` where it is relative or missing (OCI config-linux.md, "Cgroups Path").
pub fn path(spec: &Spec, id: &Id) -> Result<PathBuf> {
    let given = given(spec).filter(|path| !path.as_os_str().is_empty());
    let path = match given {
        None => Path::new(PARENT).join(id.as_str()),
        Some(path) if path.is_absolute() => path.to_owned(),
        Some(path) => Path::new(PARENT).join(path),
    };
    let plain = path
        .components()
        .all(|c| matches!(c, Component::Normal(_) | Component::RootDir));
    let text = path.to_str().unwrap_or("\0");
    if plain && path != Path::new("/") && !text.contains(['\0', '\n', ':']) {
        return Ok(path.components().collect());
    }
    Err(wrong(
        "a cgroup path is plain directory names below the root; slice:prefix:name is for \
         --systemd-cgroup",
    ))
}

/// The scope, for `--systemd-cgroup`.
pub fn scope(spec: &Spec, id: &Id) -> Result<Scope> {
    Scope::parse(given(spec).and_then(Path::to_str), id)
}

fn given(spec: &Spec) -> Option<&Path> {
    let linux = spec.linux().as_ref()?;
    linux.cgroups_path().as_deref()
}

fn wrong(message: impl Into<String>) -> Error {
    Error::Document {
        document: CONFIG.into(),
        pointer: "/linux/cgroupsPath".to_owned(),
        message: message.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path_for(cgroups_path: Option<&str>) -> Result<PathBuf> {
        let mut linux = serde_json::json!({});
        if let Some(path) = cgroups_path {
            linux["cgroupsPath"] = path.into();
        }
        let spec = serde_json::json!({"ociVersion": "1.0.2", "linux": linux});
        let spec: Spec = serde_json::from_value(spec).expect("a spec");
        path(&spec, &"box".parse().expect("an id"))
    }

    #[test]
    fn a_relative_path_is_below_the_runtimes_own() {
        let path = |p| path_for(p).expect("a path");
        assert_eq!(path(Some("/a/b")), Path::new("/a/b"));
        assert_eq!(path(Some("a/b")), Path::new("/littlebox-runtime/a/b"));
        assert_eq!(path(None), Path::new("/littlebox-runtime/box"));
    }

    #[test]
    fn no_path_leads_above_the_root() {
        for bad in ["/", "../x", "/a/../../b", "a:b:c", "/a\nb"] {
            assert!(path_for(Some(bad)).is_err(), "{bad:?}");
        }
    }
}
