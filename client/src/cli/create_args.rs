//! The flags of `run` and `create`, and the configuration they make.

use std::collections::BTreeMap;
use std::env::VarError;
use std::path::PathBuf;

use clap::Args;
use littlebox_types::{
    CapabilityChange, ContainerConfig, DeviceConfig, IdMap, IdMaps, LogConfig, MountConfig, Name,
    NamespaceSource, NamespaceType, Propagation, RestartPolicy, Rlimit, Signal, TimeOffset,
    TimeOffsets, Umask, UserRef, UserSpec,
};

use super::error::Failure;
use super::limits::ResourceArgs;
use super::parse::{self, MaybePair, Pair};
use super::security_opt::{self, SecurityOpt};
use super::{mounts, terminal};

// What a container is to be.
#[derive(Debug, Args)]
pub struct CreateArgs {
    /// Container name (generated if omitted)
    #[arg(long, value_name = "NAME")]
    name: Option<Name>,
    /// Remove the container when it exits
    #[arg(long)]
    pub rm: bool,
    /// Keep stdin open
    #[arg(short, long)]
    pub interactive: bool,
    /// Allocate a terminal
    #[arg(short, long)]
    pub tty: bool,
    /// Return the container of an earlier request with the same key, if there is one
    #[arg(long, value_name = "KEY")]
    pub idempotency_key: Option<String>,
    /// Run an OCI bundle: its config.json describes the container
    #[arg(long, value_name = "DIR", conflicts_with = "args")]
    bundle: Option<PathBuf>,
    /// With --bundle: put an overlay over its root instead of writing into it
    #[arg(long, requires = "bundle")]
    overlay: bool,
    #[command(flatten, next_help_heading = "Program")]
    program: ProgramArgs,
    #[command(flatten, next_help_heading = "Files")]
    files: FileArgs,
    #[command(flatten, next_help_heading = "Namespaces")]
    spaces: NamespaceArgs,
    #[command(flatten, next_help_heading = "Limits")]
    limits: LimitArgs,
    #[command(flatten, next_help_heading = "Security")]
    security: SecurityArgs,
    /// Root filesystem (host or dir:PATH), command and arguments
    #[arg(
        help_heading = "Arguments",
        required_unless_present = "bundle",
        trailing_var_arg = true,
        value_name = "ROOTFS [COMMAND [ARG...]]"
    )]
    args: Vec<String>,
}

#[derive(Debug, Args)]
struct ProgramArgs {
    /// Set an environment variable; without =V, taken from lbctl's environment
    #[arg(short, long, value_name = "K[=V]")]
    env: Vec<MaybePair>,
    /// Read environment variables from a file, one per line
    #[arg(long, value_name = "FILE")]
    env_file: Vec<PathBuf>,
    /// Working directory inside the container
    #[arg(short, long, value_name = "DIR")]
    workdir: Option<String>,
    /// Run as USER[:GROUP], names or numbers
    #[arg(short, long, value_name = "USER")]
    user: Option<UserSpec>,
    /// Add a supplementary group
    #[arg(long, value_name = "GROUP")]
    group_add: Vec<UserRef>,
    /// File mode creation mask, octal
    #[arg(long, value_name = "MASK")]
    umask: Option<Umask>,
    /// Run a small init as PID 1 that reaps orphans and forwards signals
    #[arg(long)]
    init: bool,
    /// Set a label
    #[arg(short, long, value_name = "K[=V]")]
    label: Vec<MaybePair>,
    /// Signal that asks the program to exit
    #[arg(long, value_name = "SIGNAL")]
    stop_signal: Option<Signal>,
    /// Seconds between the stop signal and SIGKILL
    #[arg(long, value_name = "SECONDS")]
    stop_timeout: Option<u32>,
    /// Restart policy: no, on-failure[:MAX], always, unless-stopped
    #[arg(long, value_name = "POLICY")]
    restart: Option<RestartPolicy>,
    /// Limit the log: max-size=SIZE per file, max-files=N rotated files
    #[arg(long, value_name = "K=V")]
    log_opt: Vec<Pair>,
}

