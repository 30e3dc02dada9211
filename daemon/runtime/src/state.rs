//! The state of a container as the specification words it (OCI runtime.md, "State").

use std::collections::BTreeMap;
use std::path::Path;

use littlebox_plan::SPEC_VERSION;
use serde::Serialize;
use serde_json::{Map, Value};

use crate::id::Id;
use crate::store::Record;

/// The state document: what `state` prints and what hooks read on their stdin.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct State<'a> {
    oci_version: &'static str,
    id: &'a str,
    /// Left out where it is for others to say.
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<&'a str>,
    /// Left out where there is no process (any more).
    #[serde(skip_serializing_if = "Option::is_none")]
    pid: Option<u32>,
    bundle: &'a Path,
    annotations: &'a BTreeMap<String, String>,
}

impl<'a> State<'a> {
    /// The document.
    pub fn new(id: &'a Id, record: &'a Record, status: &'a str, pid: Option<u32>) -> State<'a> {
        State {
            status: Some(status),
            pid,
            ..State::of(id, &record.bundle, &record.annotations)
        }
    }

    /// What does not change.
    pub fn of(
        id: &'a Id,
        bundle: &'a Path,
        annotations: &'a BTreeMap<String, String>,
    ) -> State<'a> {
        State {
            oci_version: SPEC_VERSION,
            id: id.as_str(),
            status: None,
            pid: None,
            bundle,
            annotations,
        }
    }

    /// For a plan.
    pub fn map(&self) -> Map<String, Value> {
        match serde_json::to_value(self) {
            Ok(Value::Object(map)) => map,
            _ => unreachable!("a structure of strings and numbers is a JSON object"),
        }
    }

    /// As JSON for people, as runc and crun print it.
    pub fn indented(&self) -> String {
        serde_json::to_string_pretty(self).expect("strings and numbers are JSON")
    }

    /// As JSON.
    pub fn json(&self) -> String {
        serde_json::to_string(self).expect("strings and numbers are JSON")
    }
}
