//! Cgroups that systemd makes: a transient scope per container (`--systemd-cgroup`).
//!
//! systemd wants a process for a new scope, and the container is to be born in the finished cgroup.
//! So a process that does nothing is put there first, and ended when the container has come.
//!
//! The scope's own cgroup stays systemd's, which writes its own idea of every limit into it whenever
//! its configuration is read again (`systemctl daemon-reload`). The container lives in a cgroup below,
//! which is ours (`Delegate=`, systemd.resource-control(5)); crun has it so too.

mod bus;
mod holder;

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use littlebox_protocol::cgroup::Layout;

use crate::bundle::CONFIG;
use crate::error::{Doing, Error, Result};
use crate::id::Id;

use bus::{Bus, Value};
pub use holder::Holder;

/// systemd's own socket: it answers root without a bus daemon in between.
const SOCKET: &str = "/run/systemd/private";
/// Where a spec that names no slice has its scope.
const DEFAULT_SLICE: &str = "system.slice";
/// The container's cgroup in that of its scope.
const BELOW: &str = "container";
/// How long systemd may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// A scope by `slice:prefix:name`, as engines write it into `linux.cgroupsPath`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scope {
    slice: String,
    unit: String,
}

impl Scope {
    /// Of a spec's `cgroupsPath`; without one `system.slice:littlebox:ID`.
    pub fn parse(text: Option<&str>, id: &Id) -> Result<Scope> {
        let default = format!(":littlebox:{id}");
        let text = text.filter(|text| !text.is_empty()).unwrap_or(&default);
        let parts: Vec<&str> = text.split(':').collect();
        let [slice, prefix, name] = parts[..] else {
            return Err(wrong("with --systemd-cgroup it is slice:prefix:name"));
        };
        let slice = if slice.is_empty() {
            DEFAULT_SLICE
        } else {
            slice
        };
        let unit = if prefix.is_empty() {
            format!("{name}.scope")
        } else {
            format!("{prefix}-{name}.scope")
        };
        let plain = |text: &str| {
            text.bytes().all(|b| {
                b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.' | b'@' | b'\\')
            })
        };
        let good = plain(slice) && plain(&unit) && !name.is_empty() && unit.len() <= 255;
        if !good || !slice.ends_with(".slice") || slice.starts_with('.') {
            return Err(wrong(
                "slice, prefix and name are parts of names of systemd's units, and the slice ends in .slice",
            ));
        }
        Ok(Scope {
            slice: slice.to_owned(),
            unit,
        })
    }

    /// The name of its unit.
    pub fn unit(&self) -> &str {
        &self.unit
    }

    /// The container's cgroup below each hierarchy's root.
    pub fn container_path(&self) -> PathBuf {
        self.path().join(BELOW)
    }

    /// Its own cgroup below each hierarchy's root: `a-b.slice` lies in `a.slice` (systemd.slice(5)).
    fn path(&self) -> PathBuf {
        let mut path = PathBuf::from("/");
        let stem = self.slice.strip_suffix(".slice").unwrap_or(&self.slice);
        if stem != "-" {
            let mut name = String::new();
            for part in stem.split('-') {
                name = if name.is_empty() {
                    part.to_owned()
                } else {
                    format!("{name}-{part}")
                };
                path.push(format!("{name}.slice"));
            }
        }
        path.join(&self.unit)
    }

    /// Asks systemd for the scope, with a process in it, and waits until its cgroup is there.
    pub fn start(&self, id: &Id) -> Result<Holder> {
        let mut bus = connect()?;
        let holder = Holder::fork()?;
        let yes = |name| (name, Value::Bool(true));
        let properties = [
            (
                "Description",
                Value::Text(format!("littlebox container {id}")),
            ),
            ("Slice", Value::Text(self.slice.clone())),
            ("PIDs", Value::Numbers(vec![holder.pid()])),
            ("DefaultDependencies", Value::Bool(false)),
            // A limit is the container's; systemd's default for a unit is none of its business.
            ("TasksMax", Value::Count(u64::MAX)),
            yes("Delegate"),
            yes("CPUAccounting"),
            yes("MemoryAccounting"),
            yes("TasksAccounting"),
            yes("IOAccounting"),
        ];
        bus.start_transient_unit(&self.unit, &properties)
            .map_err(|why| failed(&format!("start {}", self.unit), &why))?;
        self.wait_for(holder.pid())?;
        self.hand_down(holder.pid())
            .doing(|| format!("prepare the cgroup of {}", self.unit))?;
        Ok(holder)
    }

