//! The commands, a file each.

mod create;
mod delete;
mod events;
mod exec;
mod features;
mod kill;
mod list;
mod pause;
mod ps;
mod run;
mod spec;
mod start;
mod state;
mod update;

use littlebox_helper::build::hooks;
use littlebox_protocol::HookPlan;

use crate::cli::{Cli, Command};
use crate::error::{Error, Result, fault};
use crate::store::{Entry, Record, Store};
use crate::{log, sealed};

/// Runs a command; the exit code of this program.
///
/// # Errors
/// Why it failed.
pub fn run(cli: &Cli) -> Result<u8> {
    let global = &cli.global;
    let store = Store::new(global.root.clone());
    match &cli.command {
        Command::Create(arguments) => create::run(global, arguments)?,
        Command::Start(one) => start::run(&store, &one.id)?,
        Command::State(one) => state::run(&store, &one.id)?,
        Command::Kill(arguments) => kill::run(&store, arguments)?,
        Command::Delete(arguments) => delete::run(&store, arguments)?,
        Command::Run(arguments) => return run::run(global, arguments),
        Command::Exec(arguments) => return exec::run(&store, arguments),
        Command::List(arguments) => list::run(&store, arguments)?,
        Command::Pause(one) => pause::pause(&store, &one.id)?,
        Command::Resume(one) => pause::resume(&store, &one.id)?,
        Command::Ps(arguments) => ps::run(&store, arguments)?,
        Command::Update(arguments) => update::run(&store, arguments)?,
        Command::Events(arguments) => events::run(&store, arguments)?,
        Command::Features => features::run()?,
        Command::Spec(arguments) => spec::run(arguments)?,
    }
    Ok(0)
}

/// Whether a command makes processes of a container.
pub fn enters_containers(command: &Command) -> bool {
    matches!(
        command,
        Command::Create(_) | Command::Run(_) | Command::Exec(_)
    )
}

/// Opens a container and reads what is known of it.
fn find(store: &Store, id: &str) -> Result<(Entry, Record)> {
    let entry = store.open(&id.parse()?)?;
    let record = entry.read()?;
    Ok((entry, record))
}

/// The same, and nobody else changes it meanwhile.
fn find_locked(store: &Store, id: &str) -> Result<(Entry, Record)> {
    let entry = store.open(&id.parse()?)?;
    entry.lock()?;
    let record = entry.read()?;
    Ok((entry, record))
}

/// Runs hooks of the host.
fn run_hooks(name: &str, hooks: &[HookPlan], state: &str) -> Result<()> {
    hooks::run_all(name, hooks, state).map_err(fault)
}

/// Goes on in a copy that no container can change, where that matters.
pub fn seal(command: &Command) -> Result<()> {
    if !enters_containers(command) {
        return Ok(());
    }
    sealed::ensure().map_err(|source| Error::Io {
        what: "execute this program where it cannot be written".to_owned(),
        source,
    })?;
    log::debug(|| "running where this program cannot be written".to_owned());
    Ok(())
}
