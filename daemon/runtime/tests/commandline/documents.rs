//! Documents that are read and written, and where a command finds them.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

use std::fs;

use crate::support::{Bed, Ran};
use serde_json::{Value, json};

/// Runs a command in a directory of the test's.
fn run_in(bed: &Bed, directory: &str, arguments: &[&str]) -> Ran {
    let mut command = bed.command(arguments);
    command.current_dir(bed.path(directory));
    command.output().unwrap().into()
}

#[test]
fn relative_paths_are_the_callers() {
    let bed = Bed::new("true");
    bed.write_config();
    fs::create_dir(bed.path("elsewhere")).unwrap();
    let binary = env!("CARGO_BIN_EXE_littlebox-runtime");
    let run = |arguments: &[&str]| {
        let mut command = std::process::Command::new(binary);
        command.args(["--root", "../state", "--log", "log", "--debug"]);
        command.args(arguments).current_dir(bed.path("elsewhere"));
        assert!(command.status().unwrap().success(), "{arguments:?}");
    };
    run(&[
        "create",
        "--bundle",
        "../bundle",
        "--pid-file",
        "pid",
        &bed.id,
    ]);
    let pid = fs::read_to_string(bed.path("elsewhere/pid")).unwrap();
    assert_eq!(pid, bed.pid().to_string());
    assert!(bed.path("elsewhere/log").exists());
    run(&["delete", "--force", &bed.id]);
}

#[test]
fn a_document_may_lie_beside_the_bundle() {
    let bed = Bed::new("echo from another document");
    bed.write_config();
    fs::create_dir(bed.path("elsewhere")).unwrap();
    let (from, to) = (bed.bundle().join("config.json"), "elsewhere/other.json");
    fs::rename(from, bed.path(to)).unwrap();
    let arguments = [
        "run",
        "--bundle",
        "../bundle",
        "--config",
        "other.json",
        &bed.id,
    ];
    let ran = run_in(&bed, "elsewhere", &arguments);
    assert_eq!(ran.ok(), "from another document\n");
}

#[test]
fn a_spec_to_begin_with_is_written_and_runs() {
    let bed = Bed::new("");
    run_in(&bed, "bundle", &["spec"]).ok();
    let config = bed.bundle().join("config.json");
    let written = fs::read_to_string(&config).unwrap();
    let again = run_in(&bed, "bundle", &["spec"]).error();
    assert!(
        again.contains("config.json") && again.contains("exists"),
        "{again}"
    );
    assert_eq!(fs::read_to_string(&config).unwrap(), written);
    let mut spec: Value = serde_json::from_str(&written).unwrap();
    assert_eq!(spec["process"]["args"], json!(["sh"]));
    spec["process"]["args"] = json!(["sh", "-c", "test -t 1 && hostname"]);
    fs::write(&config, spec.to_string()).unwrap();
    assert_eq!(
        run_in(&bed, "bundle", &["run", &bed.id]).ok(),
        "littlebox\n"
    );
}

#[test]
fn a_root_that_was_named_and_is_not_there_is_told() {
    let bed = Bed::new("true");
    let listed = bed.run(&["list"]).error();
    assert!(listed.contains("state"), "{listed}");
    bed.create().ok();
    bed.run(&["list"]).ok();
}

#[test]
fn a_state_is_indented_and_an_event_begins_with_its_type() {
    let mut bed = Bed::new("");
    bed.config["process"]["args"] = json!(["sleep", "100"]);
    bed.create().ok();
    let state = bed.run(&["state", &bed.id]).ok();
    assert!(
        state.contains(&format!("\n  \"id\": \"{}\",\n", bed.id)),
        "{state}"
    );
    let event = bed.run(&["events", "--stats", &bed.id]).ok();
    let begin = format!("{{\"type\":\"stats\",\"id\":\"{}\",\"data\":{{", bed.id);
    assert!(event.starts_with(&begin), "{event}");
}
