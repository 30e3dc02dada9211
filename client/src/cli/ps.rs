//! `ps`: containers in a table.

use clap::Args;
use lbctl::client::ListOptions;
use littlebox_types::{
    ContainerId, ContainerState, ContainerSummary, Exit, ExitStatus, Failure as StartFailure,
};

use super::error::Failure;
use super::table::{Column, Table, shorten};
use super::{Context, output, sanitize, time};

const COLUMNS: &[Column] = &[
    Column::whole("CONTAINER ID"),
    Column::text("NAME"),
    Column::text("ROOTFS"),
    Column::text("COMMAND"),
    Column::whole("STATUS"),
];
const COMMAND_WIDTH: usize = 40;
/// Why a start failed stands in the container itself, which is asked for; for so many at most.
const FAILURES_ASKED: usize = 32;

// `lbctl ps`.
#[derive(Debug, Args)]
pub struct PsArgs {
    /// Include containers that are not running
    #[arg(short, long)]
    all: bool,
    /// Print ids only
    #[arg(short, long)]
    quiet: bool,
    /// Filter: state=running, name=PART, label=K[=V], id=PREFIX; all must match
    #[arg(short, long, value_name = "K=V")]
    filter: Vec<String>,
    /// Show the N newest containers, in any state
    #[arg(short = 'n', long, value_name = "N")]
    last: Option<usize>,
    /// Do not shorten ids and commands
    #[arg(long)]
    no_trunc: bool,
}

/// Lists containers, the newest first.
pub async fn ps(ctx: &Context, args: PsArgs) -> Result<i32, Failure> {
    let by_state = args.filter.iter().any(|f| f.starts_with("state="));
    let all = args.all || args.last.is_some() || by_state;
    let options = ListOptions {
        filters: args.filter,
        ..ListOptions::default()
    };
    let mut items = ctx.client.all_containers(&options).await?;
    items.retain(|c| all || is_live(c.state));
    items.reverse();
    items.truncate(args.last.unwrap_or(usize::MAX));
    if ctx.json {
        return output::json(&items).map(|()| 0);
    }
    let id = |c: &ContainerSummary| {
        if args.no_trunc {
            c.id.to_string()
        } else {
            short_id(c.id)
        }
    };
    if args.quiet {
        let ids: String = items.iter().map(|c| id(c) + "\n").collect();
        return output::print(&ids).map(|()| 0);
    }
    let mut table = Table::new(COLUMNS);
    let mut asked = 0;
    for item in &items {
        let mut failure = None;
        if item.state == ContainerState::Failed && asked < FAILURES_ASKED {
            asked += 1;
            // It may be gone by now.
            let whole = ctx.client.container(&item.id.to_string()).await;
            failure = whole.ok().and_then(|c| c.failure);
        }
        let command = command_line(&item.command);
        let command = if args.no_trunc {
            command
        } else {
            shorten(&command, COMMAND_WIDTH)
        };
        let name = item.name.to_string();
        let state = status(item, failure.as_ref());
        table.row([id(item), name, item.rootfs.clone(), command, state]);
    }
    let width = output::width().filter(|_| !args.no_trunc);
    output::print(&table.render(width)).map(|()| 0)
}

fn is_live(state: ContainerState) -> bool {
    match state {
        ContainerState::Starting
        | ContainerState::Running
        | ContainerState::Paused
        | ContainerState::Stopping => true,
        ContainerState::Created
        | ContainerState::Exited
        | ContainerState::Failed
        | ContainerState::Removing => false,
    }
}

/// The last twelve digits: the first ones of a UUIDv7 are its time, alike for neighbours.
pub fn short_id(id: ContainerId) -> String {
    let whole = id.to_string();
    whole
        .get(whole.len().saturating_sub(12)..)
        .unwrap_or(&whole)
        .to_owned()
}

