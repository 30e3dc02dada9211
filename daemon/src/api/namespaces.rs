//! Namespaces, always read from the kernel.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use littlebox_protocol::{Call, NamespaceKind, Reply};
use littlebox_types::{
    ContainerNamespace, ContainerNamespaces, NamespaceDiff, NamespaceInfo, NamespaceNode,
    NamespaceType, NamespaceTypeDiff, ValueError,
};
use serde::Serialize;

use super::error::ApiError;
use super::extract::{Params, Path};
use super::{App, AppState};
use crate::engine::{EngineError, Handle};
use crate::namespaces::{self, Scan, Side, TreeBy};
use crate::procfs;

type Result<T> = std::result::Result<T, ApiError>;

/// A list that is not paged.
#[derive(Debug, Serialize)]
pub struct Items<T> {
    items: Vec<T>,
}

/// The PID 1 of a container whose program runs, checked against PID reuse.
fn pid_of(handle: &Handle) -> std::result::Result<u32, EngineError> {
    let record = handle.record();
    let ended = |state| EngineError::NotRunning {
        name: record.name.to_string(),
        state,
        wish: "its namespaces",
    };
    let process = record.process.as_ref().ok_or_else(|| ended(record.state))?;
    if procfs::start_time(process.pid).ok() != Some(process.start_time) {
        return Err(ended(littlebox_types::ContainerState::Exited));
    }
    Ok(process.pid)
}

/// Name and PID of every container that runs.
fn running(app: &App) -> Vec<(String, u32)> {
    app.engine
        .all()
        .iter()
        .filter_map(|h| {
            let record = h.record();
            record.process.map(|p| (record.name.to_string(), p.pid))
        })
        .collect()
}

async fn scan(app: &App) -> Result<Vec<NamespaceInfo>> {
    let mut scan = app
        .engine
        .read_kernel("read the machine's namespaces", Scan::take)
        .await?;
    let commands = app.engine.command_lines(None, scan.described());
    scan.set_commands(commands.await);
    let relations = app
        .engine
        .supervisor
        .namespace_relations(scan.refs())
        .await
        .unwrap_or_else(|error| {
            tracing::warn!(%error, "the owners of namespaces could not be asked for");
            Vec::new()
        });
    Ok(scan.list(&running(app), &relations))
}

fn parse_type(text: &str) -> Result<NamespaceType> {
    let wrong = |e: ValueError| ApiError::invalid(e.detail).hint(e.hint);
    text.parse().map_err(wrong)
}

/// `GET /v1/namespaces`.
pub async fn list(State(app): AppState, params: Params) -> Result<Json<Items<NamespaceInfo>>> {
    let params = params.only(&["type"])?;
    let kind = params.get("type").map(parse_type).transpose()?;
    let mut items = scan(&app).await?;
    items.retain(|i| kind.is_none_or(|k| i.kind == k.name()));
    Ok(Json(Items { items }))
}

/// `GET /v1/namespaces/tree`.
pub async fn tree(State(app): AppState, params: Params) -> Result<Json<Items<NamespaceNode>>> {
    let params = params.only(&["by"])?;
    let by = match params.get("by") {
        None | Some("owner") => TreeBy::Owner,
        Some("parent") => TreeBy::Parent,
        Some(other) => {
            return Err(ApiError::invalid(format!(
                "'by' is owner or parent, not '{other}'"
            )));
        }
    };
    let items = namespaces::tree(scan(&app).await?, by);
    Ok(Json(Items { items }))
}

/// `GET /v1/namespaces/{type}/{inode}`.
pub async fn one(
    State(app): AppState,
    Path((kind, inode)): Path<(String, String)>,
    params: Params,
) -> Result<Json<NamespaceInfo>> {
    params.only(&[])?;
    parse_type(&kind)?;
    let wanted: u64 = inode
        .parse()
        .map_err(|_| ApiError::invalid(format!("not an inode number: '{inode}'")))?;
    let found = scan(&app)
        .await?
        .into_iter()
        .find(|i| i.kind == kind && i.inode == wanted);
    found
        .map(Json)
        .ok_or_else(|| EngineError::NamespaceNotFound { kind, inode }.into())
}