#[derive(Debug, Args)]
struct FileArgs {
    /// Bind-mount SRC at DST; options: ro, create (the source), noidmap (owners as on the host), rslave, ...
    #[arg(short, long, value_name = "SRC:DST[:OPTIONS]", value_parser = mounts::volume)]
    volume: Vec<MountConfig>,
    /// Add a mount: type=bind,source=S,target=T[,readonly] or type=tmpfs,target=T[,tmpfs-size=64m]; CSV: a
    /// field with a comma is quoted as a whole
    #[arg(long, value_name = "K=V,...", value_parser = mounts::mount)]
    mount: Vec<MountConfig>,
    /// Mount an empty tmpfs; options: size=64m, mode=1777, ...
    #[arg(long, value_name = "DST[:OPTIONS]", value_parser = mounts::tmpfs)]
    tmpfs: Vec<MountConfig>,
    /// Make the root filesystem read-only
    #[arg(long)]
    read_only: bool,
    /// Mount propagation of the root filesystem: rprivate, rslave, ...
    #[arg(long, value_name = "MODE")]
    propagation: Option<Propagation>,
}

#[derive(Debug, Args)]
struct NamespaceArgs {
    /// Network: none, host, container:NAME
    #[arg(long, alias = "net", value_name = "NETWORK", value_parser = parse::network)]
    network: Option<NamespaceSource>,
    /// Choose a namespace: TYPE is mnt, uts, ipc, net, pid, user, cgroup or time; SOURCE is new, host,
    /// container:NAME or pid:N
    #[arg(long, value_name = "TYPE=SOURCE", value_parser = parse::namespace)]
    ns: Vec<(NamespaceType, NamespaceSource)>,
    /// User namespace: auto (ids of its own, the default), host (the default with --privileged),
    /// container:NAME, pid:N
    #[arg(long, value_name = "SOURCE", value_parser = parse::userns)]
    userns: Option<NamespaceSource>,
    /// Add a line to the user id map, instead of using ids of the daemon's pool
    #[arg(long, value_name = "CONTAINER:HOST:SIZE", value_parser = parse::id_map)]
    uidmap: Vec<IdMap>,
    /// Add a line to the group id map
    #[arg(long, value_name = "CONTAINER:HOST:SIZE", value_parser = parse::id_map)]
    gidmap: Vec<IdMap>,
    /// Host name
    #[arg(long, value_name = "NAME")]
    hostname: Option<String>,
    /// NIS domain name
    #[arg(long, value_name = "NAME")]
    domainname: Option<String>,
    /// Offset of a clock from the host's, in seconds; CLOCK is monotonic or boottime
    #[arg(long, value_name = "CLOCK=SECONDS", value_parser = parse::time_offset)]
    time_offset: Vec<(String, TimeOffset)>,
    /// Set a namespaced kernel parameter
    #[arg(long, value_name = "K=V")]
    sysctl: Vec<Pair>,
}

#[derive(Debug, Args)]
struct LimitArgs {
    #[command(flatten)]
    resources: ResourceArgs,
    /// Set a resource limit, e.g. nofile=1024:4096
    #[arg(long, value_name = "NAME=SOFT[:HARD]", value_parser = parse::ulimit)]
    ulimit: Vec<(String, Rlimit)>,
    /// Preference of the OOM killer, -1000 (never) to 1000 (first)
    #[arg(long, value_name = "N", allow_hyphen_values = true)]
    oom_score_adj: Option<i32>,
}

#[derive(Debug, Args)]
struct SecurityArgs {
    /// Add a capability, or ALL
    #[arg(long, value_name = "CAP")]
    cap_add: Vec<String>,
    /// Drop a capability, or ALL
    #[arg(long, value_name = "CAP")]
    cap_drop: Vec<String>,
    /// Whether setuid programs gain no privileges (default: true)
    #[arg(long, value_name = "BOOL")]
    no_new_privileges: Option<bool>,
    /// All capabilities, every device of the host, no seccomp filter, nothing masked, /sys writable,
    /// the host's user namespace
    #[arg(long)]
    privileged: bool,
    /// Give access to a host device, or to a directory of them; PERMISSIONS: any of r, w, m
    #[arg(long, value_name = "SRC[:DST][:PERMISSIONS]", value_parser = parse::device)]
    device: Vec<DeviceConfig>,
    /// Allow a device by type and number, e.g. 'c 10:* rwm'
    #[arg(long, value_name = "RULE")]
    device_cgroup_rule: Vec<String>,
    /// apparmor=PROFILE, label=PART:VALUE|disable, mask=PATH, no-new-privileges[=BOOL],
    /// seccomp=default|unconfined|FILE (as Docker and Podman take it), systempaths=unconfined,
    /// unmask=PATH|ALL
    #[arg(long, value_name = "OPTION")]
    security_opt: Vec<SecurityOpt>,
}

