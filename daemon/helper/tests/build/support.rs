//! Plans of whole containers, as the daemon makes them, and what is left when they are gone.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use littlebox_helper::build::{self, Built, ExecBuilt, Stdio};
use littlebox_protocol::*;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{WaitId, WaitIdOptions, waitid};
use tempfile::TempDir;

#[path = "../../../../tests/src/surroundings.rs"]
mod surroundings;

/// Tests build containers one at a time: a fork copies one thread only.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// The default capabilities: chown, dac_override, fowner, fsetid, kill, setgid, setuid, setpcap,
/// net_bind_service, sys_chroot, setfcap.
pub const DEFAULT_CAPABILITIES: u64 =
    1 | 1 << 1 | 1 << 3 | 1 << 4 | 1 << 5 | 1 << 6 | 1 << 7 | 1 << 8 | 1 << 10 | 1 << 18 | 1 << 31;

/// The directories of one container, and the lock that keeps others out.
pub struct Bed {
    pub dir: TempDir,
    pub id: String,
    pub plan: LaunchPlan,
    _lock: MutexGuard<'static, ()>,
}

impl Bed {
    /// A container with everything that a default one has, that runs a shell script.
    pub fn new(script: &str) -> Bed {
        assert!(
            rustix::process::geteuid().is_root(),
            "containers are built by root"
        );
        surroundings::settle();
        let lock = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
        let dir = tempfile::Builder::new()
            .prefix("lb")
            .tempdir_in("/var/tmp")
            .unwrap();
        for name in ["upper", "work", "root"] {
            fs::create_dir(dir.path().join(name)).unwrap();
        }
        make_root(&dir.path().join("root"));
        let id = dir
            .path()
            .file_name()
            .unwrap()
            .to_string_lossy()
            .replace('.', "");
        let plan = default_plan(dir.path(), &id, script);
        Bed {
            dir,
            id,
            plan,
            _lock: lock,
        }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn launch(&self) -> Result<Container, StepFailure> {
        self.launch_with(Vec::new())
    }

    pub fn launch_with(&self, fds: Vec<OwnedFd>) -> Result<Container, StepFailure> {
        leave_pid_namespace();
        build::launch(&self.plan, fds).map(|built| Container {
            built,
            ended: false,
        })
    }

    /// Runs the container to its end: its output and its exit.
    pub fn run(&self) -> (String, ProcessExit) {
        let mut container = self.launch().unwrap();
        let output = container.output();
        (output, container.wait())
    }

    pub fn output(&self) -> String {
        let (output, exit) = self.run();
        assert_eq!(exit, ProcessExit::Code(0), "{output}");
        output
    }

    pub fn failure(&self) -> StepFailure {
        let before = Leftovers::take();
        let failure = match self.launch() {
            Err(failure) => failure,
            Ok(_) => panic!("the container started"),
        };
        Leftovers::take().assert_same(&before, &self.id);
        failure
    }

    pub fn with_user_namespace(mut self) -> Bed {
        self.plan
            .namespaces
            .insert(NamespaceKind::User, NamespacePlan::New);
        let map = vec![IdMapping {
            container_id: 0,
            host_id: 500_000,
            size: 65_536,
        }];
        (self.plan.uid_map, self.plan.gid_map) = (map.clone(), map);
        self
    }

    pub fn exec_plan(&self, script: &str) -> ExecPlan {
        ExecPlan {
            id: "exec".to_owned(),
            process: ProcessPlan {
                terminal: None,
                ..shell(script)
            },
            stdin: false,
            log: self.plan.log.clone(),
            gate: false,
            timeout_ms: None,
            start_timeout_ms: None,
            exit_record: self.path("exec.json"),
        }
    }

    pub fn exec(&self, container: &Container, plan: &ExecPlan) -> (String, ProcessExit) {
        let exec = build::exec(&container.built, &self.plan, plan).unwrap();
        finish_exec(exec)
    }
}

impl Drop for Bed {
    fn drop(&mut self) {
        remove_test_cgroups();
    }
}

/// The directories above the containers'; others may still be in them.
pub fn remove_test_cgroups() {
    for hierarchy in littlebox_protocol::cgroup::Layout::detect().all() {
        let test = hierarchy.mount().join("littlebox-test");
        let _ = fs::remove_dir(test.join(std::process::id().to_string()));
        let _ = fs::remove_dir(test.join("second"));
        let _ = fs::remove_dir(test);
    }
}

/// A helper builds one container and its children are born in there from then on; a test builds
/// several.
fn leave_pid_namespace() {
    let own = fs::File::open("/proc/thread-self/ns/pid").unwrap();
    let kind = rustix::thread::LinkNameSpaceType::ProcessID;
    rustix::thread::move_into_link_name_space(own.as_fd(), Some(kind)).unwrap();
}

pub fn finish_exec(mut exec: ExecBuilt) -> (String, ProcessExit) {
    let output = read_all(exec.stdio.as_mut().unwrap());
    (output, wait(&exec.pidfd))
}

/// A container that runs.
pub struct Container {
    pub built: Built,
    ended: bool,
}

impl Container {
    pub fn stdio(&self) -> &Stdio {
        self.built.stdio.as_ref().unwrap()
    }

