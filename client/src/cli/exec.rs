//! `exec`, `attach` and `start`.

use std::time::Duration;

use clap::Args;
use lbctl::client::{AttachFrom, LogOptions};
use littlebox_types::{CapabilityChange, ContainerState, ExecConfig, UserSpec};

use super::create_args::environment;
use super::detach::{self, DetachKeys, Scanner};
use super::error::Failure;
use super::many;
use super::parse::MaybePair;
use super::run::{check_terminal, end_of_pipe, exit_code, interactive};
use super::session::{End, Options, Session, Target};
use super::signals::Signals;
use super::time::parse_duration;
use super::{Context, output, sanitize, terminal};

// `lbctl exec`.
#[derive(Debug, Args)]
pub struct ExecArgs {
    /// Run in the background and print the exec's id
    #[arg(short, long)]
    detach: bool,
    /// Keep stdin open
    #[arg(short, long)]
    interactive: bool,
    /// Allocate a terminal
    #[arg(short, long)]
    tty: bool,
    /// Set an environment variable; without =V, taken from lbctl's environment
    #[arg(short, long, value_name = "K[=V]")]
    env: Vec<MaybePair>,
    /// Read environment variables from a file, one per line
    #[arg(long, value_name = "FILE")]
    env_file: Vec<std::path::PathBuf>,
    /// Working directory inside the container
    #[arg(short, long, value_name = "DIR")]
    workdir: Option<String>,
    /// Run as USER[:GROUP], names or numbers
    #[arg(short, long, value_name = "USER")]
    user: Option<UserSpec>,
    /// Kill the program and all that it has started after this time
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    timeout: Option<Duration>,
    /// Add a capability, or ALL
    #[arg(long, value_name = "CAP")]
    cap_add: Vec<String>,
    /// Drop a capability, or ALL
    #[arg(long, value_name = "CAP")]
    cap_drop: Vec<String>,
    /// Grant all capabilities
    #[arg(long)]
    privileged: bool,
    /// Key sequence that detaches from a terminal; empty for none
    #[arg(long, value_name = "KEYS", default_value = detach::DEFAULT)]
    detach_keys: DetachKeys,
    /// Return the exec of an earlier request with the same key, if there is one
    #[arg(long, value_name = "KEY")]
    idempotency_key: Option<String>,
    /// Container, command and arguments
    #[arg(required = true, num_args = 2.., trailing_var_arg = true,
          value_name = "CONTAINER COMMAND [ARG...]")]
    args: Vec<String>,
}

impl ExecArgs {
    fn config(&self) -> Result<ExecConfig, Failure> {
        Ok(ExecConfig {
            command: self.args.get(1..).unwrap_or_default().to_vec(),
            env: environment(&self.env_file, &self.env)?,
            working_dir: self.workdir.clone(),
            user: self.user.clone(),
            terminal: self.tty,
            terminal_size: self.tty.then(terminal::size).flatten(),
            stdin: self.interactive,
            input: None,
            attach: !self.detach,
            timeout_ms: self
                .timeout
                .map(|t| u64::try_from(t.as_millis()).unwrap_or(u64::MAX)),
            capabilities: CapabilityChange {
                add: self.cap_add.clone(),
                drop: self.cap_drop.clone(),
            },
            privileged: self.privileged,
            output_limit: None,
        })
    }
}

/// Runs a program inside a running container.
pub async fn exec(ctx: &Context, args: ExecArgs) -> Result<i32, Failure> {
    let config = args.config()?;
    let container = args.args.first().map(String::as_str).unwrap_or_default();
    let key = args.idempotency_key.as_deref();
    if args.detach {
        let exec = ctx
            .client
            .create_exec(container, &config, None, key)
            .await?;
        if ctx.json {
            output::json(&exec)?;
        } else {
            super::output::warnings(&exec.warnings);
            output::line(&exec.id.to_string())?;
        }
        return Ok(0);
    }
    let interactive = args.interactive && args.tty;
    check_terminal(interactive)?;
    let mut signals = Signals::install().map_err(Failure::io("cannot catch signals"))?;
    let making = ctx.client.create_exec(container, &config, None, key);
    let mut early = None;
    let exec = match signals.uninterrupted(&mut early, making).await {
        Ok(made) => made?,
        Err(signal) => return Ok(signal.shell_code()),
    };
    super::output::warnings(&exec.warnings);
    let target = Target::Exec(exec.id.to_string());
    let options = Options {
        from: AttachFrom::Start,
        stdin: args.interactive,
        interactive,
        keys: Scanner::new(args.detach_keys),
        proxy_signals: true,
        early,
        size: config.terminal_size,
    };
    let end = Session::new(&ctx.client, target.clone(), options, &mut signals)
        .run()
        .await?;
    if matches!(end, End::BrokenPipe) {
        tokio::select! {
            () = end_of_pipe(ctx, &target) => {}
            _ = signals.told_to_end() => {}
        }
    }
    Ok(exit_code(&end))
}

