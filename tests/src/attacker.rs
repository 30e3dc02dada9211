//! What attacks are made of: a small hostile program, canaries, roots that lie, racers.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::fs::{CWD, FlockOperation, RenameFlags, flock, renameat_with};
use serde_json::{Value, json};

use crate::bed::Bed;
use crate::roots::{busybox_root, cache_dir, run};

/// `attacker.c`, compiled once, static: a program that does what hostile ones do.
pub fn program() -> PathBuf {
    let source = include_str!("attacker.c");
    let cache = cache_dir();
    fs::create_dir_all(&cache).unwrap();
    let done = cache.join(format!("attacker-{:016x}", fnv(source.as_bytes())));
    let lock = fs::File::create(cache.join("attacker.lock")).unwrap();
    flock(&lock, FlockOperation::LockExclusive).unwrap();
    if !done.exists() {
        let (c, making) = (cache.join("attacker.c"), cache.join("attacker.new"));
        fs::write(&c, source).unwrap();
        let warnings = ["-Wall", "-Wextra", "-Werror"];
        run(Command::new("cc")
            .args(["-O2", "-static", "-o"])
            .arg(&making)
            .args(warnings)
            .arg(&c));
        fs::rename(making, &done).unwrap();
    }
    done
}

/// FNV-1a: names the program by its source.
fn fnv(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

/// The mount that brings the program into a container, as `/attacker`.
pub fn mount() -> Value {
    bind(&program(), "/attacker")
}

/// A bind mount.
pub fn bind(source: &Path, destination: &str) -> Value {
    json!({"type": "bind", "source": source, "destination": destination})
}

/// Labels that turn one defence off. The daemon must run with faults ([`crate::BedBuilder::faults`]).
pub fn without(defence: littlebox_protocol::Defence) -> Value {
    json!({"littlebox.test/weaken": defence.name()})
}

/// A copy of the busybox root that a test may spoil.
#[derive(Debug)]
pub struct Root(pub PathBuf);

impl Root {
    /// Copies it into the test's directory.
    pub fn new(t: &Bed) -> Self {
        let path = t.dirs.base_path.join("hostile-root");
        run(Command::new("cp").arg("-a").arg(busybox_root()).arg(&path));
        Self(path)
    }

    /// A container of it.
    pub fn config(&self, command: &[&str]) -> Value {
        json!({"rootfs": format!("dir:{}", self.0.display()), "command": command})
    }

    /// Makes the directory that a path of the host leads to inside of it.
    pub fn make_dir(&self, path: &Path) {
        fs::create_dir_all(self.0.join(path.strip_prefix("/").unwrap())).unwrap();
    }

    /// Puts a link where a directory or a file was.
    pub fn replace_by_link(&self, name: &str, target: &Path) {
        let path = self.0.join(name);
        match fs::symlink_metadata(&path) {
            Ok(meta) if meta.is_dir() => fs::remove_dir(&path).unwrap(),
            Ok(_) => fs::remove_file(&path).unwrap(),
            Err(_) => {}
        }
        symlink(target, path).unwrap();
    }
}

impl Drop for Root {
    fn drop(&mut self) {
        let _shown_by_the_oracle = fs::remove_dir_all(&self.0);
    }
}

/// A directory that stands for the host, open to everybody: it must stay as it is, and what it
/// holds must not be read.
#[derive(Debug)]
pub struct Canary(tempfile::TempDir);

impl Canary {
    /// What its one file holds.
    pub const SECRET: &str = "the host's secret";

    /// Makes it.
    pub fn new() -> Self {
        let dir = tempfile::Builder::new()
            .prefix("lbt-canary-")
            .permissions(Permissions::from_mode(0o777))
            .tempdir_in("/var/tmp")
            .unwrap();
        fs::set_permissions(dir.path(), Permissions::from_mode(0o777)).unwrap();
        fs::write(dir.path().join("file"), Self::SECRET).unwrap();
        Self(dir)
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        self.0.path()
    }

    /// The file in it.
    pub fn file(&self) -> PathBuf {
        self.path().join("file")
    }

    /// Whether it is as it was made.
    pub fn is_untouched(&self) -> bool {
        let names = fs::read_dir(self.path()).unwrap().count();
        names == 1 && fs::read_to_string(self.file()).is_ok_and(|text| text == Self::SECRET)
    }
}

impl Default for Canary {
    fn default() -> Self {
        Self::new()
    }
}

/// A thread that exchanges two names as fast as it can.
#[derive(Debug)]
pub struct Racer {
    stop: Arc<AtomicBool>,
    swaps: Arc<AtomicU64>,
    thread: Option<JoinHandle<()>>,
}

impl Racer {
    /// Starts it.
    pub fn start(a: &Path, b: &Path) -> Self {
        let (stop, swaps) = (Arc::new(AtomicBool::new(false)), Arc::default());
        let (a, b) = (a.to_owned(), b.to_owned());
        let (its_stop, its_swaps): (_, Arc<AtomicU64>) = (stop.clone(), Arc::clone(&swaps));
        let thread = std::thread::spawn(move || {
            while !its_stop.load(Ordering::Relaxed) {
                renameat_with(CWD, &a, CWD, &b, RenameFlags::EXCHANGE).unwrap();
                its_swaps.fetch_add(1, Ordering::Relaxed);
            }
        });
        Self {
            stop,
            swaps,
            thread: Some(thread),
        }
    }

    /// Stops it: how often it exchanged them.
    pub fn stop(mut self) -> u64 {
        self.join();
        self.swaps.load(Ordering::Relaxed)
    }

    fn join(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _its_panic_shows_in_the_count = thread.join();
        }
    }
}

impl Drop for Racer {
    fn drop(&mut self) {
        self.join();
    }
}

/// How long one race lasts: `LITTLEBOX_ATTACK_SECONDS`, or three seconds.
pub fn race_time() -> Duration {
    let seconds = std::env::var("LITTLEBOX_ATTACK_SECONDS").ok();
    let seconds = seconds.and_then(|text| text.parse().ok()).unwrap_or(3.0);
    Duration::from_secs_f64(seconds)
}

/// Does something again and again for [`race_time`], at least `least` times; how often.
pub fn for_race_time(least: u64, mut attempt: impl FnMut()) -> u64 {
    let end = Instant::now() + race_time();
    let mut count = 0;
    while count < least || Instant::now() < end {
        attempt();
        count += 1;
    }
    count
}

/// Does something two thousand times. A machine that is too busy for that stops after 45 seconds,
/// and not before two hundred; how often.
pub fn thousands(mut attempt: impl FnMut()) -> u64 {
    let end = Instant::now() + Duration::from_secs(45);
    let mut count = 0;
    while count < 2000 && (count < 200 || Instant::now() < end) {
        attempt();
        count += 1;
    }
    count
}

/// Tries until an attack succeeds, for at most a minute; whether it did.
pub fn until_success(mut attempt: impl FnMut() -> bool) -> bool {
    let end = Instant::now() + Duration::from_secs(60);
    while Instant::now() < end {
        if attempt() {
            return true;
        }
    }
    false
}
