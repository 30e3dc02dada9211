//! What goes to stdout: text, JSON, tables; and warnings.

use std::io::{self, IsTerminal, Write};

use serde::Serialize;

use super::error::Failure;
use super::sanitize;
use super::table::Table;
use super::terminal;

/// Writes text; a reader that has gone ends the command in silence.
pub fn print(text: &str) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())
        .and_then(|()| out.flush())
        .map_err(Failure::stdout)
}

/// Writes a line.
pub fn line(text: &str) -> Result<(), Failure> {
    print(&format!("{text}\n"))
}

/// Writes bytes as they are.
pub fn bytes(data: &[u8]) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    out.write_all(data)
        .and_then(|()| out.flush())
        .map_err(Failure::stdout)
}

/// Writes a value as indented JSON.
pub fn json(value: &impl Serialize) -> Result<(), Failure> {
    let text = serde_json::to_string_pretty(value).map_err(encode)?;
    line(&text)
}

/// Writes a value as one line of JSON, for streams.
pub fn json_line(value: &impl Serialize) -> Result<(), Failure> {
    let text = serde_json::to_string(value).map_err(encode)?;
    line(&text)
}

/// Writes the daemon's warnings to stderr.
pub fn warnings(warnings: &[String]) {
    for warning in warnings {
        eprintln!("warning: {}", sanitize::text(warning));
    }
}

fn encode(e: serde_json::Error) -> Failure {
    Failure::Io {
        what: "cannot write JSON".to_owned(),
        source: e.into(),
    }
}

/// Writes a table: as wide as the terminal, whole into a pipe or file.
pub fn table(table: &Table) -> Result<(), Failure> {
    print(&table.render(width()))
}

/// The terminal's width, when stdout is one.
pub fn width() -> Option<usize> {
    if !io::stdout().is_terminal() {
        return None;
    }
    terminal::size()
        .map(|size| usize::from(size.cols))
        .filter(|&cols| cols > 0)
}

/// Bytes in words: `12.3 MiB`.
pub fn size(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
    let mut unit = 0;
    // Rounding is what this is for.
    #[expect(clippy::cast_precision_loss, reason = "shown with three digits")]
    let mut value = bytes as f64;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    if unit == 0 {
        format!("{bytes} B")
    } else {
        format!("{value:.1} {}", UNITS[unit])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_readable() {
        assert_eq!(size(0), "0 B");
        assert_eq!(size(1023), "1023 B");
        assert_eq!(size(1536), "1.5 KiB");
        assert_eq!(size(512 << 20), "512.0 MiB");
        assert_eq!(size(u64::MAX), "16384.0 PiB");
    }
}
