//! Streams: log records and the interactive protocol `littlebox.exec.v1`.

use serde::{Deserialize, Serialize};

use super::{Exit, Problem, Signal};

/// The WebSocket subprotocol of attach and exec.
///
/// Binary frames: one channel byte ([`Channel`]), then data. Text frames: [`ClientControl`] from
/// the client, [`ServerControl`] from the server. The server ends with `exit`, `detached` or
/// `error`, then closes.
pub const EXEC_SUBPROTOCOL: &str = "littlebox.exec.v1";

/// The channel byte of a binary frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Channel {
    /// Client to server.
    Stdin = 0,
    /// Server to client; everything of a terminal.
    Stdout = 1,
    /// Server to client.
    Stderr = 2,
}

/// Control from the client.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub enum ClientControl {
    /// The terminal's new size.
    Resize {
        /// Rows.
        rows: u16,
        /// Columns.
        cols: u16,
    },
    /// Signal the program.
    Signal {
        /// Which.
        signal: Signal,
    },
    /// End of stdin.
    CloseStdin,
    /// Leave; the program goes on.
    Detach,
}

/// Control from the server.
#[expect(
    clippy::large_enum_variant,
    reason = "one at a time, seldom: a box would only hide it"
)]
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum ServerControl {
    /// First frame: what this stream is.
    Attached {
        /// Whether the program has a terminal (then clients go raw).
        terminal: bool,
        /// Position in the output from which this stream starts; pass it as `?from=` to resume.
        position: u64,
    },
    /// All output before this position was sent; pass it as `?from=` to resume. Told now and then.
    Position {
        /// As in `attached`.
        position: u64,
    },
    /// The program ended and its output is complete.
    Exit(Exit),
    /// Output was lost because it had been rotated away before it could be sent.
    Lagged {
        /// How many bytes.
        bytes: u64,
    },
    /// The client asked to leave.
    Detached,
    /// The stream cannot go on. In a field of its own: a problem has a `type` too.
    Error(#[serde(with = "in_a_field")] Problem),
}

/// A problem as `{"problem": ...}`.
mod in_a_field {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    use super::Problem;

    #[derive(Serialize)]
    struct Out<'a> {
        problem: &'a Problem,
    }

    #[derive(Deserialize)]
    struct In {
        problem: Problem,
    }

    pub(super) fn serialize<S: Serializer>(problem: &Problem, s: S) -> Result<S::Ok, S::Error> {
        Out { problem }.serialize(s)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Problem, D::Error> {
        In::deserialize(d).map(|i| i.problem)
    }
}

/// One line of `GET .../logs` and `GET .../output` as NDJSON.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogLine {
    /// RFC 3339.
    pub at: String,
    /// `stdout` or `stderr`.
    pub stream: String,
    /// The bytes, as UTF-8 where they are; without the line's newline.
    pub data: String,
    /// `base64` when the bytes are not UTF-8.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub encoding: Option<super::OutputEncoding>,
    /// The line goes on in the stream's next record.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub partial: bool,
    /// Position after this record; pass it as `?from=` to resume.
    pub position: u64,
}

#[cfg(test)]
mod tests {
    use super::{Problem, ServerControl};

    #[test]
    fn an_error_frame_is_read_back_as_it_was() {
        let problem = Problem {
            kind: "urn:littlebox:problem:unavailable".into(),
            code: "unavailable".into(),
            ..Problem::default()
        };
        let frame = ServerControl::Error(problem);
        let text = serde_json::to_string(&frame).unwrap();
        assert!(
            text.starts_with(r#"{"type":"error","problem":{"type":"urn:"#),
            "{text}"
        );
        assert_eq!(serde_json::from_str::<ServerControl>(&text).unwrap(), frame);
    }
}
