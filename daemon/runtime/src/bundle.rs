//! A bundle: `config.json` and the root filesystem (OCI bundle.md).

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use littlebox_plan::{Authority, Envelope, amend, launch_plan, pointer};
use littlebox_protocol::{ExistingCgroup, LaunchPlan, LogPlan, NamespaceKind, RootfsSource};
use oci_spec::runtime::{Process, Spec};
use rustix::fs::{Mode, OFlags, open};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::error::{Doing, Error, Result, words};
use crate::id::Id;
use crate::log;
use crate::state::State;

/// The specification's name of the file.
pub const CONFIG: &str = "config.json";
/// The largest document that is read.
const LIMIT: u64 = 16 * 1024 * 1024;

/// A bundle that was read and checked.
#[derive(Debug)]
pub struct Bundle {
    /// Absolute path of its directory.
    pub dir: PathBuf,
    /// Absolute path of the root filesystem.
    pub rootfs: PathBuf,
    /// `config.json` as it is.
    pub json: Vec<u8>,
    /// What it says.
    pub spec: Spec,
}

impl Bundle {
    /// Reads the bundle in a directory; its document is `config.json` there, or the one that is named.
    ///
    /// # Errors
    /// What is missing or wrong, by its JSON pointer.
    pub fn read(dir: &Path, config: Option<&Path>) -> Result<Bundle> {
        let dir = dir
            .canonicalize()
            .doing(|| format!("bundle {}", dir.display()))?;
        let config = config.map_or_else(|| dir.join(CONFIG), Path::to_owned);
        let json = File::open(&config)
            .and_then(read_bounded)
            .doing(|| format!("read {}", config.display()))?;
        let spec = parse_spec(&json)?;
        let rootfs = rootfs(&spec, &dir)?;
        let mut bundle = Bundle {
            dir,
            rootfs,
            json,
            spec,
        };
        bundle.make_sources_absolute();
        bundle.make_destinations_the_containers();
        Ok(bundle)
    }

    /// The plan, and the descriptors of the namespaces that it joins. `cgroup` is its cgroup.
    pub fn plan(
        &self,
        id: &Id,
        run_dir: &Path,
        cgroup: PathBuf,
        existing: ExistingCgroup,
    ) -> Result<(LaunchPlan, Vec<OwnedFd>)> {
        let (joins, fds) = self.open_namespaces()?;
        let rootfs = RootfsSource::Bind {
            path: self.rootfs.clone(),
        };
        // The program has its caller's stdio.
        let log = LogPlan {
            path: "/dev/null".into(),
            max_size: None,
            max_files: 0,
        };
        let envelope = Envelope {
            cgroup_path: Some(cgroup),
            existing_cgroup: existing,
            authority: Authority::Host,
            create_cwd: true,
            joins,
            state: self.state(id),
            ..Envelope::new(id.to_string(), run_dir.to_owned(), rootfs, log)
        };
        let plan =
            launch_plan(&self.spec, envelope).map_err(|error| Error::document(CONFIG, error))?;
        Ok((plan, fds))
    }

    /// What is known of the container's state before it is built.
    fn state(&self, id: &Id) -> Map<String, Value> {
        let annotations = self.annotations();
        State::of(id, &self.dir, &annotations).map()
    }

    /// The spec's annotations.
    pub fn annotations(&self) -> BTreeMap<String, String> {
        let annotations = self.spec.annotations().iter().flatten();
        annotations.map(|(k, v)| (k.clone(), v.clone())).collect()
    }

    /// Opens the namespaces that have a path: for each kind the index of its descriptor.
    fn open_namespaces(&self) -> Result<(BTreeMap<NamespaceKind, usize>, Vec<OwnedFd>)> {
        let (mut joins, mut fds) = (BTreeMap::new(), Vec::new());
        let linux = self.spec.linux().as_ref();
        let listed = linux.and_then(|linux| linux.namespaces().as_deref());
        for (i, namespace) in listed.unwrap_or_default().iter().enumerate() {
            let Some(path) = littlebox_plan::namespace_path(namespace) else {
                continue;
            };
            let at = format!("/linux/namespaces/{i}/path");
            let wrong = |message: String| Error::Document {
                document: CONFIG.into(),
                pointer: at.clone(),
                message,
            };
            if !path.is_absolute() {
                return Err(wrong(format!("{}: it must be absolute", path.display())));
            }
            let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
            let fd = open(path, flags, Mode::empty()).map_err(|errno| {
                let why = words(&errno.into());
                wrong(format!("cannot open {}: {why}", path.display()))
            })?;
            joins.insert(littlebox_plan::namespace_kind(namespace.typ()), fds.len());
            fds.push(fd);
        }
        Ok((joins, fds))
    }

