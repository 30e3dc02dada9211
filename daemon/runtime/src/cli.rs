//! The command line: what runc and crun take, in the same words.

use std::path::PathBuf;

use clap::builder::{PathBufValueParser, TypedValueParser};
use clap::{Args, Parser, Subcommand};

use crate::console::EngineSocket;
use crate::error::Result;
use crate::log::Format;
use crate::size;

/// The oldest version of the specification whose words are known here.
pub const OLDEST_SPEC_VERSION: &str = "1.0.0";
/// Where the state of containers is when `--root` says nothing.
pub const DEFAULT_ROOT: &str = "/run/littlebox-runtime";

/// An OCI runtime on littlebox's helper library.
#[derive(Debug, Parser)]
#[command(
    name = "littlebox-runtime",
    version = concat!(env!("CARGO_PKG_VERSION"), "\nspec: 1.2.1"),
    about = "Run containers from OCI bundles, for engines such as Podman, containerd and Docker"
)]
pub struct Cli {
    /// What holds for every command.
    #[command(flatten)]
    pub global: Global,
    /// The version, by runc's letter for it.
    #[arg(short = 'v', action = clap::ArgAction::Version, hide = true)]
    pub also_version: Option<bool>,
    /// The command.
    #[command(subcommand)]
    pub command: Command,
}

/// What holds for every command.
#[derive(Debug, Args)]
pub struct Global {
    /// Directory with the state of all containers, on a tmpfs
    #[arg(
        long,
        global = true,
        value_name = "DIR",
        value_parser = absolute(),
        default_value = DEFAULT_ROOT
    )]
    pub root: PathBuf,
    /// File that errors and warnings are appended to (default: stderr)
    #[arg(long, global = true, value_name = "FILE", value_parser = absolute())]
    pub log: Option<PathBuf>,
    /// How lines of the log are written
    #[arg(long, global = true, value_enum, default_value_t = Format::Text)]
    pub log_format: Format,
    /// Log what is done
    #[arg(long, global = true)]
    pub debug: bool,
    /// Let systemd make the cgroup: linux.cgroupsPath is slice:prefix:name
    #[arg(long, global = true)]
    pub systemd_cgroup: bool,
    /// Who makes the cgroup, in crun's words
    #[arg(long, global = true, value_enum, default_value_t = CgroupManager::Cgroupfs)]
    pub cgroup_manager: CgroupManager,
    /// Taken for compatibility: user namespaces come from config.json alone
    #[arg(long, global = true, value_name = "WORD", hide = true)]
    pub rootless: Option<String>,
}

impl Global {
    /// Whether systemd makes the cgroup.
    pub fn has_systemd_cgroup(&self) -> bool {
        self.systemd_cgroup || self.cgroup_manager == CgroupManager::Systemd
    }
}

/// Who makes a container's cgroup.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum CgroupManager {
    /// This program.
    Cgroupfs,
    /// systemd, as with `--systemd-cgroup`.
    Systemd,
    /// Nobody: it stays in its caller's, without limits, and cannot be paused.
    Disabled,
}

/// A path that stays what it is when the working directory becomes another.
fn absolute() -> impl TypedValueParser<Value = PathBuf> {
    PathBufValueParser::new().try_map(std::path::absolute)
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Build a container up to the execution of its program
    Create(Create),
    /// Execute the program of a created container
    Start(One),
    /// Print a container's state as JSON
    State(One),
    /// Send a signal to a container's process
    Kill(Kill),
    /// Remove what is left of a stopped container
    Delete(Delete),
    /// Create and start a container, wait for its end and delete it
    Run(Run),
    /// Execute another program in a running container
    Exec(Box<Exec>),
    /// List the containers below --root
    List(List),
    /// Freeze all processes of a container
    Pause(One),
    /// Let the processes of a paused container go on
    Resume(One),
    /// List the processes of a container
    Ps(Ps),
    /// Change the limits of a container
    Update(Box<Update>),
    /// Print statistics of a container, and what happens to it
    Events(Events),
    /// Print what this runtime can do (OCI features.md) as JSON
    Features,
    /// Write a config.json to begin with
    Spec(Spec),
}

/// A command about one container.
#[derive(Debug, Args)]
pub struct One {
    /// The container's id
    pub id: String,
}

