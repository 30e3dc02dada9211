//! A log's bytes, as a torn disk may leave them: decoding never panics, never goes past the buffer,
//! and what is a record encodes to the same bytes again.
#![no_main]

use libfuzzer_sys::fuzz_target;
use littlebox_protocol::{Decoded, decode_record, record_header, seal_header};

fuzz_target!(|data: &[u8]| {
    let mut rest = data;
    while let Decoded::Record(record, length) = decode_record(rest, crc32fast::hash) {
        let payload = u32::try_from(record.payload.len()).expect("a payload is at most 64 KiB");
        let mut header = record_header(record.time_ns, record.stream, record.partial, payload);
        let mut crc = crc32fast::Hasher::new();
        crc.update(&header[8..]);
        crc.update(record.payload);
        seal_header(&mut header, crc.finalize());
        assert_eq!(rest[..length], [&header[..], record.payload].concat());
        rest = &rest[length..];
    }
    // The same without a check sum to guess: lengths and flags alone.
    let _ = decode_record(data, |_| 0);
});
