//! tar archives on this side of `cp`.

mod pack;
mod unpack;

use std::error::Error;
use std::io;

use littlebox_archive::FileError;

pub use pack::{Packing, pack};
pub use unpack::{Unpacking, unpack};

/// An error with its cause in one message.
fn flat(error: FileError) -> io::Error {
    match error.source() {
        Some(source) => io::Error::other(format!("{error}: {source}")),
        None => io::Error::other(error),
    }
}

#[cfg(test)]
mod tests;