/// argv in one line, quoted where a shell would need it.
pub fn command_line(argv: &[String]) -> String {
    let plain = |c: char| c.is_alphanumeric() || "-_./=:,+@%".contains(c);
    let word = |arg: &String| {
        if !arg.is_empty() && arg.chars().all(plain) {
            arg.clone()
        } else {
            format!("'{}'", sanitize::text(&arg.replace('\'', "'\\''")))
        }
    };
    argv.iter().map(word).collect::<Vec<_>>().join(" ")
}

/// `running 5 minutes`, `exited (3) 2 hours ago`, `failed (exec: ENOENT)`.
fn status(item: &ContainerSummary, failure: Option<&StartFailure>) -> String {
    let lasting = |word: &str| format!("{word} {}", time::since(item.started_at.as_deref()));
    let ago = || {
        let age = time::since(item.finished_at.as_deref());
        if age.is_empty() {
            age
        } else {
            format!(" {age} ago")
        }
    };
    match item.state {
        ContainerState::Running | ContainerState::Paused => lasting(item.state.name()),
        ContainerState::Exited => {
            format!(
                "exited ({}){}",
                item.exit.as_ref().map_or("?".into(), exit),
                ago()
            )
        }
        ContainerState::Failed => match failure {
            Some(StartFailure {
                step,
                errno: Some(errno),
                ..
            }) => {
                format!("failed ({step}: {errno})")
            }
            Some(StartFailure { step, .. }) => format!("failed ({step})"),
            None => "failed".to_owned(),
        },
        state => state.name().to_owned(),
    }
}

/// `3`, `SIGKILL`, `unknown`; with `, out of memory`.
pub fn exit(exit: &Exit) -> String {
    let status = match &exit.status {
        ExitStatus::Exited { code } => code.to_string(),
        ExitStatus::Signaled { signal_name, .. } => signal_name.clone(),
        ExitStatus::Unknown { .. } => "unknown".to_owned(),
    };
    if exit.oom_killed {
        status + ", out of memory"
    } else {
        status
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn summary(state: ContainerState, exit: Option<Exit>) -> ContainerSummary {
        ContainerSummary {
            id: "0190b5a4-0000-7000-8000-0123456789ab".parse().unwrap(),
            name: "a".parse().unwrap(),
            state,
            rootfs: "host".into(),
            command: vec!["sh".into()],
            labels: Default::default(),
            pid: None,
            created_at: "2020-01-01T00:00:00Z".into(),
            started_at: Some(jiff::Timestamp::now().to_string()),
            finished_at: None,
            exit,
            generation: 1,
        }
    }

    fn signaled(oom_killed: bool) -> Exit {
        Exit {
            status: ExitStatus::Signaled {
                signal: 9,
                signal_name: "SIGKILL".into(),
            },
            oom_killed,
            timed_out: false,
            output_truncated: false,
            lost_output_bytes: 0,
        }
    }

    #[test]
    fn states_read_as_sentences() {
        let c = summary(ContainerState::Running, None);
        assert_eq!(status(&c, None), "running 0 seconds");
        let c = summary(ContainerState::Exited, Some(signaled(true)));
        assert_eq!(status(&c, None), "exited (SIGKILL, out of memory)");
        let unknown = ExitStatus::Unknown {
            detail: "lost".into(),
        };
        let c = summary(
            ContainerState::Exited,
            Some(Exit {
                status: unknown,
                ..signaled(false)
            }),
        );
        assert_eq!(status(&c, None), "exited (unknown)");
        let failure = StartFailure {
            step: "exec".into(),
            errno: Some("ENOENT".into()),
            syscall: None,
            path: None,
            detail: String::new(),
        };
        let c = summary(ContainerState::Failed, None);
        assert_eq!(status(&c, Some(&failure)), "failed (exec: ENOENT)");
    }

    #[test]
    fn ids_are_shown_by_their_random_end() {
        assert_eq!(
            short_id(summary(ContainerState::Created, None).id),
            "0123456789ab"
        );
    }

    #[test]
    fn command_lines_are_quoted_and_harmless() {
        let argv = ["sh", "-c", "echo 'a'\x1b[2J", ""].map(String::from);
        assert_eq!(command_line(&argv), "sh -c 'echo '\\''a'\\''\\x1b[2J' ''");
    }
}
