//! The command line and the configuration file.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use clap::Parser;
use littlebox_plan::seccomp::{Compiler, Profile, kernel_version};
use serde::Deserialize;

use crate::idpool::{PoolConfig, UNIT};

/// The littlebox daemon: owns the life of containers and serves the REST API on a Unix socket.
#[derive(Debug, Parser)]
#[command(name = "littleboxd", version)]
pub struct Args {
    /// Path of the API's Unix socket [default: /run/littlebox.sock]
    #[arg(long, value_name = "PATH")]
    pub socket: Option<PathBuf>,
    /// Directory of the database, writable layers and logs [default: /var/lib/littlebox]
    #[arg(long, value_name = "DIR")]
    pub state_dir: Option<PathBuf>,
    /// Directory of helpers' sockets and exit records, on a tmpfs [default: /run/littlebox]
    #[arg(long, value_name = "DIR")]
    pub run_dir: Option<PathBuf>,
    /// Configuration file (TOML) [default: /etc/littlebox/config.toml, when it exists]
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// How log lines are written [default: text]
    #[arg(long, value_name = "FORMAT")]
    pub log_format: Option<LogFormat>,
    /// Read the configuration, say what is wrong with it, and exit
    #[arg(long)]
    pub check_config: bool,
}

/// How log lines are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object per line.
    Json,
}

/// The file, as it is written. Every key is optional; a flag wins over it.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct File {
    socket: Option<PathBuf>,
    socket_group: Option<String>,
    socket_mode: Option<String>,
    state_dir: Option<PathBuf>,
    run_dir: Option<PathBuf>,
    log_format: Option<LogFormat>,
    log_level: Option<String>,
    cgroup_parent: Option<PathBuf>,
    helper: Option<PathBuf>,
    event_retention: Option<u64>,
    drain_timeout_s: Option<u64>,
    start_timeout_s: Option<u64>,
    max_connections: Option<usize>,
    seccomp_profile: Option<PathBuf>,
    id_pool: PoolFile,
}

/// `[id_pool]`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct PoolFile {
    start: Option<u32>,
    count: Option<u32>,
    size: Option<u32>,
    registry: Option<PathBuf>,
}

/// What the daemon runs with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// The API's socket.
    pub socket: PathBuf,
    /// Its group.
    pub socket_group: String,
    /// Its permission bits.
    pub socket_mode: u32,
    /// Database, writable layers, logs.
    pub state_dir: PathBuf,
    /// Helpers' sockets, exit records.
    pub run_dir: PathBuf,
    /// How log lines are written.
    pub log_format: LogFormat,
    /// `error`, `warn`, `info`, `debug`, `trace`, or a filter of tracing-subscriber.
    pub log_level: String,
    /// The cgroup below which containers live, in every hierarchy.
    pub cgroup_parent: PathBuf,
    /// That cgroup is systemd's, delegated: helpers live below it too.
    pub delegated: bool,
    /// The helper's program.
    pub helper: PathBuf,
    /// Events that are kept.
    pub event_retention: u64,
    /// Seconds that open requests are given at a shutdown.
    pub drain_timeout_s: u64,
    /// Seconds that the start of a program may take.
    pub start_timeout_s: u64,
    /// Connections served at once.
    pub max_connections: usize,
    /// Host ids for the user namespaces of containers.
    pub id_pool: PoolConfig,
    /// The default seccomp profile; `None`: littlebox's own.
    pub seccomp_profile: Option<PathBuf>,
}

/// A day.
const MOST_START_TIMEOUT_S: u64 = 86_400;

const DEFAULT_CONFIG: &str = "/etc/littlebox/config.toml";

impl Config {
    /// From flags and the file.
    pub fn load(args: &Args) -> anyhow::Result<Self> {
        let file = match &args.config {
            Some(path) => read(path)?,
            None if Path::new(DEFAULT_CONFIG).exists() => read(Path::new(DEFAULT_CONFIG))?,
            None => File::default(),
        };
        Self::merge(args, file)
    }

