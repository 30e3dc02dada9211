//! What is measured, a file per group.

pub mod commit;
pub mod exec;
pub mod fleet;
pub mod helper_start;
pub mod list;
pub mod log;
pub mod rate;
pub mod run;
pub mod seccomp;
pub mod start;
