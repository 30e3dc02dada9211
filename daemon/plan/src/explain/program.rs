//! The steps that make the process what the program will be.

use std::path::Path;

use littlebox_protocol::{LaunchPlan, UserRef};

use super::Explanation;
use super::shell::{join, quote, quote_path};
use crate::capability;

pub(super) fn session(plan: &LaunchPlan) -> Explanation {
    Some(if plan.process.terminal.is_some() {
        (
            "A new session takes the pseudo terminal as its controlling one; the caller's own stays out of reach.".into(),
            vec!["setsid --ctty sh".into()],
        )
    } else {
        (
            "A new session cuts the process off from the helper's terminal and process group."
                .into(),
            vec!["setsid sh".into()],
        )
    })
}

pub(super) fn security_labels(plan: &LaunchPlan) -> Explanation {
    let labels = &plan.process.labels;
    let apparmor = labels.apparmor.as_ref().map(|profile| {
        let text = quote(&format!("exec {profile}"));
        format!("printf %s {text} > /proc/self/attr/apparmor/exec")
    });
    let selinux = labels
        .selinux
        .as_ref()
        .map(|label| format!("printf %s {} > /proc/self/attr/exec", quote(label)));
    let commands: Vec<String> = apparmor.into_iter().chain(selinux).collect();
    (!commands.is_empty()).then(|| {
        (
            "The label that the program gets at its execve is written, through a procfs that no mount or link of the container can redirect.".into(),
            commands,
        )
    })
}

pub(super) fn scheduling(plan: &LaunchPlan) -> Explanation {
    let scheduling = &plan.process.scheduling;
    let persona = scheduling
        .personality
        .map(|persona| format!("setarch --verbose linux32 sh  # personality({persona:#x})"));
    let scheduler = scheduling.scheduler.as_ref().map(|s| {
        let policy = match s.policy {
            1 => "--fifo",
            2 => "--rr",
            3 => "--batch",
            5 => "--idle",
            6 => "--deadline",
            _ => "--other",
        };
        match s.policy {
            0 | 3 => format!("chrt {policy} --pid 0 $$ && renice -n {} -p $$", s.nice),
            _ => format!("chrt {policy} --pid {} $$", s.priority),
        }
    });
    let memory = scheduling
        .memory_policy
        .as_ref()
        .map(|policy| format!("# set_mempolicy({:#x}, {:?})", policy.mode, policy.nodes));
    let io = scheduling
        .io_priority
        .map(|io| format!("ionice -c {} -n {} -p $$", io.class, io.level));
    let commands: Vec<String> = [persona, memory, scheduler, io]
        .into_iter()
        .flatten()
        .collect();
    (!commands.is_empty()).then(|| {
        (
            "Execution domain, memory policy, scheduler and I/O priority are set, while the process may still raise them.".into(),
            commands,
        )
    })
}

fn name(user: &UserRef) -> String {
    match user {
        UserRef::Id(n) => n.to_string(),
        UserRef::Name(name) => quote(name),
    }
}

pub(super) fn user(plan: &LaunchPlan) -> Explanation {
    let user = &plan.process.user;
    let named = [Some(&user.user), user.group.as_ref()]
        .into_iter()
        .flatten()
        .any(|r| matches!(r, UserRef::Name(_)));
    let groups: Vec<String> = user.additional_groups.iter().map(name).collect();
    let groups = if groups.is_empty() {
        "--clear-groups".into()
    } else {
        format!("--groups={}", groups.join(","))
    };
    let group = match &user.group {
        Some(group) => name(group),
        None => format!("$(id -g {})", name(&user.user)),
    };
    let mut commands = Vec::new();
    if let Some(umask) = user.umask {
        commands.push(format!("umask {umask:04o}"));
    }
    commands.push(format!(
        "setpriv --reuid={} --regid={group} {groups} sh",
        name(&user.user)
    ));
    let what = if named {
        "The user's name is looked up in the container's own /etc/passwd and /etc/group, read as plain bounded files; then groups and ids are set."
    } else {
        "Groups and ids of the program are set."
    };
    Some((what.into(), commands))
}

