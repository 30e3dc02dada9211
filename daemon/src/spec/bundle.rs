//! A container that an OCI runtime spec describes, given inline or as the `config.json` of a bundle.
//!
//! The spec says what the container is; the request says beside it only what a spec has no words
//! for. Pointers of errors lead into the request (`/spec/process/args`), or for a bundle name the
//! place in its `config.json`.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

use littlebox_plan::{Envelope, PlanError, launch_plan, namespace_kind, pointer};
use littlebox_protocol::{
    LayerIdmap, LogPlan, NamespaceKind, RootfsSource, SeccompPlan, UserPlan, UserRef,
};
use littlebox_types::{ContainerConfig, IdMap, IdMaps, Resources, Signal};
use oci_spec::runtime::{Linux, Process, Spec, User};
use serde_json::Value;

use super::check::{self, error_with};
use super::{
    ConfigError, NamespaceOrigin, Prepared, RootSource, SpecContext, log, process, resources,
    testing,
};

/// What a request may say beside a spec.
const BESIDE: [&str; 13] = [
    "attach",
    "auto_remove",
    "bundle",
    "init",
    "labels",
    "log",
    "name",
    "overlay",
    "restart",
    "spec",
    "stdin",
    "stop_signal",
    "stop_timeout_s",
];

/// Whether a spec describes the container.
pub fn is_from_spec(config: &ContainerConfig) -> bool {
    config.spec.is_some() || config.bundle.is_some()
}

/// Refuses what a request cannot say together: a spec and what the spec says itself.
///
/// # Errors
/// The first field that is too much, by its JSON pointer.
pub fn check_request(config: &ContainerConfig) -> Result<(), ConfigError> {
    if !is_from_spec(config) {
        return match config.overlay {
            true => Err(error_with(
                "/overlay",
                "overlay is about the root of a bundle or a spec",
                "leave it out: the root of this container is an overlay anyway",
            )),
            false => Ok(()),
        };
    }
    if config.spec.is_some() && config.bundle.is_some() {
        return Err(error_with(
            "/spec",
            "bundle and spec exclude each other: a bundle has its spec in config.json",
            "give one of them",
        ));
    }
    let keys = |config: &ContainerConfig| match serde_json::to_value(config) {
        Ok(Value::Object(map)) => map,
        _ => serde_json::Map::new(),
    };
    let default = keys(&ContainerConfig::default());
    let extra = keys(config)
        .into_iter()
        .find(|(key, value)| !BESIDE.contains(&key.as_str()) && default.get(key) != Some(value));
    match extra {
        None => Ok(()),
        Some((key, _)) => Err(error_with(
            format!("/{key}"),
            format!("the OCI runtime spec says itself what {key} would say"),
            "leave it out and change the spec",
        )),
    }
}

/// As [`super::prepare`], of a container that a spec describes.
pub(super) fn prepare(
    config: &ContainerConfig,
    ctx: &SpecContext<'_>,
) -> Result<Prepared, ConfigError> {
    let at = Place::of(config);
    let mut spec = parse(config)?;
    let root = root(config, &spec, &at)?;
    absolute_sources(config, &mut spec, &at)?;
    patched_limits(config, &mut spec)?;
    let namespaces = namespaces(spec.linux().as_ref());
    check_plan(&spec, config.init, ctx, &root, &namespaces)
        .map_err(|e| at.error(&e.pointer, e.message))?;
    let Some(process) = spec.process().as_ref() else {
        return Err(at.error("/process", "a container needs a process to start".into()));
    };
    let terminal = process.terminal() == Some(true);
    Ok(Prepared {
        root,
        namespaces,
        user: user(process.user()),
        terminal_size: terminal.then(|| console_size(process)),
        log: log::for_container(config)?,
        stop_signal: config.stop_signal.unwrap_or(Signal::TERM),
        stop_timeout: Duration::from_secs(u64::from(config.stop_timeout_s.unwrap_or(10))),
        devices: Vec::new(),
        create_sources: Vec::new(),
        create_cwd: true,
        default_masks: false,
        inject: testing::inject(&config.labels),
        weaken: None,
        idmap_where_possible: BTreeSet::new(),
        layer_idmap: LayerIdmap::Auto,
        // The plan takes the spec's own.
        seccomp: None,
        spec,
    })
}

