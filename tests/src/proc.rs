//! What `/proc` says of a process, and waiting for something to become true.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

/// The eight namespace types.
pub const NAMESPACES: [&str; 8] = ["mnt", "uts", "ipc", "net", "pid", "user", "cgroup", "time"];

/// Every PID of the machine.
pub fn pids() -> Vec<u32> {
    let entries = fs::read_dir("/proc").expect("/proc is mounted");
    entries
        .filter_map(|e| e.ok()?.file_name().to_str()?.parse().ok())
        .collect()
}

fn read(pid: u32, file: &str) -> Vec<u8> {
    fs::read(format!("/proc/{pid}/{file}")).unwrap_or_default()
}

/// argv joined by spaces; empty when it has gone.
pub fn cmdline(pid: u32) -> String {
    let bytes = read(pid, "cmdline");
    let words: Vec<_> = bytes
        .split(|b| *b == 0)
        .map(String::from_utf8_lossy)
        .collect();
    words.join(" ").trim().to_owned()
}

/// The kernel's short name.
pub fn comm(pid: u32) -> String {
    String::from_utf8_lossy(&read(pid, "comm"))
        .trim()
        .to_owned()
}

/// The environment it was started with, entries ended by NUL.
pub fn environ(pid: u32) -> Vec<u8> {
    read(pid, "environ")
}

/// `/proc/PID/cgroup`.
pub fn cgroup(pid: u32) -> String {
    String::from_utf8_lossy(&read(pid, "cgroup")).into_owned()
}

/// The fields of `/proc/PID/status`.
pub fn status(pid: u32) -> BTreeMap<String, String> {
    parse_status(&String::from_utf8_lossy(&read(pid, "status")))
}

/// The fields of a text in the form of `/proc/PID/status`.
pub fn parse_status(text: &str) -> BTreeMap<String, String> {
    text.lines()
        .filter_map(|l| l.split_once(':'))
        .map(|(k, v)| (k.to_owned(), v.trim().to_owned()))
        .collect()
}

/// The parent's PID; `None` when the process has gone.
pub fn parent(pid: u32) -> Option<u32> {
    status(pid).get("PPid")?.parse().ok()
}

/// Whether it exists and is no zombie.
pub fn alive(pid: u32) -> bool {
    status(pid)
        .get("State")
        .is_some_and(|s| !s.starts_with('Z') && !s.starts_with('X'))
}

/// The inode of one of its namespaces, as `ls -Li /proc/PID/ns` prints it.
#[track_caller]
pub fn namespace(pid: u32, kind: &str) -> u64 {
    let path = format!("/proc/{pid}/ns/{kind}");
    match fs::metadata(&path) {
        Ok(meta) => meta.ino(),
        Err(e) => panic!("{path}: {e}"),
    }
}

/// Where each of its descriptors points.
pub fn descriptors(pid: u32) -> Vec<PathBuf> {
    descriptors_from(pid, 0)
}

/// The same of those from a number on.
pub fn descriptors_from(pid: u32, first: u32) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(format!("/proc/{pid}/fd")) else {
        return Vec::new();
    };
    let is_behind = |path: &Path| {
        let name = path.file_name().and_then(|n| n.to_str());
        name.and_then(|n| n.parse().ok())
            .is_some_and(|n: u32| n >= first)
    };
    entries
        .filter_map(|e| Some(e.ok()?.path()))
        .filter(|path| is_behind(path))
        .filter_map(|path| fs::read_link(path).ok())
        .collect()
}

/// Its command line's children, by parent.
pub fn children(pid: u32) -> Vec<u32> {
    pids()
        .into_iter()
        .filter(|p| parent(*p) == Some(pid))
        .collect()
}

/// The name of a worker.
pub const WORKER: &str = "littlebox-work";

/// The workers of a daemon.
pub fn workers(daemon: u32) -> Vec<u32> {
    let children = children(daemon).into_iter();
    children.filter(|pid| comm(*pid) == WORKER).collect()
}

/// Sends a signal to a process that this test's daemon (or the test) started.
pub fn kill(pid: u32, signal: Signal) {
    let pid = Pid::from_raw(i32::try_from(pid).unwrap()).expect("a PID is not 0");
    // It may have ended by itself meanwhile.
    let _gone = kill_process(pid, signal);
}

/// How many times longer than usual everything may take: `LITTLEBOX_TEST_PATIENCE`, for an emulated
/// machine.
pub fn patience() -> u32 {
    let asked = std::env::var("LITTLEBOX_TEST_PATIENCE").ok();
    asked.map_or(1, |n| n.parse().expect("a number"))
}

/// Polls until `probe` gives a value; the test fails after `timeout` (times [`patience`]).
#[track_caller]
pub fn eventually_within<T>(
    timeout: Duration,
    what: &str,
    mut probe: impl FnMut() -> Option<T>,
) -> T {
    let timeout = timeout * patience();
    let deadline = Instant::now() + timeout;
    loop {
        if let Some(value) = probe() {
            return value;
        }
        assert!(Instant::now() < deadline, "not within {timeout:?}: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// As [`eventually_within`] 20 seconds.
#[track_caller]
pub fn eventually<T>(what: &str, probe: impl FnMut() -> Option<T>) -> T {
    eventually_within(Duration::from_secs(20), what, probe)
}

/// Polls until it is true.
#[track_caller]
pub fn until(what: &str, mut probe: impl FnMut() -> bool) {
    eventually(what, || probe().then_some(()));
}
