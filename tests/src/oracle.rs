//! The oracle: what of a test's daemon is on the machine, as a set of facts. The set before a test
//! and the set after it must be the same.
//!
//! Tests run side by side, so a snapshot looks at what belongs to one daemon (its directories, its
//! instance's cgroups, its processes) and at global things that only littlebox could have made.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::daemon::{Dirs, MARK};
use crate::proc;

/// Tables of history, which grows by design.
const HISTORY: [&str; 4] = ["events", "tombstones", "idempotency", "_sqlx_migrations"];

/// Whose traces are looked for.
#[derive(Debug, Clone)]
pub struct Subject {
    /// The test's directory.
    pub base: PathBuf,
    /// `--state-dir`.
    pub state: PathBuf,
    /// The test's directory on the tmpfs.
    pub run: PathBuf,
    /// The cgroup below which its containers live, `/littlebox/INSTANCE`.
    pub cgroup_parent: String,
    /// The mark in the environment of its processes.
    pub mark: String,
}

impl Subject {
    /// The subject of a daemon with these directories and this `cgroup_parent` (`GET /v1/system`).
    pub fn new(dirs: &Dirs, cgroup_parent: &str) -> Self {
        Self {
            base: dirs.base_path.clone(),
            state: dirs.state.clone(),
            run: dirs.run_path.clone(),
            cgroup_parent: cgroup_parent.to_owned(),
            mark: dirs.mark.clone(),
        }
    }

    fn owns(&self, path: &Path) -> bool {
        path.starts_with(&self.base) || path.starts_with(&self.run)
    }

    fn mentions(&self, text: &str) -> bool {
        [&self.base, &self.run]
            .iter()
            .any(|p| text.contains(p.to_str().expect("the test's own path")))
    }
}

/// Facts, each a line of text.
pub type Facts = BTreeSet<String>;

/// Everything, while the daemon runs. `daemon` is its PID.
pub fn live(subject: &Subject, daemon: u32) -> Facts {
    let mut facts = outside(subject);
    facts.extend(processes(subject, Some(daemon)));
    facts.extend(descriptors(daemon, "daemon"));
    for child in proc::children(daemon) {
        facts.extend(match proc::comm(child).as_str() {
            // How many stand by is the daemon's business, and the first three are what they were made
            // with. What they keep of a request is a leak.
            proc::WORKER => kinds(child, proc::descriptors_from(child, 3), proc::WORKER),
            helper => descriptors(child, helper),
        });
    }
    facts.extend(rows(&subject.state));
    facts
}

/// What must be empty when the daemon has stopped and its containers were removed.
pub fn dead(subject: &Subject) -> Facts {
    let mut facts = cgroups(subject);
    facts.extend(mounts(subject));
    facts.extend(listeners(subject));
    facts.extend(processes(subject, None));
    facts
}

fn outside(subject: &Subject) -> Facts {
    let mut facts = mounts(subject);
    facts.extend(cgroups(subject));
    facts.extend(network());
    facts.extend(listeners(subject));
    facts.extend(files(subject));
    facts
}

/// What came and what went; descriptors count only when they came.
pub fn difference(before: &Facts, after: &Facts) -> Vec<String> {
    let came = after.difference(before).map(|f| format!("+ {f}"));
    let went = before
        .difference(after)
        .filter(|f| !f.starts_with("descriptor "))
        .map(|f| format!("- {f}"));
    came.chain(went).collect()
}

fn mounts(subject: &Subject) -> Facts {
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap();
    table
        .lines()
        .filter(|l| subject.mentions(l))
        .map(|l| format!("mount {l}"))
        .collect()
}

/// The mount points of every cgroup hierarchy.
pub fn cgroup_mounts() -> Vec<PathBuf> {
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap();
    table
        .lines()
        .filter(|l| l.contains(" - cgroup ") || l.contains(" - cgroup2 "))
        .filter_map(|l| l.split(' ').nth(4).map(PathBuf::from))
        .collect()
}

/// The instance's directory in every hierarchy that has it.
pub fn instance_cgroups(subject: &Subject) -> Vec<PathBuf> {
    let below = subject.cgroup_parent.trim_start_matches('/');
    cgroup_mounts()
        .into_iter()
        .map(|m| m.join(below))
        .filter(|p| p.is_dir())
        .collect()
}

