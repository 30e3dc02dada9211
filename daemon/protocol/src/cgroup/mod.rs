//! What is known of control groups without touching any: which hierarchies a host has, and which file
//! takes which limit.

mod layout;
pub mod settings;

pub use layout::{DEFAULT_V2, Hierarchy, Layout};
