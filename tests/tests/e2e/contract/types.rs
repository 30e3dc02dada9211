//! The schemas are what `littlebox_types` reads and writes.

use std::collections::BTreeSet;

use littlebox_tests::contract::Contract;
use littlebox_types as t;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};

/// A type as two functions: JSON to the type and back, and JSON to the error of reading it.
struct Wire {
    schema: &'static str,
    through: fn(&Value) -> Result<Value, String>,
}

fn through<T: DeserializeOwned + Serialize>(value: &Value) -> Result<Value, String> {
    let read: T = serde_json::from_value(value.clone()).map_err(|e| e.to_string())?;
    serde_json::to_value(read).map_err(|e| e.to_string())
}

macro_rules! wires {
    ($($schema:literal: $type:ty,)*) => {
        &[$(Wire { schema: $schema, through: through::<$type> }),*]
    };
}

/// Requests: unknown fields are refused.
const REQUESTS: &[Wire] = wires! {
    "CapabilityChange": t::CapabilityChange,
    "ContainerConfig": t::ContainerConfig,
    "ContainerPatch": t::ContainerPatch,
    "DeviceConfig": t::DeviceConfig,
    "ExecConfig": t::ExecConfig,
    "IdMap": t::IdMap,
    "IdMaps": t::IdMaps,
    "IoLimit": t::IoLimit,
    "KillRequest": t::KillRequest,
    "LogConfig": t::LogConfig,
    "MountConfig": t::MountConfig,
    "Resources": t::Resources,
    "ResourcesPatch": t::ResourcesPatch,
    "RestartPolicy": t::RestartPolicy,
    "Rlimit": t::Rlimit,
    "SignalRequest": t::SignalRequest,
    "StopRequest": t::StopRequest,
    "TermSize": t::TermSize,
    "TimeOffset": t::TimeOffset,
    "TimeOffsets": t::TimeOffsets,
};

/// Responses, and the values that are written as text.
const RESPONSES: &[Wire] = wires! {
    "Change": t::Change,
    "Changes": t::Changes,
    "Container": t::Container,
    "ContainerNamespace": t::ContainerNamespace,
    "ContainerNamespaces": t::ContainerNamespaces,
    "ContainerState": t::ContainerState,
    "ContainerSummary": t::ContainerSummary,
    "Difference": t::Difference,
    "Event": t::Event,
    "Exec": t::Exec,
    "ExecPage": t::Page<t::Exec>,
    "ExecState": t::ExecState,
    "Exit": t::Exit,
    "ExitExited": t::Exit,
    "ExitSignaled": t::Exit,
    "ExitUnknown": t::Exit,
    "Failure": t::Failure,
    "FileStat": t::FileStat,
    "GroupRef": t::UserRef,
    "Health": t::Health,
    "InlineOutput": t::InlineOutput,
    "LogLine": t::LogLine,
    "MountIdmap": t::MountIdmap,
    "NamespaceDiff": t::NamespaceDiff,
    "NamespaceInfo": t::NamespaceInfo,
    "NamespaceNode": t::NamespaceNode,
    "NamespaceSource": t::NamespaceSource,
    "NamespaceType": t::NamespaceType,
    "NamespaceTypeDiff": t::NamespaceTypeDiff,
    "NetworkStats": t::NetworkStats,
    "Octal": t::DirectoryMode,
    "Plan": t::Plan,
    "PlanNamespace": t::PlanNamespace,
    "PlanStep": t::PlanStep,
    "Pressure": t::Pressure,
    "Problem": t::Problem,
    "Propagation": t::Propagation,
    "Signal": t::Signal,
    "Stall": t::Stall,
    "StallTimes": t::StallTimes,
    "Stats": t::Stats,
    "SystemInfo": t::SystemInfo,
    "Top": t::Top,
    "TopProcess": t::TopProcess,
    "UserNamespace": t::UserNamespace,
    "UserRef": t::UserSpec,
    "VersionInfo": t::VersionInfo,
    "WaitResult": t::WaitResult,
    "ClientControl": t::ClientControl,
    "ServerControl": t::ServerControl,
};

