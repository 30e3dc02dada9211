//! From an API request to an OCI runtime spec.
//!
//! [`prepare`] checks everything of a container's configuration that does not need the machine's
//! state, and makes the spec from it, with littlebox's defaults. It is pure: no file is opened.

mod bundle;
mod check;
mod clocks;
mod devices;
mod exec;
mod hiding;
mod host_name;
mod labels;
mod linux;
mod log;
mod mounts;
mod names;
mod namespaces;
mod process;
mod resources;
mod root;
mod seccomp;
mod testing;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Duration;

use littlebox_plan::SPEC_VERSION;
use littlebox_plan::seccomp::Compiler;
use littlebox_protocol::{
    Defence, Injection, LayerIdmap, NamespaceKind, SeccompPlan, TerminalSize, UserPlan,
};
use littlebox_types::{ContainerConfig, ContainerId, IdMaps, NamespaceSource, Resources, Signal};
use oci_spec::runtime::{LinuxResources, Spec};

use crate::idpool::IdRange;

pub use bundle::{check_request, is_from_spec};
pub use check::{check_labels, check_restart};
pub use devices::{HostDevice, WantedDevice, add as add_devices};
pub use exec::{PreparedExec, exec_process};
pub use log::LogSettings;
pub use names::{errno_name, signal_name};
pub use process::is_default_capability;
pub use root::RootSource;

/// What [`prepare`] must know beside the request.
#[derive(Debug, Clone, Copy)]
pub struct SpecContext<'a> {
    /// The container's id; its last 12 hex digits are the default host name.
    pub id: &'a ContainerId,
    /// Its range of the pool, where it has one ([`takes_range`]).
    pub range: Option<IdRange>,
    /// Compiles seccomp profiles.
    pub seccomp: &'a Compiler,
}

/// A configuration that was checked.
#[derive(Debug, Clone, PartialEq)]
pub struct Prepared {
    /// The spec. A namespace that is joined by container name is not in it: the daemon opens it
    /// and says so in the envelope.
    pub spec: Spec,
    /// What the root is made from.
    pub root: RootSource,
    /// Where each of the eight namespaces comes from.
    pub namespaces: BTreeMap<NamespaceKind, NamespaceOrigin>,
    /// Who runs the program; names are resolved in the container.
    pub user: UserPlan,
    /// The terminal's first size; `None` without a terminal.
    pub terminal_size: Option<TerminalSize>,
    /// The log's bounds.
    pub log: LogSettings,
    /// The signal that asks the program to end.
    pub stop_signal: Signal,
    /// Between the stop signal and SIGKILL.
    pub stop_timeout: Duration,
    /// Devices of the host that are still to be found and added ([`add_devices`]).
    pub devices: Vec<WantedDevice>,
    /// Bind sources to make as directories when they are missing.
    pub create_sources: Vec<PathBuf>,
    /// Binds that are idmapped where that is possible, by their index in the spec's `mounts`.
    pub idmap_where_possible: BTreeSet<usize>,
    /// Make the working directory when it is missing.
    pub create_cwd: bool,
    /// What is masked are the default paths: what only this machine has is to be masked with them.
    pub default_masks: bool,
    /// The seccomp filter; `None`: none.
    pub seccomp: Option<SeccompPlan>,
    /// The failure that the label `littlebox.test/inject` asks for. The caller honours it only
    /// when the daemon runs with test faults.
    pub inject: Option<Injection>,
    /// The defence that the label `littlebox.test/weaken` turns off; honoured as `inject` is.
    pub weaken: Option<Defence>,
    /// How the label `littlebox.test/rootfs` wants the root idmapped, under the same condition.
    pub layer_idmap: LayerIdmap,
}

/// Where a namespace comes from: what the API's [`NamespaceSource`] says, or a file that a spec names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NamespaceOrigin {
    /// A fresh one.
    New,
    /// The host's.
    Host,
    /// That of another container: its id, name, or a prefix of its id.
    Container(String),
    /// That of a process of the host.
    Pid(u32),
    /// That of a file: `/proc/PID/ns/TYPE`, or where it is bound.
    Path(PathBuf),
}

