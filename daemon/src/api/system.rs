//! The daemon and the machine: version, health, system, the contract, metrics.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use littlebox_types::{Health, SystemInfo, VersionInfo};
use serde_json::json;

use super::AppState;
use super::error::ApiError;
use super::extract::{BODY_LIMIT, Params};
use crate::engine::{Engine, Handle};
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
    let engine = &app.engine;
    let shown = |p: &Path| p.to_string_lossy().into_owned();
    let paths = BTreeMap::from([
        ("socket".to_owned(), shown(&app.config.socket)),
        ("state_dir".to_owned(), shown(&engine.paths.state)),
        ("run_dir".to_owned(), shown(&engine.paths.run)),
        ("helper".to_owned(), shown(&app.config.helper)),
    ]);
    let containers = engine
        .count_by_state()
        .into_iter()
        .map(|(s, n)| (s.name().to_owned(), n))
        .collect();
    Ok(Json(SystemInfo {
        pid: std::process::id(),
        zygote_pid: Some(engine.supervisor.zygote_pid().await),
        started_at: rfc3339(app.started_at),
        paths,
        containers,
        storage_driver: "overlay".into(),
        cgroup: cgroup_mode().to_owned(),
        cgroup_parent: shown(&engine.paths.cgroup),
        last_event_seq: *engine.store.newest_event().borrow(),
    }))
}

/// `GET /v1/health`.
pub async fn health(State(app): AppState, params: Params) -> Result<Response> {
    params.only(&[])?;
    let database = match app.engine.store.ping().await {
        Ok(()) => "ok".to_owned(),
        Err(e) => e.to_string(),
    };
    let zygote = match app.engine.supervisor.ensure_zygote().await {
        Ok(()) => "ok".to_owned(),
        Err(error) => format!("cannot be started: {error}"),
    };
    let state_dir = state_dir(&app.engine);
    let helpers = match unreachable_helpers(&app.engine) {
        0 => "ok".to_owned(),
        n => format!("{n} cannot be asked; their containers go on and are kept as they were"),
    };
    let checks = BTreeMap::from([
        ("database".to_owned(), database),
        ("zygote".to_owned(), zygote),
        ("state_dir".to_owned(), state_dir),
        ("helpers".to_owned(), helpers),
    ]);
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

/// Whether containers can write and be removed.
fn state_dir(engine: &Engine) -> String {
    let space = match rustix::fs::statvfs(&engine.paths.state) {
        Ok(space) => space,
        Err(errno) => return errno.to_string(),
    };
    // Some file systems make inodes as they need them, and count none.
    let no_inodes = space.f_files > 0 && space.f_ffree == 0;
    if space.f_bfree == 0 || no_inodes {
        return "the disk is full".to_owned();
    }
    if !engine.store.has_reserve() {
        return "the room that is kept for removals is used up: make room on the disk".to_owned();
    }
    "ok".to_owned()
}

/// How many containers have a helper that cannot be asked.
fn unreachable_helpers(engine: &Engine) -> usize {
    let unreachable = |h: &&Arc<Handle>| h.live().record.helper_condition.is_some();
    engine.all().iter().filter(unreachable).count()
}

/// `GET /v1/openapi.yaml`.
pub async fn openapi(params: Params) -> Result<Response> {
    params.only(&[])?;
    Ok(([(header::CONTENT_TYPE, "application/yaml")], OPENAPI).into_response())
}

/// `GET /metrics`: Prometheus' text format, version 0.0.4.
pub async fn metrics(State(app): AppState, params: Params) -> Result<Response> {
    params.only(&[])?;
    let engine = &app.engine;
    let mut out = String::new();
    out.push_str("# HELP littlebox_containers Containers by state.\n");
    out.push_str("# TYPE littlebox_containers gauge\n");
    for (state, count) in engine.count_by_state() {
        let _ = writeln!(out, "littlebox_containers{{state=\"{state}\"}} {count}");
    }
    let seq = *engine.store.newest_event().borrow();
    let up = (now_ns() - app.started_at) / 1_000_000_000;
    let version = env!("CARGO_PKG_VERSION");
    let zygote = u8::from(engine.supervisor.healthy().await);
    let unreachable = unreachable_helpers(engine);
    let leftovers = engine.leftovers();
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
