//! The daemon and the machine: version, health, system, the contract, metrics.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;

use axum::Json;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use littlebox_types::{Health, SystemInfo, VersionInfo};
use serde_json::json;

use super::AppState;
use super::error::ApiError;
use super::extract::{BODY_LIMIT, Params};
use crate::time::{now_ns, rfc3339};

/// The contract, as it was when this daemon was built.
const OPENAPI: &str = include_str!("../../../api.yaml");

type Result<T> = std::result::Result<T, ApiError>;

/// `GET /v1`.
pub async fn version(params: Params) -> Result<Json<VersionInfo>> {
    params.only(&[])?;
    let uname = rustix::system::uname();
    let features = BTreeMap::from([
        ("cgroup".to_owned(), json!(cgroup_mode())),
        ("overlay".to_owned(), json!(has_filesystem("overlay"))),
        (
            "time_namespace".to_owned(),
            json!(Path::new("/proc/self/ns/time").exists()),
        ),
        (
            "user_namespace".to_owned(),
            json!(Path::new("/proc/self/ns/user").exists()),
        ),
    ]);
    let limits = BTreeMap::from([
        ("body_bytes".to_owned(), BODY_LIMIT as u64),
        ("name_chars".to_owned(), 63),
        ("page_items".to_owned(), 1000),
        ("inline_output_bytes".to_owned(), 1024 * 1024),
    ]);
    Ok(Json(VersionInfo {
        name: "littlebox".into(),
        version: env!("CARGO_PKG_VERSION").into(),
        api_version: "v1".into(),
        kernel: uname.release().to_string_lossy().into_owned(),
        features,
        limits,
    }))
}

/// `GET /v1/system`.
pub async fn info(State(app): AppState, params: Params) -> Result<Json<SystemInfo>> {
    params.only(&[])?;
    let shown = |p: &Path| p.to_string_lossy().into_owned();
    let config = &app.config;
    let paths = BTreeMap::from([
        ("socket".to_owned(), shown(&config.socket)),
        ("state_dir".to_owned(), shown(&config.state_dir)),
        ("run_dir".to_owned(), shown(&config.run_dir)),
        ("helper".to_owned(), shown(&config.helper)),
    ]);
    let status = app.engine.status().await;
    let containers = status.containers.into_iter();
    let containers = containers.map(|(s, n)| (s.name().to_owned(), n)).collect();
    Ok(Json(SystemInfo {
        pid: std::process::id(),
        zygote_pid: Some(status.zygote_pid),
        started_at: rfc3339(app.started_at),
        paths,
        containers,
        storage_driver: "overlay".into(),
        cgroup: cgroup_mode().to_owned(),
        cgroup_parent: shown(app.engine.cgroup_parent()),
        last_event_seq: status.newest_event,
    }))
}

/// `GET /v1/health`.
pub async fn health(State(app): AppState, params: Params) -> Result<Response> {
    params.only(&[])?;
    let checks = app.engine.health().await;
    let ok = checks.values().all(|c| c == "ok");
    let status = if ok {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    let health = Health {
        status: if ok { "ok" } else { "degraded" }.into(),
        checks,
    };
    Ok((status, Json(health)).into_response())
}

/// `GET /v1/openapi.yaml`.
pub async fn openapi(params: Params) -> Result<Response> {
    params.only(&[])?;
    Ok(([(header::CONTENT_TYPE, "application/yaml")], OPENAPI).into_response())
}

/// `GET /metrics`: Prometheus' text format, version 0.0.4.
pub async fn metrics(State(app): AppState, params: Params) -> Result<Response> {
    params.only(&[])?;
    let status = app.engine.status().await;
    let mut out = String::new();
    out.push_str("# HELP littlebox_containers Containers by state.\n");
    out.push_str("# TYPE littlebox_containers gauge\n");
    for (state, count) in status.containers {
        let _ = writeln!(out, "littlebox_containers{{state=\"{state}\"}} {count}");
    }
    let seq = status.newest_event;
    let up = (now_ns() - app.started_at) / 1_000_000_000;
    let version = env!("CARGO_PKG_VERSION");
    let zygote = u8::from(status.zygote_up);
    let unreachable = status.unreachable_helpers;
    let leftovers = status.leftovers;
    let _ = write!(
        out,
        "# HELP littlebox_events_total Sequence number of the newest event.\n\
         # TYPE littlebox_events_total counter\n\
         littlebox_events_total {seq}\n\
         # HELP littlebox_uptime_seconds Seconds since the daemon started.\n\
         # TYPE littlebox_uptime_seconds gauge\n\
         littlebox_uptime_seconds {up}\n\
         # HELP littlebox_zygote_up Whether the process that forks helpers runs.\n\
         # TYPE littlebox_zygote_up gauge\n\
         littlebox_zygote_up {zygote}\n\
         # HELP littlebox_helpers_unreachable Containers whose helper cannot be asked.\n\
         # TYPE littlebox_helpers_unreachable gauge\n\
         littlebox_helpers_unreachable {unreachable}\n\
         # HELP littlebox_leftovers Containers that are gone or have ended and have left what cannot be removed yet.\n\
         # TYPE littlebox_leftovers gauge\n\
         littlebox_leftovers {leftovers}\n\
         # HELP littlebox_build_info The daemon's version.\n\
         # TYPE littlebox_build_info gauge\n\
         littlebox_build_info{{version=\"{version}\"}} 1\n",
    );
    let media = "text/plain; version=0.0.4; charset=utf-8";
    Ok(([(header::CONTENT_TYPE, media)], out).into_response())
}

/// How the machine mounts cgroups.
pub fn cgroup_mode() -> &'static str {
    let root = Path::new("/sys/fs/cgroup");
    if root.join("cgroup.controllers").exists() {
        return "v2";
    }
    let v1 = ["memory", "pids", "cpu", "freezer"]
        .iter()
        .any(|c| root.join(c).is_dir());
    match (v1, root.join("unified/cgroup.procs").exists()) {
        (true, true) => "hybrid",
        (true, false) => "v1",
        (false, _) => "none",
    }
}

fn has_filesystem(name: &str) -> bool {
    std::fs::read_to_string("/proc/filesystems")
        .is_ok_and(|t| t.lines().any(|l| l.split_whitespace().last() == Some(name)))
}
