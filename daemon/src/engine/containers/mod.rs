//! The life of a container, from create to remove: one file for each thing that a client can ask for, and
//! for each that happens by itself.
//!
//! What makes a program run is in `start`; signals, stop, restart, pause and every end are in `end`, or in
//! `unreachable` when the helper does not answer. `restarter` does what the restart policy decides, and
//! `listener` hears what helpers tell.

mod create;
mod end;
mod host_shutdown;
mod inspect;
mod leftovers;
mod listener;
mod patch;
mod remove;
mod restarter;
mod start;
mod unreachable;
mod wait;

pub use create::{CreateOptions, Created};
pub use end::StopOptions;
pub(super) use end::exit_data;
pub use inspect::Filter;
