//! How much output is kept, of a container and of an exec.

use lbctl::types::{ContainerConfig, ExecConfig};
use littlebox_helper::protocol::GATE_WINDOW;

use super::ConfigError;
use super::check::error_with;

/// The log's bounds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogSettings {
    /// Bytes per file; `None`: it is never rotated.
    pub max_size: Option<u64>,
    /// Rotated files that are kept.
    pub max_files: u32,
}

/// Rotated files kept beside the current one when the request does not say.
const FILES: u32 = 4;

/// Bytes of a log file when the request does not say.
const SIZE: u64 = 16 * 1024 * 1024;

/// Below this a log would be rotated at every line.
const SIZE_MIN: u64 = 4096;

/// Of a container.
pub(super) fn for_container(config: &ContainerConfig) -> Result<LogSettings, ConfigError> {
    let asked = config.log.as_ref();
    let size = asked.and_then(|l| l.max_size).unwrap_or(SIZE);
    let max_files = asked.and_then(|l| l.max_files).unwrap_or(FILES);
    if size != 0 && size < SIZE_MIN {
        return Err(error_with(
            "/log/max_size",
            format!("a log of {size} bytes would be rotated at every line"),
            format!("give at least {SIZE_MIN} bytes, or 0 for no bound"),
        ));
    }
    if !(1..=1000).contains(&max_files) {
        return Err(error_with(
            "/log/max_files",
            format!("{max_files} rotated files cannot be kept; 1 to 1000 can"),
            "for a log that is never rotated set log.max_size to 0",
        ));
    }
    // A rotation would take away what a slow foreground client has not read yet.
    let max_size = (size != 0 && !config.attach).then_some(size);
    Ok(LogSettings {
        max_size,
        max_files,
    })
}

/// Of an exec: two files of half the bound each: the newest half at least can always be read again. For a
/// foreground client each holds the whole window by which it may be behind.
pub(super) fn for_exec(config: &ExecConfig) -> Result<LogSettings, ConfigError> {
    let limit = config.output_limit.unwrap_or(SIZE);
    if limit != 0 && limit < SIZE_MIN {
        return Err(error_with(
            "/output_limit",
            format!("{limit} bytes are too few to keep output in"),
            format!("give at least {SIZE_MIN} bytes, or 0 for no bound"),
        ));
    }
    let least = if config.attach {
        GATE_WINDOW + GATE_WINDOW / 8
    } else {
        0
    };
    let max_size = (limit != 0).then(|| (limit / 2).max(least));
    Ok(LogSettings {
        max_size,
        max_files: 1,
    })
}
