//! Where the types of a spec know less than the specification says.
//!
//! A document is amended before it becomes a [`Spec`](oci_spec::runtime::Spec) or a
//! [`Process`](oci_spec::runtime::Process); pointers into it stay what they were.

use serde_json::{Value, json};

use crate::capability;

/// Flags of a scheduler (OCI config.md, "Linux Process"), and what the types call them.
const FLAGS: [(&str, &str); 2] = [
    ("SCHED_FLAG_RESET_ON_FORK", "SCHED_RESET_ON_FORK"),
    ("SCHED_FLAG_DL_OVERRUN", "SCHED_FLAG_D_L_OVERRUN"),
];

/// Amends a spec, a `config.json`.
pub fn spec(document: &mut Value) {
    if let Some(process) = document.get_mut("process") {
        self::process(process);
    }
    // To the types 0 and nothing are the same. It is a limit (OCI config-linux.md, "PIDs"), and the
    // lowest with which there is a container.
    if let Some(limit) = document.pointer_mut("/linux/resources/pids/limit")
        && *limit == json!(0)
    {
        *limit = json!(1);
    }
}

/// Takes the names that no capability has out of the sets of a process. A spec that is written for a
/// newer kernel is no reason to fail, and less is granted than was asked for (OCI config.md,
/// "capabilities").
///
/// Returns the names, each once.
pub fn drop_unknown_capabilities(process: &mut Value) -> Vec<String> {
    let mut unknown: Vec<String> = Vec::new();
    let sets = process
        .get_mut("capabilities")
        .and_then(Value::as_object_mut);
    for set in sets.into_iter().flat_map(|sets| sets.values_mut()) {
        let Some(names) = set.as_array_mut() else {
            continue;
        };
        names.retain(|name| {
            // What is no text at all is wrong, not unknown.
            let Some(name) = name.as_str() else {
                return true;
            };
            let known = capability::number(name).is_some();
            if !known && !unknown.iter().any(|earlier| earlier == name) {
                unknown.push(name.to_owned());
            }
            known
        });
    }
    unknown
}

/// Amends a process, of a spec or of a `process.json`.
pub fn process(document: &mut Value) {
    let Some(process) = document.as_object_mut() else {
        return;
    };
    // Its fields are numbers, and 0 where they are missing: root.
    let user = process.entry("user").or_insert(Value::Null);
    if user.is_null() {
        *user = json!({});
    }
    if let Some(user) = user.as_object_mut() {
        for id in ["uid", "gid"] {
            user.entry(id).or_insert(json!(0));
        }
    }
    let flags = process
        .get_mut("scheduler")
        .and_then(|scheduler| scheduler.get_mut("flags"))
        .and_then(Value::as_array_mut);
    for flag in flags.into_iter().flatten() {
        let known = FLAGS.iter().find(|(name, _)| flag == name);
        if let Some((_, ours)) = known {
            *flag = json!(ours);
        }
    }
}