fn cgroups(subject: &Subject) -> Facts {
    let mut facts = Facts::new();
    for dir in instance_cgroups(subject) {
        walk(&dir, &mut |path, is_dir| {
            if is_dir && path != dir {
                facts.insert(format!("cgroup {}", path.display()));
            }
        });
    }
    facts
}

fn network() -> Facts {
    let mut facts = Facts::new();
    for (what, dir, ours) in [
        ("link", "/sys/class/net", "lb"),
        ("netns", "/run/netns", "littlebox"),
    ] {
        let names = fs::read_dir(dir).into_iter().flatten().flatten();
        let names = names.map(|e| e.file_name().to_string_lossy().into_owned());
        facts.extend(
            names
                .filter(|n| n.starts_with(ours))
                .map(|n| format!("{what} {n}")),
        );
    }
    if let Ok(out) = Command::new("nft").args(["list", "tables"]).output() {
        let tables = String::from_utf8_lossy(&out.stdout).into_owned();
        facts.extend(
            tables
                .lines()
                .filter(|l| l.contains("littlebox"))
                .map(|l| format!("nft {l}")),
        );
    }
    facts
}

fn listeners(subject: &Subject) -> Facts {
    let table = fs::read_to_string("/proc/net/unix").unwrap();
    let mut facts = Facts::new();
    for line in table.lines().skip(1) {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let (Some(flags), Some(name)) = (fields.get(3), fields.get(7)) else {
            continue;
        };
        // __SO_ACCEPTCON, net/unix/af_unix.c.
        let listens = *flags == "00010000";
        let ours = subject.owns(Path::new(name));
        if (listens && ours) || (name.starts_with('@') && name.contains("littlebox")) {
            // Bound under a temporary name with the daemon's PID, then renamed.
            let name = name.split(".new.").next().unwrap_or(name);
            facts.insert(format!("listener {name}"));
        }
    }
    facts
}

/// Files that SQLite makes and removes as it likes.
fn is_database(name: &str) -> bool {
    name.ends_with("-wal") || name.ends_with("-shm") || name.ends_with("-journal")
}

fn files(subject: &Subject) -> Facts {
    let mut facts = Facts::new();
    for dir in [&subject.state, &subject.run] {
        walk(dir, &mut |path, _| {
            if !is_database(&path.to_string_lossy()) {
                facts.insert(format!("file {}", path.display()));
            }
        });
    }
    facts
}

fn walk(dir: &Path, see: &mut dyn FnMut(&Path, bool)) {
    let Ok(entries) = fs::read_dir(dir) else {
        return;
    };
    for entry in entries.flatten() {
        let is_dir = entry.file_type().is_ok_and(|t| t.is_dir());
        see(&entry.path(), is_dir);
        if is_dir {
            walk(&entry.path(), see);
        }
    }
}

/// The PIDs that belong to a daemon's test: the daemon, its zygote, helpers, containers.
pub fn members(subject: &Subject, daemon: Option<u32>) -> Vec<u32> {
    let me = std::process::id();
    let instance = format!("{}/", subject.cgroup_parent);
    let mark = format!("{MARK}={}", subject.mark).into_bytes();
    let belongs = |pid: &u32| {
        *pid != me
            && (Some(*pid) == daemon
                || has_entry(&proc::environ(*pid), &mark)
                || subject.mentions(&proc::cmdline(*pid))
                || proc::cgroup(*pid).contains(&instance)
                || proc::descriptors(*pid).iter().any(|d| subject.owns(d)))
    };
    // Under plain `cargo test` other tests' threads share this process and its children.
    proc::pids()
        .into_iter()
        .filter(belongs)
        .filter(|p| proc::alive(*p))
        .collect()
}