/// The process of the spec and its seccomp filter, for an exec to begin with.
pub(super) fn process_of(
    config: &ContainerConfig,
) -> Result<Option<(Process, Option<SeccompPlan>)>, ConfigError> {
    if config.spec.is_none() {
        return Ok(None);
    }
    let spec = parse(config)?;
    let seccomp = littlebox_plan::seccomp::of_spec(&spec)
        .map_err(|error| Place::of(config).error(&error.pointer, error.message))?;
    Ok(spec.process().clone().map(|process| (process, seccomp)))
}

/// Where the user namespace of a spec comes from: `new`, `host`, or the path that it gives.
pub(super) fn user_source(spec: &Value) -> &str {
    match user_namespace(spec) {
        Some(namespace) => namespace["path"].as_str().unwrap_or("new"),
        None => "host",
    }
}

fn user_namespace(spec: &Value) -> Option<&Value> {
    let list = spec.pointer("/linux/namespaces")?.as_array()?;
    list.iter().find(|namespace| namespace["type"] == "user")
}

/// The id maps of the new user namespace that a spec asks for.
pub(super) fn id_maps(spec: &Value) -> Option<IdMaps> {
    if user_source(spec) != "new" {
        return None;
    }
    let map = |name: &str| {
        let number = |line: &Value, key: &str| u32::try_from(line[key].as_u64()?).ok();
        let lines = spec.pointer(&format!("/linux/{name}"))?.as_array()?;
        let line = |line: &Value| {
            Some(IdMap {
                container_id: number(line, "containerID")?,
                host_id: number(line, "hostID")?,
                size: number(line, "size")?,
            })
        };
        lines.iter().map(line).collect::<Option<Vec<IdMap>>>()
    };
    Some(IdMaps {
        uid: map("uidMappings")?,
        gid: map("gidMappings")?,
    })
}

/// Where errors point to.
struct Place<'a> {
    bundle: Option<&'a str>,
}

impl Place<'_> {
    fn of(config: &ContainerConfig) -> Place<'_> {
        Place {
            bundle: config.bundle.as_deref(),
        }
    }

    fn error(&self, pointer: &str, message: String) -> ConfigError {
        let (pointer, detail) = match self.bundle {
            Some(dir) => (
                "/bundle".to_owned(),
                format!("{dir}/config.json: {pointer}: {message}"),
            ),
            None => (format!("/spec{pointer}"), message),
        };
        ConfigError {
            pointer,
            detail,
            hint: None,
        }
    }
}

fn parse(config: &ContainerConfig) -> Result<Spec, ConfigError> {
    let value = config.spec.as_ref().unwrap_or(&Value::Null);
    // Who writes for a newer specification hears of that, and not of a field that is new there.
    let version = value.get("ociVersion").and_then(Value::as_str);
    if value.is_object() && version.is_none() {
        let message = "it does not say for which version of the specification it is, like 1.2.0";
        return Err(Place::of(config).error("/ociVersion", message.into()));
    }
    if let Some(version) = version.filter(|v| !v.starts_with("1.")) {
        let message = format!(
            "{} is not a version of the specification that is known here; 1.x is",
            check::shown(version)
        );
        return Err(Place::of(config).error("/ociVersion", message));
    }
    let mut value = value.clone();
    littlebox_plan::amend::spec(&mut value);
    serde_path_to_error::deserialize(value).map_err(|error| {
        let pointer = pointer::of(error.path());
        Place::of(config).error(&pointer, error.inner().to_string())
    })
}

/// A path of the spec, which in a bundle is relative to it.
fn absolute(config: &ContainerConfig, path: &Path) -> PathBuf {
    match &config.bundle {
        Some(bundle) => Path::new(bundle).join(path),
        None => path.to_owned(),
    }
}

fn root(config: &ContainerConfig, spec: &Spec, at: &Place<'_>) -> Result<RootSource, ConfigError> {
    let Some(root) = spec.root() else {
        return Err(at.error("/root", "a container needs a root file system".into()));
    };
    let path = absolute(config, root.path());
    let path = check::path(&path.to_string_lossy(), "")
        .map_err(|error| at.error("/root/path", error.detail))?;
    if path == Path::new("/") {
        let message = "the machine's own root cannot be used as a plain directory";
        return Err(at.error("/root/path", message.into()));
    }
    Ok(match config.overlay {
        true => RootSource::Dir(path),
        false => RootSource::Bind(path),
    })
}

