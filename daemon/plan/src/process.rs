//! The `process` object of a spec (OCI config.md, "process").

use std::collections::HashSet;

use littlebox_protocol::{
    ExecPlan, ProcessPlan, RlimitPlan, SeccompPlan, TerminalSize, UserPlan, UserRef,
};
use oci_spec::runtime::{PosixRlimit, PosixRlimitType, Process, User};

use crate::{ExecEnvelope, PlanError, capability, labels, scheduling, seccomp};

/// What a terminal measures when nobody says it.
const DEFAULT_TERMINAL: TerminalSize = TerminalSize { rows: 24, cols: 80 };

/// Makes the plan of an exec from an OCI `process` object.
///
/// # Errors
/// A [`PlanError`] names the first value that is wrong or cannot be expressed; its pointer is
/// relative to the process object.
pub fn exec_plan(process: &Process, mut envelope: ExecEnvelope) -> Result<ExecPlan, PlanError> {
    seccomp::introduce(envelope.seccomp.as_mut(), envelope.state);
    let about = About {
        user: envelope.user,
        create_cwd: envelope.create_cwd,
        terminal_size: envelope.terminal_size,
        seccomp: envelope.seccomp,
    };
    Ok(ExecPlan {
        id: envelope.id,
        process: plan(process, about, "")?,
        stdin: envelope.stdin,
        log: envelope.log,
        gate: envelope.gate,
        timeout_ms: envelope.timeout_ms,
        start_timeout_ms: envelope.start_timeout_ms,
        exit_record: envelope.exit_record,
    })
}

/// What the envelope says about a process.
pub(crate) struct About {
    pub(crate) user: Option<UserPlan>,
    pub(crate) create_cwd: bool,
    pub(crate) terminal_size: Option<TerminalSize>,
    pub(crate) seccomp: Option<SeccompPlan>,
}

/// Plans a process; `base` is the pointer of its object.
pub(crate) fn plan(process: &Process, about: About, base: &str) -> Result<ProcessPlan, PlanError> {
    let terminal = match process.terminal() {
        Some(true) => Some(
            about
                .terminal_size
                .unwrap_or_else(|| terminal_size(process)),
        ),
        _ => None,
    };
    if !process.cwd().is_absolute() || process.cwd().as_os_str().as_encoded_bytes().contains(&0) {
        return Err(PlanError::new(
            format!("{base}/cwd"),
            "the working directory must be an absolute path",
        ));
    }
    Ok(ProcessPlan {
        args: args(process, base)?,
        env: env(process, base)?,
        cwd: process.cwd().clone(),
        create_cwd: about.create_cwd,
        user: match about.user {
            Some(user) => user,
            None => user(process.user(), base)?,
        },
        terminal,
        capabilities: capability::plan(process.capabilities().as_ref()),
        no_new_privileges: process.no_new_privileges() == Some(true),
        seccomp: about.seccomp,
        rlimits: rlimits(process.rlimits().as_deref().unwrap_or_default(), base)?,
        oom_score_adj: oom_score_adj(process, base)?,
        labels: labels::plan(process, base)?,
        scheduling: scheduling::plan(process, base)?,
    })
}

fn terminal_size(process: &Process) -> TerminalSize {
    let cells = |n: u64| u16::try_from(n).unwrap_or(u16::MAX);
    match process.console_size() {
        Some(size) if size.height() > 0 && size.width() > 0 => TerminalSize {
            rows: cells(size.height()),
            cols: cells(size.width()),
        },
        _ => DEFAULT_TERMINAL,
    }
}

fn args(process: &Process, base: &str) -> Result<Vec<String>, PlanError> {
    let args = process.args().as_deref().unwrap_or_default();
    if args.first().is_none_or(String::is_empty) {
        return Err(PlanError::new(
            format!("{base}/args"),
            "there is no program to run; args[0] names it",
        ));
    }
    match args.iter().position(|arg| arg.contains('\0')) {
        Some(i) => Err(PlanError::new(
            format!("{base}/args/{i}"),
            "an argument may not contain a zero byte",
        )),
        None => Ok(args.to_vec()),
    }
}

