//! The daemon, the machine, its namespaces and events.

use http::StatusCode;
use serde::Deserialize;

use super::call::Call;
use super::{Client, ClientError, JsonLines};
use littlebox_types::{
    Event, Health, NamespaceDiff, NamespaceInfo, NamespaceNode, NamespaceType, SystemInfo,
    VersionInfo,
};

/// Which events to read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EventOptions {
    /// Those after this sequence number; only new ones when absent.
    pub since_seq: Option<u64>,
    /// End at the newest event instead of waiting for more.
    pub no_follow: bool,
    /// `kind=...`, `container=...`.
    pub filters: Vec<String>,
}

/// A list that has no pages.
#[derive(Deserialize)]
struct Items<T> {
    items: Vec<T>,
}

impl Client {
    /// `GET /v1`.
    ///
    /// # Errors
    /// Any [`ClientError`]; the same is true of every method here.
    pub async fn version(&self) -> Result<VersionInfo, ClientError> {
        self.json(Call::get(&[])).await
    }

    /// `GET /v1/health`: an answer whether it is well or not.
    ///
    /// # Errors
    /// Any [`ClientError`].
    pub async fn health(&self) -> Result<Health, ClientError> {
        let reply = self.send(Call::get(&["health"])).await?;
        let told = matches!(
            reply.parts.status,
            StatusCode::OK | StatusCode::SERVICE_UNAVAILABLE
        );
        if !told {
            return Err(self.failure(reply).await);
        }
        let (request, _, bytes) = self.collect(reply).await?;
        serde_json::from_slice(&bytes).map_err(|source| {
            match serde_json::from_slice(&bytes) {
                // A daemon that shuts down refuses everything in one way.
                Ok(problem) => ClientError::Problem(Box::new(problem)),
                Err(_) => ClientError::Decode { request, source },
            }
        })
    }

    /// `GET /v1/system`.
    ///
    /// # Errors
    /// Any [`ClientError`].
    pub async fn system(&self) -> Result<SystemInfo, ClientError> {
        self.json(Call::get(&["system"])).await
    }

    /// `GET /v1/openapi.yaml`: the contract.
    ///
    /// # Errors
    /// Any [`ClientError`].
    pub async fn openapi(&self) -> Result<String, ClientError> {
        self.text(Call::get(&["openapi.yaml"])).await
    }

    /// `GET /metrics`, in Prometheus' text format.
    ///
    /// # Errors
    /// Any [`ClientError`].
    pub async fn metrics(&self) -> Result<String, ClientError> {
        self.text(Call::get_root("/metrics")).await
    }

    /// `GET /v1/events`.
    ///
    /// # Errors
    /// Any [`ClientError`].
    pub async fn events(&self, options: &EventOptions) -> Result<JsonLines<Event>, ClientError> {
        let mut call = Call::get(&["events"]).maybe("since_seq", options.since_seq);
        if options.no_follow {
            call = call.query("follow", false);
        }
        let call = options
            .filters
            .iter()
            .fold(call, |call, filter| call.query("filter", filter));
        self.lines(call).await
    }

    /// `GET /v1/namespaces`, all or of one type.
    ///
    /// # Errors
    /// Any [`ClientError`].
    pub async fn namespaces(
        &self,
        kind: Option<NamespaceType>,
    ) -> Result<Vec<NamespaceInfo>, ClientError> {
        let list: Items<_> = self
            .json(Call::get(&["namespaces"]).maybe("type", kind.map(NamespaceType::name)))
            .await?;
        Ok(list.items)
    }

    /// `GET /v1/namespaces/{type}/{inode}`.
    ///
    /// # Errors
    /// Any [`ClientError`].
    pub async fn namespace(&self, kind: &str, inode: u64) -> Result<NamespaceInfo, ClientError> {
        self.json(Call::get(&["namespaces", kind, &inode.to_string()]))
            .await
    }

    /// `GET /v1/namespaces/tree`, by `owner` or `parent`.
    ///
    /// # Errors
    /// Any [`ClientError`].
    pub async fn namespace_tree(
        &self,
        by: Option<&str>,
    ) -> Result<Vec<NamespaceNode>, ClientError> {
        let list: Items<_> = self
            .json(Call::get(&["namespaces", "tree"]).maybe("by", by))
            .await?;
        Ok(list.items)
    }

    /// `GET /v1/namespaces/diff`: two containers, or one and `host`.
    ///
    /// # Errors
    /// Any [`ClientError`].
    pub async fn namespace_diff(&self, a: &str, b: &str) -> Result<NamespaceDiff, ClientError> {
        self.json(
            Call::get(&["namespaces", "diff"])
                .query("a", a)
                .query("b", b),
        )
        .await
    }
}