impl CreateArgs {
    /// The configuration; everything that can be checked here is.
    pub fn config(&self) -> Result<ContainerConfig, Failure> {
        let (rootfs, command) = self.split_args()?;
        let CreateArgs {
            program,
            files,
            spaces,
            limits,
            security,
            ..
        } = self;
        let mut config = ContainerConfig {
            name: self.name.clone(),
            rootfs,
            command,
            bundle: self.bundle_path()?,
            spec: None,
            overlay: self.overlay,
            env: environment(&program.env_file, &program.env)?,
            working_dir: program.workdir.clone(),
            user: program.user.clone(),
            groups: program.group_add.clone(),
            umask: program.umask,
            hostname: spaces.hostname.clone(),
            domainname: spaces.domainname.clone(),
            labels: labels(&program.label),
            terminal: self.tty,
            terminal_size: self.tty.then(terminal::size).flatten(),
            stdin: self.interactive,
            attach: false,
            auto_remove: self.rm,
            init: program.init,
            read_only: files.read_only,
            propagation: files.propagation,
            mounts: [&files.volume[..], &files.mount, &files.tmpfs].concat(),
            namespaces: spaces.namespaces()?,
            id_maps: spaces.id_maps(),
            time_offsets: spaces.time_offsets(),
            resources: limits.resources.resources()?,
            rlimits: limits.ulimit.iter().cloned().collect(),
            sysctls: spaces
                .sysctl
                .iter()
                .map(|p| (p.key.clone(), p.value.clone()))
                .collect(),
            capabilities: security.capabilities(),
            no_new_privileges: security.no_new_privileges,
            privileged: security.privileged,
            masked_paths: None,
            readonly_paths: None,
            devices: security.device.clone(),
            device_rules: security.device_cgroup_rule.clone(),
            apparmor: None,
            selinux: None,
            oom_score_adj: limits.oom_score_adj,
            stop_signal: program.stop_signal,
            stop_timeout_s: program.stop_timeout,
            restart: program.restart,
            log: program.log()?,
            seccomp: None,
        };
        security_opt::apply(&security.security_opt, &mut config);
        Ok(config)
    }

    /// As the daemon finds it.
    fn bundle_path(&self) -> Result<Option<String>, Failure> {
        let absolute = |dir: &PathBuf| {
            let path = dir.canonicalize();
            let path = path.map_err(Failure::io(format!("cannot find {}", dir.display())))?;
            Ok(path.to_string_lossy().into_owned())
        };
        self.bundle.as_ref().map(absolute).transpose()
    }

    fn split_args(&self) -> Result<(String, Vec<String>), Failure> {
        if self.bundle.is_some() {
            return Ok((String::new(), Vec::new()));
        }
        let (rootfs, command) = self
            .args
            .split_first()
            .ok_or_else(|| Failure::usage("no root filesystem given", "use host or dir:PATH"))?;
        let command = match command {
            [] if self.interactive && self.tty => vec!["/bin/sh".to_owned()],
            [] => {
                return Err(Failure::usage(
                    "no command given",
                    "put it after the root filesystem; with -it the default is /bin/sh",
                ));
            }
            command => command.to_vec(),
        };
        Ok((absolute_rootfs(rootfs)?, command))
    }
}

/// A directory is meant from here; the daemon has its own working directory.
fn absolute_rootfs(rootfs: &str) -> Result<String, Failure> {
    let is_path = ["/", "./", "../"].iter().any(|p| rootfs.starts_with(p));
    let path = match rootfs.strip_prefix("dir:") {
        Some(path) => path,
        None if is_path || rootfs == "." || rootfs == ".." => rootfs,
        None => return Ok(rootfs.to_owned()),
    };
    if path.starts_with('/') {
        return Ok(format!("dir:{path}"));
    }
    let absolute = std::env::current_dir()
        .and_then(|here| here.join(path).canonicalize())
        .map_err(Failure::io(format!("cannot find the directory '{path}'")))?;
    Ok(format!("dir:{}", absolute.display()))
}