fn env(process: &Process, base: &str) -> Result<Vec<String>, PlanError> {
    let env = process.env().as_deref().unwrap_or_default();
    let valid = |entry: &String| entry.find('=').is_some_and(|at| at > 0) && !entry.contains('\0');
    match env.iter().position(|entry| !valid(entry)) {
        Some(i) => Err(PlanError::new(
            format!("{base}/env/{i}"),
            "an environment entry is KEY=VALUE without a zero byte",
        )),
        None => Ok(last_of_each(env)),
    }
}

/// Of entries with the same name the last, in its place: a program's getenv(3) finds the first.
fn last_of_each(env: &[String]) -> Vec<String> {
    let name = |entry: &str| entry.split('=').next().unwrap_or_default().to_owned();
    let mut seen = HashSet::new();
    let mut kept: Vec<String> = env
        .iter()
        .rev()
        .filter(|entry| seen.insert(name(entry)))
        .cloned()
        .collect();
    kept.reverse();
    kept
}

fn user(user: &User, base: &str) -> Result<UserPlan, PlanError> {
    let id = |n: u32, field: &str| match n {
        u32::MAX => Err(PlanError::new(
            format!("{base}/user/{field}"),
            "4294967295 is not an id",
        )),
        n => Ok(UserRef::Id(n)),
    };
    let additional = user.additional_gids().as_deref().unwrap_or_default();
    Ok(UserPlan {
        user: id(user.uid(), "uid")?,
        group: Some(id(user.gid(), "gid")?),
        additional_groups: additional
            .iter()
            .map(|gid| id(*gid, "additionalGids"))
            .collect::<Result<_, _>>()?,
        umask: user.umask(),
    })
}

fn oom_score_adj(process: &Process, base: &str) -> Result<Option<i32>, PlanError> {
    match process.oom_score_adj() {
        Some(n) if !(-1000..=1000).contains(&n) => Err(PlanError::new(
            format!("{base}/oomScoreAdj"),
            format!("oomScoreAdj is -1000 to 1000, not {n}"),
        )),
        other => Ok(other),
    }
}

fn rlimits(limits: &[PosixRlimit], base: &str) -> Result<Vec<RlimitPlan>, PlanError> {
    let mut plan: Vec<RlimitPlan> = Vec::with_capacity(limits.len());
    for (i, limit) in limits.iter().enumerate() {
        let resource = rlimit_name(limit.typ());
        let at = || format!("{base}/rlimits/{i}");
        if plan.iter().any(|earlier| earlier.resource == resource) {
            return Err(PlanError::new(
                at(),
                format!("the limit {resource} is given twice"),
            ));
        }
        if limit.soft() > limit.hard() {
            return Err(PlanError::new(
                at(),
                format!("the soft limit of {resource} is above its hard limit"),
            ));
        }
        let bound = |n: u64| (n != u64::MAX).then_some(n);
        plan.push(RlimitPlan {
            resource: resource.to_owned(),
            soft: bound(limit.soft()),
            hard: bound(limit.hard()),
        });
    }
    Ok(plan)
}

/// A resource limit's name in plans: `RLIMIT_NOFILE` is `nofile`.
pub fn rlimit_name(typ: PosixRlimitType) -> &'static str {
    match typ {
        PosixRlimitType::RlimitCpu => "cpu",
        PosixRlimitType::RlimitFsize => "fsize",
        PosixRlimitType::RlimitData => "data",
        PosixRlimitType::RlimitStack => "stack",
        PosixRlimitType::RlimitCore => "core",
        PosixRlimitType::RlimitRss => "rss",
        PosixRlimitType::RlimitNproc => "nproc",
        PosixRlimitType::RlimitNofile => "nofile",
        PosixRlimitType::RlimitMemlock => "memlock",
        PosixRlimitType::RlimitAs => "as",
        PosixRlimitType::RlimitLocks => "locks",
        PosixRlimitType::RlimitSigpending => "sigpending",
        PosixRlimitType::RlimitMsgqueue => "msgqueue",
        PosixRlimitType::RlimitNice => "nice",
        PosixRlimitType::RlimitRtprio => "rtprio",
        PosixRlimitType::RlimitRttime => "rttime",
    }
}
