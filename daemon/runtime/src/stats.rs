//! Statistics of a container's cgroup in the layout of `runc events`, which engines read.

use std::fs;
use std::path::{Path, PathBuf};

use littlebox_helper::cgroup::Cgroup;
use serde_json::{Map, Value, json};

/// The directories of a cgroup by controller.
struct Directories(Vec<(String, PathBuf)>);

impl Directories {
    /// The v1 directory of a controller.
    fn v1(&self, controller: &str) -> Option<&Path> {
        let found = self.0.iter().find(|(name, _)| name == controller);
        found.map(|(_, path)| path.as_path())
    }

    fn v2(&self) -> Option<&Path> {
        self.v1("unified")
    }

    /// A number of the v1 controller's file, else of the v2 one.
    fn number(&self, controller: &str, v1: &str, v2: &str) -> u64 {
        let path = match (self.v1(controller), self.v2()) {
            (Some(dir), _) => dir.join(v1),
            (None, Some(dir)) => dir.join(v2),
            (None, None) => return 0,
        };
        number(&path)
    }
}

/// The `data` of a statistics event. What this host does not count is 0.
pub fn read(cgroup: &Cgroup) -> Value {
    let directories = Directories(cgroup.paths());
    json!({
        "cpu": cpu(&directories),
        "cpuset": {},
        "memory": memory(&directories),
        "pids": {
            "current": directories.number("pids", "pids.current", "pids.current"),
            "limit": directories.number("pids", "pids.max", "pids.max"),
        },
        "blkio": {},
        "hugetlb": {},
        "intel_rdt": {},
        "network_interfaces": null,
    })
}

fn cpu(directories: &Directories) -> Value {
    let (total, user, kernel, throttling) = match (directories.v1("cpuacct"), directories.v2()) {
        (Some(dir), _) => (
            number(&dir.join("cpuacct.usage")),
            number(&dir.join("cpuacct.usage_user")),
            number(&dir.join("cpuacct.usage_sys")),
            directories
                .v1("cpu")
                .map(|dir| fields(&dir.join("cpu.stat"))),
        ),
        (None, Some(dir)) => {
            let stat = fields(&dir.join("cpu.stat"));
            let ns = |key: &str| of(&stat, key).saturating_mul(1000);
            (
                ns("usage_usec"),
                ns("user_usec"),
                ns("system_usec"),
                Some(stat),
            )
        }
        (None, None) => (0, 0, 0, None),
    };
    let throttling = throttling.unwrap_or_default();
    let throttled_ns = match throttling.get("throttled_usec") {
        Some(_) => of(&throttling, "throttled_usec").saturating_mul(1000),
        None => of(&throttling, "throttled_time"),
    };
    json!({
        "usage": {"total": total, "user": user, "kernel": kernel},
        "throttling": {
            "periods": of(&throttling, "nr_periods"),
            "throttledPeriods": of(&throttling, "nr_throttled"),
            "throttledTime": throttled_ns,
        },
    })
}

fn memory(directories: &Directories) -> Value {
    let number = |v1, v2| directories.number("memory", v1, v2);
    let raw = match (directories.v1("memory"), directories.v2()) {
        (Some(dir), _) | (None, Some(dir)) => fields(&dir.join("memory.stat")),
        (None, None) => Map::new(),
    };
    // v1 calls it cache, v2 file.
    let cache = of(&raw, "cache").max(of(&raw, "file"));
    json!({
        "cache": cache,
        "usage": {
            "usage": number("memory.usage_in_bytes", "memory.current"),
            "max": number("memory.max_usage_in_bytes", "memory.peak"),
            "limit": number("memory.limit_in_bytes", "memory.max"),
            "failcnt": number("memory.failcnt", "memory.failcnt"),
        },
        "swap": {
            "usage": number("memory.memsw.usage_in_bytes", "memory.swap.current"),
            "limit": number("memory.memsw.limit_in_bytes", "memory.swap.max"),
            "failcnt": 0,
        },
        "kernel": {
            "usage": number("memory.kmem.usage_in_bytes", "memory.kernel"),
            "limit": 0,
            "failcnt": 0,
        },
        "raw": raw,
    })
}

/// A file of one number; `max` is the largest.
fn number(path: &Path) -> u64 {
    let text = fs::read_to_string(path).unwrap_or_default();
    match text.trim() {
        "max" => u64::MAX,
        text => text.parse().unwrap_or(0),
    }
}

/// A file of `key value` lines.
fn fields(path: &Path) -> Map<String, Value> {
    let text = fs::read_to_string(path).unwrap_or_default();
    let pair = |line: &str| {
        let (key, value) = line.split_once(' ')?;
        Some((key.to_owned(), value.trim().parse::<u64>().ok()?.into()))
    };
    text.lines().filter_map(pair).collect()
}

fn of(fields: &Map<String, Value>, key: &str) -> u64 {
    fields.get(key).and_then(Value::as_u64).unwrap_or(0)
}
