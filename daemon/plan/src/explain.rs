//! A plan as sentences and equivalent shell commands.
//!
//! The commands are what an administrator could type to get the same result with the tools of
//! util-linux, iproute2 and coreutils. `$ROOT` is the directory at which the root is built, `$PID`
//! the container's PID 1, `$TARGET` the process whose namespaces are joined. The helper itself runs
//! no command: it makes the system calls, by descriptor, and in a way that an image cannot redirect.

mod cgroups;
mod filesystem;
mod program;
mod shell;

use littlebox_protocol::cgroup::Layout;
use littlebox_protocol::{LaunchPlan, NamespaceKind, NamespacePlan, Step};

use shell::quote;

/// One step of a start, explained.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExplainedStep {
    /// Which.
    pub step: Step,
    /// What happens and why, as a sentence.
    pub what: String,
    /// Shell commands that would do the same, where there are any.
    pub commands: Vec<String>,
}

/// A sentence and commands; `None`: the plan does not need the step.
type Explanation = Option<(String, Vec<String>)>;

/// Explains every step that this plan needs, each once, in the order of the helper's work, for a host
/// with these control group hierarchies.
pub fn explain(plan: &LaunchPlan, host: &Layout) -> Vec<ExplainedStep> {
    Step::ALL
        .into_iter()
        .filter_map(|step| {
            let (what, commands) = explain_step(step, plan, host)?;
            Some(ExplainedStep {
                step,
                what,
                commands,
            })
        })
        .collect()
}

fn explain_step(step: Step, plan: &LaunchPlan, host: &Layout) -> Explanation {
    match step {
        Step::Checks => say("The helper reads the plan and makes itself unreadable for others (not dumpable), so that nothing inside can trace it while it enters."),
        Step::RunDir => run_dir(plan),
        Step::Cgroup => cgroups::create(plan, host),
        Step::Rootfs => filesystem::rootfs(plan),
        Step::Stdio => stdio(plan),
        Step::Clone => clone(plan),
        Step::IdMaps => id_maps(plan),
        Step::CgroupAttach => cgroups::attach(plan, host),
        Step::JoinNamespaces => join(plan),
        Step::CgroupNamespace => cgroup_namespace(plan),
        Step::Hostname => hostname(plan),
        Step::Loopback => plan.loopback_up.then(|| {
            ("The loopback interface of the new network namespace is brought up; a new one is down.".into(),
             vec!["ip link set lo up".into()])
        }),
        Step::TimeNamespace => time_namespace(plan),
        Step::Propagation => filesystem::propagation(plan),
        Step::AttachRoot => filesystem::attach_root(),
        Step::Mounts => filesystem::mounts(plan),
        Step::Devices => filesystem::devices(plan),
        Step::Terminal => filesystem::terminal(plan),
        Step::Sysctls => sysctls(plan),
        Step::SecurityLabels => program::security_labels(plan),
        Step::MaskedPaths => filesystem::masked_paths(plan),
        Step::Hooks => plan.hooks.any_before_pivot().then(|| {
            ("The hooks that come before pivot_root run, with the container's state on their stdin.".into(), Vec::new())
        }),
        Step::PivotRoot => filesystem::pivot_root(plan),
        Step::ReadonlyRoot => filesystem::readonly_root(plan),
        Step::Keyring => say("A session keyring of the program's own, without a name, comes instead of the daemon's: no key of the host is within reach."),
        Step::Session => program::session(plan),
        Step::Scheduling => program::scheduling(plan),
        Step::User => program::user(plan),
        Step::Cwd => program::cwd(plan),
        Step::Rlimits => program::rlimits(plan),
        Step::Capabilities => program::capabilities(plan),
        Step::NoNewPrivileges => program::no_new_privileges(plan),
        Step::CloseFds => say("Every descriptor but 0, 1 and 2 is closed, so that none leads out of the container."),
        Step::Seccomp => program::seccomp(plan),
        Step::Exec => program::exec(plan),
    }
}

/// A step without a command.
fn say(what: impl Into<String>) -> Explanation {
    Some((what.into(), Vec::new()))
}

fn run_dir(plan: &LaunchPlan) -> Explanation {
    Some((
        format!(
            "The helper opens its own directory, in which it listens for a restarted daemon, and the log {}.",
            plan.log.path.display()
        ),
        vec![format!(
            "install -d -m 0700 {}",
            quote(&plan.run_dir.to_string_lossy())
        )],
    ))
}

fn stdio(plan: &LaunchPlan) -> Explanation {
    if plan.process.terminal.is_some() {
        return say("The program gets a terminal; it is made inside, when /dev/pts is there.");
    }
    let stdin = if plan.stdin {
        "a pipe that clients can write to"
    } else {
        "/dev/null"
    };
    say(format!(
        "Pipes are made for stdout and stderr, which the helper writes to the log; stdin is {stdin}."
    ))
}

