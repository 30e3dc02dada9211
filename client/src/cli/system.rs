//! `system version completion man`.

use std::fmt::Display;
use std::fmt::Write as _;
use std::path::PathBuf;

use clap::{Args, CommandFactory, Subcommand};
use clap_complete::Shell;

use super::error::Failure;
use super::{Cli, Context, output, sanitize};

// `lbctl system`.
#[derive(Debug, Args)]
pub struct SystemArgs {
    #[command(subcommand)]
    command: Option<SystemCommand>,
}

#[derive(Debug, Clone, Copy, Subcommand)]
enum SystemCommand {
    /// Show the daemon, its directories and counts
    Info,
    /// Show the health of the daemon's parts; exits with 1 if one is degraded
    Health,
}

/// Text lines `name: value`, aligned.
#[derive(Default)]
struct Lines(Vec<(String, String)>);

impl Lines {
    fn add(&mut self, name: impl Into<String>, value: impl Display) {
        self.0
            .push((name.into(), sanitize::text(&value.to_string()).into_owned()));
    }

    fn render(&self) -> String {
        let width = self.0.iter().map(|(name, _)| name.len()).max().unwrap_or(0) + 2;
        let mut out = String::new();
        for (name, value) in &self.0 {
            let _ = writeln!(out, "{:<width$}{value}", format!("{name}:"));
        }
        out
    }
}

/// Tells about the daemon.
pub async fn system(ctx: &Context, args: SystemArgs) -> Result<i32, Failure> {
    match args.command.unwrap_or(SystemCommand::Info) {
        SystemCommand::Info => info(ctx).await.map(|()| 0),
        SystemCommand::Health => health(ctx).await,
    }
}

async fn info(ctx: &Context) -> Result<(), Failure> {
    let system = ctx.client.system().await?;
    if ctx.json {
        return output::json(&system);
    }
    let mut lines = Lines::default();
    lines.add("daemon pid", system.pid);
    if let Some(pid) = system.zygote_pid {
        lines.add("zygote pid", pid);
    }
    lines.add("started", &system.started_at);
    lines.add("storage driver", &system.storage_driver);
    lines.add("cgroup", &system.cgroup);
    lines.add("cgroup parent", &system.cgroup_parent);
    lines.add("last event", system.last_event_seq);
    for (state, count) in &system.containers {
        lines.add(format!("containers {state}"), count);
    }
    for (name, path) in &system.paths {
        lines.add(format!("path {name}"), path);
    }
    output::print(&lines.render())
}

async fn health(ctx: &Context) -> Result<i32, Failure> {
    let health = ctx.client.health().await?;
    let code = i32::from(health.status != "ok");
    if ctx.json {
        return output::json(&health).map(|()| code);
    }
    let mut lines = Lines::default();
    lines.add("status", &health.status);
    for (part, verdict) in &health.checks {
        lines.add(part.clone(), verdict);
    }
    output::print(&lines.render()).map(|()| code)
}

/// Tells the versions of both sides.
pub async fn version(ctx: &Context) -> Result<i32, Failure> {
    let own = env!("CARGO_PKG_VERSION");
    if ctx.json {
        let daemon = ctx.client.version().await?;
        let both = serde_json::json!({ "client": { "version": own }, "daemon": daemon });
        return output::json(&both).map(|()| 0);
    }
    output::line(&format!("lbctl:       {own}"))?;
    let daemon = ctx.client.version().await?;
    let mut lines = Lines::default();
    lines.add("littleboxd", &daemon.version);
    lines.add("API", &daemon.api_version);
    lines.add("kernel", &daemon.kernel);
    for (name, value) in &daemon.features {
        let value = value
            .as_str()
            .map_or_else(|| value.to_string(), str::to_owned);
        lines.add(name.clone(), value);
    }
    output::print(&lines.render()).map(|()| 0)
}

// `lbctl completion`.
#[derive(Debug, Args)]
pub struct CompletionArgs {
    /// Shell
    shell: CompletionShell,
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum CompletionShell {
    /// bash
    Bash,
    /// zsh
    Zsh,
    /// fish
    Fish,
}

/// Prints a shell's completion script.
pub fn completion(args: &CompletionArgs) -> Result<i32, Failure> {
    let shell = match args.shell {
        CompletionShell::Bash => Shell::Bash,
        CompletionShell::Zsh => Shell::Zsh,
        CompletionShell::Fish => Shell::Fish,
    };
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "lbctl", &mut script);
    output::bytes(&script).map(|()| 0)
}

// `lbctl man`.
#[derive(Debug, Args)]
pub struct ManArgs {
    /// Directory to write to; must exist
    dir: PathBuf,
}

/// Writes a manual page per command.
pub fn man(args: &ManArgs) -> Result<i32, Failure> {
    clap_mangen::generate_to(Cli::command(), &args.dir).map_err(Failure::io(format!(
        "cannot write to {}",
        args.dir.display()
    )))?;
    Ok(0)
}