/// Sources of bind mounts are relative to the bundle (OCI config.md, "Mounts").
fn absolute_sources(
    config: &ContainerConfig,
    spec: &mut Spec,
    at: &Place<'_>,
) -> Result<(), ConfigError> {
    for (i, mount) in spec.mounts_mut().iter_mut().flatten().enumerate() {
        let options = mount.options().as_deref().unwrap_or_default();
        let bind = mount.typ().as_deref() == Some("bind")
            || options.iter().any(|o| o == "bind" || o == "rbind");
        let Some(source) = mount.source().clone().filter(|s| bind && s.is_relative()) else {
            continue;
        };
        if config.bundle.is_none() {
            let message = "without a bundle the source of a bind mount is an absolute path";
            return Err(at.error(&format!("/mounts/{i}/source"), message.into()));
        }
        mount.set_source(Some(absolute(config, &source)));
    }
    Ok(())
}

/// Limits that were patched later come instead of the spec's.
fn patched_limits(config: &ContainerConfig, spec: &mut Spec) -> Result<(), ConfigError> {
    if config.resources == Resources::default() {
        return Ok(());
    }
    let mut limits = resources::for_spec(&config.resources)?;
    if let Some(linux) = spec.linux_mut() {
        limits.set_devices(linux.resources().as_ref().and_then(|r| r.devices().clone()));
        linux.set_resources(Some(limits));
    }
    Ok(())
}

fn namespaces(linux: Option<&Linux>) -> BTreeMap<NamespaceKind, NamespaceOrigin> {
    let mut sources: BTreeMap<_, _> = NamespaceKind::ALL
        .into_iter()
        .map(|kind| (kind, NamespaceOrigin::Host))
        .collect();
    for namespace in linux.iter().flat_map(|l| l.namespaces()).flatten() {
        let source = match namespace.path() {
            Some(path) => NamespaceOrigin::Path(path.clone()),
            None => NamespaceOrigin::New,
        };
        sources.insert(namespace_kind(namespace.typ()), source);
    }
    sources
}

/// Whether the spec can be planned at all: now, and not only at the start.
fn check_plan(
    spec: &Spec,
    init: bool,
    ctx: &SpecContext<'_>,
    root: &RootSource,
    namespaces: &BTreeMap<NamespaceKind, NamespaceOrigin>,
) -> Result<(), PlanError> {
    let path = match root {
        RootSource::Bind(path) | RootSource::Dir(path) => path.clone(),
        RootSource::Host => PathBuf::from("/"),
    };
    let log = LogPlan {
        path: PathBuf::new(),
        max_size: None,
        max_files: 1,
    };
    let rootfs = RootfsSource::Bind { path };
    let mut envelope = Envelope::new(ctx.id.to_string(), PathBuf::new(), rootfs, log);
    envelope.cgroup_path = Some(PathBuf::from("/littlebox"));
    envelope.init = init;
    let given = namespaces
        .iter()
        .filter(|(_, source)| matches!(source, NamespaceOrigin::Path(_)));
    envelope.joins = given.enumerate().map(|(i, (kind, _))| (*kind, i)).collect();
    launch_plan(spec, envelope).map(drop)
}

pub(super) fn user(user: &User) -> UserPlan {
    let additional = user.additional_gids().as_deref().unwrap_or_default();
    UserPlan {
        user: UserRef::Id(user.uid()),
        group: Some(UserRef::Id(user.gid())),
        additional_groups: additional.iter().map(|gid| UserRef::Id(*gid)).collect(),
        umask: user.umask(),
    }
}

fn console_size(process: &Process) -> littlebox_protocol::TerminalSize {
    let cells = |n: u64| u16::try_from(n).unwrap_or(u16::MAX);
    match process.console_size() {
        Some(size) if size.height() > 0 && size.width() > 0 => littlebox_protocol::TerminalSize {
            rows: cells(size.height()),
            cols: cells(size.width()),
        },
        _ => process::TERMINAL,
    }
}