impl From<NamespaceSource> for NamespaceOrigin {
    fn from(source: NamespaceSource) -> Self {
        match source {
            NamespaceSource::New => Self::New,
            NamespaceSource::Host => Self::Host,
            NamespaceSource::Container(reference) => Self::Container(reference),
            NamespaceSource::Pid(pid) => Self::Pid(pid),
        }
    }
}

/// Why a request cannot be honoured.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{pointer}: {detail}")]
pub struct ConfigError {
    /// JSON pointer (RFC 6901) into the request's body.
    pub pointer: String,
    /// What is wrong, with what.
    pub detail: String,
    /// What to do.
    pub hint: Option<String>,
}

/// Checks a container's configuration and makes its OCI runtime spec.
///
/// # Errors
/// The first value that is wrong, by its JSON pointer.
pub fn prepare(config: &ContainerConfig, ctx: &SpecContext<'_>) -> Result<Prepared, ConfigError> {
    if bundle::is_from_spec(config) {
        return bundle::prepare(config, ctx);
    }
    let root = root::parse(&config.rootfs)?;
    check::command(&config.command, "/command")?;
    check_labels(&config.labels)?;
    check_restart(&config.restart.unwrap_or_default(), config.auto_remove)?;
    let namespaces = namespaces::sources(config)?;
    let user = process::user_plan(config)?;
    let terminal_size = process::terminal_size(config.terminal, config.terminal_size);
    let mounts = mounts::for_spec(config, &root, &namespaces)?;
    let (hostname, domainname) = host_name::for_spec(config, ctx, &namespaces)?;

    let mut spec = Spec::default();
    spec.set_version(SPEC_VERSION.to_owned());
    spec.set_root(Some(root::for_spec(&root, config.read_only)));
    spec.set_process(Some(process::for_spec(config, &user, hostname.as_deref())?));
    spec.set_mounts(Some(mounts.spec));
    spec.set_hostname(hostname);
    spec.set_domainname(domainname);
    spec.set_annotations(None);
    spec.set_linux(Some(linux::for_spec(config, ctx, &namespaces)?));
    Ok(Prepared {
        spec,
        root,
        namespaces,
        user,
        terminal_size,
        log: log::for_container(config)?,
        stop_signal: config.stop_signal.unwrap_or(Signal::TERM),
        stop_timeout: Duration::from_secs(u64::from(config.stop_timeout_s.unwrap_or(10))),
        devices: devices::wanted(config)?,
        create_sources: mounts.create,
        idmap_where_possible: mounts.idmap_where_possible,
        create_cwd: true,
        default_masks: hiding::is_default(config),
        seccomp: seccomp::of_container(
            config,
            process::container_capabilities(config)?,
            ctx.seccomp,
        )?,
        inject: testing::inject(&config.labels),
        weaken: testing::weaken(&config.labels),
        layer_idmap: testing::layer_idmap(&config.labels),
    })
}

/// Whether a container has a range of the pool: it gets a new user namespace and brings no maps.
///
/// # Errors
/// The namespaces' own.
pub fn takes_range(config: &ContainerConfig) -> Result<bool, ConfigError> {
    if is_from_spec(config) {
        return Ok(false);
    }
    let sources = namespaces::sources(config)?;
    Ok(config.id_maps.is_none() && namespaces::is_new(&sources, NamespaceKind::User))
}

/// Where a container's user namespace comes from, as the API writes it.
pub fn user_source(config: &ContainerConfig) -> String {
    match &config.spec {
        Some(spec) => bundle::user_source(spec).to_owned(),
        None => namespaces::user_source(config).to_string(),
    }
}

/// The id maps that the request brings, itself or in its spec.
pub fn given_id_maps(config: &ContainerConfig) -> Option<IdMaps> {
    match &config.spec {
        Some(spec) => bundle::id_maps(spec),
        None => config.id_maps.clone(),
    }
}

/// Checks limits alone and puts them into the spec's form. A device of `io_limits` is its
/// `MAJOR:MINOR`.
///
/// # Errors
/// The first limit that is wrong, by its JSON pointer.
pub fn limits(resources: &Resources) -> Result<LinuxResources, ConfigError> {
    resources::for_spec(resources)
}

#[cfg(test)]
mod tests;