/// What `create`, `run` and `exec` hand to their process, and hand back of it.
#[derive(Debug, Args)]
pub struct Handed {
    /// File that the PID of the process is written to
    #[arg(long, value_name = "FILE", value_parser = absolute())]
    pub pid_file: Option<PathBuf>,
    /// Unix socket that the master of the terminal is sent to
    #[arg(long, value_name = "SOCKET")]
    pub console_socket: Option<PathBuf>,
    /// Unix socket that a descriptor of the process (pidfd_open(2)) is sent to
    #[arg(long, value_name = "SOCKET")]
    pub pidfd_socket: Option<PathBuf>,
    /// How many descriptors from 3 on are passed on to the program
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub preserve_fds: u32,
}

impl Handed {
    /// Connects to the socket for the descriptor of the process.
    ///
    /// # Errors
    /// Nobody listens there.
    pub fn connect_pidfd_socket(&self) -> Result<Option<EngineSocket>> {
        let path = self.pidfd_socket.as_deref();
        path.map(|path| EngineSocket::connect("--pidfd-socket", path))
            .transpose()
    }
}

/// What `create` and `run` share.
#[derive(Debug, Args)]
pub struct Create {
    /// The new container's id
    pub id: String,
    /// Directory with config.json
    #[arg(short, long, value_name = "DIR", default_value = ".")]
    pub bundle: PathBuf,
    /// The document (default: config.json in the bundle)
    #[arg(short = 'f', long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// What of the process goes to the caller and comes from it.
    #[command(flatten)]
    pub handed: Handed,
    /// Taken for compatibility: the root is always changed by pivot_root, also on a ramdisk
    #[arg(long)]
    pub no_pivot: bool,
    /// Share the caller's session keyring
    #[arg(long)]
    pub no_new_keyring: bool,
}

/// `run`.
#[derive(Debug, Args)]
pub struct Run {
    /// What it shares with create.
    #[command(flatten)]
    pub create: Create,
    /// Return as soon as the program runs
    #[arg(short, long)]
    pub detach: bool,
    /// Leave the container when its program has ended
    #[arg(long)]
    pub keep: bool,
}

/// `kill`.
#[derive(Debug, Args)]
pub struct Kill {
    /// Every process of the container
    #[arg(short, long)]
    pub all: bool,
    /// The container's id
    pub id: String,
    /// A signal by name or number
    #[arg(default_value = "SIGTERM")]
    pub signal: String,
}

/// `delete`.
#[derive(Debug, Args)]
pub struct Delete {
    /// Kill it where it runs; no error where there is none
    #[arg(short, long)]
    pub force: bool,
    /// The container's id
    pub id: String,
}

/// `exec`.
#[derive(Debug, Args)]
pub struct Exec {
    /// File with an OCI process object, instead of a command
    #[arg(short, long, value_name = "FILE")]
    pub process: Option<PathBuf>,
    /// With a terminal
    #[arg(short, long)]
    pub tty: bool,
    /// Working directory
    #[arg(long, value_name = "DIR")]
    pub cwd: Option<PathBuf>,
    /// Another variable of the environment, KEY=VALUE
    #[arg(short, long, value_name = "KEY=VALUE")]
    pub env: Vec<String>,
    /// UID[:GID]
    #[arg(short, long, value_name = "UID[:GID]")]
    pub user: Option<String>,
    /// Another supplementary group
    #[arg(short = 'g', long, value_name = "GID")]
    pub additional_gids: Vec<u32>,
    /// Another capability
    #[arg(short, long, value_name = "CAPABILITY")]
    pub cap: Vec<String>,
    /// No program that is executed may gain privileges
    #[arg(long)]
    pub no_new_privs: bool,
    /// AppArmor profile
    #[arg(long, value_name = "PROFILE")]
    pub apparmor: Option<String>,
    /// SELinux label
    #[arg(long, value_name = "LABEL")]
    pub process_label: Option<String>,
    /// Return as soon as the program runs
    #[arg(short, long)]
    pub detach: bool,
    /// What of the process goes to the caller and comes from it.
    #[command(flatten)]
    pub handed: Handed,
    /// Run in a cgroup below the container's, as [CONTROLLER,...:]PATH
    #[arg(long, value_name = "CGROUP")]
    pub cgroup: Vec<String>,
    /// In a paused container, wait until it is resumed
    #[arg(long)]
    pub ignore_paused: bool,
    /// The container's id
    pub id: String,
    /// The command and its arguments
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    pub command: Vec<String>,
}

/// How lists are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum ListFormat {
    /// For people.
    Table,
    /// For programs.
    Json,
}