    /// A destination is a path in the container. Some engines write the host's, with the root's before it,
    /// because runc takes that, too.
    fn make_destinations_the_containers(&mut self) {
        for mount in self.spec.mounts_mut().iter_mut().flatten() {
            let below = mount.destination().strip_prefix(&self.rootfs);
            if let Ok(below) = below.map(|below| Path::new("/").join(below)) {
                mount.set_destination(below);
            }
        }
    }

    /// Relative bind sources are relative to the bundle (OCI config.md, "mounts").
    fn make_sources_absolute(&mut self) {
        let Some(mounts) = self.spec.mounts_mut() else {
            return;
        };
        for mount in mounts {
            let is_bind = mount.typ().as_deref() == Some("bind")
                || mount
                    .options()
                    .iter()
                    .flatten()
                    .any(|option| matches!(option.as_str(), "bind" | "rbind"));
            if let Some(source) = mount.source()
                && is_bind
                && source.is_relative()
            {
                let absolute = self.dir.join(source);
                mount.set_source(Some(absolute));
            }
        }
    }
}

fn rootfs(spec: &Spec, bundle: &Path) -> Result<PathBuf> {
    let wrong = |pointer: &str, message: String| Error::Document {
        document: CONFIG.into(),
        pointer: pointer.to_owned(),
        message,
    };
    let Some(root) = spec.root() else {
        return Err(wrong("/root", "a container needs a root filesystem".into()));
    };
    let path = bundle.join(root.path());
    let real = path.canonicalize().map_err(|error| {
        wrong(
            "/root/path",
            format!("cannot find {}: {}", path.display(), words(&error)),
        )
    })?;
    if real == Path::new("/") {
        return Err(wrong(
            "/root/path",
            "the host's own root cannot be a container's".into(),
        ));
    }
    if real.is_dir() {
        return Ok(real);
    }
    Err(wrong(
        "/root/path",
        format!("{} is not a directory", path.display()),
    ))
}

/// Reads a document of at most 16 MiB.
pub fn read_bounded(source: impl Read) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    source.take(LIMIT + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > LIMIT {
        return Err(std::io::Error::other("the document is larger than 16 MiB"));
    }
    Ok(bytes)
}

/// Parses `config.json`.
pub fn parse_spec(json: &[u8]) -> Result<Spec> {
    parse_amended(json, Path::new(CONFIG), |document| {
        amend::spec(document);
        document
            .get_mut("process")
            .map_or_else(Vec::new, amend::drop_unknown_capabilities)
    })
}

/// Parses a `process.json`.
pub fn parse_process(json: &[u8], document: &Path) -> Result<Process> {
    parse_amended(json, document, |process| {
        amend::process(process);
        amend::drop_unknown_capabilities(process)
    })
}

fn parse_amended<T: DeserializeOwned>(
    json: &[u8],
    document: &Path,
    amend: impl FnOnce(&mut Value) -> Vec<String>,
) -> Result<T> {
    let mut value: Value = parse(json, document)?;
    let unknown = amend(&mut value);
    if !unknown.is_empty() {
        log::warn(&format!(
            "{}: ignoring unknown or unavailable capabilities: [{}]",
            document.display(),
            unknown.join(" ")
        ));
    }
    serde_path_to_error::deserialize(value).map_err(|error| wrong(error, document))
}

fn wrong(error: serde_path_to_error::Error<serde_json::Error>, document: &Path) -> Error {
    let pointer = match pointer::of(error.path()) {
        whole if whole.is_empty() => "/".to_owned(),
        pointer => pointer,
    };
    Error::Document {
        document: document.to_owned(),
        pointer,
        message: error.into_inner().to_string(),
    }
}

/// Parses a JSON document; an error names the value by its JSON pointer.
pub fn parse<T: DeserializeOwned>(json: &[u8], document: &Path) -> Result<T> {
    let mut source = serde_json::Deserializer::from_slice(json);
    let parsed = serde_path_to_error::deserialize(&mut source);
    let parsed = parsed.map_err(|error| wrong(error, document))?;
    source.end().map_err(|error| Error::Document {
        document: document.to_owned(),
        pointer: "/".to_owned(),
        message: error.to_string(),
    })?;
    Ok(parsed)
}