    /// Everything that it prints until it closes its output.
    pub fn output(&mut self) -> String {
        read_all(self.built.stdio.as_mut().unwrap())
    }

    pub fn wait(&mut self) -> ProcessExit {
        let exit = wait(&self.built.pidfd);
        self.ended = true;
        exit
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        if !self.ended {
            let _ = littlebox_helper::sys::pidfd_send_signal(self.built.pidfd.as_fd(), 9);
            let _ = wait(&self.built.pidfd);
        }
        self.built.cgroup.kill_all().unwrap();
        self.built.cgroup.remove().unwrap();
    }
}

pub fn wait(pidfd: &OwnedFd) -> ProcessExit {
    let status = waitid(WaitId::PidFd(pidfd.as_fd()), WaitIdOptions::EXITED)
        .unwrap()
        .unwrap();
    match (status.exit_status(), status.terminating_signal()) {
        (Some(code), _) => ProcessExit::Code(code),
        (_, Some(signal)) => ProcessExit::Signal(signal),
        other => panic!("{other:?}"),
    }
}

fn read_all(stdio: &mut Stdio) -> String {
    match stdio {
        Stdio::Pipes { stdout, stderr, .. } => read_fd(stdout) + &read_fd(stderr),
        Stdio::Terminal(terminal) => {
            terminal.let_go();
            read_fd(terminal)
        }
    }
}

pub fn read_fd(fd: impl AsFd) -> String {
    let mut file = fs::File::from(fd.as_fd().try_clone_to_owned().unwrap());
    let mut bytes = Vec::new();
    let start = Instant::now();
    loop {
        let mut buffer = [0; 4096];
        match file.read(&mut buffer) {
            Ok(0) => break,
            Ok(len) => bytes.extend_from_slice(&buffer[..len]),
            // A pty whose last slave was closed.
            Err(error) if error.raw_os_error() == Some(5) => break,
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                assert!(
                    start.elapsed() < Duration::from_secs(20),
                    "no end of the output"
                );
                let tick = rustix::event::Timespec {
                    tv_sec: 1,
                    tv_nsec: 0,
                };
                let mut fds = [PollFd::new(&fd, PollFlags::IN)];
                let _ = poll(&mut fds, Some(&tick));
            }
            Err(error) => panic!("{error}"),
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// What a container can leave behind.
#[derive(Debug, PartialEq, Eq)]
pub struct Leftovers {
    mounts: BTreeSet<String>,
    cgroups: BTreeSet<PathBuf>,
    fds: usize,
    children: String,
}

impl Leftovers {
    pub fn take() -> Leftovers {
        let mut cgroups = BTreeSet::new();
        for hierarchy in littlebox_protocol::cgroup::Layout::detect().all() {
            walk(&hierarchy.mount().join("littlebox-test"), &mut cgroups);
        }
        Leftovers {
            mounts: mounts(),
            cgroups,
            fds: fs::read_dir("/proc/self/fd").unwrap().count(),
            children: fs::read_to_string("/proc/thread-self/children").unwrap_or_default(),
        }
    }

    pub fn assert_same(&self, before: &Leftovers, id: &str) {
        assert_no_new_mounts(&self.mounts, &before.mounts);
        assert_eq!(self.fds, before.fds);
        assert_eq!(self.children, before.children);
        let ours = |cgroups: &BTreeSet<PathBuf>| {
            cgroups
                .iter()
                .filter(|path| path.ends_with(id))
                .cloned()
                .collect::<Vec<_>>()
        };
        assert_eq!(ours(&self.cgroups), Vec::<PathBuf>::new());
    }
}

fn mounts() -> BTreeSet<String> {
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap();
    table.lines().map(str::to_owned).collect()
}

/// Other tests mount and unmount in the same namespace: what is theirs goes, what was left stays.
fn assert_no_new_mounts(after: &BTreeSet<String>, before: &BTreeSet<String>) {
    let mut new: BTreeSet<String> = after - before;
    let end = Instant::now() + Duration::from_secs(20);
    while !new.is_empty() && Instant::now() < end {
        std::thread::sleep(Duration::from_millis(50));
        new = &new & &mounts();
    }
    assert_eq!(new, BTreeSet::new(), "mounts were left");
}

fn walk(path: &Path, found: &mut BTreeSet<PathBuf>) {
    for entry in fs::read_dir(path).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            found.insert(entry.path());
            walk(&entry.path(), found);
        }
    }
}

pub fn make_root(root: &Path) {
    for dir in ["bin", "etc"] {
        fs::create_dir_all(root.join(dir)).unwrap();
    }
    fs::copy("/bin/busybox", root.join("bin/busybox")).expect("busybox-static is installed");
    for applet in ["sh", "sleep", "true", "cat", "id", "ls", "ps"] {
        std::os::unix::fs::symlink("busybox", root.join("bin").join(applet)).unwrap();
    }
    fs::write(
        root.join("etc/passwd"),
        "root:x:0:0:root:/root:/bin/sh\nanna:x:1000:100::/:\n",
    )
    .unwrap();
    fs::write(
        root.join("etc/group"),
        "root:x:0:\nusers:x:100:\nwheel:x:10:anna\n",
    )
    .unwrap();
}

pub fn shell(script: &str) -> ProcessPlan {
    let mask = DEFAULT_CAPABILITIES;
    ProcessPlan {
        args: ["/bin/busybox", "sh", "-c", script]
            .map(str::to_owned)
            .into(),
        env: vec!["PATH=/bin".to_owned()],
        cwd: "/".into(),
        create_cwd: false,
        user: UserPlan {
            user: UserRef::Id(0),
            group: None,
            additional_groups: Vec::new(),
            umask: None,
        },
        terminal: None,
        capabilities: CapabilityPlan {
            bounding: mask,
            permitted: mask,
            effective: mask,
            inheritable: 0,
            ambient: 0,
        },
        no_new_privileges: true,
        seccomp: None,
        rlimits: vec![RlimitPlan {
            resource: "core".to_owned(),
            soft: Some(0),
            hard: Some(0),
        }],
        oom_score_adj: Some(100),
        labels: LabelPlan::default(),
        scheduling: SchedulingPlan::default(),
    }
}

pub fn mount(destination: &str, fstype: &str, options: &[&str], attrs: MountAttrs) -> MountPlan {
    MountPlan {
        destination: destination.into(),
        source: MountSource::Filesystem {
            fstype: fstype.to_owned(),
            options: options.iter().map(|&option| option.to_owned()).collect(),
            copy_up: false,
        },
        attrs,
        cleared: MountAttrs::default(),
        tree: None,
        propagation: None,
        idmap: None,
    }
}

pub fn bind(source: &Path, destination: &str, attrs: MountAttrs) -> MountPlan {
    MountPlan {
        destination: destination.into(),
        source: MountSource::Bind {
            path: source.to_owned(),
            recursive: true,
            inside: None,
        },
        attrs,
        cleared: MountAttrs::default(),
        tree: None,
        propagation: None,
        idmap: None,
    }
}

fn default_plan(dir: &Path, id: &str, script: &str) -> LaunchPlan {
    let new = [
        NamespaceKind::Mnt,
        NamespaceKind::Uts,
        NamespaceKind::Ipc,
        NamespaceKind::Net,
        NamespaceKind::Pid,
        NamespaceKind::Cgroup,
        NamespaceKind::Time,
    ];
    LaunchPlan {
        version: PROTOCOL_VERSION,
        id: id.to_owned(),
        run_dir: dir.to_owned(),
        namespaces: BTreeMap::from(new.map(|kind| (kind, NamespacePlan::New))),
        uid_map: Vec::new(),
        gid_map: Vec::new(),
        time_offsets: BTreeMap::new(),
        hostname: Some("inside".to_owned()),
        domainname: Some("example".to_owned()),
        rootfs: RootfsPlan {
            source: RootfsSource::Overlay {
                lower: vec![dir.join("root")],
                upper: dir.join("upper"),
                work: dir.join("work"),
                volatile: true,
            },
            read_only: false,
            propagation: Propagation::Rprivate,
            label: None,
            idmap: LayerIdmap::Auto,
        },
        mounts: default_mounts(),
        devices: default_devices(),
        masked_paths: MASKED.map(PathBuf::from).into(),
        readonly_paths: READ_ONLY.map(PathBuf::from).into(),
        sysctls: BTreeMap::new(),
        process: shell(script),
        init: false,
        stdin: false,
        cgroup: CgroupPlan {
            path: Some(format!("/littlebox-test/{}/{id}", std::process::id()).into()),
            resources: ResourcePlan {
                pids: Some(512),
                ..ResourcePlan::default()
            },
            existing: ExistingCgroup::Replace,
            ..CgroupPlan::default()
        },
        log: LogPlan {
            path: dir.join("log"),
            max_size: None,
            max_files: 0,
        },
        loopback_up: true,
        gate: false,
        hooks: HooksPlan::default(),
        start_timeout_ms: None,
        inject: None,
        weaken: None,
    }
}

const MASKED: [&str; 10] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/scsi",
    "/sys/firmware",
    "/sys/devices/virtual/powercap",
];