/// The long option of unshare(1) and nsenter(1).
fn option(kind: NamespaceKind) -> &'static str {
    match kind {
        NamespaceKind::Mnt => "--mount",
        NamespaceKind::Uts => "--uts",
        NamespaceKind::Ipc => "--ipc",
        NamespaceKind::Net => "--net",
        NamespaceKind::Pid => "--pid",
        NamespaceKind::User => "--user",
        NamespaceKind::Cgroup => "--cgroup",
        NamespaceKind::Time => "--time",
    }
}

fn kinds(plan: &LaunchPlan, wanted: impl Fn(NamespacePlan) -> bool) -> Vec<NamespaceKind> {
    plan.namespaces
        .iter()
        .filter(|(_, source)| wanted(**source))
        .map(|(kind, _)| *kind)
        .collect()
}

fn list(kinds: &[NamespaceKind]) -> String {
    kinds
        .iter()
        .map(|kind| kind.name())
        .collect::<Vec<_>>()
        .join(", ")
}

fn clone(plan: &LaunchPlan) -> Explanation {
    let mut new = kinds(plan, |source| source == NamespacePlan::New);
    new.retain(|kind| match kind {
        NamespaceKind::Cgroup => false,
        NamespaceKind::Time => plan.time_offsets.is_empty(),
        _ => true,
    });
    let mut what = format!(
        "The container's first process is made with one clone3 call, in new namespaces: {}.",
        list(&new)
    );
    if !new.contains(&NamespaceKind::Mnt) {
        what.push_str(" It gets a mount namespace as well, to build its tree in.");
        new.push(NamespaceKind::Mnt);
    }
    let options: Vec<&str> = new.iter().map(|kind| option(*kind)).collect();
    Some((
        what,
        vec![format!("unshare --fork {} sh", options.join(" "))],
    ))
}

fn id_maps(plan: &LaunchPlan) -> Explanation {
    if plan.namespaces.get(&NamespaceKind::User) != Some(&NamespacePlan::New) {
        return None;
    }
    let maps = [("uid_map", &plan.uid_map), ("gid_map", &plan.gid_map)];
    let commands = maps.map(|(file, map)| {
        let lines: Vec<String> = map
            .iter()
            .map(|m| format!("'{} {} {}'", m.container_id, m.host_id, m.size))
            .collect();
        format!("printf '%s\\n' {} > /proc/$PID/{file}", lines.join(" "))
    });
    Some((
        "The user namespace learns which of its ids are which on the host.".into(),
        commands.into(),
    ))
}

fn join(plan: &LaunchPlan) -> Explanation {
    let mut joined = kinds(plan, |source| matches!(source, NamespacePlan::Join(_)));
    // When the tree is finished.
    joined.retain(|kind| *kind != NamespaceKind::Mnt);
    if joined.is_empty() {
        return None;
    }
    let options: Vec<String> = joined
        .iter()
        .map(|kind| format!("{}=/proc/$TARGET/ns/{}", option(*kind), kind.name()))
        .collect();
    Some((
        format!(
            "Namespaces that exist already are entered by descriptor: {}.",
            list(&joined)
        ),
        vec![format!("nsenter {} sh", options.join(" "))],
    ))
}

fn cgroup_namespace(plan: &LaunchPlan) -> Explanation {
    (plan.namespaces.get(&NamespaceKind::Cgroup) == Some(&NamespacePlan::New)).then(|| {
        (
            "A new cgroup namespace is entered after the control group, so that the container sees its own as the root.".into(),
            vec!["unshare --cgroup sh".into()],
        )
    })
}

fn hostname(plan: &LaunchPlan) -> Explanation {
    let names = [
        ("hostname", &plan.hostname),
        ("domainname", &plan.domainname),
    ];
    let commands: Vec<String> = names
        .into_iter()
        .filter_map(|(command, name)| Some(format!("{command} {}", quote(name.as_ref()?))))
        .collect();
    (!commands.is_empty()).then(|| {
        (
            "The container gets its name in its own UTS namespace.".into(),
            commands,
        )
    })
}

fn time_namespace(plan: &LaunchPlan) -> Explanation {
    if plan.time_offsets.is_empty() {
        return None;
    }
    let lines: Vec<String> = plan
        .time_offsets
        .iter()
        .map(|(clock, offset)| format!("'{} {} {}'", clock.name(), offset.secs, offset.nanos))
        .collect();
    Some((
        "A time namespace is made for the children of the first process, its clocks are set, and then it is entered: once a process is in it they are fixed.".into(),
        vec![
            "unshare --time sh".into(),
            format!("printf '%s\\n' {} > /proc/$$/timens_offsets", lines.join(" ")),
            "exec nsenter --time=/proc/$$/ns/time_for_children sh".into(),
        ],
    ))
}

fn sysctls(plan: &LaunchPlan) -> Explanation {
    if plan.sysctls.is_empty() {
        return None;
    }
    let commands = plan
        .sysctls
        .iter()
        .map(|(name, value)| format!("sysctl -w {}", quote(&format!("{name}={value}"))))
        .collect();
    Some((
        "Settings of the container's own namespaces are written; the host's stay as they are."
            .into(),
        commands,
    ))
}
