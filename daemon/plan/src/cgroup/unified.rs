//! `unified`: files of the v2 cgroup by name.

use std::collections::HashMap;

use littlebox_protocol::ResourcePlan;

use super::refuse;
use crate::{PlanError, pointer};

/// The core's files that set limits; the others move, kill, freeze or only tell.
const CORE: [&str; 3] = [
    "cgroup.max.depth",
    "cgroup.max.descendants",
    "cgroup.pressure",
];

/// Values that a file can be given.
const VALUE_LIMIT: usize = 4096;

/// Keys that the plan has a place for go there, so that they also work on v1; the rest is written
/// as it is.
pub(super) fn plan(
    keys: &HashMap<String, String>,
    plan: &mut ResourcePlan,
) -> Result<(), PlanError> {
    for (key, value) in keys {
        let field = pointer::below("unified", key);
        check_key(key, &field)?;
        if value.len() > VALUE_LIMIT || value.contains('\0') {
            return refuse(&field, "a value has at most 4096 bytes and no zero byte");
        }
        let number = || match value.trim() {
            "max" => Ok(None),
            text => text
                .parse::<u64>()
                .map(Some)
                .or_else(|_| refuse(&field, format!("'{value}' is neither a number nor max"))),
        };
        match key.as_str() {
            "cpu.weight" => plan.cpu_weight = weight(number()?, &field)?,
            "io.weight" if !value.contains(char::is_whitespace) => {
                plan.io.weight = weight(number()?, &field)?;
            }
            "memory.max" => plan.memory = number()?,
            "memory.high" => plan.memory_high = number()?,
            "memory.low" => plan.memory_reservation = number()?,
            "pids.max" => plan.pids = Some(number()?.unwrap_or(u64::MAX)),
            "cpuset.cpus" => plan.cpuset_cpus = Some(value.clone()),
            "cpuset.mems" => plan.cpuset_mems = Some(value.clone()),
            _ => {
                plan.unified.insert(key.clone(), value.clone());
            }
        }
    }
    Ok(())
}

fn weight(weight: Option<u64>, field: &str) -> Result<Option<u64>, PlanError> {
    match weight {
        Some(weight) if (1..=10_000).contains(&weight) => Ok(Some(weight)),
        _ => refuse(field, "a weight is 1 to 10000"),
    }
}

/// A file name of the cgroup's own directory: `controller.name`.
fn check_key(key: &str, field: &str) -> Result<(), PlanError> {
    let plain = key
        .bytes()
        .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'));
    let named = key
        .split_once('.')
        .is_some_and(|(controller, file)| !controller.is_empty() && !file.is_empty());
    if !plain || !named || key.contains("..") {
        return refuse(field, format!("'{key}' is not the name of a cgroup file"));
    }
    if key.starts_with("cgroup.") && !CORE.contains(&key) {
        return refuse(field, format!("{key} sets no limit"));
    }
    Ok(())
}
