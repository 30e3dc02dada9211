//! Logs: exact bytes, in order, from any point, while they are written and rotated.

use std::fs;

use littlebox_tests::prelude::*;

/// A container that has printed these lines.
fn printed(t: &Bed, script: &str) -> String {
    let c = id(&t.start(&busybox(&["sh", "-c", script])));
    t.wait(&c);
    c
}

fn data(lines: &[LogLine]) -> Vec<&str> {
    lines.iter().map(|l| l.data.as_str()).collect()
}

#[test]
fn random_bytes_come_back_exactly() {
    let t = Bed::new();
    let dir = t.dirs.base_path.join("data");
    fs::create_dir(&dir).unwrap();
    let mut bytes = vec![0u8; 400_000];
    let mut state = 0x9E37_79B9_7F4A_7C15_u64;
    for b in &mut bytes {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        *b = state.to_le_bytes()[3];
    }
    fs::write(dir.join("random"), &bytes).unwrap();
    let config = with(
        busybox(&["cat", "/d/random"]),
        json!({"mounts": [{"type": "bind", "source": dir, "destination": "/d"}]}),
    );
    let c = id(&t.start(&config));
    t.wait(&c);
    assert!(t.logs_raw(&c, "") == bytes, "the bytes differ");
    // The records carry the same bytes.
    use base64::Engine;
    let mut joined = Vec::new();
    for line in t.logs(&c, "") {
        match line.encoding {
            Some(OutputEncoding::Base64) => joined.extend(
                base64::engine::general_purpose::STANDARD
                    .decode(&line.data)
                    .unwrap(),
            ),
            _ => joined.extend(line.data.as_bytes()),
        }
        if !line.partial {
            joined.push(b'\n');
        }
    }
    assert!(joined == bytes, "the records differ");
    fs::remove_dir_all(dir).unwrap();
    t.finish();
}

#[test]
fn streams_are_separated_and_each_keeps_its_order() {
    let t = Bed::new();
    let c = printed(&t, "for i in $(seq 200); do echo o$i; echo e$i >&2; done");
    let lines = t.logs(&c, "");
    assert_eq!(lines.len(), 400);
    for (stream, prefix) in [("stdout", "o"), ("stderr", "e")] {
        let of: Vec<&str> = lines
            .iter()
            .filter(|l| l.stream == stream)
            .map(|l| l.data.as_str())
            .collect();
        let expected: Vec<String> = (1..=200).map(|i| format!("{prefix}{i}")).collect();
        assert_eq!(of, expected);
    }
    assert!(lines.windows(2).all(|w| w[0].position < w[1].position));
    assert!(lines.windows(2).all(|w| w[0].at <= w[1].at));
    assert_eq!(t.logs(&c, "stderr=false").len(), 200);
    assert_eq!(t.logs(&c, "stdout=true&stderr=false")[0].data, "o1");
    assert_eq!(t.logs(&c, "stdout=false&stderr=true")[0].data, "e1");
    t.finish();
}

#[test]
fn tail_gives_the_last_lines() {
    let t = Bed::new();
    let c = printed(&t, "seq 1000");
    assert_eq!(data(&t.logs(&c, "tail=3")), ["998", "999", "1000"]);
    assert_eq!(t.logs(&c, "tail=0").len(), 0);
    assert_eq!(t.logs(&c, "tail=5000").len(), 1000);
    assert_eq!(t.logs_raw(&c, "tail=2"), b"999\n1000\n");
    t.finish();
}

#[test]
fn since_and_until_cut_by_time() {
    let t = Bed::new();
    let c = printed(&t, "for i in 1 2 3 4; do echo $i; sleep 0.15; done");
    let lines = t.logs(&c, "");
    let (second, third) = (encode(&lines[1].at), encode(&lines[2].at));
    assert_eq!(data(&t.logs(&c, &format!("since={third}"))), ["3", "4"]);
    let until = t.logs(&c, &format!("until={second}"));
    assert!(
        matches!(data(&until).as_slice(), ["1"] | ["1", "2"]),
        "{until:?}"
    );
    assert_eq!(t.logs(&c, "since=1h").len(), 4);
    assert_eq!(t.logs(&c, "until=1h").len(), 0);
    assert_eq!(t.logs(&c, "since=1000000000").len(), 4);
    t.finish();
}

#[test]
fn timestamps_stand_before_each_line_of_text() {
    let t = Bed::new();
    let c = printed(&t, "echo a; echo b >&2");
    let text = String::from_utf8(t.logs_raw(&c, "timestamps=true")).unwrap();
    for (line, word) in text.lines().zip(["a", "b"]) {
        let (stamp, rest) = line.split_once(' ').expect("a stamp, a space, the line");
        assert_eq!(rest, word);
        assert!(stamp.starts_with("20") && stamp.ends_with('Z'), "{stamp}");
    }
    assert_eq!(text.lines().count(), 2);
    t.finish();
}

#[test]
fn follow_ends_with_the_container() {
    let t = Bed::new();
    let c = id(&t.start(&busybox(&[
        "sh",
        "-c",
        "for i in 1 2 3 4 5; do echo $i; sleep 0.05; done",
    ])));
    let mut stream = t.stream(&format!("/v1/containers/{c}/logs?follow=true"));
    let mut seen = Vec::new();
    while let Some(line) = stream.record::<LogLine>() {
        seen.push(line.data);
    }
    assert_eq!(seen, ["1", "2", "3", "4", "5"]);
    t.finish();
}