/// Files first, then flags; a later entry replaces an earlier one of the same name. A name without a
/// value takes lbctl's own, and is unset when there is none.
pub fn environment(
    files: &[PathBuf],
    flags: &[MaybePair],
) -> Result<BTreeMap<String, String>, Failure> {
    let mut pairs = Vec::new();
    for file in files {
        let text = std::fs::read_to_string(file)
            .map_err(Failure::io(format!("cannot read {}", file.display())))?;
        let parsed = parse::env_file(&text)
            .map_err(|e| Failure::usage(format!("{}: {e}", file.display()), ""))?;
        pairs.extend(parsed);
    }
    pairs.extend_from_slice(flags);
    let mut env = BTreeMap::new();
    for MaybePair { key, value } in pairs {
        let value = value.map_or_else(|| inherited(&key), |value| Ok(Some(value)))?;
        match value {
            Some(value) => env.insert(key, value),
            None => env.remove(&key),
        };
    }
    Ok(env)
}

/// A variable of lbctl's own environment.
fn inherited(name: &str) -> Result<Option<String>, Failure> {
    match std::env::var(name) {
        Ok(value) => Ok(Some(value)),
        Err(VarError::NotPresent) => Ok(None),
        Err(VarError::NotUnicode(_)) => Err(Failure::usage(
            format!("the value of '{name}' in lbctl's environment is not UTF-8"),
            "the API takes text only: convert the value, or set it inside the container",
        )),
    }
}

fn labels(flags: &[MaybePair]) -> BTreeMap<String, String> {
    flags
        .iter()
        .map(|p| (p.key.clone(), p.value.clone().unwrap_or_default()))
        .collect()
}

impl ProgramArgs {
    fn log(&self) -> Result<Option<LogConfig>, Failure> {
        let mut log = LogConfig::default();
        for Pair { key, value } in &self.log_opt {
            let result = match key.as_str() {
                "max-size" => parse::size(value).map(|n| log.max_size = Some(n)),
                "max-files" | "max-file" => value
                    .parse()
                    .map(|n| log.max_files = Some(n))
                    .map_err(|_| format!("not a number: '{value}'")),
                _ => Err("unknown option; use max-size or max-files".to_owned()),
            };
            result.map_err(|e| Failure::usage(format!("--log-opt {key}: {e}"), ""))?;
        }
        Ok((!self.log_opt.is_empty()).then_some(log))
    }
}

impl NamespaceArgs {
    fn namespaces(&self) -> Result<BTreeMap<NamespaceType, NamespaceSource>, Failure> {
        let network = self.network.iter().map(|n| (NamespaceType::Net, n.clone()));
        let user = self.userns.iter().map(|u| (NamespaceType::User, u.clone()));
        let mut map = BTreeMap::new();
        for (kind, source) in self.ns.iter().cloned().chain(network).chain(user) {
            if let Some(other) = map.insert(kind, source.clone())
                && other != source
            {
                let message = format!("the {kind} namespace is both '{other}' and '{source}'");
                return Err(Failure::usage(message, "give each type once"));
            }
        }
        Ok(map)
    }

    fn id_maps(&self) -> Option<IdMaps> {
        let any = !self.uidmap.is_empty() || !self.gidmap.is_empty();
        any.then(|| IdMaps {
            uid: self.uidmap.clone(),
            gid: self.gidmap.clone(),
        })
    }
}

impl NamespaceArgs {
    /// Of a clock that is given twice the last.
    fn time_offsets(&self) -> Option<TimeOffsets> {
        let last = |clock| {
            let mut all = self.time_offset.iter().rev();
            all.find(|(name, _)| name == clock).map(|(_, o)| *o)
        };
        (!self.time_offset.is_empty()).then(|| TimeOffsets {
            monotonic: last("monotonic"),
            boottime: last("boottime"),
        })
    }
}

impl SecurityArgs {
    fn capabilities(&self) -> CapabilityChange {
        CapabilityChange {
            add: self.cap_add.clone(),
            drop: self.cap_drop.clone(),
        }
    }
}
