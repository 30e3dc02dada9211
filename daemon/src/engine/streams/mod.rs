//! The standard streams of a container's program or of an exec, for the clients that are attached to them.
//!
//! `attachment` is who reads and writes; `stdin` is the right to write, and `input` the way of the bytes.

mod attachment;
mod input;
mod stdin;

pub use attachment::{Attachment, Outcome, OutputReader};
pub use input::Input;
pub(super) use stdin::Inputs;
pub use stdin::Stdin;
