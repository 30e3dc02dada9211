//! How much output is kept, of a container and of an exec.

use littlebox_protocol::GATE_WINDOW;
use littlebox_types::{ContainerConfig, ExecConfig};

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

/// Bytes of a file that holds the gate's window and what is read beyond it before the gate closes.
const FOREGROUND_LEAST: u64 = GATE_WINDOW + GATE_WINDOW / 8;

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
    if config.attach {
        let asked_size = asked.and_then(|l| l.max_size);
        return Ok(for_foreground(asked_size, size, max_files));
    }
    Ok(LogSettings {
        max_size: (size != 0).then_some(size),
        max_files,
    })
}

/// For a foreground client nothing may be rotated away that it can still be about to read: without a
/// bound of the user's own there is no rotation, and with one each file holds the whole window by which
/// that client may be behind. Of such files fewer are kept, so that all of them are as large as asked
/// for, where two hold as much.
fn for_foreground(asked_size: Option<u64>, size: u64, max_files: u32) -> LogSettings {
    if asked_size.is_none_or(|asked| asked == 0) {
        return LogSettings {
            max_size: None,
            max_files,
        };
    }
    let max_size = size.max(FOREGROUND_LEAST);
    let whole = size.saturating_mul(u64::from(max_files) + 1);
    let kept = (whole / max_size)
        .saturating_sub(1)
        .clamp(1, max_files.into());
    LogSettings {
        max_size: Some(max_size),
        max_files: u32::try_from(kept).unwrap_or(max_files),
    }
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
    let least = if config.attach { FOREGROUND_LEAST } else { 0 };
    let max_size = (limit != 0).then(|| (limit / 2).max(least));
    Ok(LogSettings {
        max_size,
        max_files: 1,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_of_a_foreground_log_hold_what_its_client_has_not_read() {
        const MIB: u64 = 1024 * 1024;
        let kept = |asked, size, files| {
            let settings = for_foreground(asked, size, files);
            (settings.max_size, settings.max_files)
        };
        assert_eq!(kept(None, SIZE, 4), (None, 4));
        assert_eq!(kept(Some(0), 0, 4), (None, 4));
        assert_eq!(kept(Some(MIB), MIB, 2), (Some(9 * MIB), 1));
        assert_eq!(kept(Some(3 * MIB), 3 * MIB, 8), (Some(9 * MIB), 2));
        assert_eq!(kept(Some(100 * MIB), 100 * MIB, 3), (Some(100 * MIB), 3));
    }
}
