//! `run`.

use super::{delete, start};
use crate::cli::{Global, Run};
use crate::error::Result;
use crate::foreground::{self, Signals};
use crate::launch::{Launched, Then, launch};

/// Creates and starts a container; in the foreground waits for its end, deletes it, and returns the
/// exit code of its program.
pub fn run(global: &Global, arguments: &Run) -> Result<u8> {
    if arguments.detach {
        let launched = launch(global, &arguments.create, Then::Leave)?;
        launched.entry.unlock();
        start::poststart(&launched.entry, &launched.record)?;
        return Ok(0);
    }
    let signals = Signals::take()?;
    let Launched {
        entry,
        record,
        pidfd,
        master,
    } = launch(global, &arguments.create, Then::Stay)?;
    entry.unlock();
    start::poststart(&entry, &record)?;
    let code = foreground::wait(&pidfd, master, &signals)?;
    if !arguments.keep {
        // An engine may have been faster.
        match entry.lock() {
            Ok(()) => delete::destroy(&entry, &record)?,
            Err(crate::error::Error::NotFound(_)) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(code)
}
