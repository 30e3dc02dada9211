//! What tests say most.

use std::io::Read;

use littlebox_types::{Container, Exec, Exit, ExitStatus};
use serde_json::{Value, json};

use crate::roots::busybox_root;

/// A container's id as text.
pub fn id(container: &Container) -> String {
    container.summary.id.to_string()
}

/// A container's name as text.
pub fn name(container: &Container) -> String {
    container.summary.name.to_string()
}

/// PID 1 of a running container, on the host.
#[track_caller]
pub fn pid1(container: &Container) -> u32 {
    container.summary.pid.expect("it runs")
}

/// A configuration: busybox and a command.
pub fn busybox(command: &[&str]) -> Value {
    json!({"rootfs": format!("dir:{}", busybox_root().display()), "command": command})
}

/// A configuration: busybox, and a program that ends at SIGTERM.
pub fn sleeper_config() -> Value {
    let script = "trap 'exit 0' TERM; echo ready; while :; do sleep 1000 & wait $!; done";
    busybox(&["sh", "-c", script])
}

/// `config` with the fields of `more`.
pub fn with(mut config: Value, more: Value) -> Value {
    let (Value::Object(into), Value::Object(from)) = (&mut config, more) else {
        panic!("configurations are objects");
    };
    into.extend(from);
    config
}

/// The code of an exit, when it returned one.
pub fn code(exit: &Exit) -> Option<i32> {
    match exit.status {
        ExitStatus::Exited { code } => Some(code),
        ExitStatus::Signaled { .. } | ExitStatus::Unknown { .. } => None,
    }
}

/// The code of an exec that ended.
pub fn exec_code(exec: &Exec) -> Option<i32> {
    exec.exit.as_ref().and_then(code)
}

/// Everything a reader gives.
pub fn read_all(mut reader: impl Read) -> Vec<u8> {
    let mut bytes = Vec::new();
    reader.read_to_end(&mut bytes).unwrap();
    bytes
}
