//! What commands print.

use std::io::Write;

use crate::error::{Doing, Result};

/// Prints a line. A reader that went away is an error as any other.
pub fn line(text: &str) -> Result<()> {
    let mut stdout = std::io::stdout().lock();
    writeln!(stdout, "{text}")
        .and_then(|()| stdout.flush())
        .doing(|| "write to stdout".to_owned())
}