    /// Makes the container's cgroup on v2, with every controller that the scope has: the process
    /// goes there first, because a cgroup with processes hands nothing down (cgroups(7)).
    fn hand_down(&self, pid: u32) -> io::Result<()> {
        let Some(hierarchy) = Layout::detect().unified() else {
            return Ok(());
        };
        let below = |path: PathBuf| {
            hierarchy
                .mount()
                .join(path.strip_prefix("/").unwrap_or(&path))
        };
        let (scope, container) = (below(self.path()), below(self.container_path()));
        // A v2 tree that is not systemd's.
        if !scope.is_dir() {
            return Ok(());
        }
        fs::create_dir(&container)?;
        fs::set_permissions(&container, Permissions::from_mode(0o755))?;
        fs::write(container.join("cgroup.procs"), pid.to_string())?;
        for controller in fs::read_to_string(scope.join("cgroup.controllers"))?.split_whitespace() {
            fs::write(
                scope.join("cgroup.subtree_control"),
                format!("+{controller}"),
            )?;
        }
        Ok(())
    }

    fn wait_for(&self, pid: u32) -> Result<()> {
        let start = Instant::now();
        while start.elapsed() < PATIENCE {
            if is_in(pid, &self.path()) {
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        Err(failed(
            &format!("start {}", self.unit),
            "its cgroup did not appear within 10 s",
        ))
    }
}

/// Lets systemd forget a scope whose processes have ended; it may have done so by itself. `container`:
/// the container's cgroup, which is gone.
pub fn stop(unit: &str, container: Option<&Path>) {
    if let Ok(mut bus) = connect() {
        let _ = bus.stop_unit(unit);
    }
    // Those of v1 hierarchies in which systemd makes none for the unit.
    let Some(scope) = container
        .filter(|c| c.ends_with(BELOW))
        .and_then(Path::parent)
    else {
        return;
    };
    let scope = scope.strip_prefix("/").unwrap_or(scope);
    for hierarchy in Layout::detect().all().filter(|h| !h.is_unified()) {
        let _ = fs::remove_dir(hierarchy.mount().join(scope));
    }
}

/// Whether a process is in this cgroup in any hierarchy.
fn is_in(pid: u32, path: &Path) -> bool {
    let table = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
    let exists = Layout::detect().all().next().is_some();
    exists
        && table
            .lines()
            .filter_map(|line| line.splitn(3, ':').nth(2))
            .any(|own| Path::new(own) == path)
}

fn connect() -> Result<Bus> {
    Bus::connect(Path::new(SOCKET)).map_err(|why| {
        failed(
            "reach systemd",
            &format!("{SOCKET}: {why}; without systemd leave --systemd-cgroup away (for Podman: --cgroup-manager cgroupfs)"),
        )
    })
}

fn failed(what: &str, why: &str) -> Error {
    Error::Usage(format!("--systemd-cgroup: cannot {what}: {why}"))
}

fn wrong(message: &str) -> Error {
    Error::Document {
        document: CONFIG.into(),
        pointer: "/linux/cgroupsPath".to_owned(),
        message: message.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scope(text: Option<&str>) -> Result<Scope> {
        Scope::parse(text, &"box".parse().expect("an id"))
    }

    #[test]
    fn a_scope_lies_in_its_slice_and_that_in_those_it_is_named_for() {
        let path = |text| scope(text).expect("a scope").path();
        assert_eq!(
            path(Some("machine.slice:libpod:c1")),
            Path::new("/machine.slice/libpod-c1.scope")
        );
        assert_eq!(
            path(Some("kube-pods-x.slice:cri:c1")),
            Path::new("/kube.slice/kube-pods.slice/kube-pods-x.slice/cri-c1.scope")
        );
        assert_eq!(path(Some("-.slice:a:b")), Path::new("/a-b.scope"));
        assert_eq!(path(None), Path::new("/system.slice/littlebox-box.scope"));
    }

    #[test]
    fn what_is_no_scope_is_refused() {
        for bad in [
            "/a/b",
            "a.slice:b",
            "a:b:c",
            "a.slice:b:",
            "a.slice:b:c/d",
            "../x.slice:b:c",
        ] {
            assert!(scope(Some(bad)).is_err(), "{bad}");
        }
    }
}
