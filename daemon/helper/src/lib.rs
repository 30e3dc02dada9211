//! littlebox's helper: the synchronous side of the engine.

pub mod build;
pub mod cgroup;
mod defence;
pub mod fault;
mod init;
pub mod nsinfo;
pub mod oom;
pub mod supervise;
pub mod sys;
mod users;
pub mod zygote;
