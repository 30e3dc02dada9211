//! tar archives on this side of `cp`.

mod pack;
mod unpack;

pub use pack::{Packing, pack};
pub use unpack::{Unpacking, unpack};

#[cfg(test)]
mod tests;
