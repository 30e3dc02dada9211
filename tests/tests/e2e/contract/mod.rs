//! `api.yaml` is exactly true: its routes, codes, schemas and examples are the code's, and each
//! status that it documents can be met ([`sweep`]).

mod sweep;
mod types;

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use littlebox_tests::contract::Contract;
use serde_json::Value;

#[test]
fn the_routes_are_the_paths() {
    let routes: BTreeSet<(String, String)> = littleboxd::api::ROUTES
        .iter()
        .map(|(method, path)| ((*method).to_owned(), (*path).to_owned()))
        .collect();
    let paths = Contract::get().operations();
    let missing: Vec<_> = routes.difference(&paths).collect();
    let invented: Vec<_> = paths.difference(&routes).collect();
    assert!(missing.is_empty(), "not in api.yaml: {missing:?}");
    assert!(invented.is_empty(), "only in api.yaml: {invented:?}");
}

#[test]
fn the_codes_are_those_of_the_daemon_with_their_statuses() {
    let schema = &Contract::get().document()["components"]["schemas"]["ProblemCode"];
    let listed: BTreeSet<&str> = strings(&schema["enum"]);
    let codes: BTreeSet<&str> = littleboxd::api::CODES.iter().copied().collect();
    assert_eq!(listed, codes);

    let rows = schema["description"]
        .as_str()
        .expect("a description")
        .lines();
    let table: BTreeMap<String, u16> = rows
        .filter_map(|row| {
            let cells: Vec<&str> = row.split('|').map(str::trim).collect();
            let [_, code, status, hint, _] = cells.as_slice() else {
                return None;
            };
            let status = status.parse().ok()?;
            assert!(!hint.is_empty(), "{row}");
            Some((code.trim_matches('`').to_owned(), status))
        })
        .collect();
    let statuses = littleboxd::api::PROBLEMS.iter();
    assert_eq!(
        table,
        statuses
            .map(|(code, status, _)| ((*code).to_owned(), *status))
            .collect()
    );
}

#[test]
fn each_problem_response_lists_codes_of_its_own_status() {
    let contract = Contract::get();
    let statuses: BTreeMap<&str, u16> = littleboxd::api::PROBLEMS
        .iter()
        .map(|(code, status, _)| (*code, *status))
        .collect();
    let mut used = BTreeSet::new();
    for seen in contract.documented() {
        let operation = &contract.document()["paths"][&seen.path][seen.method.to_lowercase()];
        let response = &operation["responses"][seen.status.to_string()];
        let Some(name) = response["$ref"].as_str().and_then(|r| r.rsplit('/').next()) else {
            continue;
        };
        let codes =
            strings(&contract.document()["components"]["responses"][name]["x-littlebox-codes"]);
        for code in codes {
            assert_eq!(statuses.get(code), Some(&seen.status), "{seen}: {code}");
            used.insert(code);
        }
    }
    // Those two belong to no operation.
    used.extend(["not_found", "method_not_allowed"]);
    assert_eq!(used, littleboxd::api::CODES.iter().copied().collect());
}

#[test]
fn every_example_is_valid() {
    let contract = Contract::get();
    let examples = contract.examples();
    assert!(
        examples.len() > 100,
        "only {} examples were found",
        examples.len()
    );
    for example in examples {
        let checked = contract.validate_response(&example.schema, &example.value);
        checked.unwrap_or_else(|e| panic!("{}: {e}", example.at));
    }
}

#[test]
fn every_schema_and_every_json_body_has_an_example() {
    let contract = Contract::get();
    for (name, schema) in contract.document()["components"]["schemas"]
        .as_object()
        .expect("schemas")
    {
        let examples = schema["examples"].as_array().map_or(0, Vec::len);
        assert!(examples > 0, "the schema {name} has no example");
    }
    let mut media = Vec::new();
    collect_media(String::new(), contract.document(), &mut media);
    assert!(media.len() > 60);
    for (at, content) in media {
        let shown = content.get("example").is_some() || content.get("examples").is_some();
        // An archive or a program's bytes have no example.
        assert!(shown || content["schema"]["format"] == "binary", "{at}");
    }
}

