//! Records as clients see them: NDJSON lines and text.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use littlebox_protocol::LogStream;
use littlebox_types::{LogLine, OutputEncoding};

use super::Record;
use crate::time;

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
        Self {
            since_ns: None,
            until_ns: None,
            stdout: true,
            stderr: true,
        }
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

/// The wire name of a stream.
pub fn stream_name(stream: LogStream) -> &'static str {
    match stream {
        LogStream::Stdout => "stdout",
        LogStream::Stderr => "stderr",
    }
}

/// Bytes as a JSON string: as they are when they are UTF-8, else base 64.
pub fn encode(bytes: &[u8]) -> (String, OutputEncoding) {
    match std::str::from_utf8(bytes) {
        Ok(text) => (text.to_owned(), OutputEncoding::Utf8),
        Err(_) => (STANDARD.encode(bytes), OutputEncoding::Base64),
    }
}

/// A record as its wire type: UTF-8 where the bytes are, base 64 where not.
pub fn line(record: &Record) -> LogLine {
    let (data, encoding) = encode(&record.payload);
    LogLine {
        at: rfc3339(record),
        stream: stream_name(record.stream).to_owned(),
        data,
        encoding: (encoding != OutputEncoding::Utf8).then_some(encoding),
        partial: record.partial,
        position: record.position,
    }
}

/// Appends the record as one line of NDJSON.
pub fn render_ndjson(record: &Record, out: &mut Vec<u8>) {
    serde_json::to_writer(&mut *out, &line(record))
        .expect("a log line has no map with keys that are not strings, and a Vec takes everything");
    out.push(b'\n');
}

fn rfc3339(record: &Record) -> String {
    time::rfc3339(i64::try_from(record.time_ns).unwrap_or(i64::MAX))
}

/// Renders records as text: the bytes as they were written, each line after its time when asked.
#[derive(Debug, Clone, Default)]
pub struct TextRenderer {
    timestamps: bool,
    /// By stream: whether its last record was partial, so that the next one goes on with the line.
    inside: [bool; 2],
}

impl TextRenderer {
    /// With or without a time before each line.
    pub fn new(timestamps: bool) -> Self {
        Self {
            timestamps,
            inside: [false; 2],
        }
    }

    /// Appends one record.
    pub fn render(&mut self, record: &Record, out: &mut Vec<u8>) {
        let inside = match record.stream {
            LogStream::Stdout => &mut self.inside[0],
            LogStream::Stderr => &mut self.inside[1],
        };
        if self.timestamps && !*inside {
            out.extend_from_slice(rfc3339(record).as_bytes());
            out.push(b' ');
        }
        *inside = record.partial;
        out.extend_from_slice(&record.payload);
        if !record.partial {
            out.push(b'\n');
        }
    }
}
