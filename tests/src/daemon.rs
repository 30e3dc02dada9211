//! A `littleboxd` of a test's own: its directories, its process.

use std::fs::{self, File, OpenOptions};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use tempfile::TempDir;

use crate::http::{Client, Method, Request};
use crate::{proc, roots, surroundings};

/// The environment variable that marks every process of a test's daemon.
pub const MARK: &str = "LITTLEBOX_TEST_MARK";

/// Where the binaries are: `LITTLEBOX_BIN_DIR`, else the directory of the build profile that the
/// running test belongs to.
pub fn bin_dir() -> PathBuf {
    if let Some(dir) = std::env::var_os("LITTLEBOX_BIN_DIR") {
        return PathBuf::from(dir);
    }
    let exe = std::env::current_exe().unwrap();
    let profile = exe.parent().and_then(Path::parent);
    profile
        .expect("a test lies in target/PROFILE/deps")
        .to_owned()
}

/// The path of one of littlebox's binaries; the test fails when it was not built.
#[track_caller]
pub fn binary(name: &str) -> PathBuf {
    let path = bin_dir().join(name);
    assert!(
        path.exists(),
        "{} is missing: build the workspace first, or set LITTLEBOX_BIN_DIR",
        path.display()
    );
    path
}

/// How a daemon is started.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Environment beside the test's own.
    pub env: Vec<(String, String)>,
    /// The configuration file's text.
    pub config: Option<String>,
    /// `--log-format json` instead of `text`.
    pub json_log: bool,
    /// The state directory is a tmpfs of so many bytes.
    pub state_size: Option<u64>,
    /// The socket is made by the test and handed over as systemd does it.
    pub socket_activation: bool,
    /// The umask it is started with; else the test's own.
    pub umask: Option<u32>,
    /// A program and its arguments that becomes the daemon in the end (`exec "$@"`), in
    /// surroundings of its own.
    pub surroundings: Vec<String>,
}

/// The directories of one daemon; they go when this is dropped.
#[derive(Debug)]
pub struct Dirs {
    base: Option<TempDir>,
    run: Option<TempDir>,
    mounted: bool,
    /// Where everything but the run directory lies.
    pub base_path: PathBuf,
    /// `--state-dir`.
    pub state: PathBuf,
    /// `--run-dir`.
    pub run_path: PathBuf,
    /// `--socket`.
    pub socket: PathBuf,
    /// What the daemon wrote to stderr.
    pub log: PathBuf,
    /// The value of [`MARK`].
    pub mark: String,
}

impl Dirs {
    /// Fresh directories: the state on a real disk, the run directory on a tmpfs where there is one.
    pub fn new(state_size: Option<u64>) -> Self {
        assert!(
            rustix::process::geteuid().is_root(),
            "end-to-end tests make real containers and need root"
        );
        surroundings::settle();
        let temporary = |parent: &Path| {
            tempfile::Builder::new()
                .prefix("lbt-")
                .tempdir_in(parent)
                .unwrap()
        };
        let parent = std::env::var_os("LITTLEBOX_TEST_DIR").unwrap_or_else(|| "/var/tmp".into());
        let base = temporary(Path::new(&parent));
        let run = temporary(Path::new("/run"));
        let base_path = base.path().to_owned();
        let state = base_path.join("state");
        if let Some(size) = state_size {
            fs::create_dir(&state).unwrap();
            roots::run(
                Command::new("mount")
                    .args([
                        "-t",
                        "tmpfs",
                        "-o",
                        &format!("size={size},mode=0700"),
                        "lbt",
                    ])
                    .arg(&state),
            );
        }
        let mark = base_path.file_name().unwrap().to_str().unwrap().to_owned();
        Self {
            mounted: state_size.is_some(),
            run_path: run.path().to_owned(),
            socket: base_path.join("sock"),
            log: base_path.join("daemon.log"),
            base: Some(base),
            run: Some(run),
            base_path,
            state,
            mark,
        }
    }

    /// The daemon's log so far.
    pub fn log_text(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }
}

impl Drop for Dirs {
    fn drop(&mut self) {
        if self.mounted {
            let _shown_below = Command::new("umount").arg(&self.state).status();
        }
        if std::env::var_os("LITTLEBOX_TEST_KEEP").is_some() {
            let kept = (self.base.take(), self.run.take());
            if let (Some(base), Some(run)) = kept {
                eprintln!(
                    "kept {} and {}",
                    base.keep().display(),
                    run.keep().display()
                );
            }
        }
    }
}

/// A running daemon. Killed when it is dropped, so that a panic of the test leaves none behind.
#[derive(Debug)]
pub struct Daemon {
    child: Child,
}

impl Daemon {
    /// Starts it and waits until its socket answers.
    #[track_caller]
    pub fn start(dirs: &Dirs, options: &Options) -> Self {
        let mut daemon = Self::spawn(dirs, options);
        if let Err(status) = daemon.wait_ready(dirs) {
            panic!(
                "littleboxd ended before it was ready: {status}\n{}",
                dirs.log_text()
            );
        }
        daemon
    }

