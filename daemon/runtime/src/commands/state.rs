//! `state`.

use super::find;
use crate::error::Result;
use crate::output;
use crate::state::State;
use crate::store::{Status, Store};

/// Prints the state of a container.
pub fn run(store: &Store, id: &str) -> Result<()> {
    let (entry, record) = find(store, id)?;
    let status = entry.status(&record)?;
    let pid = record.process.map(|process| process.pid);
    let pid = pid.filter(|_| status != Status::Stopped);
    let name = status.to_string();
    output::line(&State::new(entry.id(), &record, &name, pid).indented())
}
