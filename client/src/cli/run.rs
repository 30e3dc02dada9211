//! `run` and `create`.

use std::time::Duration;

use clap::Args;
use lbctl::client::{AttachFrom, ClientError, CreateOptions};
use littlebox_types::{Container, ContainerConfig, Exit, ExitStatus, Signal, WaitFor};

use super::create_args::CreateArgs;
use super::detach::{self, DetachKeys, Scanner};
use super::error::{BROKEN_PIPE_CODE, Failure};
use super::session::{End, Options, Session, Target, send_signal};
use super::signals::Signals;
use super::{Context, output, plan, terminal};

/// How long a removal may take before `run --rm` ends without it.
const REMOVAL: Duration = Duration::from_secs(10);
/// How long a program may take to end of SIGPIPE.
const PIPE_GRACE: Duration = Duration::from_secs(1);

// `lbctl run`.
#[derive(Debug, Args)]
pub struct RunArgs {
    /// Run in the background and print the container's id
    #[arg(short, long)]
    detach: bool,
    /// Key sequence that detaches from a terminal; empty for none
    #[arg(long, value_name = "KEYS", default_value = detach::DEFAULT)]
    detach_keys: DetachKeys,
    /// Forward signals to a program that has no terminal
    #[arg(long, value_name = "BOOL", default_value_t = true, action = clap::ArgAction::Set)]
    sig_proxy: bool,
    /// Create nothing; print the steps that would build the container
    #[arg(long)]
    explain: bool,
    #[command(flatten)]
    create: CreateArgs,
}

// `lbctl create`.
#[derive(Debug, Args)]
pub struct CreateOnlyArgs {
    #[command(flatten)]
    create: CreateArgs,
}

impl CreateOnlyArgs {
    /// The configuration.
    #[cfg(test)]
    pub fn config(&self) -> Result<ContainerConfig, Failure> {
        self.create.config()
    }
}

/// Makes a container and does not start it.
pub async fn create(ctx: &Context, args: CreateOnlyArgs) -> Result<i32, Failure> {
    let config = args.create.config()?;
    let options = CreateOptions {
        start: false,
        wait: None,
        idempotency_key: args.create.idempotency_key.clone(),
    };
    let container = ctx.client.create_container(&config, &options).await?;
    tell_made(ctx, &container)?;
    Ok(0)
}

/// Makes and starts a container, and stays with it unless told otherwise.
pub async fn run(ctx: &Context, args: RunArgs) -> Result<i32, Failure> {
    let config = args.create.config()?;
    if args.explain {
        let planned = ctx.client.plan_container(&config).await?;
        return plan::print(ctx, &planned).map(|()| 0);
    }
    let result = if args.detach {
        detached(ctx, &args, &config).await
    } else {
        foreground(
            ctx,
            &args,
            ContainerConfig {
                attach: true,
                ..config
            },
        )
        .await
    };
    if let Err(Failure::Client(ClientError::Problem(problem))) = &result
        && args.create.rm
        && let Some(id) = &problem.id
    {
        // A start that failed leaves a record, to be looked at; with --rm nobody will. It may be
        // gone by itself.
        let _ = ctx.client.remove_container(id, true, Some(REMOVAL)).await;
    }
    result
}

async fn detached(ctx: &Context, args: &RunArgs, config: &ContainerConfig) -> Result<i32, Failure> {
    let container = ctx.client.create_container(config, &start(args)).await?;
    tell_made(ctx, &container)?;
    Ok(0)
}

fn start(args: &RunArgs) -> CreateOptions {
    let idempotency_key = args.create.idempotency_key.clone();
    CreateOptions {
        start: true,
        wait: None,
        idempotency_key,
    }
}

