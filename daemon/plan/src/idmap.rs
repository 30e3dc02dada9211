//! Id maps of a new user namespace (user_namespaces(7)).

use littlebox_protocol::IdMapping;
use oci_spec::runtime::{Linux, LinuxIdMapping};

use crate::PlanError;

/// The most lines the kernel takes in one map (`UID_GID_MAP_MAX_EXTENTS`, Linux 4.15).
pub const MAX_LINES: usize = 340;

/// Checks one map: not empty, no empty or overflowing line, no id twice on either side.
///
/// # Errors
/// The index of the line and what is wrong with it.
pub fn check(map: &[IdMapping]) -> Result<(), (usize, String)> {
    if map.is_empty() {
        return Err((0, "an id map needs at least one line".into()));
    }
    if map.len() > MAX_LINES {
        return Err((
            MAX_LINES,
            format!("an id map has at most {MAX_LINES} lines"),
        ));
    }
    for (i, line) in map.iter().enumerate() {
        check_line(*line).map_err(|message| (i, message))?;
    }
    overlap(map, "inside", |line| line.container_id)?;
    overlap(map, "on the host", |line| line.host_id)
}

fn check_line(line: IdMapping) -> Result<(), String> {
    if line.size == 0 {
        return Err("a line of an id map covers at least one id".into());
    }
    // 4294967295 is (uid_t)-1, which no process can have.
    let fits = |first: u32| u64::from(first) + u64::from(line.size) <= u64::from(u32::MAX);
    if fits(line.container_id) && fits(line.host_id) {
        Ok(())
    } else {
        Err("a line of an id map ends beyond 4294967294, the highest id".into())
    }
}

fn overlap(
    map: &[IdMapping],
    side: &str,
    first: impl Fn(&IdMapping) -> u32,
) -> Result<(), (usize, String)> {
    let mut order: Vec<usize> = (0..map.len()).collect();
    order.sort_by_key(|i| first(&map[*i]));
    for pair in order.windows(2) {
        let (a, b) = (pair[0], pair[1]);
        if u64::from(first(&map[a])) + u64::from(map[a].size) > u64::from(first(&map[b])) {
            return Err((
                a.max(b),
                format!("lines {a} and {b} of an id map overlap {side}"),
            ));
        }
    }
    Ok(())
}

/// A map as it stands in a spec.
pub(crate) fn from_spec(map: &[LinuxIdMapping]) -> Vec<IdMapping> {
    map.iter()
        .map(|m| IdMapping {
            container_id: m.container_id(),
            host_id: m.host_id(),
            size: m.size(),
        })
        .collect()
}

/// The two maps of a spec.
pub(crate) fn plan(
    linux: &Linux,
    new_user: bool,
) -> Result<(Vec<IdMapping>, Vec<IdMapping>), PlanError> {
    let uid = one(
        linux.uid_mappings().as_deref(),
        "/linux/uidMappings",
        new_user,
    )?;
    let gid = one(
        linux.gid_mappings().as_deref(),
        "/linux/gidMappings",
        new_user,
    )?;
    Ok((uid, gid))
}

fn one(
    map: Option<&[LinuxIdMapping]>,
    pointer: &str,
    new_user: bool,
) -> Result<Vec<IdMapping>, PlanError> {
    let map = map.unwrap_or_default();
    if !new_user && map.is_empty() {
        return Ok(Vec::new());
    }
    if !new_user {
        return Err(PlanError::new(pointer, "id maps need a new user namespace"));
    }
    let map = from_spec(map);
    check(&map).map_err(|(i, message)| PlanError::new(format!("{pointer}/{i}"), message))?;
    Ok(map)
}
