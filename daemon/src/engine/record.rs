//! What the engine keeps of a container and of an exec, in memory and (as JSON) in the store.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::time::Duration;

use littlebox_protocol::{ExitRecord, MountReport, ProcessExit, ResourcePlan};
use littlebox_types::{
    Container, ContainerConfig, ContainerId, ContainerState, ContainerSummary, Exec, ExecId,
    ExecState, Exit, ExitStatus, Failure, HelperCondition, IdMap, IdMaps, IdSource, IdmapState,
    MountIdmap, Name, RestartPolicy, UserNamespace,
};
use serde::{Deserialize, Serialize};

use super::policies::restart::RestartState;
use crate::idpool::IdRange;
use crate::lifecycle::exec;
use crate::spec::signal_name;
use crate::time::{now_ns, rfc3339};

/// A container's record. Its config and its timings stay in the store.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// Id.
    #[serde(skip, default = "nil")]
    pub id: ContainerId,
    /// Name.
    #[serde(skip, default = "placeholder")]
    pub name: Name,
    /// State.
    pub state: ContainerState,
    /// Counts changes.
    #[serde(skip)]
    pub generation: u64,
    /// As asked for.
    pub rootfs: String,
    /// As asked for.
    pub command: Vec<String>,
    /// As asked for, or patched.
    pub labels: BTreeMap<String, String>,
    /// Nanoseconds since the epoch.
    pub created_at: i64,
    /// Nanoseconds since the epoch.
    pub started_at: Option<i64>,
    /// Nanoseconds since the epoch.
    pub finished_at: Option<i64>,
    /// How the program last ended.
    pub exit: Option<Exit>,
    /// Why the last start failed.
    pub failure: Option<Failure>,
    /// Exit code for `failure` (125, 126, 127).
    pub failure_code: Option<i32>,
    /// Warnings of the last start.
    pub warnings: Vec<String>,
    /// cgroup directories by controller.
    pub cgroups: BTreeMap<String, String>,
    /// Processes that the OOM killer has ended in the last run.
    #[serde(default)]
    pub oom_kills: u64,
    /// The running program, identified across PID reuse.
    pub process: Option<ProcessIdentity>,
    /// Its helper.
    pub helper: Option<ProcessIdentity>,
    /// Remove when ended.
    pub auto_remove: bool,
    /// A foreground client was announced.
    pub attach: bool,
    /// Has a terminal.
    pub terminal: bool,
    /// Clients may write to stdin.
    pub stdin: bool,
    /// The stop signal.
    pub stop_signal: i32,
    /// Seconds until SIGKILL.
    pub stop_timeout_s: u32,
    /// Starts by the restart policy.
    #[serde(default)]
    pub restart: RestartState,
    /// Its range of the pool; written with the first record and never changed.
    #[serde(default)]
    pub id_range: Option<IdRange>,
    /// The maps of its user namespace: with the host's ids of every file that it makes without an
    /// idmapped mount. `None` in the host's, and of a joined one before the first start.
    #[serde(default)]
    pub id_maps: Option<IdMaps>,
    /// How its mounts were seen through them at the last start.
    #[serde(default)]
    pub idmaps: Vec<MountIdmap>,
    /// The rules of its device filter at the last start.
    #[serde(default)]
    pub device_filter: Option<Vec<String>>,
    /// What brings the limits back to the recorded ones, while others are written that are not yet
    /// recorded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limits_back: Option<Box<ResourcePlan>>,
    /// Why its helper cannot be asked, while it cannot.
    #[serde(skip)]
    pub helper_condition: Option<HelperCondition>,
}

fn nil() -> ContainerId {
    ContainerId(uuid::Uuid::nil())
}

// Overwritten by the row's own column as soon as the record is read.
fn placeholder() -> Name {
    #[expect(clippy::unwrap_used, reason = "a constant inside the grammar")]
    "unnamed".parse().unwrap()
}