pub(super) fn cwd(plan: &LaunchPlan) -> Explanation {
    let cwd = quote_path(&plan.process.cwd);
    let mut commands = Vec::new();
    if plan.process.create_cwd && plan.process.cwd != Path::new("/") {
        commands.push(format!("mkdir -p {cwd}"));
    }
    commands.push(format!("cd {cwd}"));
    Some((
        "The working directory is entered, with the rights of the container's root where it may, and checked to lie inside the container's root.".into(),
        commands,
    ))
}

pub(super) fn rlimits(plan: &LaunchPlan) -> Explanation {
    let bound = |n: Option<u64>| n.map_or_else(|| "unlimited".to_owned(), |n| n.to_string());
    let mut commands: Vec<String> = plan
        .process
        .rlimits
        .iter()
        .map(|l| {
            format!(
                "prlimit --pid $$ --{}={}:{}",
                l.resource,
                bound(l.soft),
                bound(l.hard)
            )
        })
        .collect();
    if let Some(score) = plan.process.oom_score_adj {
        commands.push(format!("choom -p $$ -n {score}"));
    }
    (!commands.is_empty()).then(|| ("Resource limits of the process are set.".into(), commands))
}

pub(super) fn capabilities(plan: &LaunchPlan) -> Explanation {
    let sets = &plan.process.capabilities;
    let set = |mask: u64| {
        let mut words = vec!["-all".to_owned()];
        words.extend(capability::names(mask).map(|name| name.replacen("cap_", "+", 1)));
        words.join(",")
    };
    Some((
        format!(
            "Of all privileges {} remain, and none beyond them can be gained.",
            sets.bounding.count_ones()
        ),
        vec![format!(
            "setpriv --bounding-set={} --inh-caps={} --ambient-caps={} sh",
            set(sets.bounding),
            set(sets.inheritable),
            set(sets.ambient)
        )],
    ))
}

pub(super) fn no_new_privileges(plan: &LaunchPlan) -> Explanation {
    plan.process.no_new_privileges.then(|| {
        (
            "From here on no execve gives privileges: set-user-ID programs run as who starts them."
                .into(),
            vec!["setpriv --no-new-privs sh".into()],
        )
    })
}

pub(super) fn seccomp(plan: &LaunchPlan) -> Explanation {
    let filter = plan.process.seccomp.as_ref()?;
    let mut what = format!(
        "A seccomp filter of {} instructions decides about each system call from here on, for every child too; it comes from {} profile and cannot be taken off.",
        filter.program.0.len(),
        match filter.profile.as_str() {
            "" | "default" => "the default",
            name => name,
        },
    );
    if !filter.unknown.is_empty() {
        what.push_str(&format!(
            " Names in it that no system call has are passed over: {}.",
            filter.unknown.join(", ").escape_debug()
        ));
    }
    if let Some(listener) = &filter.listener {
        let mut calls = listener.calls.clone();
        calls.extend(listener.others.then(|| "what no rule names".to_owned()));
        what.push_str(&format!(
            " An agent of the host, which listens at {}, decides about: {}; without it they fail with ENOSYS.",
            listener.path.display().to_string().escape_debug(),
            calls.join(", ").escape_debug()
        ));
    }
    let command = "setpriv --seccomp-filter filter.bpf sh  # util-linux 2.41";
    Some((what, vec![command.into()]))
}

pub(super) fn exec(plan: &LaunchPlan) -> Explanation {
    let process = &plan.process;
    let environment = join(&process.env);
    let space = if environment.is_empty() { "" } else { " " };
    let what = if plan.init {
        "A small init stays as PID 1, starts the program and reaps orphans; when the program's execve succeeds, the container runs."
    } else {
        "The program takes the process over as PID 1; when its execve succeeds, the container runs."
    };
    Some((
        what.into(),
        vec![format!(
            "exec env -i {environment}{space}{}",
            join(&process.args)
        )],
    ))
}
