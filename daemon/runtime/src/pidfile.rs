//! The PID file, for engines that wait for it.

use std::fs;
use std::path::Path;

use crate::error::{Doing, Result};

/// Writes the PID, whole or not at all.
pub fn write(path: &Path, pid: u32) -> Result<()> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let temporary = path.with_file_name(format!(".{name}.new"));
    fs::write(&temporary, pid.to_string())
        .and_then(|()| fs::rename(&temporary, path))
        .doing(|| format!("write the PID file {}", path.display()))
}
