//! Records as clients see them: NDJSON lines and text.

use lbctl::types::LogLine;
use littlebox_helper::protocol::LogStream;

use super::Record;

/// Which records a client asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Filter {
    /// Not before (nanoseconds since the epoch).
    pub since_ns: Option<u64>,
    /// Not after (nanoseconds since the epoch).
    pub until_ns: Option<u64>,
    /// Standard output.
    pub stdout: bool,
    /// Standard error.
    pub stderr: bool,
}

impl Default for Filter {
    fn default() -> Self {
        Self { since_ns: None, until_ns: None, stdout: true, stderr: true }
    }
}

impl Filter {
    /// Whether a follower may stop: this record is later than anything that was asked for.
    pub fn is_past(&self, record: &Record) -> bool {
        self.until_ns.is_some_and(|until| record.time_ns > until)
    }
}

/// Whether a record was asked for.
pub fn matches(filter: &Filter, record: &Record) -> bool {
    let stream = match record.stream {
        LogStream::Stdout => filter.stdout,
        LogStream::Stderr => filter.stderr,
    };
    stream
        && filter.since_ns.is_none_or(|since| record.time_ns >= since)
        && filter.until_ns.is_none_or(|until| record.time_ns <= until)
}

/// Nanoseconds since the epoch as RFC 3339 in UTC with nine digits of the second's fraction.
pub fn rfc3339(_time_ns: u64) -> String {
    unimplemented!()
}

/// A record as its wire type: UTF-8 where the bytes are, base 64 where not.
pub fn line(_record: &Record) -> LogLine {
    unimplemented!()
}

/// Appends the record as one line of NDJSON.
pub fn render_ndjson(_record: &Record, _out: &mut Vec<u8>) {
    unimplemented!()
}

/// Renders records as text: the bytes as they were written, each line after its time when asked.
#[derive(Debug, Clone, Default)]
pub struct TextRenderer {}

impl TextRenderer {
    /// With or without a time before each line.
    pub fn new(_timestamps: bool) -> Self {
        unimplemented!()
    }

    /// Appends one record.
    pub fn render(&mut self, _record: &Record, _out: &mut Vec<u8>) {
        unimplemented!()
    }
}
