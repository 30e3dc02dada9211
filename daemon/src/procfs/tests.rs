//! Against this machine's own `/proc`, and directories that look like cgroups.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

use proptest::prelude::*;

use super::*;

#[test]
fn a_name_full_of_parentheses_does_not_shift_the_fields() {
    let tail = "S 7 3 4 5 6 7 8 9 10 11 120 30 14 15 16 17 4 19 5555 21 66 23";
    for comm in ["sh", "a b", ") R 1 (", "x) S 1 2 3 4 5", "((("] {
        let stat = parse_stat(&format!("42 ({comm}) {tail}")).unwrap();
        assert_eq!(stat.comm, comm);
        assert_eq!((stat.state, stat.ppid), ('S', 7));
        assert_eq!((stat.utime, stat.stime, stat.threads), (120, 30, 4));
        assert_eq!((stat.start_time, stat.rss_pages), (5555, 66));
    }
}

#[test]
fn own_start_time_is_stable_and_the_boot_has_an_id() {
    let pid = std::process::id();
    assert_eq!(start_time(pid).unwrap(), start_time(pid).unwrap());
    assert_eq!(boot_id().unwrap().len(), 36);
    assert!(start_time(u32::MAX).is_err());
}

#[test]
fn net_dev() {
    let text = "Inter-|   Receive |  Transmit\n face |bytes packets\n    lo:  10  2 0 0 0 0 0 0  30 4 0 0 0 0 0 0\neth0:1 1 0 0 0 0 0 0 5 6 0 0 0 0 0 0\n";
    let devices = parse_net_dev(text);
    assert_eq!(devices.len(), 2);
    assert_eq!(devices[0].name, "lo");
    assert_eq!(devices[0].stats.tx_bytes, 30);
    assert_eq!(devices[1].stats.tx_packets, 6);
}

#[test]
fn status_tells_the_pids_of_every_namespace() {
    let status = parse_status("Name:\tx\nUid:\t1000\t0\t0\t0\nNSpid:\t900\t12\t1\n").unwrap();
    assert_eq!((status.uid, status.ns_pids), (1000, vec![900, 12, 1]));
}

#[test]
fn limits() {
    assert_eq!(parse_limit("max\n"), None);
    assert_eq!(parse_limit("9223372036854771712\n"), None);
    assert_eq!(parse_limit("2048\n"), Some(2048));
}

#[test]
fn percent_of_one_cpu() {
    assert_eq!(cpu_percent(0, 2_000_000_000, Duration::from_secs(1)), 200.0);
    assert_eq!(cpu_percent(5, 5, Duration::ZERO), 0.0);
    assert_eq!(cpu_percent(5, 4, Duration::from_secs(1)), 0.0);
}

/// A container that shares everything with this test, without a cgroup.
#[test]
fn without_cgroups_a_process_tree_is_measured() {
    let mut child = std::process::Command::new("sleep")
        .arg("30")
        .spawn()
        .unwrap();
    // In the middle of its execve a process has no command line.
    let command_line = format!("/proc/{}/cmdline", child.id());
    while fs::read(&command_line).unwrap() != b"sleep\x0030\0" {
        std::thread::yield_now();
    }
    let processes = top(&BTreeMap::new(), std::process::id()).unwrap();
    let (sleep, id) = processes
        .iter()
        .find(|(process, _)| process.pid == child.id())
        .unwrap();
    assert_eq!(sleep.command, "[sleep]");
    assert_eq!(
        (id.pid, id.start_time),
        (child.id(), start_time(child.id()).unwrap())
    );
    assert_eq!((sleep.ppid, sleep.threads), (std::process::id(), 1));
    assert!(sleep.rss > 0);
    assert!(sleep.started_at.starts_with("20"), "{}", sleep.started_at);

    let measured = stats(&BTreeMap::new(), std::process::id()).unwrap();
    assert_eq!(measured.source, "proc");
    assert!(measured.memory > 0 && measured.pids >= 2);
    assert_eq!((measured.memory_limit, measured.io_read), (None, None));
    assert!(
        measured.networks.is_empty(),
        "the host's network is not the container's"
    );
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(stats(&BTreeMap::new(), child.id()).is_err());
}

fn directory(files: &[(&str, &str)]) -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    for (name, content) in files {
        fs::write(directory.path().join(name), content).unwrap();
    }
    directory
}

#[test]
fn v2_numbers() {
    let unified = directory(&[
        ("cpu.stat", "usage_usec 5000\nuser_usec 4000\n"),
        ("memory.current", "1000000\n"),
        ("memory.stat", "anon 3\ninactive_file 400000\n"),
        ("memory.max", "max\n"),
        ("pids.current", "7\n"),
        ("pids.max", "2048\n"),
        (
            "io.stat",
            "8:0 rbytes=10 wbytes=20 rios=1\n8:16 rbytes=1 wbytes=2\n",
        ),
    ]);
    let cgroups = BTreeMap::from([(
        "unified".to_owned(),
        unified.path().to_str().unwrap().to_owned(),
    )]);
    let stats = stats(&cgroups, std::process::id()).unwrap();
    assert_eq!(stats.source, "cgroup2");
    assert_eq!(
        (stats.cpu_ns, stats.memory, stats.memory_limit),
        (5_000_000, 600_000, None)
    );
    assert_eq!((stats.pids, stats.pids_limit), (7, Some(2048)));
    assert_eq!((stats.io_read, stats.io_write), (Some(11), Some(22)));
}

