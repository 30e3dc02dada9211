//! What differs inside two namespaces.

use std::collections::{BTreeMap, BTreeSet};
use std::io;

use littlebox_protocol::NamespaceKind;
use littlebox_types::{Difference, NamespaceTypeDiff};
use serde_json::Value;

use super::network::{parse_addresses, parse_addresses6, parse_route, parse_route6};
use super::scan::of_process;
use crate::procfs::{ProcDir, parse_net_dev, parse_status};

/// One side of a comparison.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Side {
    /// A process in it.
    pub pid: u32,
    /// nodename, as the container's helper (or uname(2) for the host) told.
    pub hostname: Option<String>,
    /// domainname, likewise.
    pub domainname: Option<String>,
}

type Differences = BTreeMap<String, Difference>;

/// Compares all eight types of two processes' namespaces.
///
/// # Errors
/// A process is gone.
pub fn diff(a: &Side, b: &Side) -> io::Result<Vec<NamespaceTypeDiff>> {
    let (of_a, of_b) = (of_process(a.pid)?, of_process(b.pid)?);
    let mut types = Vec::new();
    for (kind, in_a) in of_a {
        let Some(in_b) = of_b.get(&kind) else {
            continue;
        };
        let shared = in_a == *in_b;
        types.push(NamespaceTypeDiff {
            kind: kind.name().to_owned(),
            a_inode: in_a.inode,
            b_inode: in_b.inode,
            shared,
            differences: if shared {
                Differences::new()
            } else {
                differences(kind, a, b)?
            },
        });
    }
    Ok(types)
}

/// What differs between the namespaces of one kind of two processes, by subject: `hostname`,
/// `domainname` (uts); `interfaces`, `addresses`, `routes` (net); `mounts` (mnt); `uid_map`,
/// `gid_map` (user); `cgroup`; `offsets` (time); `depth` (pid). Values that both have alike are
/// left out; of lists only what one side alone has is shown.
///
/// # Errors
/// A process is gone.
pub fn differences(kind: NamespaceKind, a: &Side, b: &Side) -> io::Result<Differences> {
    let mut found = Differences::new();
    if kind == NamespaceKind::Uts {
        value(
            &mut found,
            "hostname",
            a.hostname.as_deref(),
            b.hostname.as_deref(),
        );
        value(
            &mut found,
            "domainname",
            a.domainname.as_deref(),
            b.domainname.as_deref(),
        );
        return Ok(found);
    }
    let (a, b) = (ProcDir::open(a.pid)?, ProcDir::open(b.pid)?);
    let mut compare = |subject: &str, read: fn(&ProcDir) -> io::Result<BTreeSet<String>>| {
        lists(&mut found, subject, &read(&a)?, &read(&b)?);
        io::Result::Ok(())
    };
    match kind {
        NamespaceKind::Mnt => compare("mounts", mounts)?,
        NamespaceKind::Net => {
            compare("interfaces", interfaces)?;
            compare("addresses", addresses)?;
            compare("routes", routes)?;
        }
        NamespaceKind::User => {
            compare("uid_map", |process| lines(process, "uid_map"))?;
            compare("gid_map", |process| lines(process, "gid_map"))?;
        }
        NamespaceKind::Cgroup => compare("cgroup", |process| lines(process, "cgroup"))?,
        NamespaceKind::Time => compare("offsets", |process| lines(process, "timens_offsets"))?,
        NamespaceKind::Pid => value(&mut found, "depth", Some(depth(&a)?), Some(depth(&b)?)),
        // Nothing of another IPC namespace can be read without joining it.
        NamespaceKind::Ipc | NamespaceKind::Uts => {}
    }
    Ok(found)
}

fn value<T: PartialEq + Into<Value>>(
    found: &mut Differences,
    subject: &str,
    a: Option<T>,
    b: Option<T>,
) {
    if a != b {
        let json = |value: Option<T>| value.map_or(Value::Null, Into::into);
        found.insert(
            subject.to_owned(),
            Difference {
                a: json(a),
                b: json(b),
            },
        );
    }
}

fn lists(found: &mut Differences, subject: &str, a: &BTreeSet<String>, b: &BTreeSet<String>) {
    if a != b {
        let only = |these: &BTreeSet<String>, those: &BTreeSet<String>| {
            these
                .difference(those)
                .cloned()
                .map(Value::String)
                .collect()
        };
        let difference = Difference {
            a: Value::Array(only(a, b)),
            b: Value::Array(only(b, a)),
        };
        found.insert(subject.to_owned(), difference);
    }
}

/// The lines of a file, each with single spaces.
fn lines(process: &ProcDir, file: &str) -> io::Result<BTreeSet<String>> {
    let normal = |line: &str| line.split_ascii_whitespace().collect::<Vec<_>>().join(" ");
    Ok(process.read(file)?.lines().map(normal).collect())
}

fn mounts(process: &ProcDir) -> io::Result<BTreeSet<String>> {
    Ok(process
        .read("mountinfo")?
        .lines()
        .filter_map(parse_mount)
        .collect())
}

/// One line of `/proc/PID/mountinfo` (proc_pid_mountinfo(5)) as
/// `/target type source[/root] options`.
pub fn parse_mount(line: &str) -> Option<String> {
    let (mount, filesystem) = line.split_once(" - ")?;
    let mut mount = mount.split(' ').skip(3);
    let (root, target, options) = (mount.next()?, mount.next()?, mount.next()?);
    let mut filesystem = filesystem.split(' ');
    let (fstype, source) = (filesystem.next()?, filesystem.next()?);
    let root = if root == "/" {
        String::new()
    } else {
        format!("[{root}]")
    };
    Some(format!("{target} {fstype} {source}{root} {options}"))
}

fn interfaces(process: &ProcDir) -> io::Result<BTreeSet<String>> {
    Ok(parse_net_dev(&process.read("net/dev")?)
        .into_iter()
        .map(|device| device.name)
        .collect())
}

fn addresses(process: &ProcDir) -> io::Result<BTreeSet<String>> {
    let mut addresses = parse_addresses(&process.read("net/fib_trie")?);
    addresses.extend(parse_addresses6(&optional(process, "net/if_inet6")?));
    Ok(addresses)
}

fn routes(process: &ProcDir) -> io::Result<BTreeSet<String>> {
    let mut routes: BTreeSet<String> = process
        .read("net/route")?
        .lines()
        .filter_map(parse_route)
        .collect();
    routes.extend(
        optional(process, "net/ipv6_route")?
            .lines()
            .filter_map(parse_route6),
    );
    Ok(routes)
}

/// A file that a kernel without IPv6 does not have.
fn optional(process: &ProcDir, file: &str) -> io::Result<String> {
    match process.read(file) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(String::new()),
        result => result,
    }
}

/// How many PID namespaces lie between the daemon's and the process'.
fn depth(process: &ProcDir) -> io::Result<u64> {
    let status = parse_status(&process.read("status")?);
    Ok(status.map_or(0, |status| status.ns_pids.len().saturating_sub(1) as u64))
}