fn collect_media<'a>(at: String, value: &'a Value, found: &mut Vec<(String, &'a Value)>) {
    let Some(map) = value.as_object() else { return };
    for (key, inner) in map {
        let at = format!("{at}/{key}");
        if key == "content" {
            let media = inner.as_object().into_iter().flatten();
            found.extend(media.map(|(name, content)| (format!("{at}/{name}"), content)));
        } else if key != "example" && key != "examples" && key != "schemas" {
            collect_media(at, inner, found);
        }
    }
}

#[test]
fn every_operation_has_an_id_a_tag_a_summary_and_the_statuses_of_all() {
    let contract = Contract::get();
    let tags: BTreeSet<&str> = contract.document()["tags"]
        .as_array()
        .expect("tags")
        .iter()
        .filter_map(|t| t["name"].as_str())
        .collect();
    let mut ids = BTreeSet::new();
    for (method, path) in contract.operations() {
        let operation = &contract.document()["paths"][&path][method.to_lowercase()];
        let id = operation["operationId"]
            .as_str()
            .unwrap_or_else(|| panic!("{method} {path}: no id"));
        assert!(ids.insert(id), "{id} is there twice");
        assert!(
            id.starts_with(|c: char| c.is_ascii_lowercase()) && !id.contains('_'),
            "{id}"
        );
        assert!(operation["summary"].is_string(), "{id}: no summary");
        assert!(
            strings(&operation["tags"]).is_subset(&tags),
            "{id}: an unknown tag"
        );
        for status in ["400", "403", "500"] {
            assert!(
                operation["responses"].get(status).is_some(),
                "{id}: no {status}"
            );
        }
        let json = operation["requestBody"]["content"]
            .get("application/json")
            .is_some();
        if json {
            assert!(operation["responses"].get("413").is_some(), "{id}: no 413");
            assert!(operation["responses"].get("415").is_some(), "{id}: no 415");
        }
        let refers = path.contains("{c}") || path.contains("{e}");
        assert!(
            !refers || operation["responses"].get("404").is_some(),
            "{id}: no 404"
        );
    }
}

#[test]
fn the_contract_has_the_version_of_the_programs() {
    let version = &Contract::get().document()["info"]["version"];
    assert_eq!(version, env!("CARGO_PKG_VERSION"));
}

/// The wall between the daemon and what builds containers: no async runtime, web server or database
/// below the helper and the OCI command line.
#[test]
fn the_helper_and_the_runtime_depend_on_nothing_asynchronous() {
    for package in ["littlebox-helper", "littlebox-runtime"] {
        let crates = dependencies(package);
        assert!(
            crates.contains("rustix"),
            "this is no dependency tree: {crates:?}"
        );
        for forbidden in [
            "tokio",
            "axum",
            "sqlx",
            "hyper",
            "async-std",
            "smol",
            "futures",
            "mio",
            "tower",
            "littleboxd",
        ] {
            assert!(
                !crates.contains(forbidden),
                "{package} depends on {forbidden}: {crates:?}"
            );
        }
    }
}

/// The names of all crates that a package of ours is built with.
fn dependencies(package: &str) -> BTreeSet<String> {
    let out = Command::new(env!("CARGO"))
        .args(["tree", "--offline", "--locked", "-p", package])
        .args(["-e", "normal,build", "--prefix", "none", "--all-features"])
        .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
        .output()
        .expect("cargo can be executed");
    assert!(
        out.status.success(),
        "{}",
        String::from_utf8_lossy(&out.stderr)
    );
    let tree = String::from_utf8_lossy(&out.stdout);
    let names = tree.lines().filter_map(|line| line.split(' ').next());
    names.map(str::to_owned).collect()
}

fn strings(list: &Value) -> BTreeSet<&str> {
    list.as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect()
}