#[test]
fn a_follower_resumes_by_position_without_gap_or_repeat() {
    let t = Bed::new();
    let c = id(&t.start(&busybox(&[
        "sh",
        "-c",
        "for i in $(seq 100); do echo $i; sleep 0.01; done",
    ])));
    let (mut seen, mut from) = (Vec::new(), 0);
    // A client that loses its connection every ten lines.
    while seen.len() < 100 {
        let mut stream = t.stream(&format!("/v1/containers/{c}/logs?follow=true&from={from}"));
        for _ in 0..10 {
            let Some(line) = stream.record::<LogLine>() else {
                break;
            };
            from = line.position;
            seen.push(line.data);
        }
    }
    let expected: Vec<String> = (1..=100).map(|i| i.to_string()).collect();
    assert_eq!(seen, expected);
    t.finish();
}

#[test]
fn server_sent_events_carry_the_records() {
    let t = Bed::new();
    let c = printed(&t, "echo one; echo two");
    let request = Request::new(Method::Get, format!("/v1/containers/{c}/logs"))
        .header("accept", "text/event-stream");
    let mut stream = t.client.stream(&request).expect(200);
    assert_eq!(stream.head.content_type(), Some("text/event-stream"));
    let mut seen = Vec::new();
    while let Some(event) = stream.server_sent_event() {
        let data = event.iter().find(|(n, _)| n == "data").expect("data");
        let line: LogLine = serde_json::from_str(&data.1).unwrap();
        seen.push(line.data);
    }
    assert_eq!(seen, ["one", "two"]);
    t.finish();
}

#[test]
fn following_across_rotations_misses_nothing() {
    let t = Bed::new();
    let config = with(
        busybox(&[
            "awk",
            "BEGIN{for(i=1;i<=20000;i++){printf \"%08d\\n\",i; if(i%1000==0){fflush();system(\"sleep 0.02\")}}}",
        ]),
        json!({"log": {"max_size": 65_536, "max_files": 100}}),
    );
    let c = id(&t.start(&config));
    let mut stream = t.stream(&format!("/v1/containers/{c}/logs?follow=true"));
    let mut next = 1u32;
    while let Some(line) = stream.record::<LogLine>() {
        assert_eq!(line.data, format!("{next:08}"));
        next += 1;
    }
    assert_eq!(next, 20_001);
    let all = t.logs(&c, "");
    assert_eq!(all.len(), 20_000);
    let log = t.inspect(&c).log_path.expect("it has a log");
    let dir = std::path::Path::new(&log).parent().expect("a directory");
    assert!(fs::read_dir(dir).unwrap().count() > 5, "it was not rotated");
    t.finish();
}

#[test]
fn rotation_keeps_the_newest_and_bounds_the_files() {
    let t = Bed::new();
    let config = with(
        busybox(&["awk", "BEGIN{for(i=1;i<=100000;i++)printf \"%08d\\n\",i}"]),
        json!({"log": {"max_size": 65_536, "max_files": 2}}),
    );
    let c = id(&t.start(&config));
    t.wait(&c);
    let lines = t.logs(&c, "");
    assert_eq!(lines.last().expect("lines").data, "00100000");
    assert!(lines.len() < 20_000, "{}", lines.len());
    assert_eq!(data(&t.logs(&c, "tail=1")), ["00100000"]);
    let log = t.inspect(&c).log_path.expect("it has a log");
    let dir = std::path::Path::new(&log).parent().expect("a directory");
    for file in fs::read_dir(dir).unwrap() {
        let size = file.unwrap().metadata().unwrap().len();
        assert!(size <= 65_536 + 66_000, "{size}");
    }
    t.finish();
}

#[test]
fn a_line_without_an_end_and_an_empty_one_are_kept_as_they_are() {
    let t = Bed::new();
    let c = printed(&t, "printf 'a\\n\\nno end'");
    assert_eq!(t.logs_raw(&c, ""), b"a\n\nno end");
    let lines = t.logs(&c, "");
    assert_eq!(data(&lines), ["a", "", "no end"]);
    assert!(lines[2].partial && !lines[0].partial);
    t.finish();
}

#[test]
fn escapes_and_forged_stamps_stay_data() {
    let t = Bed::new();
    let c = printed(
        &t,
        "printf '2020-01-01T00:00:00Z forged\\033[2J\\r\\n{\"at\":\"x\"}\\n'",
    );
    let lines = t.logs(&c, "");
    assert_eq!(
        data(&lines),
        ["2020-01-01T00:00:00Z forged\u{1b}[2J\r", "{\"at\":\"x\"}"]
    );
    t.finish();
}

#[test]
fn logs_stay_readable_after_the_exit_and_a_second_start_appends() {
    let t = Bed::new();
    let c = printed(&t, "echo run");
    let _again = t
        .post(&format!("/v1/containers/{c}/start?wait=20s"))
        .expect(200);
    assert_eq!(data(&t.logs(&c, "")), ["run", "run"]);
    let created = id(&t.create(&busybox(&["true"])));
    assert_eq!(t.logs(&created, "").len(), 0);
    t.finish();
}
