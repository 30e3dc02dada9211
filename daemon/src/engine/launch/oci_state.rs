//! What a seccomp agent is told of a container (OCI runtime.md, "State"). The helper adds what only it
//! knows, status and PID.

use littlebox_plan::SPEC_VERSION;
use littlebox_types::{ContainerConfig, ContainerId};
use serde_json::{Map, Value, json};

use crate::engine::Engine;

impl Engine {
    /// The state of a container without status and PID. Its labels stand among the annotations, and one
    /// that has no bundle has littlebox's own directory for it.
    pub(in crate::engine) fn oci_state(
        &self,
        id: ContainerId,
        config: &ContainerConfig,
    ) -> Map<String, Value> {
        let own = || self.paths.container(id).display().to_string();
        let mut annotations = annotations_of_spec(config);
        let labels = config.labels.iter();
        annotations.extend(labels.map(|(key, value)| (key.clone(), json!(value))));
        Map::from_iter([
            ("ociVersion".to_owned(), json!(SPEC_VERSION)),
            ("id".to_owned(), json!(id.to_string())),
            (
                "bundle".to_owned(),
                json!(config.bundle.clone().unwrap_or_else(own)),
            ),
            ("annotations".to_owned(), Value::Object(annotations)),
        ])
    }
}

fn annotations_of_spec(config: &ContainerConfig) -> Map<String, Value> {
    let spec = config.spec.as_ref();
    let annotations = spec.and_then(|spec| spec.get("annotations")?.as_object());
    annotations.cloned().unwrap_or_default()
}
