//! The command line: one file per group of commands.

mod archive;
mod cp;
mod create_args;
mod detach;
mod error;
mod events;
mod exec;
mod lifecycle;
mod limits;
mod logs;
mod many;
mod mounts;
mod ns;
mod output;
mod parse;
mod plan;
mod ps;
mod retry;
mod run;
mod sanitize;
mod security_opt;
mod session;
mod show;
mod signals;
mod stats;
mod stdio;
mod system;
mod table;
mod terminal;
mod time;

#[cfg(test)]
mod tests;

use std::path::PathBuf;

use clap::{Parser, Subcommand};
use lbctl::client::{Client, DEFAULT_SOCKET};

use error::Failure;

/// Manage littlebox containers
#[derive(Debug, Parser)]
#[command(
    name = "lbctl",
    version,
    max_term_width = 100,
    after_help = "A container is named by its name, its id, or what is enough of its id: the beginning, or \
                  the last block, which ps shows.\n\
                  Exit codes: the program's own; 125 when littlebox failed, 126 and 127 when the \
                  program could not be started, 128+n when signal n ended it."
)]
pub struct Cli {
    /// Socket of littleboxd
    #[arg(
        long,
        global = true,
        env = "LITTLEBOX_SOCKET",
        value_name = "PATH",
        default_value = DEFAULT_SOCKET
    )]
    socket: PathBuf,
    /// Print JSON as the API returns it, and errors as problem documents
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: Command,
}

// Deferred: of some two hundred flags, only those of the command that was named are made. A doc
// comment of an argument struct would then stand in for the one here: those have plain comments.
#[derive(Debug, Subcommand)]
#[command(defer = true)]
enum Command {
    /// Create and run a container
    #[command(override_usage = "lbctl run [OPTIONS] ROOTFS [COMMAND [ARG...]]")]
    Run(Box<run::RunArgs>),
    /// Create a container without starting it
    #[command(override_usage = "lbctl create [OPTIONS] ROOTFS [COMMAND [ARG...]]")]
    Create(Box<run::CreateOnlyArgs>),
    /// Start containers
    Start(exec::StartArgs),
    /// Stop containers: ask the program to exit, kill it after a grace period
    Stop(lifecycle::StopArgs),
    /// Restart containers
    Restart(lifecycle::StopArgs),
    /// Send a signal to containers
    Kill(lifecycle::KillArgs),
    /// Pause containers
    Pause(lifecycle::Containers),
    /// Resume paused containers
    #[command(visible_alias = "unpause")]
    Resume(lifecycle::Containers),
    /// Change limits; running containers change at once
    Update(Box<limits::UpdateArgs>),
    /// Remove containers
    Rm(lifecycle::RmArgs),
    /// Rename a container
    Rename(lifecycle::RenameArgs),
    /// List containers
    #[command(visible_alias = "ls")]
    Ps(ps::PsArgs),
    /// Show containers in full, as JSON
    Inspect(show::InspectArgs),
    /// Run a command in a running container
    #[command(override_usage = "lbctl exec [OPTIONS] CONTAINER COMMAND [ARG...]")]
    Exec(Box<exec::ExecArgs>),
    /// Attach to a running container
    Attach(exec::AttachArgs),
    /// Print a container's output
    Logs(logs::LogsArgs),
    /// Show resource usage
    Stats(stats::StatsArgs),
    /// List a container's processes
    Top(show::OneContainer),
    /// Wait until containers exit, and print their exit codes
    Wait(lifecycle::WaitArgs),
    /// Copy files between the host and a container
    Cp(cp::CpArgs),
    /// Show what changed in a container's root filesystem
    Diff(show::OneContainer),
    /// Export a container's root filesystem as a tar archive
    Export(show::ExportArgs),
    /// Print events
    Events(events::EventsArgs),
    /// Show namespaces: of the host, of a container, or how two differ
    Ns(ns::NsArgs),
    /// Show the steps that built a container, with timings
    Plan(show::OneContainer),
    /// Show daemon information
    System(system::SystemArgs),
    /// Show the versions of lbctl and littleboxd
    Version,
    /// Print a shell completion script
    Completion(system::CompletionArgs),
    /// Write man pages
    #[command(hide = true)]
    Man(system::ManArgs),
}

