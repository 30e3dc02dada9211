//! tar archives, both ways, of trees that somebody else may change meanwhile.
//!
//! The daemon packs what a container wrote, and `lbctl` what a container may write to on this
//! machine. So everything starts from a descriptor, no link is followed, what is read is known by
//! its descriptor to be a regular file, and memory and descriptors are bounded however deep and
//! wide the tree is.

mod caps;
mod error;
mod pack;
mod sys;
mod tar;
mod walk;

pub use caps::{capability_from_archive, capability_into_archive};
pub use error::FileError;
pub use pack::{Owners, Packing, Scope, is_portable};
pub use sys::{failed, link_of, magic_path, shown};
pub use tar::{Bounds, Entry, Kind, Reader, Segment, Time, bad, write_content};
pub use walk::{PATH, Walk};
