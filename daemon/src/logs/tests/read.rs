//! From a position to the end.

use super::*;

#[tokio::test]
async fn a_missing_log_is_empty() {
    let (_directory, path) = log_path();
    assert_eq!(snapshot(&path, From::Start).await, (vec![], 0));
    assert_eq!(snapshot(&path, From::Tail(5)).await, (vec![], 0));
    assert_eq!(snapshot(&path, From::Position(77)).await, (vec![], 0));
}

#[tokio::test]
async fn records_come_back_with_stream_time_and_position() {
    let (_directory, path) = log_path();
    let mut writer = Writer::new(&path);
    let first = writer.write(LogStream::Stderr, true, b"\xff\x00");
    let second = writer.write(LogStream::Stdout, false, b"");
    let mut follower = open(&path, From::Start).await;
    let (records, lost) = collect(&mut follower, Mode::Snapshot).await;
    assert_eq!(lost, 0);
    assert_eq!(records.len(), 2);
    assert_eq!(records[0].payload, Bytes::from_static(b"\xff\x00"));
    assert_eq!(
        (records[0].stream, records[0].partial),
        (LogStream::Stderr, true)
    );
    assert_eq!((records[0].position, records[1].position), (first, second));
    assert_eq!(follower.position(), second);
}

#[tokio::test]
async fn reading_goes_on_over_rotated_files() {
    let (_directory, path) = log_path();
    let mut writer = Writer::new(&path);
    let mut positions = Vec::new();
    for number in 0..10 {
        positions.push(writer.line(&format!("line {number}")));
        if number % 3 == 2 {
            writer.rotate();
        }
    }
    let (lines, lost) = snapshot(&path, From::Start).await;
    assert_eq!((lines.len(), lost), (10, 0));
    for (number, position) in positions.iter().enumerate() {
        let (rest, lost) = snapshot(&path, From::Position(*position)).await;
        assert_eq!((rest.len(), lost), (9 - number, 0), "from record {number}");
    }
}

#[tokio::test]
async fn what_was_rotated_away_is_reported() {
    let (_directory, path) = log_path();
    let mut writer = Writer::new(&path);
    writer.max_files = 1;
    let lost = writer.line("gone");
    writer.rotate();
    writer.line("kept");
    writer.rotate();
    writer.line("now");
    assert_eq!(
        snapshot(&path, From::Position(0)).await,
        (vec!["kept".into(), "now".into()], lost)
    );
    assert_eq!(
        snapshot(&path, From::Start).await,
        (vec!["kept".into(), "now".into()], 0)
    );
}

#[tokio::test]
async fn tail_gives_the_last_lines_whatever_files_they_lie_in() {
    let (_directory, path) = log_path();
    let mut writer = Writer::new(&path);
    for number in 0..9 {
        writer.line(&format!("{number}"));
        if number % 2 == 1 {
            writer.rotate();
        }
    }
    for lines in 0..12usize {
        let (got, lost) = snapshot(&path, From::Tail(lines)).await;
        let expected: Vec<String> = (9usize.saturating_sub(lines)..9)
            .map(|number| number.to_string())
            .collect();
        assert_eq!((got, lost), (expected, 0), "tail {lines}");
    }
}

#[tokio::test]
async fn tail_counts_lines_and_not_records() {
    let (_directory, path) = log_path();
    let mut writer = Writer::new(&path);
    for text in ["a", "b", "c"] {
        writer.write(LogStream::Stdout, true, text.as_bytes());
        writer.rotate();
        writer.write(LogStream::Stdout, false, text.as_bytes());
    }
    assert_eq!(snapshot(&path, From::Tail(2)).await.0, ["b", "b", "c", "c"]);
    writer.write(LogStream::Stdout, true, b"prompt");
    assert_eq!(snapshot(&path, From::Tail(1)).await.0, ["prompt"]);
    assert_eq!(snapshot(&path, From::Tail(2)).await.0, ["c", "c", "prompt"]);
}

