//! End to end: one program, because linking thirty of them cost more than running their tests.
//! cargo-nextest runs each test in a process of its own all the same.

mod attach;
mod attacks;
mod auditor;
mod bad_days;
mod bad_input;
mod bundle;
mod cgroup_hosts;
mod contract;
mod dead_mounts;
mod events;
mod exec;
mod files;
mod helper;
mod injection;
mod isolation;
mod lbctl;
mod leftovers;
mod lifecycle;
mod logs;
mod namespaces;
mod observe;
mod oom;
mod overtaking;
mod process;
mod recovery;
mod resources;
mod restart;
mod restart_policies;
mod rootfs;
mod seccomp;
mod seccomp_agent;
mod service;
mod userns;
mod waits;
