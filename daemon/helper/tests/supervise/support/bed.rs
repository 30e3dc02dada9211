//! Plans of small containers: a busybox root, bound as it is.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use littlebox_protocol::{
    CapabilityPlan, CgroupPlan, DevicePlan, ExecPlan, ExitRecord, HooksPlan, LaunchPlan,
    LayerIdmap, LogPlan, LogStream, MountAttrs, MountPlan, MountSource, NamespaceKind,
    NamespacePlan, PROTOCOL_VERSION, ProcessPlan, Propagation, RootfsPlan, RootfsSource,
    TerminalSize, UserPlan, UserRef,
};
use tempfile::TempDir;

use super::log::{output_of, read_log};
use super::process::Helper;

#[path = "../../../../../tests/src/surroundings.rs"]
mod surroundings;

/// The directories of one container.
pub struct Bed {
    dir: TempDir,
    id: String,
}

impl Bed {
    pub fn new() -> Self {
        assert!(
            rustix::process::geteuid().is_root(),
            "tests that build containers must run as root"
        );
        surroundings::settle();
        let dir = tempfile::Builder::new().prefix("lb-").tempdir().unwrap();
        let name = dir.path().file_name().unwrap().to_string_lossy();
        let id = format!("test{name}").replace('-', "");
        let bed = Self { dir, id };
        fs::create_dir(bed.run_dir()).unwrap();
        make_root(&bed.dir.path().join("root"));
        bed
    }

    pub fn run_dir(&self) -> PathBuf {
        self.dir.path().join("run")
    }

    pub fn log(&self) -> PathBuf {
        self.dir.path().join("log/container.log")
    }

    pub fn exec_log(&self, id: &str) -> PathBuf {
        self.dir.path().join(format!("execs/{id}.log"))
    }

    pub fn exec_record(&self, id: &str) -> PathBuf {
        self.run_dir().join(format!("{id}.json"))
    }

    /// What the container printed on stdout so far.
    pub fn output(&self) -> Vec<u8> {
        output_of(&read_log(&self.log()), LogStream::Stdout)
    }

    /// What an exec printed on stdout.
    pub fn exec_output(&self, id: &str) -> Vec<u8> {
        output_of(&read_log(&self.exec_log(id)), LogStream::Stdout)
    }

    pub fn exit_record(&self) -> ExitRecord {
        read_record(&self.run_dir().join("exit.json"))
    }

    /// A container that runs a shell script.
    pub fn plan(&self, script: &str) -> LaunchPlan {
        let new = [
            NamespaceKind::Mnt,
            NamespaceKind::Uts,
            NamespaceKind::Ipc,
            NamespaceKind::Pid,
        ];
        LaunchPlan {
            version: PROTOCOL_VERSION,
            id: self.id.clone(),
            run_dir: self.run_dir(),
            namespaces: BTreeMap::from(new.map(|kind| (kind, NamespacePlan::New))),
            uid_map: Vec::new(),
            gid_map: Vec::new(),
            time_offsets: BTreeMap::new(),
            hostname: Some("box".to_owned()),
            domainname: None,
            rootfs: RootfsPlan {
                source: RootfsSource::Bind {
                    path: self.dir.path().join("root"),
                },
                read_only: false,
                propagation: Propagation::Rprivate,
                label: None,
                idmap: LayerIdmap::Auto,
            },
            mounts: vec![
                filesystem("/proc", "proc", &[]),
                filesystem("/dev", "tmpfs", &["mode=755"]),
                filesystem("/dev/pts", "devpts", &["newinstance", "ptmxmode=0666"]),
            ],
            // Background jobs of a shell read null.
            devices: vec![device("/dev/null", 3), device("/dev/zero", 5)],
            masked_paths: Vec::new(),
            readonly_paths: Vec::new(),
            sysctls: BTreeMap::new(),
            process: shell(script),
            init: false,
            stdin: false,
            cgroup: CgroupPlan {
                path: Some(format!("/littlebox/test/{}", self.id).into()),
                ..CgroupPlan::default()
            },
            log: log_plan(self.log()),
            loopback_up: false,
            gate: false,
            hooks: HooksPlan::default(),
            start_timeout_ms: None,
            inject: None,
            weaken: None,
        }
    }

    /// The same with a terminal.
    pub fn terminal_plan(&self, script: &str) -> LaunchPlan {
        let mut plan = self.plan(script);
        plan.process.terminal = Some(TerminalSize { rows: 24, cols: 80 });
        plan.stdin = true;
        plan
    }

    /// An exec that runs a shell script.
    pub fn exec_plan(&self, id: &str, script: &str) -> ExecPlan {
        ExecPlan {
            id: id.to_owned(),
            process: shell(script),
            stdin: false,
            log: log_plan(self.exec_log(id)),
            gate: false,
            timeout_ms: None,
            start_timeout_ms: None,
            exit_record: self.exec_record(id),
        }
    }
}

/// A test that failed leaves no container behind either.
impl Drop for Bed {
    fn drop(&mut self) {
        if let Some(mut helper) = Helper::try_connect(&self.run_dir()) {
            helper.end();
        }
    }
}

pub fn read_record(path: &Path) -> ExitRecord {
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

fn log_plan(path: PathBuf) -> LogPlan {
    LogPlan {
        path,
        max_size: None,
        max_files: 0,
    }
}

fn device(path: &str, minor: u32) -> DevicePlan {
    DevicePlan {
        path: path.into(),
        kind: 'c',
        major: 1,
        minor,
        mode: 0o666,
        uid: 0,
        gid: 0,
    }
}

fn shell(script: &str) -> ProcessPlan {
    ProcessPlan {
        args: ["/bin/busybox", "sh", "-c", script]
            .map(str::to_owned)
            .into(),
        env: vec!["PATH=/bin".to_owned(), "TERM=xterm".to_owned()],
        cwd: "/".into(),
        create_cwd: false,
        user: UserPlan {
            user: UserRef::Id(0),
            group: Some(UserRef::Id(0)),
            additional_groups: Vec::new(),
            umask: None,
        },
        terminal: None,
        capabilities: CapabilityPlan::default(),
        no_new_privileges: true,
        seccomp: None,
        rlimits: Vec::new(),
        oom_score_adj: None,
        labels: littlebox_protocol::LabelPlan::default(),
        scheduling: littlebox_protocol::SchedulingPlan::default(),
    }
}

fn filesystem(destination: &str, fstype: &str, options: &[&str]) -> MountPlan {
    MountPlan {
        destination: destination.into(),
        source: MountSource::Filesystem {
            fstype: fstype.to_owned(),
            options: options.iter().map(|&option| option.to_owned()).collect(),
            copy_up: false,
        },
        attrs: MountAttrs::default(),
        cleared: MountAttrs::default(),
        tree: None,
        propagation: None,
        idmap: None,
    }
}

/// A root directory with Debian's busybox-static and links for what the scripts call.
fn make_root(root: &Path) {
    for dir in ["bin", "dev", "proc", "sys", "tmp", "etc"] {
        fs::create_dir_all(root.join(dir)).unwrap();
    }
    fs::copy("/bin/busybox", root.join("bin/busybox"))
        .expect("busybox-static is installed (apt-get install busybox-static)");
    let applets = [
        "sh", "cat", "sleep", "kill", "dd", "head", "yes", "stty", "true", "setsid", "seq",
        "usleep",
    ];
    for applet in applets {
        std::os::unix::fs::symlink("busybox", root.join("bin").join(applet)).unwrap();
    }
}
