//! `stop restart kill pause resume rm rename wait`.

use std::time::Duration;

use clap::{Args, ValueEnum};
use lbctl::client::ClientError;
use littlebox_types::{
    ContainerPatch, KillRequest, Name, Problem, Signal, StopRequest, WaitFor, WaitResult,
};

use super::error::Failure;
use super::retry::Patience;
use super::time::parse_duration;
use super::{Context, many, output};

// Containers to act on.
#[derive(Debug, Args)]
pub struct Containers {
    /// Containers, by name or id
    #[arg(required = true, value_name = "CONTAINER")]
    names: Vec<String>,
}

// `lbctl stop` and `lbctl restart`.
#[derive(Debug, Args)]
pub struct StopArgs {
    /// Signal that asks the program to exit
    #[arg(short, long, value_name = "SIGNAL")]
    signal: Option<Signal>,
    /// Seconds between that signal and SIGKILL; 0 kills at once
    #[arg(short, long, alias = "timeout", value_name = "SECONDS")]
    time: Option<u32>,
    #[command(flatten)]
    containers: Containers,
}

impl StopArgs {
    fn request(&self) -> StopRequest {
        StopRequest {
            signal: self.signal,
            timeout_s: self.time,
        }
    }
}

/// Stops containers: the stop signal, time, SIGKILL. One that does not run is stopped already.
pub async fn stop(ctx: &Context, args: StopArgs) -> Result<i32, Failure> {
    let request = args.request();
    many::each_container(ctx, &args.containers.names, async |name| {
        match ctx.client.stop_container(name, &request, None).await {
            Ok((container, _)) => Ok(container),
            Err(ClientError::Problem(p)) if is_at_rest(&p) => ctx.client.container(name).await,
            Err(e) => Err(e),
        }
    })
    .await
}

/// Whether a request was refused because the container does not run.
fn is_at_rest(problem: &Problem) -> bool {
    let state = problem.state.as_deref().unwrap_or_default();
    problem.code == "invalid_state" && matches!(state, "created" | "exited" | "failed")
}

/// Stops and starts containers.
pub async fn restart(ctx: &Context, args: StopArgs) -> Result<i32, Failure> {
    let request = args.request();
    many::each_container(ctx, &args.containers.names, async |name| {
        ctx.client.restart_container(name, &request).await
    })
    .await
}

// `lbctl kill`.
#[derive(Debug, Args)]
pub struct KillArgs {
    /// Signal, by name or number
    #[arg(short, long, value_name = "SIGNAL", default_value_t = Signal::KILL)]
    signal: Signal,
    /// Signal every process in the container, not only PID 1
    #[arg(short, long)]
    all: bool,
    #[command(flatten)]
    containers: Containers,
}

/// Signals containers.
pub async fn kill(ctx: &Context, args: KillArgs) -> Result<i32, Failure> {
    let request = KillRequest {
        signal: Some(args.signal),
        all: args.all,
    };
    many::each(ctx, &args.containers.names, async |name| {
        ctx.client.kill_container(name, &request).await
    })
    .await
}

/// Pauses containers.
pub async fn pause(ctx: &Context, args: Containers) -> Result<i32, Failure> {
    let pause = async |name: &str| ctx.client.pause_container(name).await;
    many::each_container(ctx, &args.names, pause).await
}

/// Resumes paused containers.
pub async fn resume(ctx: &Context, args: Containers) -> Result<i32, Failure> {
    let resume = async |name: &str| ctx.client.resume_container(name).await;
    many::each_container(ctx, &args.names, resume).await
}

// `lbctl rm`.
#[derive(Debug, Args)]
pub struct RmArgs {
    /// Kill and remove running containers too
    #[arg(short, long)]
    force: bool,
    #[command(flatten)]
    containers: Containers,
}

/// Removes containers.
pub async fn rm(ctx: &Context, args: RmArgs) -> Result<i32, Failure> {
    many::each(ctx, &args.containers.names, async |name| {
        ctx.client
            .remove_container(name, args.force, None)
            .await
            .map(drop)
    })
    .await
}

// `lbctl rename`.
#[derive(Debug, Args)]
pub struct RenameArgs {
    /// Container
    container: String,
    /// New name
    name: Name,
}

/// Gives a container another name.
pub async fn rename(ctx: &Context, args: RenameArgs) -> Result<i32, Failure> {
    let patch = ContainerPatch {
        name: Some(args.name),
        ..ContainerPatch::default()
    };
    let container = ctx
        .client
        .update_container(&args.container, &patch, None)
        .await?;
    if ctx.json {
        output::json(&container)?;
    }
    Ok(0)
}

// `lbctl wait`.
#[derive(Debug, Args)]
pub struct WaitArgs {
    /// What to wait for
    #[arg(long = "for", value_name = "CONDITION", default_value = "exited")]
    condition: Condition,
    /// Give up after this time
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    timeout: Option<Duration>,
    #[command(flatten)]
    containers: Containers,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Condition {
    /// The container has exited
    Exited,
    /// The container is running, or has run
    Running,
    /// The container has been removed
    Removed,
}

impl From<Condition> for WaitFor {
    fn from(condition: Condition) -> Self {
        match condition {
            Condition::Exited => WaitFor::Exited,
            Condition::Running => WaitFor::Running,
            Condition::Removed => WaitFor::Removed,
        }
    }
}

/// Waits, and prints how each ended.
pub async fn wait(ctx: &Context, args: WaitArgs) -> Result<i32, Failure> {
    let condition = args.condition.into();
    let mut late = false;
    let code = many::each_with(
        ctx,
        &args.containers.names,
        async |name| patient_wait(ctx, name, condition, args.timeout).await,
        |name, result: WaitResult| {
            if !result.satisfied {
                late = true;
                eprintln!("lbctl: {}: timed out", super::sanitize::text(name));
            }
            if ctx.json {
                output::json(&result)
            } else {
                tell(&result, condition)
            }
        },
    )
    .await?;
    Ok(if late { 1 } else { code })
}

/// Waits also over a restart of the daemon.
async fn patient_wait(
    ctx: &Context,
    name: &str,
    condition: WaitFor,
    timeout: Option<Duration>,
) -> Result<WaitResult, ClientError> {
    let mut patience = Patience::new();
    let started = tokio::time::Instant::now();
    loop {
        let left = timeout.map(|t| t.saturating_sub(started.elapsed()));
        match ctx.client.wait_container(name, condition, left).await {
            Ok(result) => return Ok(result),
            Err(e) if patience.again(&e).await => {}
            Err(e) => return Err(e),
        }
    }
}

fn tell(result: &WaitResult, condition: WaitFor) -> Result<(), Failure> {
    let exit = result
        .exit
        .as_ref()
        .filter(|_| condition != WaitFor::Running && result.satisfied);
    match exit.map(|exit| exit.status.shell_code()) {
        Some(Some(code)) => output::line(&code.to_string()),
        // Never a number that could be taken for a success.
        Some(None) => output::line("unknown"),
        None if !result.satisfied => Ok(()),
        None => match (&result.failure, result.state) {
            (Some(failure), _) => output::line(&format!(
                "failed ({})",
                super::sanitize::text(&failure.step)
            )),
            (None, Some(state)) => output::line(state.name()),
            (None, None) => output::line("removed"),
        },
    }
}
