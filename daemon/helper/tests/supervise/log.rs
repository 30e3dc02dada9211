//! The log's writer against the format's decoder: what a program printed comes out again.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::path::Path;

use crate::support::log::{output_of, read_file, read_log, read_rotated};
use littlebox_helper::supervise::log::LogWriter;
use littlebox_protocol::{
    Decoded, FILE_HEADER_LEN, LOG_PAYLOAD_LIMIT, LogPlan, LogStream, RECORD_HEADER_LEN,
    decode_record,
};
use proptest::prelude::*;

fn plan(path: &Path, max_size: Option<u64>, max_files: u32) -> LogPlan {
    LogPlan {
        path: path.to_owned(),
        max_size,
        max_files,
    }
}

fn chunks() -> impl Strategy<Value = Vec<(bool, Vec<u8>)>> {
    // Newlines often, so that lines are short; now and then one that is longer than a record.
    let byte = prop_oneof![3 => any::<u8>(), 1 => Just(b'\n')];
    let small = prop::collection::vec(byte, 0..300);
    let large = (LOG_PAYLOAD_LIMIT - 2..LOG_PAYLOAD_LIMIT + 3).prop_map(|len| vec![b'x'; len]);
    let chunk = prop_oneof![20 => small, 1 => large];
    prop::collection::vec((any::<bool>(), chunk), 0..30)
}

fn stream(err: bool) -> LogStream {
    if err {
        LogStream::Stderr
    } else {
        LogStream::Stdout
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn random_output_round_trips(chunks in chunks(), rotate in any::<bool>()) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("container.log");
        // Enough files that none is rotated away.
        let plan = plan(&path, rotate.then_some(100_000), 1000);
        let mut log = LogWriter::open(&plan).unwrap();
        let mut expected = [Vec::new(), Vec::new()];
        for (err, chunk) in &chunks {
            log.append(&mut Vec::new(), stream(*err), chunk, 1);
            expected[usize::from(*err)].extend_from_slice(chunk);
        }
        prop_assert_eq!(log.lost_bytes(), 0);
        let records = read_rotated(&path);
        prop_assert_eq!(output_of(&records, LogStream::Stdout), &expected[0][..]);
        prop_assert_eq!(output_of(&records, LogStream::Stderr), &expected[1][..]);
    }

    #[test]
    fn decoding_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        match decode_record(&bytes, crc32fast::hash) {
            Decoded::Record(_, size) => prop_assert!(size <= bytes.len()),
            Decoded::Incomplete | Decoded::Corrupt => {}
        }
    }

    #[test]
    fn a_flipped_bit_is_no_record(payload in prop::collection::vec(any::<u8>(), 0..50), at in any::<prop::sample::Index>(), bit in 0..8u32) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("container.log");
        let mut log = LogWriter::open(&plan(&path, None, 0)).unwrap();
        log.append(&mut Vec::new(), LogStream::Stdout, b"first\n", 1);
        log.append(&mut Vec::new(), LogStream::Stderr, &[&payload[..], b"\n"].concat(), 2);
        let mut bytes = std::fs::read(&path).unwrap().split_off(FILE_HEADER_LEN);
        let at = at.index(bytes.len());
        bytes[at] ^= 1 << bit;
        let mut rest = &bytes[..];
        let mut whole = 0;
        while let Decoded::Record(_, size) = decode_record(rest, crc32fast::hash) {
            whole += size;
            rest = &rest[size..];
        }
        // Records before the damage are read, the damaged one is not.
        prop_assert!(whole <= at);
    }

    #[test]
    fn a_torn_tail_is_cut_and_writing_goes_on(chunks in chunks(), cut in any::<prop::sample::Index>(), garbage in prop::collection::vec(any::<u8>(), 0..40)) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("container.log");
        let mut log = LogWriter::open(&plan(&path, None, 0)).unwrap();
        for (err, chunk) in &chunks {
            log.append(&mut Vec::new(), stream(*err), chunk, 1);
        }
        drop(log);
        let bytes = std::fs::read(&path).unwrap();
        let cut = cut.index(bytes.len());
        let torn = [&bytes[..cut], &garbage[..]].concat();
        let is_header_whole = cut >= FILE_HEADER_LEN;
        std::fs::write(&path, torn).unwrap();
        let before = whole_records_of(&bytes[..cut]);
        let mut log = LogWriter::open(&plan(&path, None, 0)).unwrap();
        prop_assert!(!is_header_whole || log.position() == before as u64);
        log.append(&mut Vec::new(), LogStream::Stdout, b"after\n", 2);
        let records = read_log(&path);
        prop_assert_eq!(&records.last().unwrap().payload[..], b"after");
    }
}

/// Bytes of whole records in a file that may be cut anywhere.
fn whole_records_of(file: &[u8]) -> usize {
    let mut rest = file.get(FILE_HEADER_LEN..).unwrap_or_default();
    let mut whole = 0;
    while let Decoded::Record(_, size) = decode_record(rest, crc32fast::hash) {
        whole += size;
        rest = &rest[size..];
    }
    whole
}

