//! From an API request to an OCI runtime spec.
//!
//! [`prepare`] checks everything of a container's configuration that does not need the machine's
//! state, and makes the spec from it, with littlebox's defaults. It is pure: no file is opened.

mod bundle;
mod check;
mod clocks;
mod devices;
mod hiding;
mod labels;
mod mounts;
mod names;
mod namespaces;
mod process;
mod resources;
mod seccomp;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::PathBuf;
use std::time::Duration;

use lbctl::types::{
    ContainerConfig, ContainerId, ExecConfig, IdMaps, Resources, RestartMode, RestartPolicy,
};
use littlebox_helper::protocol::{
    Defence, GATE_WINDOW, Injection, LayerIdmap, NamespaceKind, SeccompPlan, Step, TerminalSize,
    UserPlan,
};
use littlebox_plan::seccomp::Compiler;
use oci_spec::runtime::{Linux, LinuxDeviceCgroup, LinuxResources, Process, Root, Spec};

use crate::idpool::IdRange;

pub use bundle::{check_request, is_from_spec};
pub use devices::{HostDevice, WantedDevice, add as add_devices};
pub use names::{errno_name, parse_signal, signal_name};
pub use process::is_default_capability;

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
    pub namespaces: BTreeMap<NamespaceKind, NamespaceSource>,
    /// Who runs the program; names are resolved in the container.
    pub user: UserPlan,
    /// The terminal's first size; `None` without a terminal.
    pub terminal_size: Option<TerminalSize>,
    /// The log's bounds.
    pub log: LogSettings,
    /// The signal that asks the program to end.
    pub stop_signal: i32,
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

/// Where a namespace comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NamespaceSource {
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

/// What the root is made from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RootSource {
    /// A copy-on-write view of the machine's own root.
    Host,
    /// An absolute host path of a directory, below an overlay.
    Dir(PathBuf),
    /// An absolute host path of a directory, used as it is.
    Bind(PathBuf),
}

/// The log's bounds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogSettings {
    /// Bytes per file; `None`: it is never rotated.
    pub max_size: Option<u64>,
    /// Rotated files that are kept.
    pub max_files: u32,
}