/// `list`.
#[derive(Debug, Args)]
pub struct List {
    /// How it is printed
    #[arg(short, long, value_enum, default_value_t = ListFormat::Table)]
    pub format: ListFormat,
    /// Ids only
    #[arg(short, long)]
    pub quiet: bool,
}

/// `ps`.
#[derive(Debug, Args)]
pub struct Ps {
    /// A table, or the PIDs as JSON
    #[arg(short, long, value_enum, default_value_t = ListFormat::Table)]
    pub format: ListFormat,
    /// The container's id
    pub id: String,
    /// Options of ps(1) for the table
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    pub options: Vec<String>,
}

/// `update`. Sizes may have a suffix: 50M.
#[derive(Debug, Args)]
pub struct Update {
    /// File with an OCI linux.resources object; - is stdin. The other options are ignored
    #[arg(short, long, value_name = "FILE")]
    pub resources: Option<PathBuf>,
    /// Memory; -1: no limit
    #[arg(long, value_name = "SIZE", allow_hyphen_values = true, value_parser = size::parse)]
    pub memory: Option<i64>,
    /// Memory that is kept for it; -1: none
    #[arg(long, value_name = "SIZE", allow_hyphen_values = true, value_parser = size::parse)]
    pub memory_reservation: Option<i64>,
    /// Memory and swap together; -1: no limit
    #[arg(long, value_name = "SIZE", allow_hyphen_values = true, value_parser = size::parse)]
    pub memory_swap: Option<i64>,
    /// Taken for compatibility: the kernel has no such limit any more
    #[arg(long, value_name = "SIZE", allow_hyphen_values = true, hide = true)]
    pub kernel_memory: Option<String>,
    /// As above
    #[arg(long, value_name = "SIZE", allow_hyphen_values = true, hide = true)]
    pub kernel_memory_tcp: Option<String>,
    /// Microseconds of a period of the CPU quota
    #[arg(long, value_name = "US")]
    pub cpu_period: Option<u64>,
    /// Microseconds of CPU time in a period; -1: no limit
    #[arg(long, value_name = "US", allow_hyphen_values = true)]
    pub cpu_quota: Option<i64>,
    /// Microseconds that may be used beyond the quota after a quiet period
    #[arg(long, value_name = "US")]
    pub cpu_burst: Option<u64>,
    /// Microseconds of a real-time period (cgroup v1)
    #[arg(long, value_name = "US")]
    pub cpu_rt_period: Option<u64>,
    /// Microseconds of real-time CPU time in such a period (cgroup v1)
    #[arg(long, value_name = "US", allow_hyphen_values = true)]
    pub cpu_rt_runtime: Option<i64>,
    /// Relative share of CPU time, 2 to 262144
    #[arg(long, value_name = "N", alias = "cpu-shares")]
    pub cpu_share: Option<u64>,
    /// 1: runs only when nothing else wants to; 0: as others
    #[arg(long, value_name = "0|1", allow_hyphen_values = true)]
    pub cpu_idle: Option<i64>,
    /// CPUs that may be used, as 0-3,7
    #[arg(long, value_name = "LIST")]
    pub cpuset_cpus: Option<String>,
    /// Memory nodes that may be used
    #[arg(long, value_name = "LIST")]
    pub cpuset_mems: Option<String>,
    /// Processes and threads; -1: no limit
    #[arg(long, value_name = "N", allow_hyphen_values = true)]
    pub pids_limit: Option<i64>,
    /// Relative share of block I/O, 10 to 1000
    #[arg(long, value_name = "N")]
    pub blkio_weight: Option<u16>,
    /// The container's id
    pub id: String,
}

/// `events`.
#[derive(Debug, Args)]
pub struct Events {
    /// Print statistics once and end
    #[arg(long)]
    pub stats: bool,
    /// Time between statistics, as 5s or 500ms
    #[arg(long, value_name = "TIME", default_value = "5s")]
    pub interval: String,
    /// The container's id
    pub id: String,
}

/// `spec`.
#[derive(Debug, Args)]
pub struct Spec {
    /// Directory that it is written to
    #[arg(short, long, value_name = "DIR", default_value = ".")]
    pub bundle: PathBuf,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn what_follows_the_id_of_an_exec_is_the_command() {
        let cli = Cli::try_parse_from(["x", "exec", "-e", "A=1", "c", "sh", "-c", "true"]);
        let Command::Exec(exec) = cli.expect("parsed").command else {
            panic!("not an exec");
        };
        assert_eq!(exec.command, ["sh", "-c", "true"]);
        assert_eq!(exec.env, ["A=1"]);
    }
}
