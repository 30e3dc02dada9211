//! Files in and out of a container: stat, tar, changes.
//!
//! Everything here is synchronous and starts from a descriptor (`O_PATH`) of the container's root
//! directory. The tree below it belongs to the container, which may change it at any moment, so
//! no path is ever resolved but by `openat2(2)` with `RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS`,
//! and nothing is opened for reading before it is known to be a regular file.

mod attributes;
mod below;
mod changes;
mod ids;
mod kernel_trees;
mod place;
mod remove;
mod resolve;
mod stat;
mod unpack;

pub use below::below;
pub use changes::changes;
pub use ids::IdView;
pub use littlebox_archive::{Bounds, FileError, Packing};
use littlebox_archive::{failed, magic_path, shown};
pub use remove::{remove_tree, remove_tree_unless};
pub use stat::{pack, pack_all, stat};
pub use unpack::{RootOf, unpack};

#[cfg(test)]
mod tests;
