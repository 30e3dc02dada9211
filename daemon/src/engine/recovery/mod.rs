//! Finding out what is true of a container whose helper the daemon does not know, and making its row say so:
//! at the daemon's start, when a connection was lost, and before a removal.

mod ask;
mod settle;

pub(crate) use settle::{Settled, settle};