#[tokio::test]
async fn tail_of_one_stream_counts_that_stream() {
    let (_directory, path) = log_path();
    let mut writer = Writer::new(&path);
    writer.write(LogStream::Stderr, false, b"e1");
    writer.write(LogStream::Stderr, false, b"e2");
    writer.line("o1");
    writer.line("o2");
    let (lines, _) = snapshot(&path, From::TailOf(1, LogStream::Stderr)).await;
    assert_eq!(lines, ["e2", "o1", "o2"]);
}

#[tokio::test]
async fn tail_of_very_many_lines_is_exact() {
    let (_directory, path) = log_path();
    let mut writer = Writer::new(&path);
    let mut bytes = Vec::new();
    for _ in 0..70_000 {
        bytes.extend(record(1, LogStream::Stdout, false, b"x"));
    }
    writer.write_raw(&bytes);
    for lines in [65_536, 65_537, 69_999, 70_000, 80_000] {
        let (got, _) = snapshot(&path, From::Tail(lines)).await;
        assert_eq!(got.len(), lines.min(70_000));
    }
}

#[tokio::test]
async fn a_position_inside_a_record_goes_to_the_next_one() {
    let (_directory, path) = log_path();
    let mut writer = Writer::new(&path);
    let first = writer.line("first");
    writer.line("second");
    for inside in 1..first {
        assert_eq!(
            snapshot(&path, From::Position(inside)).await,
            (vec!["second".into()], 0)
        );
    }
    assert_eq!(snapshot(&path, From::Position(u64::MAX)).await, (vec![], 0));
}

#[tokio::test]
async fn what_a_program_printed_is_never_taken_for_a_record() {
    let (_directory, path) = log_path();
    let mut writer = Writer::new(&path);
    let forged = record(9, LogStream::Stderr, false, b"forged");
    writer.write(
        LogStream::Stdout,
        false,
        &[b"..".as_slice(), &forged].concat(),
    );
    writer.line("true");
    // Anywhere but exactly at the forged header, which only a client that means it would name.
    for inside in 1..(RECORD_HEADER_LEN as u64 + 2) {
        assert_eq!(snapshot(&path, From::Position(inside)).await.0, ["true"]);
    }
}
#[tokio::test]
async fn a_snapshot_of_a_growing_log_ends() {
    let (_directory, path) = log_path();
    let mut writer = Writer::new(&path);
    for _ in 0..10 {
        writer.write(LogStream::Stdout, false, &[b'x'; LOG_PAYLOAD_LIMIT]);
    }
    let mut follower = open(&path, From::Start).await;
    let mut count = 0;
    while let Chunk::Records(records) = follower.next(Mode::Snapshot).await.unwrap() {
        count += records.len();
        writer.line("more");
    }
    assert_eq!(count, 10);
}
#[tokio::test]
async fn a_torn_tail_that_the_next_writer_cuts_loses_nothing() {
    let (_directory, path) = log_path();
    let mut writer = Writer::new(&path);
    writer.line("one");
    let good = std::fs::metadata(&path).unwrap().len();
    for torn in [
        &record(1, LogStream::Stdout, false, b"torn")[..10],
        &[0u8; 64][..],
    ] {
        writer.file.write_all(torn).unwrap();
        let (done, finished) = watch::channel(false);
        let mut follower = open(&path, From::Start).await;
        let (first, _) = match follower.next(Mode::Follow(&finished)).await.unwrap() {
            Chunk::Records(records) => (texts(&records), 0),
            other => panic!("{other:?}"),
        };
        assert_eq!(first, ["one"]);
        let reader = tokio::spawn(async move {
            let (records, lost) = collect(&mut follower, Mode::Follow(&finished)).await;
            (texts(&records), lost)
        });
        tokio::time::sleep(Duration::from_millis(30)).await;
        writer.file.set_len(good).unwrap();
        writer
            .file
            .write_all(&record(2, LogStream::Stdout, false, &[b'x'; 200]))
            .unwrap();
        done.send(true).unwrap();
        assert_eq!(reader.await.unwrap(), (vec!["x".repeat(200)], 0));
        writer.file.set_len(good).unwrap();
    }
}

