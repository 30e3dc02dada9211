//! Reading a log file whole.

use std::path::Path;

use littlebox_protocol::{Decoded, FILE_HEADER_LEN, FILE_MAGIC, LogStream, decode_record};

/// A record that owns its payload.
#[derive(Debug, Clone)]
pub struct Record {
    pub time_ns: u64,
    pub stream: LogStream,
    pub partial: bool,
    pub payload: Vec<u8>,
}

/// The records of a log file; every byte of it must be one of theirs.
pub fn read_log(path: &Path) -> Vec<Record> {
    read_file(path).1
}

/// A log file's base position and its records.
pub fn read_file(path: &Path) -> (u64, Vec<Record>) {
    let bytes = std::fs::read(path).unwrap();
    assert_eq!(bytes[..8], FILE_MAGIC, "magic of {}", path.display());
    let base = u64::from_le_bytes(bytes[8..FILE_HEADER_LEN].try_into().unwrap());
    let mut rest = &bytes[FILE_HEADER_LEN..];
    let mut records = Vec::new();
    while !rest.is_empty() {
        let Decoded::Record(record, size) = decode_record(rest, crc32fast::hash) else {
            panic!("no record {} bytes before the end", rest.len());
        };
        records.push(Record {
            time_ns: record.time_ns,
            stream: record.stream,
            partial: record.partial,
            payload: record.payload.to_vec(),
        });
        rest = &rest[size..];
    }
    (base, records)
}

/// The records of a log and of the files rotated away from it, oldest first.
pub fn read_rotated(path: &Path) -> Vec<Record> {
    let rotated = (1..).map(|n| path.with_extension(format!("log.{n}")));
    let rotated: Vec<_> = rotated.take_while(|path| path.exists()).collect();
    let files = rotated
        .iter()
        .rev()
        .map(|path| path.as_path())
        .chain([path]);
    files.flat_map(|file| read_file(file).1).collect()
}

/// What a program printed on one stream.
pub fn output_of(records: &[Record], stream: LogStream) -> Vec<u8> {
    let mut output = Vec::new();
    for record in records.iter().filter(|record| record.stream == stream) {
        output.extend_from_slice(&record.payload);
        if !record.partial {
            output.push(b'\n');
        }
    }
    output
}
