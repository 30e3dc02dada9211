//! Bad bundles: the error is in the log, names the value, and nothing is made.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

use std::fs;

use crate::support::Bed;
use serde_json::{Value, json};

/// The one error in a JSON log.
fn error_in_log(bed: &Bed, bundle: &str) -> String {
    let log = bed.path("log");
    let ran = bed.run(&[
        "--log",
        log.to_str().unwrap(),
        "--log-format",
        "json",
        "create",
        "--bundle",
        bundle,
        &bed.id,
    ]);
    assert_eq!(ran.code, Some(1), "{ran:?}");
    let text = fs::read_to_string(&log).unwrap();
    let line: Value = serde_json::from_str(text.trim_end()).expect("one JSON object");
    assert_eq!(line["level"], "error");
    assert!(line["time"].as_str().unwrap().ends_with('Z'));
    fs::remove_file(&log).unwrap();
    bed.assert_nothing_left();
    line["msg"].as_str().unwrap().to_owned()
}

#[test]
fn an_error_names_the_value_by_its_pointer() {
    let mut bed = Bed::new("true");
    let good = bed.config.clone();
    let cases = [
        ("/ociVersion", json!("2.0.0"), "2.0.0"),
        ("/process/args", json!([]), "no program"),
        ("/process/cwd", json!("relative"), "absolute"),
        ("/process/env", json!(["NOVALUE"]), "KEY=VALUE"),
        (
            "/process/rlimits",
            json!([{"type": "RLIMIT_NOPE", "soft": 1, "hard": 1}]),
            "RLIMIT_NOPE",
        ),
        ("/root/path", json!("missing"), "missing"),
        ("/root/path", json!("/"), "host's own root"),
        ("/linux/namespaces", json!([{"type": "made-up"}]), "made-up"),
        (
            "/linux/namespaces",
            json!([{"type": "mount"}, {"type": "uts", "path": "/proc/self/ns/nope"}]),
            "nope",
        ),
        (
            "/linux/sysctl",
            json!({"kernel.core_pattern": "x"}),
            "kernel.core_pattern",
        ),
        ("/linux/cgroupsPath", json!("/a/../../b"), "cgroup path"),
        ("/linux/maskedPaths", json!(["relative"]), "absolute"),
        (
            "/mounts",
            json!([{"destination": "/x", "type": "none"}]),
            "filesystem type",
        ),
        (
            "/hooks",
            json!({"poststop": [{"path": "relative"}]}),
            "absolute",
        ),
        (
            "/hooks",
            json!({"prestart": [{"path": "/bin/true", "timeout": 0}]}),
            "timeout",
        ),
    ];
    for (pointer, value, words) in cases {
        bed.config = good.clone();
        set(&mut bed.config, pointer, value);
        bed.write_config();
        let bundle = bed.bundle();
        let message = error_in_log(&bed, bundle.to_str().unwrap());
        assert!(message.contains(pointer), "{pointer}: {message}");
        assert!(message.contains(words), "{words}: {message}");
    }
}

fn set(config: &mut Value, pointer: &str, value: Value) {
    let (parent, key) = pointer.rsplit_once('/').unwrap();
    config.pointer_mut(parent).unwrap()[key] = value;
}

#[test]
fn a_document_that_is_no_spec_is_an_error_of_the_bundle() {
    let bed = Bed::new("true");
    let bundle = bed.bundle();
    let bundle = bundle.to_str().unwrap();
    let missing = error_in_log(&bed, bundle);
    assert!(missing.contains("config.json"), "{missing}");
    for bad in [
        "",
        "{",
        "[]",
        "{\"ociVersion\": 1}",
        "{\"ociVersion\":\"1.0.0\"} x",
    ] {
        fs::write(bed.bundle().join("config.json"), bad).unwrap();
        let message = error_in_log(&bed, bundle);
        assert!(message.contains("config.json"), "{bad}: {message}");
    }
    let nowhere = error_in_log(&bed, "/nonexistent");
    assert!(nowhere.contains("/nonexistent"), "{nowhere}");
}

#[test]
fn an_id_that_could_leave_its_directory_is_refused_by_every_command() {
    let bed = Bed::new("true");
    for command in [
        "create", "start", "state", "kill", "delete", "run", "exec", "pause", "resume", "ps",
    ] {
        for id in ["..", "a/b", ""] {
            let ran = bed.run(&[command, id]);
            let refused = match command {
                "exec" => ran.exec_error(),
                _ => ran.error(),
            };
            assert!(
                refused.contains("invalid container id"),
                "{command} {id:?}: {refused}"
            );
        }
    }
}

#[test]
fn without_systemd_its_cgroups_are_an_error_that_says_what_to_do() {
    let mut bed = Bed::new("true");
    let refused = |bed: &Bed| {
        bed.write_config();
        let bundle = bed.bundle();
        bed.run(&[
            "--systemd-cgroup",
            "create",
            "-b",
            bundle.to_str().unwrap(),
            &bed.id,
        ])
        .error()
    };
    // A path is no scope.
    let message = refused(&bed);
    assert!(
        message.contains("/linux/cgroupsPath") && message.contains("slice:prefix:name"),
        "{message}"
    );
    if std::path::Path::new("/run/systemd/private").exists() {
        // There it would succeed; the virtual machine's tests are the place for that.
        return;
    }
    bed.config["linux"]["cgroupsPath"] = json!("machine.slice:lbrt:x");
    let message = refused(&bed);
    assert!(message.contains("without systemd"), "{message}");
    bed.assert_nothing_left();
}

#[test]
fn a_step_that_fails_leaves_nothing() {
    let mut bed = Bed::new("true");
    let mounts = bed.config["mounts"].as_array_mut().unwrap();
    mounts.push(
        json!({"destination": "/x", "type": "bind", "source": "/nonexistent", "options": ["bind"]}),
    );
    let refused = bed.create().error();
    assert!(refused.contains("/nonexistent"), "{refused}");
    bed.assert_nothing_left();
}

#[test]
fn an_unknown_command_or_flag_is_refused() {
    let bed = Bed::new("true");
    for arguments in [&["nope"][..], &["create", "--nope", "x"], &[]] {
        let ran = bed.run(arguments);
        assert_eq!(ran.code, Some(1), "{ran:?}");
    }
    assert!(bed.run(&["--version"]).ok().contains("spec: 1."));
}