#[tokio::test]
async fn a_corrupt_region_is_reported_once_and_reading_goes_on_in_the_next_file() {
    let (_directory, path) = log_path();
    let mut writer = Writer::new(&path);
    writer.line("good");
    let end = writer.write_raw(&[0xee; 100]);
    let end = end.max(writer.line("unreachable"));
    writer.rotate();
    writer.line("next");
    let (lines, lost) = snapshot(&path, From::Start).await;
    assert_eq!(lines, ["good", "next"]);
    assert_eq!(lost, end - (RECORD_HEADER_LEN as u64 + 4));
}

#[tokio::test]
async fn a_corrupt_region_in_the_live_file_is_skipped_when_records_follow() {
    let (_directory, path) = log_path();
    let mut writer = Writer::new(&path);
    writer.line("good");
    writer.write_raw(&[0xee; 100]);
    let (done, finished) = watch::channel(false);
    let mut follower = open(&path, From::Start).await;
    let reader = tokio::spawn(async move {
        let (records, lost) = collect(&mut follower, Mode::Follow(&finished)).await;
        (texts(&records), lost)
    });
    tokio::time::sleep(Duration::from_millis(50)).await;
    writer.line("after");
    tokio::time::sleep(Duration::from_millis(50)).await;
    done.send(true).unwrap();
    assert_eq!(
        reader.await.unwrap(),
        (vec!["good".into(), "after".into()], 100)
    );
}

#[tokio::test]
async fn a_file_without_a_header_is_no_log() {
    let (_directory, path) = log_path();
    for content in [
        &b""[..],
        &b"lblog"[..],
        &[0u8; FILE_HEADER_LEN][..],
        &[7u8; 100][..],
    ] {
        std::fs::write(&path, content).unwrap();
        assert_eq!(snapshot(&path, From::Start).await, (vec![], 0));
    }
}
proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn random_bytes_round_trip(
        records in proptest::collection::vec(
            (any::<bool>(), any::<bool>(), proptest::collection::vec(any::<u8>(), 0..3000)), 0..60),
        rotate_after in 1usize..20,
    ) {
        let (_directory, path) = log_path();
        let mut writer = Writer::new(&path);
        for (number, (stderr, partial, payload)) in records.iter().enumerate() {
            let stream = if *stderr { LogStream::Stderr } else { LogStream::Stdout };
            writer.write(stream, *partial, payload);
            if number % rotate_after == 0 {
                writer.rotate();
            }
        }
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let (read, lost) = runtime.block_on(async {
            let mut follower = open(&path, From::Start).await;
            collect(&mut follower, Mode::Snapshot).await
        });
        prop_assert_eq!(lost, 0);
        prop_assert_eq!(read.len(), records.len());
        for (got, (stderr, partial, payload)) in read.iter().zip(&records) {
            prop_assert_eq!(got.stream == LogStream::Stderr, *stderr);
            prop_assert_eq!(got.partial, *partial);
            prop_assert_eq!(&got.payload[..], &payload[..]);
        }
    }

    #[test]
    fn no_bytes_in_a_log_make_a_reader_panic_or_hang(
        bytes in proptest::collection::vec(any::<u8>(), 0..2000), position in 0u64..3000,
    ) {
        let (_directory, path) = log_path();
        let mut writer = Writer::new(&path);
        writer.line("first");
        writer.write_raw(&bytes);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            for from in [From::Start, From::End, From::Position(position), From::Tail(3)] {
                let (_done, finished) = watch::channel(true);
                let mut follower = open(&path, from).await;
                collect(&mut follower, Mode::Snapshot).await;
                collect(&mut follower, Mode::Follow(&finished)).await;
            }
        });
    }
}
