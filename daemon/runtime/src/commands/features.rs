//! `features`.

use crate::error::Result;

/// Prints what this runtime can do.
pub fn run() -> Result<()> {
    Err(crate::error::Error::Usage("not there yet".into()))
}
