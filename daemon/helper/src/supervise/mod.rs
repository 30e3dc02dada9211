//! The helper's second half: it supervises the container that the first half ([`crate::build`])
//! has made.
//!
//! One thread, one poll(2) loop ([`event_loop`]): connections, the container's process and output,
//! execs and theirs, timers. Nothing here waits for a client.
//!
//! ```text
//! start ──▶ event_loop ──▶ calls        a request of the daemon
//!                    ├───▶ starting     execs on their way; held: requests about them
//!                    ├───▶ freezing     a pause on its way
//!                    └───▶ program ──▶ output ──▶ log
//!                    └───▶ settling ──▶ record      exit records, durable before anyone is notified
//! ```

mod calls;
mod clock;
mod complaint;
mod connection;
mod event_loop;
mod freezing;
mod held;
mod killing;
pub mod log;
mod oom;
mod output;
mod pace;
mod program;
mod record;
mod run_dir;
mod settling;
mod start;
mod starting;
mod time_limit;

pub use start::run;
