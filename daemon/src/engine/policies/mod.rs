//! Rules that only compute: nothing here reads the host, asks a helper or keeps anything.

pub(super) mod relaxations;
pub(super) mod restart;
