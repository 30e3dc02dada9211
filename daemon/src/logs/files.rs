//! The files of one log: finding them, reading whole records from them.

use bytes::Bytes;
use littlebox_helper::protocol::LogStream;

/// One record of a log. `payload` shares the memory of the chunk it was read in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Position after this record: where a reader that saw it resumes.
    pub position: u64,
    /// Nanoseconds since the epoch.
    pub time_ns: u64,
    /// Which stream.
    pub stream: LogStream,
    /// The line goes on in the stream's next record.
    pub partial: bool,
    /// The bytes, without the newline that ends a line.
    pub payload: Bytes,
}
