//! What a plan needs beside the OCI runtime spec.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use serde_json::{Map, Value};

use littlebox_protocol::{
    Defence, ExistingCgroup, IdMapping, Injection, LayerIdmap, LogPlan, NamespaceKind,
    RootfsSource, SeccompPlan, TerminalSize, UserPlan,
};

/// On whose behalf a spec is planned.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Authority {
    /// A client of the API: it decides about its container, and about nothing that is the host's or
    /// another container's.
    #[default]
    Client,
    /// The host's administrator, or an engine that acts as such: the OCI command line. Hooks are run,
    /// and a namespace that is joined by its path may be given a host name and sysctls (a container
    /// of a pod joins what the pod's first container has made).
    Host,
}

/// What the caller decides about a container, beside its spec.
#[derive(Debug, Clone, PartialEq)]
pub struct Envelope {
    /// The container's id.
    pub id: String,
    /// Absolute path of the helper's own 0700 directory.
    pub run_dir: PathBuf,
    /// What the root is made from; `root.path` of the spec is not read.
    pub rootfs: RootfsSource,
    /// Where the output goes.
    pub log: LogPlan,
    /// The cgroup's path below each hierarchy's root. `None`: the spec's own `linux.cgroupsPath`,
    /// and without that no cgroup.
    pub cgroup_path: Option<PathBuf>,
    /// What becomes of that cgroup when it is there already.
    pub existing_cgroup: ExistingCgroup,
    /// On whose behalf.
    pub authority: Authority,
    /// None of the limits was asked for: a host whose cgroup tree cannot be used starts the
    /// container without them, with a warning.
    pub cgroup_best_effort: bool,
    /// For each joined namespace the index of its descriptor beside the launch message: one for
    /// every namespace to which the spec gives a path, and for those that the caller opened itself.
    pub joins: BTreeMap<NamespaceKind, usize>,
    /// Who runs the program, when the spec's numbers do not say it (names, resolved in the
    /// container); `None`: `process.user`.
    pub user: Option<UserPlan>,
    /// Make the working directory when it is missing.
    pub create_cwd: bool,
    /// The terminal's first size; `None`: `process.consoleSize`, else 24 x 80.
    pub terminal_size: Option<TerminalSize>,
    /// Clients can write to stdin.
    pub stdin: bool,
    /// littlebox's reaping init is PID 1.
    pub init: bool,
    /// Output is lossless towards a foreground client.
    pub gate: bool,
    /// Container paths that must not be seen, beside the masked ones: the daemon's own directories
    /// inside a `host` root. Covered by an empty read-only tmpfs; one that is missing is passed over.
    pub hidden: Vec<PathBuf>,
    /// The id maps of a joined user namespace, users and groups, where they are known.
    pub joined_ids: Option<(Vec<IdMapping>, Vec<IdMapping>)>,
    /// Binds of the spec, by their index in `mounts`, that are idmapped where that is possible.
    pub idmap_where_possible: BTreeSet<usize>,
    /// The seccomp filter, when the caller has compiled it; `None`: the spec's `linux.seccomp`, and
    /// without that none.
    pub seccomp: Option<SeccompPlan>,
    /// What a seccomp agent is told (see [`ListenerPlan::state`]).
    ///
    /// [`ListenerPlan::state`]: littlebox_protocol::ListenerPlan::state
    pub state: Map<String, Value>,
    /// How long the start may take, in milliseconds; `None`: without limit.
    pub start_timeout_ms: Option<u64>,
    /// Test only: a failure to provoke.
    pub inject: Option<Injection>,
    /// Test only: a defence to leave out.
    pub weaken: Option<Defence>,
    /// Test only: how the root is idmapped.
    pub layer_idmap: LayerIdmap,
}

impl Envelope {
    /// An envelope with nothing optional in it.
    pub fn new(id: String, run_dir: PathBuf, rootfs: RootfsSource, log: LogPlan) -> Self {
        Self {
            id,
            run_dir,
            rootfs,
            log,
            cgroup_path: None,
            existing_cgroup: ExistingCgroup::default(),
            authority: Authority::default(),
            cgroup_best_effort: false,
            joins: BTreeMap::new(),
            user: None,
            create_cwd: false,
            terminal_size: None,
            stdin: false,
            init: false,
            gate: false,
            hidden: Vec::new(),
            joined_ids: None,
            idmap_where_possible: BTreeSet::new(),
            seccomp: None,
            state: Map::new(),
            start_timeout_ms: None,
            inject: None,
            weaken: None,
            layer_idmap: LayerIdmap::Auto,
        }
    }
}

/// What the caller decides about an exec, beside its `process` object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExecEnvelope {
    /// The exec's id.
    pub id: String,
    /// Where its output goes.
    pub log: LogPlan,
    /// Absolute path of the file its exit record is written to.
    pub exit_record: PathBuf,
    /// As in [`Envelope::user`].
    pub user: Option<UserPlan>,
    /// Make the working directory when it is missing.
    pub create_cwd: bool,
    /// As in [`Envelope::terminal_size`].
    pub terminal_size: Option<TerminalSize>,
    /// Clients can write to stdin.
    pub stdin: bool,
    /// Output is lossless towards a foreground client.
    pub gate: bool,
    /// The seccomp filter; `None`: none.
    pub seccomp: Option<SeccompPlan>,
    /// As in [`Envelope::state`].
    pub state: Map<String, Value>,
    /// Kill it after this many milliseconds.
    pub timeout_ms: Option<u64>,
    /// As in [`Envelope::start_timeout_ms`].
    pub start_timeout_ms: Option<u64>,
}