/// Freezes a container's cgroup behind the engine's back.
///
/// # Panics
/// When this machine has no freezer.
pub fn freeze(container: &str, pid: u32) {
    let cgroup = proc::cgroup(pid);
    let mut frozen = 0;
    for mount in cgroup_mounts() {
        for line in cgroup.lines() {
            let path = line.splitn(3, ':').nth(2).unwrap_or_default();
            let dir = mount.join(path.trim_start_matches('/'));
            if !path.contains(container) {
                continue;
            }
            let v1 = fs::write(dir.join("freezer.state"), "FROZEN").is_ok();
            let v2 = fs::write(dir.join("cgroup.freeze"), "1").is_ok();
            frozen += u32::from(v1 || v2);
        }
    }
    assert!(frozen > 0, "this machine has a freezer: {cgroup}");
}

fn has_entry(environ: &[u8], entry: &[u8]) -> bool {
    environ.split(|b| *b == 0).any(|e| e == entry)
}

fn processes(subject: &Subject, daemon: Option<u32>) -> Facts {
    let members = members(subject, daemon);
    let stands_by = |p: &u32| daemon.is_some() && proc::comm(*p) == proc::WORKER;
    let named = members.into_iter().filter(|p| Some(*p) != daemon);
    let named = named.filter(|p| !stands_by(p));
    counted(
        "process",
        named.map(|p| format!("{} [{}]", proc::cmdline(p), proc::comm(p))),
    )
}

/// Whether a descriptor is one of SQLite's pool, which opens connections as it needs them.
pub(crate) fn is_pooled(target: &str) -> bool {
    is_database(target) || target.ends_with(".db")
}

/// How many descriptors of which kind a process has.
fn descriptors(pid: u32, whose: &str) -> Facts {
    kinds(pid, proc::descriptors(pid), whose)
}

fn kinds(pid: u32, targets: Vec<PathBuf>, whose: &str) -> Facts {
    let kinds = targets.into_iter().filter_map(|target| {
        // What a daemon has open of itself is the same for the next one.
        let own = format!("/proc/{pid}/");
        let target = target.to_string_lossy().replace(&own, "/proc/self/");
        if is_pooled(&target) {
            return None;
        }
        // `socket:[123]`, `anon_inode:[eventfd]`, `/memfd:x (deleted)`, a path.
        let kind = match target.split_once(":[") {
            Some((kind @ ("socket" | "pipe"), _)) => kind.to_owned(),
            _ => target,
        };
        Some(format!("{whose} {kind}"))
    });
    counted("descriptor", kinds)
}

/// Equal things as one fact each: `what thing #1`, `what thing #2`.
fn counted(what: &str, things: impl Iterator<Item = String>) -> Facts {
    let mut seen: BTreeMap<String, u32> = BTreeMap::new();
    things
        .map(|thing| {
            let n = seen.entry(thing.clone()).or_default();
            *n += 1;
            format!("{what} {thing} #{n}")
        })
        .collect()
}

/// How many rows each table has that is no history.
fn rows(state: &Path) -> Facts {
    let Some(database) = database(state) else {
        return Facts::new();
    };
    let tables = sqlite(
        &database,
        "SELECT name FROM sqlite_schema WHERE type='table' AND name NOT LIKE 'sqlite_%'",
    );
    tables
        .lines()
        .filter(|t| !HISTORY.contains(t))
        .map(|t| {
            let n = sqlite(&database, &format!("SELECT count(*) FROM \"{t}\""));
            format!("rows {t}: {}", n.trim())
        })
        .collect()
}

/// The daemon's database file.
pub fn database(state: &Path) -> Option<PathBuf> {
    let entries = fs::read_dir(state).ok()?;
    entries
        .flatten()
        .map(|e| e.path())
        .find(|p| p.extension().is_some_and(|e| e == "db" || e == "sqlite"))
}

/// The answer of the `sqlite3` tool to a query that only reads.
#[track_caller]
pub fn sqlite(database: &Path, query: &str) -> String {
    let out = Command::new("sqlite3")
        .arg("-readonly")
        .args(["-cmd", ".timeout 5000"])
        .arg(database)
        .arg(query)
        .output()
        .expect("sqlite3 is missing: apt-get install sqlite3");
    assert!(
        out.status.success(),
        "sqlite3 {query}: {}",
        String::from_utf8_lossy(&out.stderr)
    );
    String::from_utf8_lossy(&out.stdout).into_owned()
}