/// `GET /v1/containers/{c}/namespaces`.
pub async fn of_container(
    State(app): AppState,
    Path(reference): Path<String>,
    params: Params,
) -> Result<Json<ContainerNamespaces>> {
    params.only(&[])?;
    let handle = app.engine.find(&reference)?;
    let pid = pid_of(&handle)?;
    let (own, host) = app
        .engine
        .read_kernel("read the container's namespaces", move || {
            Ok((
                namespaces::of_process(pid)?,
                namespaces::of_process(std::process::id())?,
            ))
        })
        .await?;
    let refs = namespaces::refs_of(pid, &own);
    let relations = app
        .engine
        .supervisor
        .namespace_relations(refs)
        .await
        .unwrap_or_default();
    let others = running(&app);
    let name = handle.record().name.to_string();
    let shared = app
        .engine
        .read_kernel("read other containers' namespaces", move || {
            let others = others.into_iter().filter(|(n, _)| *n != name);
            Ok(others
                .filter_map(|(n, pid)| Some((n, namespaces::of_process(pid).ok()?)))
                .collect::<Vec<_>>())
        })
        .await?;
    let namespaces = own
        .iter()
        .map(|(kind, ns)| {
            let host_inode = host.get(kind).map_or(0, |h| h.inode);
            let relation = relations
                .iter()
                .find(|r| r.kind == *kind && r.inode == ns.inode);
            ContainerNamespace {
                kind: kind.name().to_owned(),
                inode: ns.inode,
                id: relation.and_then(|r| r.id),
                host_inode,
                is_host: host_inode == ns.inode,
                owner_user_inode: relation.and_then(|r| r.owner_inode),
                shared_with: shared
                    .iter()
                    .filter(|(_, other)| other.get(kind).is_some_and(|o| o.inode == ns.inode))
                    .map(|(name, _)| name.clone())
                    .collect(),
            }
        })
        .collect();
    Ok(Json(ContainerNamespaces {
        container_id: handle.id.to_string(),
        pid,
        namespaces,
    }))
}

/// `GET /v1/namespaces/diff`.
pub async fn diff(State(app): AppState, params: Params) -> Result<Json<NamespaceDiff>> {
    let params = params.only(&["a", "b"])?;
    let (Some(a), Some(b)) = (params.get("a"), params.get("b")) else {
        return Err(
            ApiError::invalid("query parameters 'a' and 'b' are both needed")
                .hint("each is a container's id or name, or 'host'"),
        );
    };
    let (left, right) = (side(&app, a).await?, side(&app, b).await?);
    let types = app
        .engine
        .read_kernel("compare namespaces", move || compare(&left, &right))
        .await?;
    Ok(Json(NamespaceDiff {
        a: a.to_owned(),
        b: b.to_owned(),
        types,
    }))
}

fn compare(a: &Side, b: &Side) -> std::io::Result<Vec<NamespaceTypeDiff>> {
    let (left, right) = (
        namespaces::of_process(a.pid)?,
        namespaces::of_process(b.pid)?,
    );
    let mut types = Vec::new();
    for kind in NamespaceKind::ALL {
        let (Some(l), Some(r)) = (left.get(&kind), right.get(&kind)) else {
            continue;
        };
        let shared = l.inode == r.inode;
        types.push(NamespaceTypeDiff {
            kind: kind.name().to_owned(),
            a_inode: l.inode,
            b_inode: r.inode,
            shared,
            differences: if shared {
                std::collections::BTreeMap::new()
            } else {
                namespaces::differences(kind, a, b)?
            },
        });
    }
    Ok(types)
}

/// One side of a comparison: `host` or a running container.
async fn side(app: &Arc<App>, reference: &str) -> Result<Side> {
    if reference == "host" {
        let uname = rustix::system::uname();
        return Ok(Side {
            pid: std::process::id(),
            hostname: Some(uname.nodename().to_string_lossy().into_owned()),
            domainname: Some(uname.domainname().to_string_lossy().into_owned()),
        });
    }
    let handle = app.engine.find(reference)?;
    let pid = pid_of(&handle)?;
    let helper = handle.running_helper("its namespaces")?;
    let names = match helper
        .call(Call::Hostname)
        .await
        .map_err(EngineError::from)?
    {
        (
            Reply::Hostname {
                hostname,
                domainname,
            },
            _,
        ) => (Some(hostname), Some(domainname)),
        _ => (None, None),
    };
    Ok(Side {
        pid,
        hostname: names.0,
        domainname: names.1,
    })
}
