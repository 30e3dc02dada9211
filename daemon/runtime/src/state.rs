//! The state of a container as the specification words it (OCI runtime.md, "State").

use std::collections::BTreeMap;
use std::path::Path;

use serde::Serialize;

use crate::cli::SPEC_VERSION;
use crate::id::Id;
use crate::store::Record;

/// The state document: what `state` prints and what hooks read on their stdin.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct State<'a> {
    oci_version: &'static str,
    id: &'a str,
    status: &'a str,
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
            oci_version: SPEC_VERSION,
            id: id.as_str(),
            status,
            pid,
            bundle: &record.bundle,
            annotations: &record.annotations,
        }
    }

    /// As JSON.
    pub fn json(&self) -> String {
        serde_json::to_string(self).expect("strings and numbers are JSON")
    }
}