/// A process that cannot be mistaken for a later one with the same PID.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessIdentity {
    /// PID in the daemon's PID namespace.
    pub pid: u32,
    /// `/proc/PID/stat` field 22, clock ticks since boot.
    pub start_time: u64,
    /// `/proc/sys/kernel/random/boot_id`.
    pub boot_id: String,
}

impl Record {
    /// What the program is given between its stop signal and SIGKILL.
    pub fn grace(&self) -> Duration {
        Duration::from_secs(self.stop_timeout_s.into())
    }

    /// Forgets the last run: another one begins. How the last one ended goes on to be shown when
    /// the restart policy begins it, because whoever waited for it may not have seen it yet.
    pub fn begin_run(&mut self, by_policy: bool, boot_id: &str) {
        self.failure = None;
        self.failure_code = None;
        self.oom_kills = 0;
        self.limits_back = None;
        if by_policy {
            self.restart.begin_again();
        } else {
            self.exit = None;
            self.finished_at = None;
            self.restart.begin();
        }
        boot_id.clone_into(&mut self.restart.boot_id);
    }

    /// What a list shows.
    pub fn summary(&self) -> ContainerSummary {
        ContainerSummary {
            id: self.id,
            name: self.name.clone(),
            state: self.state,
            rootfs: self.rootfs.clone(),
            command: self.command.clone(),
            labels: self.labels.clone(),
            pid: self.process.as_ref().map(|p| p.pid),
            created_at: rfc3339(self.created_at),
            started_at: self.started_at.map(rfc3339),
            finished_at: self.finished_at.map(rfc3339),
            exit: self.exit.clone(),
            generation: self.generation,
        }
    }

    /// What inspect shows. Directories and relaxations are filled in by the engine.
    pub fn container(&self, config: ContainerConfig, execs: Vec<ExecId>) -> Container {
        let user_namespace = self.user_namespace(&config);
        let config = ContainerConfig {
            name: Some(self.name.clone()),
            labels: self.labels.clone(),
            restart: Some(self.restart.policy).filter(|p| *p != RestartPolicy::default()),
            ..config
        };
        Container {
            summary: self.summary(),
            config,
            failure: self.failure.clone(),
            restart_count: self.restart.count,
            restart_at: self.restart.due_at.map(rfc3339),
            warnings: self.warnings.clone(),
            cgroups: self.cgroups.clone(),
            user_namespace,
            idmaps: self.idmaps.clone(),
            device_filter: self.device_filter.clone(),
            oom_kills: self.oom_kills,
            helper_pid: self.helper.as_ref().map(|h| h.pid),
            helper: self.helper_condition,
            execs,
            relaxations: Vec::new(),
            upper_dir: None,
            log_path: None,
        }
    }

    fn user_namespace(&self, config: &ContainerConfig) -> UserNamespace {
        let maps = self.id_maps.clone();
        let (uid_map, gid_map) = maps.map_or_else(Default::default, |maps| (maps.uid, maps.gid));
        let ids = match (self.id_range, crate::spec::given_id_maps(config)) {
            (Some(_), _) => Some(IdSource::Pool),
            (None, Some(_)) => Some(IdSource::Given),
            (None, None) => None,
        };
        UserNamespace {
            source: crate::spec::user_source(config),
            ids,
            uid_map,
            gid_map,
        }
    }
}

/// The maps of a container that has a range of the pool.
pub(super) fn maps_of(range: IdRange) -> IdMaps {
    let line = IdMap {
        container_id: 0,
        host_id: range.first,
        size: range.size,
    };
    IdMaps {
        uid: vec![line],
        gid: vec![line],
    }
}

/// As the helper told it.
pub(super) fn mount_idmap(report: &MountReport) -> MountIdmap {
    MountIdmap {
        destination: report.destination.to_string_lossy().into_owned(),
        state: match report.state {
            littlebox_protocol::IdmapState::Mapped => IdmapState::Mapped,
            littlebox_protocol::IdmapState::Partly => IdmapState::Partly,
            littlebox_protocol::IdmapState::Refused => IdmapState::Refused,
            littlebox_protocol::IdmapState::Off => IdmapState::Off,
            littlebox_protocol::IdmapState::NotApplicable => IdmapState::NotApplicable,
        },
    }
}