/// Other single values, lists without a type of their own, and alternatives of the above.
const WITHOUT_A_TYPE: [&str; 30] = [
    "AbsolutePath",
    "Capability",
    "Command",
    "ContainerFields",
    "ContainerId",
    "ContainerPage",
    "ContainerReference",
    "CpuList",
    "Duration",
    "EntityTag",
    "Environment",
    "EventRecord",
    "ExecId",
    "Flag",
    "HostName",
    "Instant",
    "Labels",
    "LogRecord",
    "Name",
    "NamespaceChoice",
    "NamespaceList",
    "NamespaceTree",
    "ProblemCode",
    "Rlimits",
    "Seccomp",
    "SeccompAction",
    "SeccompCircumstances",
    "SeccompErrno",
    "SeccompProfile",
    "SeccompRule",
];

fn schema(name: &str) -> &'static Value {
    &Contract::get().document()["components"]["schemas"][name]
}

fn path(name: &str) -> String {
    format!("/components/schemas/{name}")
}

#[test]
fn every_schema_is_a_type_or_known_to_be_none() {
    let schemas = Contract::get().document()["components"]["schemas"].as_object();
    let schemas: BTreeSet<&str> = schemas
        .expect("schemas")
        .keys()
        .map(String::as_str)
        .collect();
    let known = REQUESTS.iter().chain(RESPONSES).map(|w| w.schema);
    let known: BTreeSet<&str> = known.chain(WITHOUT_A_TYPE).collect();
    assert_eq!(schemas, known);
}

#[test]
fn examples_are_read_by_the_types_and_written_as_the_schema_says() {
    for wire in REQUESTS.iter().chain(RESPONSES) {
        for example in schema(wire.schema)["examples"]
            .as_array()
            .expect("examples")
        {
            let written = (wire.through)(example)
                .unwrap_or_else(|e| panic!("{}: {e}: {example}", wire.schema));
            let checked = Contract::get().validate_response(&path(wire.schema), &written);
            checked.unwrap_or_else(|e| panic!("{}: {e}: {written}", wire.schema));
        }
    }
    let named = Contract::get().document()["components"]["examples"]
        .as_object()
        .expect("examples");
    for (name, example) in named.iter().filter(|(name, _)| name.ends_with("Config")) {
        through::<t::ContainerConfig>(&example["value"]).unwrap_or_else(|e| panic!("{name}: {e}"));
    }
    for (name, example) in named.iter().filter(|(name, _)| name.ends_with("Container")) {
        through::<t::Container>(&example["value"]).unwrap_or_else(|e| panic!("{name}: {e}"));
    }
}

/// A value with every property of a schema comes back from the type with every property: the type
/// knows them all by the same names.
#[test]
fn every_property_is_known_to_its_type() {
    for wire in REQUESTS.iter().chain(RESPONSES) {
        let value = sample(schema(wire.schema), 0);
        let checked = Contract::get().validate(&path(wire.schema), &value);
        checked.unwrap_or_else(|e| panic!("the sample of {}: {e}: {value}", wire.schema));
        let written =
            (wire.through)(&value).unwrap_or_else(|e| panic!("{}: {e}: {value}", wire.schema));
        assert_eq!(written, value, "{}", wire.schema);
    }
}

/// What a type of a request knows is told by its complaint about an unknown field.
#[test]
fn every_field_of_a_request_is_in_its_schema() {
    for wire in REQUESTS {
        let Err(complaint) = (wire.through)(&json!({ "unknown to all": 0 })) else {
            panic!("{} takes unknown fields", wire.schema);
        };
        let fields: BTreeSet<&str> = complaint.split('`').skip(3).step_by(2).collect();
        let properties = schema(wire.schema)["properties"]
            .as_object()
            .expect("properties");
        assert_eq!(
            fields,
            properties.keys().map(String::as_str).collect(),
            "{complaint}"
        );
        assert_eq!(
            schema(wire.schema)["additionalProperties"],
            json!(false),
            "{}",
            wire.schema
        );
    }
}

