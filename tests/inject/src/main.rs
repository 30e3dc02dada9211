//! Fault injection by system call: one call of the daemon, the zygote, a helper, its child or a worker
//! fails, or its process is killed there, at every point of every operation. See `docs/testing.md`.

mod campaign;
mod filter;
mod injector;
mod operation;
mod point;
mod role;
mod sys;
mod truth;
mod under;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use campaign::Selection;
use point::Point;
use role::Role;

#[derive(Debug, Parser)]
#[command(about = "Make single system calls of littlebox fail, and see what comes of it")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Try points and print what went wrong
    Campaign {
        /// Operations to try (default: all)
        operations: Vec<String>,
        /// Try this point alone: ROLE/CALL/NTH/EFFECT, as in helper/openat/3/EMFILE
        #[arg(long)]
        point: Option<Point>,
        /// Try the points of these processes alone: daemon, zygote, helper, child, worker (default: all)
        #[arg(long, value_parser = role_of_name)]
        role: Vec<Role>,
        /// Try at most this many points, spread over all
        #[arg(long)]
        sample: Option<usize>,
        /// Choose another sample
        #[arg(long, default_value_t = 0)]
        seed: u64,
        /// Daemons to try points on at once
        #[arg(long, default_value_t = 2)]
        jobs: usize,
    },
    /// Become a program under an injector (used by the campaign)
    #[command(hide = true)]
    Under {
        #[arg(long)]
        injector: PathBuf,
        #[arg(last = true)]
        command: Vec<String>,
    },
}

fn role_of_name(name: &str) -> Result<Role, String> {
    Role::of_name(name).ok_or_else(|| format!("unknown role {name}"))
}

fn main() -> anyhow::Result<ExitCode> {
    match Arguments::parse().command {
        Command::Under { injector, command } => {
            let never = under::run(&injector, &command)?;
            match never {}
        }
        Command::Campaign {
            operations,
            point,
            role,
            sample,
            seed,
            jobs,
        } => {
            let totals = campaign::run(&Selection {
                operations,
                point,
                roles: role,
                sample,
                seed,
                jobs,
            })?;
            for failure in &totals.failures {
                println!("inject: FAILED {failure}");
            }
            let (met, missed) = (totals.met, totals.missed);
            println!("inject: {met} points held, {missed} not come to");
            println!("{met} passed, {} failed", totals.failures.len());
            Ok(if totals.failures.is_empty() {
                ExitCode::SUCCESS
            } else {
                ExitCode::FAILURE
            })
        }
    }
}
