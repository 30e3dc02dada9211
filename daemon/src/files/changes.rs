//! What a container changed against its base.

use std::path::{Path, PathBuf};

use lbctl::types::Change;

use super::FileError;

/// Compares an overlay's upper directory with its lower ones (uppermost first), by path.
///
/// A path is modified when it is not a directory and lies in both, or is a directory whose mode,
/// owner or time differs; directories that overlayfs only copied up are not listed.
///
/// # Errors
/// [`FileError::Io`] when a directory cannot be read.
pub fn changes(_upper: &Path, _lower: &[PathBuf]) -> Result<Vec<Change>, FileError> {
    unimplemented!()
}