/// An exec's record.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ExecRecord {
    /// Its container.
    pub container: ContainerId,
    /// State.
    pub state: ExecState,
    /// argv.
    pub command: Vec<String>,
    /// Has a terminal.
    pub terminal: bool,
    /// Clients may write to stdin.
    pub stdin: bool,
    /// Lossless towards a foreground client.
    pub attach: bool,
    /// While it runs.
    pub pid: Option<u32>,
    /// Nanoseconds since the epoch.
    pub created_at: i64,
    /// Nanoseconds since the epoch.
    pub finished_at: Option<i64>,
    /// How it ended.
    pub exit: Option<Exit>,
    /// Why it could not start.
    pub failure: Option<Failure>,
    /// Exit code for `failure`.
    pub failure_code: Option<i32>,
    /// What could not be done and was not essential.
    #[serde(default)]
    pub warnings: Vec<String>,
}

/// A transition of an exec that comes too late: it has happened, or the exec is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TooLate;

impl ExecRecord {
    /// Moves on, and returns the state before.
    ///
    /// # Errors
    /// [`TooLate`]; nothing has changed then.
    pub fn transition(&mut self, transition: exec::Transition) -> Result<ExecState, TooLate> {
        let to = exec::next(self.state, transition).ok_or(TooLate)?;
        Ok(std::mem::replace(&mut self.state, to))
    }

    /// As the API shows it, without output.
    pub fn exec(&self, id: ExecId) -> Exec {
        Exec {
            id,
            container_id: self.container,
            state: self.state,
            command: self.command.clone(),
            terminal: self.terminal,
            pid: self.pid,
            created_at: rfc3339(self.created_at),
            finished_at: self.finished_at.map(rfc3339),
            exit: self.exit.clone(),
            failure: self.failure.clone(),
            warnings: self.warnings.clone(),
            output: None,
        }
    }
}

/// The helper's exit record as the API shows it.
pub(super) fn exit_of(record: &ExitRecord) -> Exit {
    let status = match record.status {
        ProcessExit::Code(code) => ExitStatus::Exited { code },
        ProcessExit::Signal(signal) => ExitStatus::Signaled {
            signal,
            signal_name: signal_name(signal),
        },
    };
    Exit {
        status,
        oom_killed: record.oom_killed,
        timed_out: record.timed_out,
        output_truncated: record.output_truncated,
        lost_output_bytes: record.lost_output_bytes,
    }
}

/// Reads an exit record; `None`: there is none. A torn one counts as none, too: it is written by
/// rename, so its disk is damaged.
///
/// # Errors
/// Any other: nobody knows then whether there is one.
pub(super) fn read_exit_record(path: &Path) -> io::Result<Option<ExitRecord>> {
    let text = match std::fs::read(path) {
        Ok(text) => text,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(e),
    };
    match serde_json::from_slice(&text) {
        Ok(record) => Ok(Some(record)),
        Err(error) => {
            tracing::error!(%error, path = %path.display(), "an exit record is damaged");
            Ok(None)
        }
    }
}

/// When a process began, in nanoseconds since the epoch, by its start time in clock ticks since boot
/// (proc_pid_stat(5); user space always sees 100 a second).
pub(super) fn run_began(start_time: u64) -> i64 {
    const TICK_NS: i64 = 10_000_000;
    let up = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    let up_ns = up.tv_sec.saturating_mul(1_000_000_000) + up.tv_nsec;
    let ago = up_ns
        - i64::try_from(start_time)
            .unwrap_or(0)
            .saturating_mul(TICK_NS);
    now_ns() - ago.max(0)
}

/// An end that nobody saw.
pub(super) fn unknown_exit(detail: impl Into<String>) -> Exit {
    Exit {
        status: ExitStatus::Unknown {
            detail: detail.into(),
        },
        oom_killed: false,
        timed_out: false,
        output_truncated: false,
        lost_output_bytes: 0,
    }
}
