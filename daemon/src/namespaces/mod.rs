//! Namespaces, always read from the kernel. Synchronous: `/proc` does not block for long, but a
//! scan of a busy machine takes milliseconds and belongs on a blocking thread.
//!
//! Who owns a namespace, its parent and its 64-bit id are told by ioctl(2) alone, which a helper
//! asks for us (`First::NamespaceRelations`): [`Scan::refs`] and [`refs_of`] say about which
//! namespaces to ask, the answer goes into [`Scan::list`] and [`of_container`].

mod diff;
mod network;
mod scan;
mod tree;

pub use diff::{Side, diff, differences, parse_mount};
pub use network::{parse_addresses, parse_addresses6, parse_route, parse_route6};
pub use scan::{Ns, Scan, of_container, of_process, refs_of};
pub use tree::{TreeBy, tree};

#[cfg(test)]
mod tests;
