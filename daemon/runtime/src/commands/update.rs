//! `update`.

use std::fs::File;
use std::path::Path;

use littlebox_helper::cgroup::Cgroup;
use littlebox_plan::cgroup::plan_update;
use oci_spec::runtime::LinuxResources;
use serde_json::{Map, Value, json};

use super::find_locked;
use crate::bundle::{parse, read_bounded};
use crate::cli::Update;
use crate::error::{Doing, Error, Result};
use crate::store::{Status, Store};

/// What `-` reads is called in messages.
const STDIN: &str = "stdin";

/// Changes the limits of a container: all that are named, or none.
pub fn run(store: &Store, arguments: &Update) -> Result<()> {
    let (entry, record) = find_locked(store, &arguments.id)?;
    if entry.status(&record)? == Status::Stopped {
        return Err(Error::NotRunning(entry.id().clone()));
    }
    let (document, value) = match arguments.resources.as_deref() {
        Some(path) => read(path)?,
        None => (Path::new("flags"), from_flags(arguments)),
    };
    let json = serde_json::to_vec(&without_empty(value)).expect("a value is JSON");
    let resources: LinuxResources = parse(&json, document)?;
    let plan = plan_update(&resources).map_err(|error| Error::document(document, error))?;
    let mut cgroup = Cgroup::open(&record.cgroup).doing(|| "find the cgroup".to_owned())?;
    Ok(cgroup.update(&plan)?)
}

fn read(path: &Path) -> Result<(&Path, Value)> {
    let (path, json) = if path == Path::new("-") {
        (Path::new(STDIN), read_bounded(std::io::stdin().lock()))
    } else {
        (path, File::open(path).and_then(read_bounded))
    };
    let json = json.doing(|| format!("read {}", path.display()))?;
    Ok((path, parse(&json, path)?))
}

fn from_flags(arguments: &Update) -> Value {
    // Given by name, 0 means no other process; the one that is there makes it a limit of 1.
    let pids = arguments.pids_limit.map(|n| if n == 0 { 1 } else { n });
    json!({
        "memory": {
            "limit": arguments.memory,
            "reservation": arguments.memory_reservation,
            "swap": arguments.memory_swap,
        },
        "cpu": {
            "shares": arguments.cpu_share,
            "quota": arguments.cpu_quota,
            "period": arguments.cpu_period,
            "burst": arguments.cpu_burst,
            "idle": arguments.cpu_idle,
            "realtimePeriod": arguments.cpu_rt_period,
            "realtimeRuntime": arguments.cpu_rt_runtime,
            "cpus": arguments.cpuset_cpus,
            "mems": arguments.cpuset_mems,
        },
        "pids": {"limit": pids},
        "blockIO": {"weight": arguments.blkio_weight},
    })
}

/// In an update 0 and the empty string mean "as it is": engines send whole objects of which they
/// mean a part (so does `runc update`). But for values that they send only when they mean them, and
/// of which 0 is one.
fn without_empty(value: Value) -> Value {
    const ZERO_IS_A_VALUE: [&str; 2] = ["idle", "burst"];
    let is_empty = |key: &str, value: &Value| match value {
        Value::Null => true,
        Value::Number(number) => number.as_f64() == Some(0.0) && !ZERO_IS_A_VALUE.contains(&key),
        Value::String(text) => text.is_empty(),
        Value::Array(list) => list.is_empty(),
        Value::Object(fields) => fields.is_empty(),
        Value::Bool(_) => false,
    };
    match value {
        Value::Object(fields) => {
            let kept = fields
                .into_iter()
                .map(|(key, value)| (key, without_empty(value)))
                .filter(|(key, value)| !is_empty(key, value));
            Value::Object(kept.collect::<Map<_, _>>())
        }
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_engine_leaves_at_zero_is_not_changed() {
        let sent = json!({
            "memory": {"limit": 5, "swap": 0, "checkBeforeUpdate": false},
            "cpu": {"shares": 0, "cpus": "", "idle": 0, "burst": null},
            "blockIO": {"weight": 0, "weightDevice": []}
        });
        let meant = json!({
            "memory": {"limit": 5, "checkBeforeUpdate": false},
            "cpu": {"idle": 0},
        });
        assert_eq!(without_empty(sent), meant);
    }
}