impl Command {
    /// The exit code of a failure of littlebox itself: where a program's own code is passed on,
    /// one that programs seldom use.
    fn failure_code(&self) -> i32 {
        match self {
            Command::Run(_) | Command::Create(_) | Command::Exec(_) | Command::Attach(_) => 125,
            Command::Start(args) if args.stays() => 125,
            _ => 1,
        }
    }
}

/// What every command needs.
#[derive(Debug)]
pub struct Context {
    /// The daemon.
    pub client: Client,
    /// `--json`.
    pub json: bool,
}

/// Parses the command line, does what it says, and returns the exit code.
pub fn main() -> i32 {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(e) => return usage_error(&e),
    };
    let code = cli.command.failure_code();
    let json = cli.json;
    let result = match cli.command {
        Command::Completion(args) => system::completion(&args),
        Command::Man(args) => system::man(&args),
        command => {
            let ctx = Context {
                client: Client::new(cli.socket),
                json,
            };
            online(&ctx, command)
        }
    };
    result.unwrap_or_else(|failure| {
        failure.tell(json);
        failure.exit_code(code)
    })
}

fn usage_error(e: &clap::Error) -> i32 {
    if !e.use_stderr() {
        // Help and version. Nothing can be done when stdout is closed.
        let _ = e.print();
        return 0;
    }
    let options = || std::env::args().skip(1).take_while(|arg| arg != "--");
    if options().any(|arg| arg == "--json") {
        Failure::from(e).tell(true);
    } else {
        // Nothing can be done when stderr is closed.
        let _ = e.print();
    }
    // As with Docker, whoever runs programs can tell a mistake of his from their exit codes.
    let runs_programs =
        options().any(|arg| matches!(arg.as_str(), "run" | "create" | "exec" | "attach"));
    if runs_programs { 125 } else { 2 }
}

/// Runs a command that talks to the daemon.
fn online(ctx: &Context, command: Command) -> Result<i32, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(Failure::io("cannot start"))?;
    let result = runtime.block_on(dispatch(ctx, command));
    // A thread that still reads stdin must not keep us.
    runtime.shutdown_background();
    result
}

async fn dispatch(ctx: &Context, command: Command) -> Result<i32, Failure> {
    match command {
        Command::Run(args) => run::run(ctx, *args).await,
        Command::Create(args) => run::create(ctx, *args).await,
        Command::Start(args) => exec::start(ctx, args).await,
        Command::Stop(args) => lifecycle::stop(ctx, args).await,
        Command::Restart(args) => lifecycle::restart(ctx, args).await,
        Command::Kill(args) => lifecycle::kill(ctx, args).await,
        Command::Pause(args) => lifecycle::pause(ctx, args).await,
        Command::Resume(args) => lifecycle::resume(ctx, args).await,
        Command::Update(args) => limits::update(ctx, *args).await,
        Command::Rm(args) => lifecycle::rm(ctx, args).await,
        Command::Rename(args) => lifecycle::rename(ctx, args).await,
        Command::Ps(args) => ps::ps(ctx, args).await,
        Command::Inspect(args) => show::inspect(ctx, args).await,
        Command::Exec(args) => exec::exec(ctx, *args).await,
        Command::Attach(args) => exec::attach(ctx, args).await,
        Command::Logs(args) => logs::logs(ctx, args).await,
        Command::Stats(args) => stats::stats(ctx, args).await,
        Command::Top(args) => show::top(ctx, args).await,
        Command::Wait(args) => lifecycle::wait(ctx, args).await,
        Command::Cp(args) => cp::cp(ctx, args).await,
        Command::Diff(args) => show::diff(ctx, args).await,
        Command::Export(args) => show::export(ctx, args).await,
        Command::Events(args) => events::events(ctx, args).await,
        Command::Ns(args) => ns::ns(ctx, args).await,
        Command::Plan(args) => show::plan(ctx, args).await,
        Command::System(args) => system::system(ctx, args).await,
        Command::Version => system::version(ctx).await,
        Command::Completion(args) => system::completion(&args),
        Command::Man(args) => system::man(&args),
    }
}