// `lbctl attach`.
#[derive(Debug, Args)]
pub struct AttachArgs {
    /// Show earlier output first
    #[arg(long)]
    logs: bool,
    /// Do not forward stdin
    #[arg(long)]
    no_stdin: bool,
    /// Forward signals to a program that has no terminal
    #[arg(long, value_name = "BOOL", default_value_t = true, action = clap::ArgAction::Set)]
    sig_proxy: bool,
    /// Key sequence that detaches from a terminal; empty for none
    #[arg(long, value_name = "KEYS", default_value = detach::DEFAULT)]
    detach_keys: DetachKeys,
    /// Container
    container: String,
}

/// Joins a running program.
pub async fn attach(ctx: &Context, args: AttachArgs) -> Result<i32, Failure> {
    let container = ctx.client.container(&args.container).await?;
    let name = &args.container;
    match container.summary.state {
        ContainerState::Created => return Err(not_started(name, container.config.stdin)),
        ContainerState::Paused => {
            return Err(Failure::usage(
                format!("container '{name}' is paused"),
                &format!("resume it first: lbctl resume {name}"),
            ));
        }
        // Its exit code is still ours, as if we had come in time: whoever starts and then attaches
        // may come too late for a short program.
        ContainerState::Exited if !args.logs && !ctx.json => {
            let name = sanitize::text(name);
            eprintln!("lbctl: container '{name}' has exited; for its output: lbctl logs {name}");
        }
        _ => {}
    }
    let stdin = container.config.stdin && !args.no_stdin;
    let interactive = interactive(&container.config, stdin)?;
    let mut signals = Signals::install().map_err(Failure::io("cannot catch signals"))?;
    let options = Options {
        from: if args.logs {
            AttachFrom::Start
        } else {
            AttachFrom::Now
        },
        stdin,
        interactive,
        keys: Scanner::new(args.detach_keys),
        proxy_signals: args.sig_proxy,
        early: None,
        size: None,
    };
    let target = Target::Container(container.summary.id.to_string());
    let end = Session::new(&ctx.client, target, options, &mut signals)
        .run()
        .await?;
    Ok(exit_code(&end))
}

/// There is no program to join, and nobody to end one that never begins.
fn not_started(name: &str, stdin: bool) -> Failure {
    let flag = if stdin { "-i" } else { "-a" };
    Failure::usage(
        format!("container '{name}' has not been started"),
        &format!("start it and attach: lbctl start {flag} {name}"),
    )
}

// `lbctl start`.
#[derive(Debug, Args)]
pub struct StartArgs {
    /// Attach, as run does
    #[arg(short, long)]
    attach: bool,
    /// Attach, and forward stdin
    #[arg(short, long)]
    interactive: bool,
    /// Key sequence that detaches from a terminal; empty for none
    #[arg(long, value_name = "KEYS", default_value = detach::DEFAULT)]
    detach_keys: DetachKeys,
    /// Containers
    #[arg(required = true, value_name = "CONTAINER")]
    containers: Vec<String>,
}

impl StartArgs {
    /// Whether the program's exit code is ours.
    pub fn stays(&self) -> bool {
        self.attach || self.interactive
    }
}

/// Starts containers that were created, or have ended.
pub async fn start(ctx: &Context, args: StartArgs) -> Result<i32, Failure> {
    if !args.stays() {
        let start = async |name: &str| ctx.client.start_container(name, None).await;
        return many::each_container(ctx, &args.containers, start).await;
    }
    let [name] = &args.containers[..] else {
        return Err(Failure::usage(
            "cannot attach to more than one container",
            "",
        ));
    };
    start_and_stay(ctx, name, &args).await
}

async fn start_and_stay(ctx: &Context, name: &str, args: &StartArgs) -> Result<i32, Failure> {
    let container = ctx.client.container(name).await?;
    let stdin = args.interactive && container.config.stdin;
    let interactive = interactive(&container.config, stdin)?;
    // The output of earlier runs stands before this one's in the log.
    let last_line = LogOptions {
        tail: Some(1),
        ..LogOptions::default()
    };
    let mut lines = ctx.client.logs(name, &last_line).await?;
    let mut position = 0;
    while let Some(line) = lines.next().await? {
        position = line.position;
    }
    let mut signals = Signals::install().map_err(Failure::io("cannot catch signals"))?;
    let starting = ctx.client.start_container(name, None);
    let mut early = None;
    let started = match signals.uninterrupted(&mut early, starting).await {
        Ok(started) => started?,
        Err(signal) => return Ok(signal.shell_code()),
    };
    let target = Target::Container(started.summary.id.to_string());
    let options = Options {
        from: AttachFrom::Position(position),
        stdin,
        interactive,
        keys: Scanner::new(args.detach_keys.clone()),
        proxy_signals: true,
        early,
        size: None,
    };
    let end = Session::new(&ctx.client, target, options, &mut signals)
        .run()
        .await?;
    Ok(exit_code(&end))
}
