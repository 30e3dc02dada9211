//! `make bench`: littlebox beside the floor (`floor.c`) and beside the engines that are installed,
//! measured in one run with the contenders taking turns, so that a noisy machine is noisy for all
//! of them. Prints medians, spread and ratios; writes everything as JSON to `target/bench/`.
//!
//! Needs root, and the built programs in `LITTLEBOX_BIN_DIR`.

mod daemon;
mod floor;
mod groups;
mod http;
mod peers;
mod report;
mod turns;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, bail};
use clap::{Parser, ValueEnum};

use crate::floor::Floor;
use crate::peers::BusyboxRoot;
use crate::report::Report;

/// What can be measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Group {
    /// Create and start over HTTP, to the running program.
    Start,
    /// A whole `run --rm`, as a process.
    Run,
    /// A command in a running container.
    Exec,
    /// Containers per second with 1, 2, 4 and 8 clients.
    Rate,
    /// Memory with 0, 100 and 1000 containers, and a restart of the daemon under them.
    Fleet,
    /// Lists of 1000 and 10,000 containers.
    List,
    /// Output of a container into its log, and out again.
    Log,
    /// Ways to start a helper.
    HelperStart,
    /// Ways to make commits durable.
    Commit,
    /// The default seccomp filter.
    Seccomp,
}

/// Measure littlebox beside the floor and its peers.
#[derive(Debug, Parser)]
struct Args {
    /// A tenth of the work: to see that it runs, not to quote from.
    #[arg(long)]
    quick: bool,
    /// Where work directories are made; the file system counts.
    #[arg(long, default_value = "/var/tmp")]
    dir: PathBuf,
    /// Where the JSON goes.
    #[arg(long, default_value = "target/bench")]
    out: PathBuf,
    /// What to measure; everything when absent.
    groups: Vec<Group>,
}

/// What every group needs.
struct Bench {
    /// Directory of littleboxd, lbctl and littlebox-helper.
    bin: PathBuf,
    /// Everything made lies below; removed at the end.
    work: tempfile::TempDir,
    floor: Floor,
    root: BusyboxRoot,
    quick: bool,
}

impl Bench {
    /// `full`, or about a tenth of it with `--quick`.
    fn scaled(&self, full: usize) -> usize {
        if self.quick { full.div_ceil(10) } else { full }
    }
}

fn main() -> ExitCode {
    match measure(Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Without the backtrace that RUST_BACKTRACE would add.
            eprintln!("littlebox-bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn measure(args: Args) -> anyhow::Result<()> {
    if !rustix::process::geteuid().is_root() {
        bail!("measuring containers needs root");
    }
    let bin = std::env::var_os("LITTLEBOX_BIN_DIR")
        .map(PathBuf::from)
        .context("LITTLEBOX_BIN_DIR is not set: use `make bench`")?;
    let work = tempfile::Builder::new()
        .prefix("lb-bench.")
        .tempdir_in(&args.dir)?;
    let floor = Floor::build(work.path())?;
    let root = BusyboxRoot::make(&work.path().join("root"))?;
    let bench = Bench {
        bin,
        work,
        floor,
        root,
        quick: args.quick,
    };
    let groups = if args.groups.is_empty() {
        Group::value_variants().to_vec()
    } else {
        args.groups
    };

    let mut report = Report::new(args.quick);
    let mut failed = Vec::new();
    for group in groups {
        let name = format!("{group:?}");
        if let Err(error) = run(group, &bench, &mut report) {
            eprintln!("{name}: {error:#}");
            failed.push(name);
        }
    }
    let file = report.write(&args.out)?;
    println!("\nwritten to {}", file.display());
    if !failed.is_empty() {
        bail!("not measured: {}", failed.join(", "));
    }
    Ok(())
}

fn run(group: Group, bench: &Bench, report: &mut Report) -> anyhow::Result<()> {
    match group {
        Group::Start => groups::start::measure(bench, report),
        Group::Run => groups::run::measure(bench, report),
        Group::Exec => groups::exec::measure(bench, report),
        Group::Rate => groups::rate::measure(bench, report),
        Group::Fleet => groups::fleet::measure(bench, report),
        Group::List => groups::list::measure(bench, report),
        Group::Log => groups::log::measure(bench, report),
        Group::HelperStart => groups::helper_start::measure(bench, report),
        Group::Commit => groups::commit::measure(bench, report),
        Group::Seccomp => groups::seccomp::measure(bench, report),
    }
}
