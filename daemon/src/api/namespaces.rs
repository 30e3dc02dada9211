//! Namespaces, always read from the kernel.

use axum::Json;
use axum::extract::State;
use littlebox_types::{
    ContainerNamespaces, NamespaceDiff, NamespaceInfo, NamespaceNode, NamespaceType, ValueError,
};
use serde::Serialize;

use super::AppState;
use super::error::ApiError;
use super::extract::{Params, Path};
use crate::engine::EngineError;
use crate::namespaces::{self, TreeBy};

type Result<T> = std::result::Result<T, ApiError>;

/// A list that is not paged.
#[derive(Debug, Serialize)]
pub struct Items<T> {
    items: Vec<T>,
}

fn parse_type(text: &str) -> Result<NamespaceType> {
    let wrong = |e: ValueError| ApiError::invalid(e.detail).hint(e.hint);
    text.parse().map_err(wrong)
}

/// `GET /v1/namespaces`.
pub async fn list(State(app): AppState, params: Params) -> Result<Json<Items<NamespaceInfo>>> {
    let params = params.only(&["type"])?;
    let kind = params.get("type").map(parse_type).transpose()?;
    let mut items = app.engine.namespaces().await?;
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
    let items = namespaces::tree(app.engine.namespaces().await?, by);
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
    let found = app
        .engine
        .namespaces()
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
    Ok(Json(app.engine.namespaces_of(&reference).await?))
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
    Ok(Json(app.engine.compare_namespaces(a, b).await?))
}