/// What is required in a request is what the type cannot do without.
#[test]
fn what_a_request_requires_is_what_its_type_requires() {
    // These default to empty, which the daemon then refuses with a pointer.
    let refused_later = [("ExecConfig", "command")];
    for wire in REQUESTS {
        let whole = sample(schema(wire.schema), 0);
        let required: BTreeSet<&str> = schema(wire.schema)["required"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .collect();
        for property in whole.as_object().expect("an object").keys() {
            let mut part = whole.clone();
            part.as_object_mut().expect("an object").remove(property);
            let needed = (wire.through)(&part).is_err()
                || refused_later.contains(&(wire.schema, property.as_str()));
            assert_eq!(
                needed,
                required.contains(property.as_str()),
                "{} {property}",
                wire.schema
            );
        }
    }
}

/// Where a schema allows `null` the type takes it, and nowhere else.
#[test]
fn null_is_taken_where_the_schema_allows_it() {
    for wire in REQUESTS {
        let whole = sample(schema(wire.schema), 0);
        for property in whole.as_object().expect("an object").keys() {
            let mut with_null = whole.clone();
            with_null[property] = Value::Null;
            let allowed = Contract::get()
                .validate(&path(wire.schema), &with_null)
                .is_ok();
            let taken = (wire.through)(&with_null).is_ok();
            assert_eq!(taken, allowed, "{} {property}", wire.schema);
        }
    }
}

/// A value with every property, none of them at its default. `depth` ends trees.
fn sample(schema: &Value, depth: usize) -> Value {
    if let Some(name) = schema["$ref"].as_str().and_then(|r| r.rsplit('/').next()) {
        return sample(self::schema(name), depth);
    }
    if let Some(value) = schema.get("const") {
        return value.clone();
    }
    if let Some(last) = schema["enum"].as_array().and_then(|e| e.last()) {
        return last.clone();
    }
    if let Some(parts) = schema["allOf"].as_array() {
        let parts = parts.iter().map(|p| sample(p, depth));
        return parts.fold(json!({}), |mut all, part| {
            let Value::Object(part) = part else {
                panic!("{schema}")
            };
            all.as_object_mut().expect("an object").extend(part);
            all
        });
    }
    for keyword in ["anyOf", "oneOf"] {
        if let Some(first) = schema[keyword].as_array().and_then(|a| a.first()) {
            return sample(first, depth);
        }
    }
    match kind(schema) {
        "object" => sample_object(schema, depth),
        "array" if depth > 8 => json!([]),
        "array" => json!([sample(&schema["items"], depth + 1)]),
        "boolean" => json!(true),
        "integer" => json!(schema["minimum"].as_u64().unwrap_or(0).max(7)),
        "number" => json!(1.5),
        "string" => sample_string(schema),
        other => panic!("no sample of {other}: {schema}"),
    }
}

fn kind(schema: &Value) -> &str {
    match &schema["type"] {
        Value::String(kind) => kind,
        Value::Array(kinds) => kinds.first().and_then(Value::as_str).expect("a type"),
        // Any JSON.
        _ => "boolean",
    }
}

fn sample_object(schema: &Value, depth: usize) -> Value {
    let mut out = Map::new();
    for (name, property) in schema["properties"].as_object().into_iter().flatten() {
        out.insert(name.clone(), sample(property, depth + 1));
    }
    if out.is_empty() {
        // Any JSON, unless the schema says more.
        out.insert(
            "key".into(),
            sample(&schema["additionalProperties"], depth + 1),
        );
    }
    Value::Object(out)
}

fn sample_string(schema: &Value) -> Value {
    if let Some(example) = schema["examples"].as_array().and_then(|e| e.first()) {
        return example.clone();
    }
    match schema["format"].as_str() {
        Some("date-time") => json!("2025-08-19T08:31:07.000000000Z"),
        Some("uuid") => json!("0198c0de-1b2c-7d3e-8f40-5a6b7c8d9e0f"),
        _ => json!("text"),
    }
}