async fn foreground(
    ctx: &Context,
    args: &RunArgs,
    config: ContainerConfig,
) -> Result<i32, Failure> {
    let interactive = interactive(&config, config.stdin)?;
    let mut signals = Signals::install().map_err(Failure::io("cannot catch signals"))?;
    let create = start(args);
    let making = ctx.client.create_container(&config, &create);
    let mut early = None;
    let container = match signals.uninterrupted(&mut early, making).await {
        Ok(made) => made?,
        Err(signal) => return Ok(signal.shell_code()),
    };
    output::warnings(&container.warnings);
    let target = Target::Container(container.summary.id.to_string());
    let options = Options {
        from: AttachFrom::Start,
        stdin: args.create.interactive,
        interactive,
        keys: Scanner::new(args.detach_keys.clone()),
        proxy_signals: args.sig_proxy,
        early,
        size: config.terminal_size,
    };
    let end = Session::new(&ctx.client, target.clone(), options, &mut signals)
        .run()
        .await?;
    let afterwards = async {
        if matches!(end, End::BrokenPipe) {
            end_of_pipe(ctx, &target).await;
        }
        if args.create.rm && matches!(end, End::Exit(_) | End::BrokenPipe) {
            // So that a script finds it gone. That it ended is known already.
            let id = container.summary.id.to_string();
            let gone = ctx
                .client
                .wait_container(&id, WaitFor::Removed, Some(REMOVAL));
            let _ = gone.await;
        }
    };
    tokio::select! {
        () = afterwards => {}
        _ = signals.told_to_end() => {}
    }
    Ok(exit_code(&end))
}

/// Whether a session is to use raw mode if its program has a terminal. A bundle or a spec says that
/// itself; the session learns it by attaching.
pub fn interactive(config: &ContainerConfig, stdin: bool) -> Result<bool, Failure> {
    let asked = stdin && config.terminal;
    check_terminal(asked)?;
    let by_spec = stdin && (config.bundle.is_some() || config.spec.is_some());
    Ok(asked || (by_spec && terminal::stdin_is_terminal()))
}

/// A terminal can be given only to who has one.
pub fn check_terminal(interactive: bool) -> Result<(), Failure> {
    if interactive && !terminal::stdin_is_terminal() {
        return Err(Failure::usage(
            "standard input is not a terminal",
            "omit -t to pipe data into the program",
        ));
    }
    Ok(())
}

/// Whoever read the output has gone. A program of this machine would be ended by SIGPIPE as soon
/// as it writes; one that has no handler as a PID 1 is not (pid_namespaces(7)): it is killed.
pub async fn end_of_pipe(ctx: &Context, target: &Target) {
    if send_signal(&ctx.client, target, Signal::PIPE)
        .await
        .is_err()
    {
        return;
    }
    let ended = match target {
        Target::Container(id) => ctx
            .client
            .wait_container(id, WaitFor::Exited, Some(PIPE_GRACE))
            .await
            .is_ok_and(|result| result.satisfied),
        Target::Exec(id) => ctx
            .client
            .exec(id, Some(PIPE_GRACE))
            .await
            .is_ok_and(|exec| exec.exit.is_some()),
    };
    if !ended {
        // It may have ended by itself.
        let _ = send_signal(&ctx.client, target, Signal::KILL).await;
    }
}

/// The exit code that a session leads to.
pub fn exit_code(end: &End) -> i32 {
    match end {
        End::Exit(exit) => exit_status(exit),
        End::Detached => 0,
        End::Signal(signal) => signal.shell_code(),
        End::BrokenPipe => BROKEN_PIPE_CODE,
    }
}

/// The program's exit code; what it does not tell goes to stderr.
fn exit_status(exit: &Exit) -> i32 {
    if exit.oom_killed {
        eprintln!("lbctl: out of memory: the kernel killed a process of the container");
    }
    if exit.timed_out {
        eprintln!("lbctl: timed out; program killed");
    }
    if exit.lost_output_bytes > 0 {
        eprintln!(
            "lbctl: {} bytes of output were lost",
            exit.lost_output_bytes
        );
    }
    if exit.output_truncated {
        eprintln!("lbctl: output cut off: a process that the program left behind held it open");
    }
    match (&exit.status, exit.status.shell_code()) {
        (_, Some(code)) => code,
        (ExitStatus::Unknown { detail }, None) => {
            eprintln!("lbctl: exit status unknown: {detail}");
            125
        }
        (_, None) => 125,
    }
}

fn tell_made(ctx: &Context, container: &Container) -> Result<(), Failure> {
    if ctx.json {
        return output::json(container);
    }
    output::warnings(&container.warnings);
    output::line(&container.summary.id.to_string())
}