    fn merge(args: &Args, file: File) -> anyhow::Result<Self> {
        let pick = |flag: &Option<PathBuf>, key: Option<PathBuf>, default: &str| {
            flag.clone()
                .or(key)
                .unwrap_or_else(|| PathBuf::from(default))
        };
        // Set by the unit file, together with the unit whose cgroup it is.
        let delegated = std::env::var_os("LITTLEBOX_DELEGATED_CGROUP").map(PathBuf::from);
        let mode = file.socket_mode.unwrap_or_else(|| "0660".to_owned());
        let config = Self {
            socket: absolute(pick(&args.socket, file.socket, "/run/littlebox.sock"))?,
            socket_group: file.socket_group.unwrap_or_else(|| "littlebox".to_owned()),
            socket_mode: u32::from_str_radix(&mode, 8)
                .ok()
                .filter(|m| *m <= 0o777)
                .with_context(|| format!("socket_mode '{mode}' is no octal mode like \"0660\""))?,
            state_dir: absolute(pick(&args.state_dir, file.state_dir, "/var/lib/littlebox"))?,
            run_dir: absolute(pick(&args.run_dir, file.run_dir, "/run/littlebox"))?,
            log_format: args
                .log_format
                .or(file.log_format)
                .unwrap_or(LogFormat::Text),
            log_level: file.log_level.unwrap_or_else(|| "info".to_owned()),
            delegated: delegated.is_some() && file.cgroup_parent.is_none(),
            cgroup_parent: file
                .cgroup_parent
                .or(delegated)
                .unwrap_or_else(|| PathBuf::from("/littlebox")),
            helper: find_helper(file.helper)?,
            event_retention: file.event_retention.unwrap_or(100_000),
            drain_timeout_s: file.drain_timeout_s.unwrap_or(10),
            start_timeout_s: file.start_timeout_s.unwrap_or(60),
            max_connections: file.max_connections.unwrap_or(4096),
            id_pool: id_pool(file.id_pool)?,
            seccomp_profile: file.seccomp_profile.map(absolute).transpose()?,
        };
        config.check()?;
        Ok(config)
    }

    fn check(&self) -> anyhow::Result<()> {
        let plain = self.cgroup_parent.components().all(|c| {
            matches!(
                c,
                std::path::Component::RootDir | std::path::Component::Normal(_)
            )
        });
        if !self.cgroup_parent.is_absolute() || !plain || self.cgroup_parent == Path::new("/") {
            bail!(
                "cgroup_parent '{}' is no absolute path below the root, like \"/littlebox\"",
                self.cgroup_parent.display()
            );
        }
        if self.event_retention == 0 {
            bail!("event_retention is at least 1");
        }
        if !(1..=MOST_START_TIMEOUT_S).contains(&self.start_timeout_s) {
            bail!("start_timeout_s is between 1 and {MOST_START_TIMEOUT_S}");
        }
        if self.max_connections == 0 {
            bail!("max_connections is at least 1");
        }
        tracing_subscriber::EnvFilter::try_new(&self.log_level)
            .with_context(|| format!("log_level '{}'", self.log_level))?;
        self.seccomp_compiler().map(drop)
    }

    /// The compiler of seccomp profiles, with the configured default one.
    pub fn seccomp_compiler(&self) -> anyhow::Result<Compiler> {
        let uname = rustix::system::uname();
        let kernel = kernel_version(&uname.release().to_string_lossy()).unwrap_or((0, 0));
        let Some(path) = &self.seccomp_profile else {
            return Ok(Compiler::new(kernel));
        };
        let compiler = (|| {
            let text = std::fs::read_to_string(path)?;
            let profile = Profile::read(&serde_json::from_str(&text)?)?;
            let compiler = Compiler::with_default(profile, kernel);
            // As many rules as there can be.
            compiler.default_filter(u64::MAX)?;
            anyhow::Ok(compiler)
        })();
        compiler.with_context(|| format!("the seccomp_profile {} cannot be used", path.display()))
    }
}