#[test]
fn a_newline_ends_a_record_and_its_absence_makes_it_partial() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("container.log");
    let mut log = LogWriter::open(&plan(&path, None, 0)).unwrap();
    log.append(&mut Vec::new(), LogStream::Stdout, b"one\n\ntwo", 7);
    log.append(&mut Vec::new(), LogStream::Stdout, b"\n", 8);
    let records = read_log(&path);
    let seen: Vec<(&[u8], bool, u64)> = records
        .iter()
        .map(|record| (&record.payload[..], record.partial, record.time_ns))
        .collect();
    assert_eq!(
        seen,
        [
            (&b"one"[..], false, 7),
            (b"", false, 7),
            (b"two", true, 7),
            (b"", false, 8),
        ]
    );
}

#[test]
fn a_line_of_exactly_the_limit_is_one_record() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("container.log");
    let mut log = LogWriter::open(&plan(&path, None, 0)).unwrap();
    let mut line = vec![b'x'; LOG_PAYLOAD_LIMIT];
    line.push(b'\n');
    log.append(&mut Vec::new(), LogStream::Stdout, &line, 1);
    let records = read_log(&path);
    assert_eq!(records.len(), 1);
    assert!(!records[0].partial);
}

#[test]
fn rotation_keeps_positions_and_the_newest_files() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("container.log");
    let plan = plan(&path, Some(200), 2);
    let mut log = LogWriter::open(&plan).unwrap();
    for n in 0..100 {
        log.append(
            &mut Vec::new(),
            LogStream::Stdout,
            format!("line {n:04}\n").as_bytes(),
            n,
        );
    }
    let record = RECORD_HEADER_LEN + 9;
    assert_eq!(log.position(), 100 * record as u64);
    let mut names: Vec<String> = std::fs::read_dir(dir.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    assert_eq!(
        names,
        ["container.log", "container.log.1", "container.log.2"]
    );
    // Oldest first, the files follow one another without a gap, and none is over its size.
    let mut position = None;
    for name in names.iter().rev() {
        let file = dir.path().join(name);
        assert!(std::fs::metadata(&file).unwrap().len() <= 200);
        let (base, records) = read_file(&file);
        assert_eq!(position.unwrap_or(base), base);
        let first = usize::try_from(base).unwrap() / record;
        for (n, one) in records.iter().enumerate() {
            assert_eq!(one.payload, format!("line {:04}", first + n).as_bytes());
        }
        position = Some(base + (records.len() * record) as u64);
    }
    assert_eq!(position, Some(log.position()));
    drop(log);
    // A new writer goes on where the old one stopped.
    assert_eq!(
        LogWriter::open(&plan).unwrap().position(),
        100 * record as u64
    );
}

#[test]
fn a_link_or_a_device_in_the_logs_place_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let target = dir.path().join("precious");
    std::fs::write(&target, "precious").unwrap();
    let link = dir.path().join("link.log");
    std::os::unix::fs::symlink(&target, &link).unwrap();
    let error = LogWriter::open(&plan(&link, None, 0)).unwrap_err();
    assert_eq!(error.errno, rustix::io::Errno::LOOP);
    assert_eq!(std::fs::read(&target).unwrap(), b"precious");
    let fifo = dir.path().join("fifo.log");
    rustix::fs::mknodat(
        rustix::fs::CWD,
        &fifo,
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR,
        0,
    )
    .unwrap();
    assert!(LogWriter::open(&plan(&fifo, None, 0)).is_err());
}

#[test]
fn a_file_that_is_no_log_is_set_aside() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("container.log");
    std::fs::write(&path, "something else entirely").unwrap();
    let mut log = LogWriter::open(&plan(&path, None, 0)).unwrap();
    log.append(&mut Vec::new(), LogStream::Stdout, b"new\n", 1);
    assert_eq!(read_log(&path).len(), 1);
    let aside = std::fs::read(dir.path().join("container.log.corrupt")).unwrap();
    assert_eq!(aside, b"something else entirely");
}

#[test]
fn a_log_is_readable_by_its_owner_alone() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log/container.log");
    LogWriter::open(&plan(&path, None, 0)).unwrap();
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&path), 0o600);
    assert_eq!(mode(path.parent().unwrap()), 0o700);
}

/// Needs root, like every test that mounts: a tmpfs of 64 KiB is a disk that is soon full.
#[test]
fn a_full_disk_costs_output_that_is_counted_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let disk = crate::support::SmallDisk::mount(dir.path());
    let path = disk.path().join("container.log");
    let mut log = LogWriter::open(&plan(&path, None, 0)).unwrap();
    let line = [&[b'x'; 999][..], b"\n"].concat();
    for n in 0..200 {
        log.append(&mut Vec::new(), LogStream::Stdout, &line, n);
    }
    let kept = read_log(&path);
    assert_eq!(log.lost_bytes(), (200 - kept.len() as u64) * 1000);
    assert!(log.lost_bytes() > 0 && !kept.is_empty());
    disk.grow();
    log.append(
        &mut Vec::new(),
        LogStream::Stdout,
        b"there is room again\n",
        1000,
    );
    let records = read_log(&path);
    assert_eq!(records.len(), kept.len() + 1);
    assert_eq!(records.last().unwrap().payload, b"there is room again");
}
