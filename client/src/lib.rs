//! littlebox's wire types and, behind features, the HTTP client that `lbctl` is built on.
//!
//! `types` is what the API speaks; the daemon takes this crate for it alone.

#[cfg(feature = "http")]
pub mod client;
pub mod types;
