//! The log that an engine reads the reason of a failure from.

use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::sync::OnceLock;
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::json;

/// How a line is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// `time="..." level=error msg="..."`.
    Text,
    /// `{"level":"error","msg":"...","time":"..."}`.
    Json,
}

/// How important a line is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// For who looks for a fault.
    Debug,
    /// Something was not as it should be.
    Warning,
    /// The command failed.
    Error,
}

impl Level {
    fn name(self) -> &'static str {
        match self {
            Level::Debug => "debug",
            Level::Warning => "warning",
            Level::Error => "error",
        }
    }
}

#[derive(Debug)]
struct Log {
    path: Option<PathBuf>,
    format: Format,
    least: Level,
}

static LOG: OnceLock<Log> = OnceLock::new();

/// Says where lines go: a file that is opened for each, or stderr.
pub fn set_up(path: Option<PathBuf>, format: Format, debug: bool) {
    let least = if debug { Level::Debug } else { Level::Warning };
    // Called once, at the beginning.
    let _ = LOG.set(Log {
        path,
        format,
        least,
    });
}

/// A line for who looks for a fault.
pub fn debug(message: impl FnOnce() -> String) {
    if LOG.get().is_some_and(|log| log.least <= Level::Debug) {
        write(Level::Debug, &message());
    }
}

/// What a start could not do and was not essential: for the log alone. Where there is none stderr is
/// often the container's own, and this no part of its output.
pub fn note(message: &str) {
    if LOG.get().is_some_and(|log| log.path.is_some()) {
        warn(message);
    } else {
        debug(|| message.to_owned());
    }
}

/// What was not done and was not essential.
pub fn warn(message: &str) {
    write(Level::Warning, message);
}

/// Why the command failed; for people also on stderr.
pub fn error(message: &str) {
    write(Level::Error, message);
    if LOG.get().is_some_and(|log| log.path.is_some()) {
        // A caller that has closed it does not want to know.
        let _ = writeln!(std::io::stderr(), "{message}");
    }
}

fn write(level: Level, message: &str) {
    let (path, format) = match LOG.get() {
        Some(log) if level < log.least => return,
        Some(log) => (log.path.as_ref(), log.format),
        None => (None, Format::Text),
    };
    let line = line(level, message, format, SystemTime::now());
    let Some(path) = path else {
        let _ = std::io::stderr().write_all(line.as_bytes());
        return;
    };
    let file = OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o600)
        .open(path);
    // One write, so that lines of several commands do not mix.
    if file
        .and_then(|mut file| file.write_all(line.as_bytes()))
        .is_err()
    {
        let _ = std::io::stderr().write_all(line.as_bytes());
    }
}

fn line(level: Level, message: &str, format: Format, time: SystemTime) -> String {
    let (level, time) = (level.name(), rfc3339(time));
    match format {
        Format::Json => {
            let object = json!({"level": level, "msg": message, "time": time});
            format!("{object}\n")
        }
        Format::Text => format!("time={time:?} level={level} msg={message:?}\n"),
    }
}

/// UTC with seconds: `2026-01-02T03:04:05Z` (RFC 3339).
pub fn rfc3339(time: SystemTime) -> String {
    // A clock before 1970 is as wrong as one that stands at 1970.
    let seconds = time
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs());
    let (days, rest) = (seconds / 86_400, seconds % 86_400);
    let (year, month, day) = civil(days);
    let (hour, minute, second) = (rest / 3600, rest / 60 % 60, rest % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

/// The date of a day since 1970, in years that begin in March so that the leap day is the last.
fn civil(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 {
        month_from_march + 3
    } else {
        month_from_march - 9
    };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    (year, month, day)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn times_are_dates() {
        let at = |seconds| rfc3339(UNIX_EPOCH + Duration::from_secs(seconds));
        assert_eq!(at(0), "1970-01-01T00:00:00Z");
        assert_eq!(at(951_782_399), "2000-02-28T23:59:59Z");
        assert_eq!(at(951_782_400), "2000-02-29T00:00:00Z");
        assert_eq!(at(4_107_542_400), "2100-03-01T00:00:00Z");
    }

    #[test]
    fn a_json_line_is_one_object_whatever_the_message() {
        let text = line(Level::Error, "a \"b\"\nc", Format::Json, UNIX_EPOCH);
        let value: serde_json::Value = serde_json::from_str(&text).expect("JSON");
        assert_eq!(value["msg"], "a \"b\"\nc");
        assert_eq!(value["level"], "error");
        assert_eq!(text.matches('\n').count(), 1);
    }
}
