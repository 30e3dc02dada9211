//! The log's format on disk, shared by the helper that writes it and the daemon that reads it.
//!
//! A log is a sequence of records, appended in one `write` each:
//!
//! ```text
//! offset  size  field
//!      0     4  length of the payload, little endian, at most LOG_PAYLOAD_LIMIT
//!      4     4  CRC-32 (IEEE) of bytes 8.. of the header and of the payload
//!      8     8  nanoseconds since the epoch
//!     16     1  stream: 1 stdout, 2 stderr
//!     17     1  flags: bit 0 = partial (the line goes on in the stream's next record)
//!     18     2  zero
//!     20     n  the payload: bytes as the program wrote them, without the newline that ends a line
//! ```
//!
//! A newline ends a record and is not stored; a record without one is *partial*. So random bytes
//! round-trip exactly: payload, then `\n` unless partial. A file starts with [`FILE_HEADER_LEN`]
//! bytes: [`FILE_MAGIC`] and, little endian, the number of record bytes in the files rotated away
//! before it; so every record has a position that stays true over rotations. A torn tail (power
//! cut, full disk) fails its length or check sum and is cut by the writer when it opens the file.

/// The first eight bytes of a log file.
pub const FILE_MAGIC: [u8; 8] = *b"lblog\x01\r\n";
/// Magic and base position.
pub const FILE_HEADER_LEN: usize = 16;
/// Bytes of a record's header.
pub const RECORD_HEADER_LEN: usize = 20;
/// The most bytes in one record's payload.
pub const LOG_PAYLOAD_LIMIT: usize = 64 * 1024;
/// Position of the first record of a log.
pub const LOG_START: u64 = 0;
/// How far a lossless reader may be behind before the program is held back.
pub const GATE_WINDOW: u64 = 8 * 1024 * 1024;
/// Flag bit: the line goes on.
pub const FLAG_PARTIAL: u8 = 1;

/// Which stream a record belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogStream {
    /// Standard output, and everything of a terminal.
    Stdout = 1,
    /// Standard error.
    Stderr = 2,
}

/// One record, decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogRecord<'a> {
    /// Nanoseconds since the epoch.
    pub time_ns: u64,
    /// The stream.
    pub stream: LogStream,
    /// The line goes on in the stream's next record.
    pub partial: bool,
    /// The bytes.
    pub payload: &'a [u8],
}

/// What stands at the beginning of a buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decoded<'a> {
    /// A whole record of so many bytes, header included.
    Record(LogRecord<'a>, usize),
    /// The buffer ends inside a record; read more.
    Incomplete,
    /// These bytes are no record.
    Corrupt,
}

/// The header of a record, ready to be written before its payload. `crc` is computed by the
/// caller over `header[8..]` and the payload, and put in with [`seal_header`].
pub fn record_header(time_ns: u64, stream: LogStream, partial: bool, len: u32) -> [u8; 20] {
    let mut header = [0u8; RECORD_HEADER_LEN];
    header[0..4].copy_from_slice(&len.to_le_bytes());
    header[8..16].copy_from_slice(&time_ns.to_le_bytes());
    header[16] = stream as u8;
    header[17] = if partial { FLAG_PARTIAL } else { 0 };
    header
}

/// Puts the check sum into a header made by [`record_header`].
pub fn seal_header(header: &mut [u8; RECORD_HEADER_LEN], crc: u32) {
    header[4..8].copy_from_slice(&crc.to_le_bytes());
}

/// Decodes the record at the beginning of `buf`; `crc` computes a CRC-32 (IEEE) of its argument.
/// Never panics, whatever the bytes are.
pub fn decode_record(buf: &[u8], crc: impl Fn(&[u8]) -> u32) -> Decoded<'_> {
    let Some((header, rest)) = buf.split_first_chunk::<RECORD_HEADER_LEN>() else {
        return Decoded::Incomplete;
    };
    let [
        l0,
        l1,
        l2,
        l3,
        c0,
        c1,
        c2,
        c3,
        t0,
        t1,
        t2,
        t3,
        t4,
        t5,
        t6,
        t7,
        stream,
        flags,
        z0,
        z1,
    ] = *header;
    let len = u32::from_le_bytes([l0, l1, l2, l3]) as usize;
    let stream = match stream {
        1 => LogStream::Stdout,
        2 => LogStream::Stderr,
        _ => return Decoded::Corrupt,
    };
    if len > LOG_PAYLOAD_LIMIT || flags & !FLAG_PARTIAL != 0 || z0 != 0 || z1 != 0 {
        return Decoded::Corrupt;
    }
    let Some(payload) = rest.get(..len) else {
        return Decoded::Incomplete;
    };
    // Bytes 8.. of the header and the payload lie side by side in the buffer.
    if crc(&buf[8..RECORD_HEADER_LEN + len]) != u32::from_le_bytes([c0, c1, c2, c3]) {
        return Decoded::Corrupt;
    }
    let record = LogRecord {
        time_ns: u64::from_le_bytes([t0, t1, t2, t3, t4, t5, t6, t7]),
        stream,
        partial: flags & FLAG_PARTIAL != 0,
        payload,
    };
    Decoded::Record(record, RECORD_HEADER_LEN + len)
}
