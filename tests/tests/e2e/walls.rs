//! The walls of the house are dependencies between packages (`docs/architecture.md`).

use std::collections::BTreeSet;
use std::process::Command;

use littlebox_tests::prelude::*;

/// Every package of the product, and those of ours that it depends on.
const PACKAGES: [(&str, &[&str]); 8] = [
    ("littlebox-types", &[]),
    ("littlebox-protocol", &[]),
    ("littlebox-archive", &[]),
    ("lbctl", &["littlebox-archive", "littlebox-types"]),
    ("littlebox-plan", &["littlebox-protocol"]),
    ("littlebox-helper", &["littlebox-protocol"]),
    (
        "littleboxd",
        &[
            "littlebox-archive",
            "littlebox-plan",
            "littlebox-protocol",
            "littlebox-types",
        ],
    ),
    (
        "littlebox-runtime",
        &["littlebox-helper", "littlebox-plan", "littlebox-protocol"],
    ),
];

/// What no synchronous package is built from.
const ASYNC: [&str; 6] = ["tokio", "futures-core", "mio", "hyper", "axum", "sqlx"];

fn cargo(arguments: &[&str]) -> String {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args(arguments)
        .args(["--locked", "--offline"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn packages_depend_on_those_of_ours_that_the_house_allows() {
    let metadata = cargo(&["metadata", "--no-deps", "--format-version=1"]);
    let metadata: Value = serde_json::from_str(&metadata).unwrap();
    let packages = metadata["packages"].as_array().unwrap();
    for (name, allowed) in PACKAGES {
        let package = packages.iter().find(|package| package["name"] == name);
        let dependencies = package.unwrap()["dependencies"].as_array().unwrap().iter();
        let ours: BTreeSet<&str> = dependencies
            .filter(|dependency| dependency["kind"].is_null() && dependency["path"].is_string())
            .map(|dependency| dependency["name"].as_str().unwrap())
            .collect();
        assert_eq!(ours, BTreeSet::from_iter(allowed.iter().copied()), "{name}");
    }
}

#[test]
fn nothing_synchronous_is_built_from_an_async_runtime() {
    for package in [
        "littlebox-types",
        "littlebox-protocol",
        "littlebox-archive",
        "littlebox-plan",
        "littlebox-helper",
        "littlebox-runtime",
    ] {
        let tree = cargo(&[
            "tree",
            "--edges=normal",
            "--prefix=none",
            "--package",
            package,
        ]);
        let built_from: BTreeSet<&str> = tree
            .lines()
            .filter_map(|line| line.split(' ').next())
            .collect();
        assert!(built_from.contains("serde"), "{package}: {tree}");
        for runtime in ASYNC {
            assert!(!built_from.contains(runtime), "{package}: {tree}");
        }
    }
}

/// Handlers parse, call the engine and render: what stands behind it is not theirs.
#[test]
fn the_api_reaches_nothing_behind_the_engine() {
    let api = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../daemon/src/api");
    let files: Vec<_> = std::fs::read_dir(api).unwrap().flatten().collect();
    assert!(files.len() > 10);
    for file in files {
        let text = std::fs::read_to_string(file.path()).unwrap();
        for behind in [
            "engine.store",
            "engine.supervisor",
            "engine.paths",
            ".live()",
        ] {
            assert!(!text.contains(behind), "{:?}: {behind}", file.path());
        }
    }
}
