//! Paths that read empty, and paths that cannot be written.

use littlebox_types::{ContainerConfig, DEFAULT_MASKED_PATHS, DEFAULT_READONLY_PATHS};
use oci_spec::runtime::Linux;

use super::ConfigError;
use super::check::{at_most, path};

/// The most paths of a list.
const LIMIT: usize = 1024;

/// Whether what is masked are the default paths.
pub(super) fn is_default(config: &ContainerConfig) -> bool {
    config.masked_paths.is_none() && !config.privileged
}

/// Sets both lists of the spec: the request's, else the default ones, which a privileged container
/// does not have.
pub(super) fn set(linux: &mut Linux, config: &ContainerConfig) -> Result<(), ConfigError> {
    let default = |paths: &[&str]| {
        let owned = || paths.iter().map(|p| (*p).to_owned()).collect();
        (!config.privileged).then(owned)
    };
    linux.set_masked_paths(match &config.masked_paths {
        Some(paths) => Some(list(paths, "/masked_paths")?),
        None => default(&DEFAULT_MASKED_PATHS),
    });
    linux.set_readonly_paths(match &config.readonly_paths {
        Some(paths) => Some(list(paths, "/readonly_paths")?),
        None => default(&DEFAULT_READONLY_PATHS),
    });
    Ok(())
}

fn list(paths: &[String], pointer: &str) -> Result<Vec<String>, ConfigError> {
    at_most(paths.len(), LIMIT, pointer, "paths")?;
    let one = |(i, text): (usize, &String)| {
        let path = path(text, &format!("{pointer}/{i}"))?;
        Ok(path.to_string_lossy().into_owned())
    };
    paths.iter().enumerate().map(one).collect()
}