/// An exec's configuration that was checked.
#[derive(Debug, Clone, PartialEq)]
pub struct PreparedExec {
    /// The OCI process object.
    pub process: Process,
    /// Who runs it; names are resolved in the container.
    pub user: UserPlan,
    /// The terminal's first size; `None` without a terminal.
    pub terminal_size: Option<TerminalSize>,
    /// Bounds of its output: one file of so many bytes (`max_size`), `None` for no bound.
    pub log: LogSettings,
    /// Killed after this many milliseconds.
    pub timeout_ms: Option<u64>,
    /// Make the working directory when it is missing (never for an exec: it must be there).
    pub create_cwd: bool,
    /// The seccomp filter; `None`: none.
    pub seccomp: Option<SeccompPlan>,
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

/// Rotated files kept beside the current one when the request does not say.
const LOG_FILES: u32 = 4;
/// Bytes of a log file when the request does not say.
const LOG_SIZE: u64 = 16 * 1024 * 1024;
/// Below this a log would be rotated at every line.
const LOG_SIZE_MIN: u64 = 4096;
/// The most that a request may give an exec to read.
const INPUT_LIMIT: usize = 1024 * 1024;
/// The label with which tests provoke a failure.
const INJECT_LABEL: &str = "littlebox.test/inject";
/// The label with which tests turn one defence off.
const WEAKEN_LABEL: &str = "littlebox.test/weaken";
/// The label with which tests take a way that this kernel does not need.
const ROOTFS_LABEL: &str = "littlebox.test/rootfs";

/// Checks a container's configuration and makes its OCI runtime spec.
///
/// # Errors
/// The first value that is wrong, by its JSON pointer.
pub fn prepare(config: &ContainerConfig, ctx: &SpecContext<'_>) -> Result<Prepared, ConfigError> {
    if bundle::is_from_spec(config) {
        return bundle::prepare(config, ctx);
    }
    let root = root(&config.rootfs)?;
    check::command(&config.command, "/command")?;
    check_labels(&config.labels)?;
    check_restart(&config.restart.unwrap_or_default(), config.auto_remove)?;
    let namespaces = namespaces::sources(config)?;
    let user = process::user_plan(config)?;
    let terminal_size = process::terminal_size(config.terminal, config.terminal_size);
    let mounts = mounts::for_spec(config, &root, &namespaces)?;
    let (hostname, domainname) = names_of_host(config, ctx, &namespaces)?;

    let mut spec = Spec::default();
    spec.set_version("1.2.1".to_owned());
    spec.set_root(Some(spec_root(&root, config.read_only)));
    spec.set_process(Some(spec_process(config, &user, hostname.as_deref())?));
    spec.set_mounts(Some(mounts.spec));
    spec.set_hostname(hostname);
    spec.set_domainname(domainname);
    spec.set_annotations(None);
    spec.set_linux(Some(spec_linux(config, ctx, &namespaces)?));
    Ok(Prepared {
        spec,
        root,
        namespaces,
        user,
        terminal_size,
        log: log(config)?,
        stop_signal: stop_signal(config)?,
        stop_timeout: Duration::from_secs(u64::from(config.stop_timeout_s.unwrap_or(10))),
        devices: devices::wanted(config)?,
        create_sources: mounts.create,
        idmap_where_possible: mounts.idmap_where_possible,
        create_cwd: true,
        default_masks: hiding::is_default(config),
        seccomp: seccomp::filter(
            config,
            process::container_capabilities(config)?,
            ctx.seccomp,
        )?,
        inject: config
            .labels
            .get(INJECT_LABEL)
            .and_then(|text| injection(text)),
        weaken: config
            .labels
            .get(WEAKEN_LABEL)
            .and_then(|text| Defence::ALL.into_iter().find(|d| d.name() == text)),
        layer_idmap: match config.labels.get(ROOTFS_LABEL).map(String::as_str) {
            Some("attached") => LayerIdmap::Attached,
            Some("refused") => LayerIdmap::Refused,
            _ => LayerIdmap::Auto,
        },
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
pub fn user_source(config: &ContainerConfig) -> &str {
    match &config.spec {
        Some(spec) => bundle::user_source(spec),
        None => namespaces::user_source(config),
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

/// Checks an exec's configuration against its container's and makes its OCI process object.
///
/// # Errors
/// The first value that is wrong, by its JSON pointer into the exec's body.
pub fn exec_process(
    config: &ExecConfig,
    container: &ContainerConfig,
    ctx: &SpecContext<'_>,
) -> Result<PreparedExec, ConfigError> {
    check::command(&config.command, "/command")?;
    check_input(config)?;
    if let Some((process, seccomp)) = bundle::process_of(container)? {
        return exec_of_spec(config, process, seccomp);
    }
    let mut user = process::user_plan(container)?;
    if let Some(text) = &config.user {
        (user.user, user.group) = check::user(text, "/user")?;
    }
    let base = if config.privileged {
        littlebox_plan::capability::ALL_MASK
    } else {
        process::container_capabilities(container)?
    };
    let cwd = config
        .working_dir
        .as_deref()
        .or(container.working_dir.as_deref());
    let (hostname, _) = names_of_host(container, ctx, &namespaces::sources(container)?)?;
    let env = process::env(
        hostname.as_deref(),
        config.terminal,
        &[&container.env, &config.env],
    )?;

    let mut process = Process::default();
    process.set_terminal(Some(config.terminal));
    process.set_user(process::spec_user(&user));
    process.set_args(Some(config.command.clone()));
    process.set_env(Some(env));
    process.set_cwd(process::cwd(cwd)?);
    let capabilities = process::change(base, &config.capabilities)?;
    let seccomp = if config.privileged {
        None
    } else {
        seccomp::filter(container, capabilities, ctx.seccomp)?
    };
    process.set_capabilities(Some(process::spec_capabilities(capabilities)));
    process.set_rlimits(Some(process::rlimits(&container.rlimits)?));
    process.set_no_new_privileges(Some(container.no_new_privileges.unwrap_or(true)));
    process.set_oom_score_adj(process::oom_score_adj(container)?);
    labels::set(&mut process, container)?;
    Ok(PreparedExec {
        process,
        user,
        terminal_size: process::terminal_size(config.terminal, config.terminal_size),
        log: exec_log(config)?,
        timeout_ms: config.timeout_ms,
        create_cwd: false,
        seccomp,
    })
}

/// An exec in a container that a spec describes: as the spec's own process, but for what the
/// request says.
fn exec_of_spec(
    config: &ExecConfig,
    mut process: Process,
    seccomp: Option<SeccompPlan>,
) -> Result<PreparedExec, ConfigError> {
    let mut user = bundle::user(process.user());
    if let Some(text) = &config.user {
        (user.user, user.group) = check::user(text, "/user")?;
    }
    let mut env = process.env().clone().unwrap_or_default();
    for (key, value) in &config.env {
        check::variable(key, value)?;
        let name = format!("{key}=");
        env.retain(|entry| !entry.starts_with(&name));
        env.push(format!("{key}={value}"));
    }
    if let Some(dir) = &config.working_dir {
        process.set_cwd(process::cwd(Some(dir))?);
    }
    let changed = config.capabilities != lbctl::types::CapabilityChange::default();
    if config.privileged || changed {
        let base = if config.privileged {
            littlebox_plan::capability::ALL_MASK
        } else {
            littlebox_plan::capability::plan(process.capabilities().as_ref()).bounding
        };
        let mask = process::change(base, &config.capabilities)?;
        process.set_capabilities(Some(process::spec_capabilities(mask)));
    }
    process.set_user(process::spec_user(&user));
    process.set_args(Some(config.command.clone()));
    process.set_env(Some(env));
    process.set_terminal(Some(config.terminal));
    process.set_console_size(None);
    Ok(PreparedExec {
        process,
        user,
        terminal_size: process::terminal_size(config.terminal, config.terminal_size),
        log: exec_log(config)?,
        timeout_ms: config.timeout_ms,
        create_cwd: false,
        seccomp: if config.privileged { None } else { seccomp },
    })
}

fn root(rootfs: &str) -> Result<RootSource, ConfigError> {
    if rootfs == "host" {
        return Ok(RootSource::Host);
    }
    let Some(dir) = rootfs.strip_prefix("dir:") else {
        return Err(check::error_with(
            "/rootfs",
            format!(
                "{} is not a root that a container can be made from",
                check::shown(rootfs)
            ),
            "use host, or dir:/absolute/path of a directory",
        ));
    };
    let dir = check::path(dir, "/rootfs")?;
    if dir == std::path::Path::new("/") {
        return Err(check::error_with(
            "/rootfs",
            "the machine's own root cannot be used as a plain directory",
            "use host: a copy-on-write view of it, without what must stay hidden",
        ));
    }
    Ok(RootSource::Dir(dir))
}

/// Checks labels, of a new container or of a patch.
///
/// # Errors
/// The first that is wrong, by its JSON pointer.
pub fn check_labels(labels: &BTreeMap<String, String>) -> Result<(), ConfigError> {
    check::at_most(labels.len(), 256, "/labels", "labels")?;
    labels
        .iter()
        .try_for_each(|(key, value)| check::label(key, value))
}

/// Checks a restart policy, of a new container or of a patch.
///
/// # Errors
/// What is wrong, by its JSON pointer.
pub fn check_restart(restart: &RestartPolicy, auto_remove: bool) -> Result<(), ConfigError> {
    if auto_remove && restart.policy != RestartMode::No {
        return Err(check::error_with(
            "/restart",
            "a container that is removed when it has ended cannot be started again",
            "leave out auto_remove, or the restart policy",
        ));
    }
    match restart.max_retries {
        Some(_) if restart.policy != RestartMode::OnFailure => Err(check::error_with(
            "/restart/max_retries",
            format!("the policy '{}' has no maximum", restart.policy.name()),
            "leave it out, or choose the policy on-failure",
        )),
        Some(0) => Err(check::error_with(
            "/restart/max_retries",
            "a policy that never restarts is called 'no'",
            "give at least 1, or leave it out for no maximum",
        )),
        _ => Ok(()),
    }
}

/// Host and NIS domain name, which only a new UTS namespace takes.
fn names_of_host(
    config: &ContainerConfig,
    ctx: &SpecContext<'_>,
    sources: &namespaces::Sources,
) -> Result<(Option<String>, Option<String>), ConfigError> {
    if let Some(name) = &config.hostname {
        check::host_name(name, "/hostname")?;
    }
    if let Some(name) = &config.domainname {
        check::host_name(name, "/domainname")?;
    }
    if !namespaces::is_new(sources, NamespaceKind::Uts) {
        return Ok((None, None));
    }
    let hostname = config
        .hostname
        .clone()
        .unwrap_or_else(|| default_hostname(ctx.id));
    Ok((Some(hostname), config.domainname.clone()))
}

/// The last 12 hex digits of the id: the random ones, which tell containers apart.
fn default_hostname(id: &ContainerId) -> String {
    let digits = id.0.simple().to_string();
    digits.get(20..).unwrap_or(&digits).to_owned()
}

fn spec_root(root: &RootSource, read_only: bool) -> Root {
    let mut spec = Root::default();
    spec.set_path(match root {
        RootSource::Host => PathBuf::from("/"),
        RootSource::Dir(dir) | RootSource::Bind(dir) => dir.clone(),
    });
    spec.set_readonly(Some(read_only));
    spec
}

fn spec_process(
    config: &ContainerConfig,
    user: &UserPlan,
    hostname: Option<&str>,
) -> Result<Process, ConfigError> {
    let mut process = Process::default();
    process.set_terminal(Some(config.terminal));
    process.set_user(process::spec_user(user));
    process.set_args(Some(config.command.clone()));
    process.set_env(Some(process::env(
        hostname,
        config.terminal,
        &[&config.env],
    )?));
    process.set_cwd(process::cwd(config.working_dir.as_deref())?);
    process.set_capabilities(Some(process::spec_capabilities(
        process::container_capabilities(config)?,
    )));
    process.set_rlimits(Some(process::rlimits(&config.rlimits)?));
    process.set_no_new_privileges(Some(config.no_new_privileges.unwrap_or(true)));
    process.set_oom_score_adj(process::oom_score_adj(config)?);
    labels::set(&mut process, config)?;
    Ok(process)
}

fn spec_linux(
    config: &ContainerConfig,
    ctx: &SpecContext<'_>,
    sources: &namespaces::Sources,
) -> Result<Linux, ConfigError> {
    let mut linux = Linux::default();
    linux.set_namespaces(Some(namespaces::for_spec(sources)));
    if let Some((uid, gid)) = namespaces::id_maps(config, sources, ctx.range)? {
        linux.set_uid_mappings(Some(uid));
        linux.set_gid_mappings(Some(gid));
    }
    linux.set_time_offsets(clocks::for_spec(config, sources)?);
    linux.set_sysctl(sysctls(config, sources)?);
    let mut resources = resources::for_spec(&config.resources)?;
    if config.privileged {
        // Every device, as the capability to make its node means it.
        let mut all = LinuxDeviceCgroup::default();
        all.set_allow(true);
        all.set_access(Some("rwm".to_owned()));
        resources.set_devices(Some(vec![all]));
    }
    devices::add_rules(&mut resources, config)?;
    linux.set_resources(Some(resources));
    linux.set_mount_label(labels::mount_label(config));
    let propagation = config
        .propagation
        .clone()
        .unwrap_or_else(|| "rprivate".to_owned());
    mounts::check_propagation(&propagation, "/propagation")?;
    linux.set_rootfs_propagation(Some(propagation));
    hiding::set(&mut linux, config)?;
    Ok(linux)
}

fn sysctls(
    config: &ContainerConfig,
    sources: &namespaces::Sources,
) -> Result<Option<HashMap<String, String>>, ConfigError> {
    check::at_most(config.sysctls.len(), 256, "/sysctls", "sysctls")?;
    for (name, value) in &config.sysctls {
        let pointer = || check::key_pointer("/sysctls", name);
        littlebox_plan::sysctl::check(name, value, |kind| namespaces::is_new(sources, kind))
            .map_err(|detail| check::error(pointer(), detail))?;
        if name == "kernel.hostname" && config.hostname.is_some() {
            return Err(check::error_with(
                pointer(),
                "the host name is given twice",
                "leave out this sysctl or the field hostname",
            ));
        }
    }
    let map = || {
        config
            .sysctls
            .iter()
            .map(|(k, v)| (k.clone(), v.clone()))
            .collect()
    };
    Ok((!config.sysctls.is_empty()).then(map))
}

fn stop_signal(config: &ContainerConfig) -> Result<i32, ConfigError> {
    let text = config.stop_signal.as_deref().unwrap_or("SIGTERM");
    parse_signal(text).ok_or_else(|| {
        check::error_with(
            "/stop_signal",
            format!("{} is not a signal", check::shown(text)),
            "use a name like SIGTERM or RTMIN+3, or a number from 1 to 64",
        )
    })
}

fn log(config: &ContainerConfig) -> Result<LogSettings, ConfigError> {
    let asked = config.log.as_ref();
    let size = asked.and_then(|l| l.max_size).unwrap_or(LOG_SIZE);
    let max_files = asked.and_then(|l| l.max_files).unwrap_or(LOG_FILES);
    if size != 0 && size < LOG_SIZE_MIN {
        return Err(check::error_with(
            "/log/max_size",
            format!("a log of {size} bytes would be rotated at every line"),
            format!("give at least {LOG_SIZE_MIN} bytes, or 0 for no bound"),
        ));
    }
    if !(1..=1000).contains(&max_files) {
        return Err(check::error_with(
            "/log/max_files",
            format!("{max_files} rotated files cannot be kept; 1 to 1000 can"),
            "for a log that is never rotated set log.max_size to 0",
        ));
    }
    // A rotation would take away what a slow foreground client has not read yet.
    let max_size = (size != 0 && !config.attach).then_some(size);
    Ok(LogSettings {
        max_size,
        max_files,
    })
}

/// Two files of half the bound each: the newest half at least can always be read again. For a
/// foreground client each holds the whole window by which it may be behind.
fn exec_log(config: &ExecConfig) -> Result<LogSettings, ConfigError> {
    let limit = config.output_limit.unwrap_or(LOG_SIZE);
    if limit != 0 && limit < LOG_SIZE_MIN {
        return Err(check::error_with(
            "/output_limit",
            format!("{limit} bytes are too few to keep output in"),
            format!("give at least {LOG_SIZE_MIN} bytes, or 0 for no bound"),
        ));
    }
    let least = if config.attach {
        GATE_WINDOW + GATE_WINDOW / 8
    } else {
        0
    };
    let max_size = (limit != 0).then(|| (limit / 2).max(least));
    Ok(LogSettings {
        max_size,
        max_files: 1,
    })
}

fn check_input(config: &ExecConfig) -> Result<(), ConfigError> {
    if config.timeout_ms == Some(0) {
        return Err(check::error_with(
            "/timeout_ms",
            "a program cannot end in 0 milliseconds",
            "leave it out for no limit",
        ));
    }
    match &config.input {
        Some(_) if config.stdin => Err(check::error_with(
            "/input",
            "input and stdin exclude each other",
            "leave out input and write to the attached stream instead, or set stdin to false",
        )),
        Some(input) if input.len() > INPUT_LIMIT => Err(check::error_with(
            "/input",
            format!(
                "the input has {} bytes, at most {INPUT_LIMIT} are taken",
                input.len()
            ),
            "set stdin and write to the attached stream instead",
        )),
        _ => Ok(()),
    }
}

/// `STEP:ERRNO`, e.g. `pivot_root:5`; anything else is a label like others.
fn injection(text: &str) -> Option<Injection> {
    let (step, errno) = text.split_once(':')?;
    let step = Step::ALL.into_iter().find(|s| s.name() == step)?;
    let errno = errno.parse().ok().filter(|n| (0..=4095).contains(n))?;
    Some(Injection { step, errno })
}

#[cfg(test)]
mod tests;
