//! Bundles and containers of tests, and what is left when they are gone.
#![allow(
    dead_code,
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "shared by tests, each uses a part"
)]

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;

pub mod frozen;

#[path = "../../../../../tests/src/surroundings.rs"]
mod surroundings;

#[path = "../../../../../tests/src/seccomp_agent.rs"]
pub mod seccomp_agent;

/// What busybox is called as.
const APPLETS: [&str; 18] = [
    "sh", "cat", "echo", "env", "false", "grep", "head", "hostname", "id", "ls", "mkdir", "mount",
    "readlink", "sleep", "stat", "stty", "touch", "true",
];

static NEXT: AtomicU32 = AtomicU32::new(0);

/// A bundle, a state directory, and one container's id.
pub struct Bed {
    dir: TempDir,
    pub id: String,
    pub config: Value,
}

/// How a command ended.
#[derive(Debug)]
pub struct Ran {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Ran {
    #[track_caller]
    pub fn ok(self) -> String {
        assert_eq!(self.code, Some(0), "{self:?}");
        self.stdout
    }

    /// The error it ended with.
    #[track_caller]
    pub fn error(self) -> String {
        assert_eq!(self.code, Some(1), "{self:?}");
        self.stderr
    }

    /// The error that an exec ended with, before there was a program.
    #[track_caller]
    pub fn exec_error(self) -> String {
        assert_eq!(self.code, Some(255), "{self:?}");
        self.stderr
    }
}

impl From<Output> for Ran {
    fn from(output: Output) -> Ran {
        Ran {
            code: output.status.code(),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

impl Bed {
    /// A container that runs a shell script.
    pub fn new(script: &str) -> Bed {
        assert!(
            rustix::process::geteuid().is_root(),
            "containers are built by root"
        );
        surroundings::settle();
        let dir = tempfile::Builder::new()
            .prefix("lbrt")
            .tempdir_in("/var/tmp")
            .unwrap();
        let root = dir.path().join("bundle/rootfs");
        for name in ["bin", "proc", "dev", "sys", "tmp", "etc"] {
            fs::create_dir_all(root.join(name)).unwrap();
        }
        fs::copy("/bin/busybox", root.join("bin/busybox")).expect("busybox-static is installed");
        for applet in APPLETS {
            symlink("busybox", root.join("bin").join(applet)).unwrap();
        }
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let id = format!("lbrt-{}-{number}", std::process::id());
        let config = config(&id, script);
        Bed { dir, id, config }
    }

    /// A container whose program sleeps. Not by a shell, which would need a moment to become it.
    pub fn running() -> Bed {
        let mut bed = Bed::new("");
        bed.config["process"]["args"] = json!(["sleep", "100"]);
        bed.create().ok();
        bed.start().ok();
        bed
    }

    pub fn bundle(&self) -> PathBuf {
        self.dir.path().join("bundle")
    }

    pub fn rootfs(&self) -> PathBuf {
        self.bundle().join("rootfs")
    }

    /// A path of the test's own.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn root(&self) -> PathBuf {
        self.path("state")
    }

    /// Writes config.json as it is now.
    pub fn write_config(&self) {
        let json = serde_json::to_vec(&self.config).unwrap();
        fs::write(self.bundle().join("config.json"), json).unwrap();
    }

    /// The command with the global flags, not started yet.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_littlebox-runtime"));
        command.arg("--root").arg(self.root()).args(arguments);
        command.stdin(Stdio::null());
        command
    }

    /// Runs a command to its end. The program of a container that is created has its own output.
    pub fn run(&self, arguments: &[&str]) -> Ran {
        self.command(arguments).output().unwrap().into()
    }

    /// Runs a command that leaves a process with its stdio behind.
    #[track_caller]
    pub fn leave(&self, arguments: &[&str]) {
        let mut command = self.command(arguments);
        let status = command.stdout(Stdio::null()).status().unwrap();
        assert!(status.success(), "{arguments:?}");
    }

    /// Creates the container; its program's output goes to the file `out`.
    pub fn create(&self) -> Ran {
        self.create_with(&[])
    }

    pub fn create_with(&self, flags: &[&str]) -> Ran {
        self.write_config();
        let bundle = self.bundle();
        let mut arguments = vec!["create", "--bundle", bundle.to_str().unwrap()];
        arguments.extend(flags);
        arguments.push(&self.id);
        let out = fs::File::create(self.path("out")).unwrap();
        let err = fs::File::create(self.path("err")).unwrap();
        let status = self
            .command(&arguments)
            .stdout(out)
            .stderr(err)
            .status()
            .unwrap();
        Ran {
            code: status.code(),
            stdout: String::new(),
            stderr: fs::read_to_string(self.path("err")).unwrap(),
        }
    }

    /// `run` in the foreground.
    pub fn run_container(&self) -> Ran {
        self.write_config();
        let bundle = self.bundle();
        self.run(&["run", "--bundle", bundle.to_str().unwrap(), &self.id])
    }

    /// The same in a mount namespace of its own, after a script in the test's directory has mounted
    /// there; what that does to its descriptors stays.
    pub fn run_after(&self, script: &str) -> Ran {
        self.write_config();
        let bundle = self.bundle();
        let runtime = self.command(&["run", "--bundle", bundle.to_str().unwrap(), &self.id]);
        let script = format!("{script} && exec \"$@\"");
        let mut command = Command::new("unshare");
        command.args(["--mount", "sh", "-c", &script, "sh"]);
        command.arg(runtime.get_program()).args(runtime.get_args());
        command.current_dir(self.path("")).stdin(Stdio::null());
        command.output().unwrap().into()
    }

    pub fn start(&self) -> Ran {
        self.run(&["start", &self.id])
    }

    pub fn state(&self) -> Value {
        serde_json::from_str(&self.run(&["state", &self.id]).ok()).unwrap()
    }

    pub fn status(&self) -> String {
        self.state()["status"].as_str().unwrap().to_owned()
    }

    pub fn pid(&self) -> u32 {
        u32::try_from(self.state()["pid"].as_u64().unwrap()).unwrap()
    }

    /// What the program of a created container printed.
    pub fn output(&self) -> String {
        fs::read_to_string(self.path("out")).unwrap()
    }

    /// Waits until the container has ended.
    #[track_caller]
    pub fn wait_for(&self, status: &str) {
        let reached = wait_until(|| self.status() == status);
        assert!(reached, "{status}: {}", self.state());
    }

    pub fn delete(&self) -> Ran {
        self.run(&["delete", &self.id])
    }

    /// An executable script on the host.
    pub fn host_script(&self, name: &str, script: &str) -> String {
        let path = self.path(name);
        write_script(&path, script);
        path.to_str().unwrap().to_owned()
    }

    /// An executable script in the container.
    pub fn container_script(&self, path: &str, script: &str) {
        write_script(&self.rootfs().join(path.trim_start_matches('/')), script);
    }

    /// Nothing of the container is there.
    #[track_caller]
    pub fn assert_nothing_left(&self) {
        let state = self.root().join(&self.id);
        assert!(!state.exists(), "{} is left", state.display());
        let cgroups = self.cgroups();
        assert!(cgroups.is_empty(), "left: {cgroups:?}");
    }

    pub fn cgroups(&self) -> Vec<PathBuf> {
        let mut found = Vec::new();
        find_directories(Path::new("/sys/fs/cgroup"), 4, &mut |path| {
            if path
                .file_name()
                .is_some_and(|name| name == self.id.as_str())
            {
                found.push(path.to_owned());
            }
        });
        found
    }
}

impl Drop for Bed {
    fn drop(&mut self) {
        let deleted = self.run(&["delete", "--force", &self.id]);
        if !std::thread::panicking() {
            assert_eq!(deleted.code, Some(0), "{deleted:?}");
            self.assert_nothing_left();
        }
    }
}

fn write_script(path: &Path, script: &str) {
    fs::write(path, format!("#!/bin/sh\n{script}\n")).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
}

/// Asks until it is so, at most ten seconds.
pub fn wait_until(mut done: impl FnMut() -> bool) -> bool {
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(10) {
        if done() {
            return true;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    false
}

fn find_directories(path: &Path, depth: usize, found: &mut dyn FnMut(&Path)) {
    let Ok(entries) = fs::read_dir(path) else {
        return;
    };
    for entry in entries.flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            found(&entry.path());
            if depth > 0 {
                find_directories(&entry.path(), depth - 1, found);
            }
        }
    }
}

fn config(id: &str, script: &str) -> Value {
    let capabilities = json!(["CAP_KILL", "CAP_CHOWN", "CAP_SETUID", "CAP_SETGID"]);
    json!({
        "ociVersion": "1.0.2",
        "process": {
            "user": {"uid": 0, "gid": 0},
            "args": ["/bin/sh", "-c", script],
            "env": ["PATH=/bin", "HOME=/"],
            "cwd": "/",
            "capabilities": {
                "bounding": capabilities,
                "permitted": capabilities,
                "effective": capabilities
            },
            "noNewPrivileges": true
        },
        "root": {"path": "rootfs"},
        "hostname": "inside",
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc"},
            {"destination": "/dev", "type": "tmpfs", "source": "tmpfs",
             "options": ["nosuid", "strictatime", "mode=755", "size=65536k"]},
            {"destination": "/dev/pts", "type": "devpts", "source": "devpts",
             "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]}
        ],
        "annotations": {"org.example.key": "value"},
        "linux": {
            "cgroupsPath": format!("/littlebox-runtime-test/{id}"),
            "resources": {"pids": {"limit": 100}},
            "namespaces": [
                {"type": "pid"}, {"type": "ipc"}, {"type": "uts"}, {"type": "mount"},
                {"type": "network"}, {"type": "cgroup"}
            ],
            "maskedPaths": ["/proc/kcore"],
            "readonlyPaths": ["/proc/sys"]
        }
    })
}
