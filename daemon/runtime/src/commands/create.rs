//! `create`.

use crate::cli::{Create, Global};
use crate::error::Result;
use crate::launch::{Then, launch};

/// Builds the container up to the execution of its program.
pub fn run(global: &Global, arguments: &Create) -> Result<()> {
    launch(global, arguments, Then::Wait).map(drop)
}