    /// Starts it without waiting.
    pub fn spawn(dirs: &Dirs, options: &Options) -> Self {
        let mut command = match (options.socket_activation, options.umask) {
            (true, _) => activated(dirs, options),
            (false, Some(umask)) => masked(dirs, options, umask),
            (false, None) => plain(surrounded(options), dirs, options),
        };
        if let Some(config) = &options.config {
            let path = dirs.base_path.join("config.toml");
            fs::write(&path, config).unwrap();
            command.arg("--config").arg(path);
        }
        let log = OpenOptions::new()
            .create(true)
            .append(true)
            .open(&dirs.log)
            .unwrap();
        command
            .stdout(Stdio::from(log.try_clone().unwrap()))
            .stderr(Stdio::from(log))
            .env("LC_ALL", "C.UTF-8")
            .env("TZ", "UTC")
            .envs(options.env.iter().map(|(k, v)| (k, v)))
            .env(MARK, &dirs.mark);
        Self {
            child: command.spawn().expect("littleboxd can be executed"),
        }
    }

    /// Waits until the socket answers; its exit status when it ended instead.
    pub fn wait_ready(&mut self, dirs: &Dirs) -> Result<(), ExitStatus> {
        let client = Client::new(&dirs.socket);
        let deadline = Instant::now() + Duration::from_secs(30) * proc::patience();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return Err(status);
            }
            let health = Request::new(Method::Get, "/v1/health");
            // Ready, though perhaps not in good health.
            if client.try_send(&health).is_ok() {
                return Ok(());
            }
            assert!(
                Instant::now() < deadline,
                "littleboxd is not ready after 30 s\n{}",
                dirs.log_text()
            );
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Its PID.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// `kill -9`, and reaped.
    pub fn kill9(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// SIGTERM, and its exit status; the test fails when it does not end.
    #[track_caller]
    pub fn stop(self) -> ExitStatus {
        proc::kill(self.pid(), Signal::TERM);
        self.wait()
    }

    /// Waits for its end.
    #[track_caller]
    pub fn wait(mut self) -> ExitStatus {
        proc::eventually("littleboxd ends", || self.child.try_wait().unwrap())
    }

    /// Whether it runs.
    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // Both do nothing to a child that was reaped before.
        let _ended = self.child.kill();
        let _reaped = self.child.wait();
    }
}

fn log_format(options: &Options) -> &'static str {
    if options.json_log { "json" } else { "text" }
}

fn arguments(command: &mut Command, dirs: &Dirs, options: &Options) {
    command
        .arg("--state-dir")
        .arg(&dirs.state)
        .arg("--run-dir")
        .arg(dirs.run_path.join("run"))
        .args(["--log-format", log_format(options)]);
}

/// A shell that sets the umask and becomes the daemon.
fn masked(dirs: &Dirs, options: &Options, umask: u32) -> Command {
    let mut command = Command::new("sh");
    command
        .args(["-c", &format!("umask {umask:04o}; exec \"$@\""), "sh"])
        .arg(binary("littleboxd"));
    plain(command, dirs, options)
}

/// The daemon's command, behind what the test puts around it.
fn surrounded(options: &Options) -> Command {
    let daemon = binary("littleboxd");
    let Some((program, args)) = options.surroundings.split_first() else {
        return Command::new(daemon);
    };
    let mut command = Command::new(program);
    command.args(args).arg(daemon);
    command
}

fn plain(mut command: Command, dirs: &Dirs, options: &Options) -> Command {
    command
        .arg("--socket")
        .arg(&dirs.socket)
        .stdin(Stdio::null());
    arguments(&mut command, dirs, options);
    command
}

/// A shell that does what systemd does (sd_listen_fds(3)): descriptor 3 listens, and the two
/// variables say so to the process that it becomes.
fn activated(dirs: &Dirs, options: &Options) -> Command {
    let script = "exec 3<&0 </dev/null; \
        export LISTEN_PID=$$ LISTEN_FDS=1 LISTEN_FDNAMES=littleboxd.socket; exec \"$@\"";
    let _previous = fs::remove_file(&dirs.socket);
    let listener = UnixListener::bind(&dirs.socket).unwrap();
    let mut command = Command::new("sh");
    command
        .args(["-c", script, "sh"])
        .arg(binary("littleboxd"))
        .stdin(Stdio::from(OwnedFd::from(listener)));
    arguments(&mut command, dirs, options);
    command
}

/// `littleboxd` with arguments, to its end: for `--check-config` and refusals.
pub fn littleboxd(args: &[&str]) -> std::process::Output {
    Command::new(binary("littleboxd"))
        .args(args)
        .stdin(Stdio::null())
        .output()
        .expect("littleboxd can be executed")
}

/// An empty file in the test's directory, for logs of other processes.
pub fn scratch(dirs: &Dirs, name: &str) -> (PathBuf, File) {
    let path = dirs.base_path.join(name);
    let file = File::create(&path).unwrap();
    (path, file)
}
