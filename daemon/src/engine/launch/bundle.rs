//! OCI bundles: their `config.json` becomes a part of the container's configuration, so that a
//! change of the file changes no container that was made from it.

use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;

use littlebox_types::ContainerConfig;
use serde_json::Value;

use crate::engine::{Engine, EngineError};
use crate::spec::{self, ConfigError};
use crate::worker::Probe;

/// The file of a bundle that is read.
const CONFIG: &str = "config.json";
/// The most bytes of it.
const LIMIT: u64 = 4 * 1024 * 1024;

impl Engine {
    /// Checks what a request says beside a spec, and reads the bundle where there is one.
    pub(in crate::engine) async fn resolve(
        self: &Arc<Self>,
        mut config: ContainerConfig,
    ) -> Result<ContainerConfig, EngineError> {
        spec::check_request(&config)?;
        if let Some(bundle) = config.bundle.clone() {
            let file = Probe::Content(Path::new(&bundle).join(CONFIG));
            config.spec = Some(self.look(vec![file], move |_| read(&bundle)).await?);
        }
        Ok(config)
    }
}

fn read(bundle: &str) -> Result<Value, EngineError> {
    let refused = |detail: String| {
        EngineError::Config(ConfigError {
            pointer: "/bundle".into(),
            detail,
            hint: Some("give the absolute path of a directory with a config.json".into()),
        })
    };
    if !bundle.starts_with('/') || bundle.contains('\0') {
        return Err(refused(format!(
            "the path '{}' is not absolute",
            bundle.escape_debug()
        )));
    }
    let path = Path::new(bundle).join(CONFIG);
    let text = read_file(&path)
        .map_err(|error| refused(format!("{} cannot be read: {error}", path.display())))?;
    serde_json::from_slice(&text)
        .map_err(|error| refused(format!("{} is no JSON: {error}", path.display())))
}

/// A regular file of a bounded size; a FIFO would block.
fn read_file(path: &Path) -> io::Result<Vec<u8>> {
    let flags = rustix::fs::OFlags::NONBLOCK.bits();
    let file: File = OpenOptions::new()
        .read(true)
        .custom_flags(i32::try_from(flags).unwrap_or(0))
        .open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("it is not a regular file"));
    }
    let mut text = Vec::new();
    file.take(LIMIT + 1).read_to_end(&mut text)?;
    if u64::try_from(text.len()).unwrap_or(u64::MAX) > LIMIT {
        return Err(io::Error::other(format!("it has more than {LIMIT} bytes")));
    }
    Ok(text)
}