/// The default lies in what systemd keeps for containers (524288 to 1879048191, its page
/// UIDS-GIDS) and above what useradd hands out in /etc/subuid (100000 to 600100000, login.defs).
fn id_pool(file: PoolFile) -> anyhow::Result<PoolConfig> {
    let pool = PoolConfig {
        start: file.start.unwrap_or(603_979_776),
        count: file.count.unwrap_or(1_275_068_416),
        size: file.size.unwrap_or(UNIT),
        registry: absolute(
            file.registry
                .unwrap_or_else(|| PathBuf::from("/run/littlebox-ids")),
        )?,
    };
    let (start, count, size) = (pool.start, pool.count, pool.size);
    if size == 0 || !size.is_multiple_of(UNIT) {
        bail!(
            "id_pool.size {size} is no multiple of {UNIT}, the ids that programs expect to be there"
        );
    }
    if start == 0 || !start.is_multiple_of(UNIT) {
        bail!(
            "id_pool.start {start} is no multiple of {UNIT}, or 0, where the machine's own users are"
        );
    }
    if count == 0 || !count.is_multiple_of(size) {
        bail!("id_pool.count {count} is no multiple of id_pool.size {size}");
    }
    // The last unit holds (uid_t)-1.
    if u64::from(start) + u64::from(count) > u64::from(u32::MAX - UNIT) {
        bail!("id_pool ends beyond 4294901759: start {start}, count {count}");
    }
    Ok(pool)
}

fn absolute(path: PathBuf) -> anyhow::Result<PathBuf> {
    std::path::absolute(&path).with_context(|| format!("path '{}'", path.display()))
}

fn read(path: &Path) -> anyhow::Result<File> {
    let text = std::fs::read_to_string(path)
        .with_context(|| format!("cannot read the configuration {}", path.display()))?;
    toml::from_str(&text)
        .with_context(|| format!("the configuration {} is not valid", path.display()))
}

/// The environment, the configuration, beside the daemon, where `make install` puts it.
fn find_helper(configured: Option<PathBuf>) -> anyhow::Result<PathBuf> {
    if let Some(path) = std::env::var_os("LITTLEBOX_HELPER")
        .map(PathBuf::from)
        .or(configured)
    {
        if path.is_file() {
            return absolute(path);
        }
        bail!("the helper {} does not exist", path.display());
    }
    let own = std::env::current_exe().context("cannot find the daemon's own executable")?;
    let beside = own.parent().unwrap_or(Path::new("/"));
    let places = [
        beside.to_path_buf(),
        PathBuf::from("/usr/local/lib/littlebox"),
        PathBuf::from("/usr/lib/littlebox"),
    ];
    let found = places
        .iter()
        .map(|p| p.join("littlebox-helper"))
        .find(|p| p.is_file());
    found.with_context(|| {
        let list = places.map(|p| p.display().to_string()).join(", ");
        format!("littlebox-helper was not found in {list}; set 'helper' in the configuration")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn merge(text: &str) -> anyhow::Result<Config> {
        let file: File = toml::from_str(&format!("helper = \"/bin/sh\"\n{text}"))?;
        Config::merge(&Args::parse_from(["littleboxd", "--run-dir", "/r"]), file)
    }

    #[test]
    fn flags_win_over_the_file_and_the_file_over_defaults() {
        let config = merge("run_dir = \"/x\"\nstate_dir = \"/s\"").unwrap();
        assert_eq!(config.run_dir, Path::new("/r"));
        assert_eq!(config.state_dir, Path::new("/s"));
        assert_eq!(config.socket, Path::new("/run/littlebox.sock"));
        assert_eq!(config.socket_mode, 0o660);
    }

    #[test]
    fn bad_values_are_refused() {
        for bad in [
            "colour = 1",
            "socket_mode = \"rw\"",
            "socket_mode = \"7777\"",
            "cgroup_parent = \"x\"",
            "cgroup_parent = \"/../x\"",
            "cgroup_parent = \"/\"",
            "event_retention = 0",
            "start_timeout_s = 0",
            "start_timeout_s = 86401",
            "[id_pool]\nsize = 1000",
            "[id_pool]\nstart = 0",
            "[id_pool]\nstart = 100000",
            "[id_pool]\ncount = 65535",
            "[id_pool]\nsize = 131072\ncount = 65536",
            "[id_pool]\nstart = 4294901760",
            "[id_pool]\ncolour = 1",
            "log_level = \"a=b=c\"",
        ] {
            assert!(merge(bad).is_err(), "{bad}");
        }
    }
}