#[test]
fn v1_numbers() {
    let memory = directory(&[
        ("memory.usage_in_bytes", "1000000\n"),
        (
            "memory.stat",
            "inactive_file 1\ntotal_inactive_file 250000\n",
        ),
        ("memory.limit_in_bytes", "4096000\n"),
    ]);
    let cpu = directory(&[("cpuacct.usage", "123456789\n")]);
    let pids = directory(&[("pids.current", "3\n"), ("pids.max", "max\n")]);
    let blkio = directory(&[(
        "blkio.throttle.io_service_bytes",
        "8:0 Read 100\n8:0 Write 200\n8:0 Total 300\nTotal 300\n",
    )]);
    let named = [
        ("memory", &memory),
        ("cpu,cpuacct", &cpu),
        ("pids", &pids),
        ("blkio", &blkio),
    ];
    let cgroups: BTreeMap<String, String> = named
        .iter()
        .map(|(name, directory)| {
            (
                (*name).to_owned(),
                directory.path().to_str().unwrap().to_owned(),
            )
        })
        .collect();
    let stats = stats(&cgroups, std::process::id()).unwrap();
    assert_eq!(stats.source, "cgroup1");
    assert_eq!((stats.cpu_ns, stats.memory), (123_456_789, 750_000));
    assert_eq!(
        (stats.memory_limit, stats.pids, stats.pids_limit),
        (Some(4_096_000), 3, None)
    );
    assert_eq!((stats.io_read, stats.io_write), (Some(100), Some(200)));
}

#[test]
fn processes_of_nested_cgroups_count() {
    let me = std::process::id();
    let mut child = std::process::Command::new("sleep")
        .arg("30")
        .spawn()
        .unwrap();
    let unified = directory(&[("cgroup.procs", &format!("{me}\n0\n"))]);
    fs::create_dir(unified.path().join("inner")).unwrap();
    fs::write(
        unified.path().join("inner/cgroup.procs"),
        format!("{}\n", child.id()),
    )
    .unwrap();
    let cgroups = BTreeMap::from([(
        "unified".to_owned(),
        unified.path().to_str().unwrap().to_owned(),
    )]);
    let pids: Vec<u32> = top(&cgroups, me)
        .unwrap()
        .iter()
        .map(|(process, _)| process.pid)
        .collect();
    child.kill().unwrap();
    child.wait().unwrap();
    let mut expected = vec![me, child.id()];
    expected.sort_unstable();
    assert_eq!(pids, expected);
}

#[test]
fn pressure_has_two_lines_or_one() {
    let some = "some avg10=1.50 avg60=0.25 avg300=0.00 total=123456\n";
    let full = "full avg10=0.50 avg60=0.00 avg300=0.00 total=42\n";
    let both = parse_pressure(&format!("{some}{full}")).unwrap();
    assert_eq!((both.some.avg10, both.some.total_us), (1.5, 123_456));
    assert_eq!(both.full.map(|f| f.total_us), Some(42));
    assert_eq!(parse_pressure(some).unwrap().full, None);
    assert_eq!(parse_pressure(""), None);
}

#[test]
fn devices_are_added_up() {
    let v2 = "8:0 rbytes=10 wbytes=20 rios=1 wios=2 dbytes=0 dios=0\n8:16 rbytes=1 wbytes=2 rios=3 wios=4\n";
    let counts = parse_io_stat(v2);
    assert_eq!((counts.read, counts.written), (11, 22));
    assert_eq!((counts.reads, counts.writes), (4, 6));
    let v1 = "8:0 Read 5\n8:0 Write 6\n8:0 Total 11\n8:16 Read 1\nTotal 12\n";
    assert_eq!(parse_blkio(v1), (6, 6));
}

proptest! {
    #[test]
    fn parsers_take_anything(text in any::<String>(), key in "[a-z]{0,4}") {
        let _ = (parse_stat(&text), parse_status(&text), parse_net_dev(&text));
        let _ = (parse_flat(&text, &key), parse_io_stat(&text), parse_blkio(&text));
        let _ = (parse_limit(&text), parse_pressure(&text));
    }

    #[test]
    fn parsers_take_almost_right_lines(
        comm in "[ ()a-zA-Z0-9:]{0,16}", numbers in proptest::collection::vec(any::<u64>(), 0..30),
    ) {
        let numbers: Vec<String> = numbers.iter().map(u64::to_string).collect();
        let numbers = numbers.join(" ");
        let _ = parse_stat(&format!("1 ({comm}) S {numbers}"));
        let _ = parse_net_dev(&format!("{comm}: {numbers}"));
        let _ = parse_status(&format!("Uid: {numbers}\nNSpid: {numbers}\n"));
    }
}