const READ_ONLY: [&str; 5] = [
    "/proc/bus",
    "/proc/fs",
    "/proc/irq",
    "/proc/sys",
    "/proc/sysrq-trigger",
];

fn default_mounts() -> Vec<MountPlan> {
    let system = MountAttrs {
        nosuid: true,
        noexec: true,
        nodev: true,
        ..MountAttrs::default()
    };
    let dev = MountAttrs {
        nodev: false,
        ..system
    };
    let read_only = MountAttrs {
        read_only: true,
        ..system
    };
    vec![
        mount("/proc", "proc", &[], system),
        mount("/dev", "tmpfs", &["mode=755", "size=65536k"], dev),
        mount(
            "/dev/pts",
            "devpts",
            &["newinstance", "ptmxmode=0666", "mode=0620", "gid=5"],
            dev,
        ),
        mount("/dev/shm", "tmpfs", &["mode=1777", "size=65536k"], system),
        mount("/dev/mqueue", "mqueue", &[], system),
        mount("/sys", "sysfs", &[], read_only),
        MountPlan {
            destination: "/sys/fs/cgroup".into(),
            source: MountSource::Cgroup,
            attrs: read_only,
            cleared: MountAttrs::default(),
            tree: None,
            propagation: None,
            idmap: None,
        },
    ]
}

fn default_devices() -> Vec<DevicePlan> {
    let device = |name: &str, major, minor| DevicePlan {
        path: format!("/dev/{name}").into(),
        kind: 'c',
        major,
        minor,
        mode: 0o666,
        uid: 0,
        gid: 0,
    };
    vec![
        device("null", 1, 3),
        device("zero", 1, 5),
        device("full", 1, 7),
        device("random", 1, 8),
        device("urandom", 1, 9),
        device("tty", 5, 0),
    ]
}
