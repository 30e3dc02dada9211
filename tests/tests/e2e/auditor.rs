//! What is open and what is closed in a container, whole, against golden files.
//!
//! After a wanted change of a default write them anew with `LITTLEBOX_WRITE_GOLDEN=1`, and look at
//! each line that changed.

use littlebox_tests::daemon::binary;
use littlebox_tests::prelude::*;

/// What the auditor tells in a container with this configuration.
fn audit(more: Value) -> String {
    let t = Bed::new();
    let mount = json!({"type": "bind", "source": binary("littlebox-auditor"),
        "destination": "/auditor", "read_only": true});
    let mut command = vec!["/auditor".to_owned()];
    // Which namespaces are the host's, it cannot know from inside.
    for kind in ["mnt", "uts", "ipc", "net", "pid", "user", "cgroup", "time"] {
        let link = std::fs::read_link(format!("/proc/self/ns/{kind}")).unwrap();
        let link = link.to_string_lossy().into_owned();
        let inode = link.trim_matches(|c: char| !c.is_ascii_digit());
        command.push(format!("{kind}={inode}"));
    }
    let status = proc::parse_status(&std::fs::read_to_string("/proc/self/status").unwrap());
    command.push(format!("caps={}", status["CapBnd"]));
    let words: Vec<&str> = command.iter().map(String::as_str).collect();
    let config = with(with(busybox(&words), json!({"mounts": [mount]})), more);
    let (exit, out) = t.run(&config);
    assert_eq!(code(&exit), Some(0), "{exit:?} {out}");
    t.finish();
    out
}

fn compare(name: &str, told: &str) {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/golden")
        .join(name);
    if std::env::var_os("LITTLEBOX_WRITE_GOLDEN").is_some() {
        std::fs::write(&path, told).unwrap();
    }
    let golden = std::fs::read_to_string(&path).unwrap();
    let (golden, told): (Vec<&str>, Vec<&str>) = (golden.lines().collect(), told.lines().collect());
    let gone = golden
        .iter()
        .filter(|line| !told.contains(line))
        .map(|line| format!("- {line}"));
    let new = told
        .iter()
        .filter(|line| !golden.contains(line))
        .map(|line| format!("+ {line}"));
    let changes: Vec<String> = gone.chain(new).collect();
    assert!(
        changes.is_empty(),
        "{name} has changed:\n{}",
        changes.join("\n")
    );
    assert_eq!(golden, told, "the order of {name}");
}

#[test]
fn a_default_container_is_as_closed_as_its_golden_file() {
    compare("audit-default.txt", &audit(json!({})));
}

#[test]
fn a_privileged_container_is_as_open_as_its_golden_file() {
    // A file that is closed may be one that this kernel does not have, and devices are the host's.
    let everywhere = [
        "read /proc/interrupts:",
        "write /proc/sys/kernel/core_pattern:",
        "write /sys:",
    ];
    let told = audit(json!({"privileged": true}));
    let stable = told.lines().filter(|line| {
        let of_a_path = line.starts_with("read ") || line.starts_with("write ");
        let listed = everywhere.iter().any(|path| line.starts_with(path));
        listed || !of_a_path && !line.starts_with("/dev/")
    });
    let stable: Vec<&str> = stable.collect();
    compare("audit-privileged.txt", &(stable.join("\n") + "\n"));
}
