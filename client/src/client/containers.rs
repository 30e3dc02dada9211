//! `/v1/containers`.

use std::io;
use std::time::Duration;

use bytes::Bytes;
use futures_util::Stream;
use http::header::{HeaderName, IF_MATCH, IF_NONE_MATCH};
use http::{Method, StatusCode};

use super::call::Call;
use super::{BodyStream, Client, ClientError, JsonLines};
use littlebox_types::{
    Changes, Container, ContainerConfig, ContainerNamespaces, ContainerPatch, ContainerSummary,
    FileStat, KillRequest, LogLine, Page, Plan, Stats, StopRequest, TermSize, Top, WaitFor,
    WaitResult,
};

pub(super) const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// What part of the containers to list.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ListOptions {
    /// At most so many (1 to 1000).
    pub limit: Option<u32>,
    /// Where the last page ended.
    pub cursor: Option<String>,
    /// `state=running`, `name=SUBSTRING`, `label=K=V`, `id=PREFIX`.
    pub filters: Vec<String>,
}

/// How to create a container.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CreateOptions {
    /// Start it in the same call.
    pub start: bool,
    /// With `start`: wait so long for its end.
    pub wait: Option<Duration>,
    /// Makes a repeated request answer with the first one's container.
    pub idempotency_key: Option<String>,
}

/// What to read of a log.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LogOptions {
    /// Only the last so many lines.
    pub tail: Option<u64>,
    /// RFC 3339, unix seconds, or a duration back from now.
    pub since: Option<String>,
    /// As `since`.
    pub until: Option<String>,
    /// Wait for more.
    pub follow: bool,
    /// Leave out stdout.
    pub no_stdout: bool,
    /// Leave out stderr.
    pub no_stderr: bool,
    /// A position that a line told.
    pub from: Option<u64>,
}

impl LogOptions {
    pub(super) fn apply(&self, call: Call) -> Call {
        let mut call = call
            .maybe("tail", self.tail)
            .maybe("since", self.since.as_ref())
            .maybe("until", self.until.as_ref())
            .flag("follow", self.follow)
            .maybe("from", self.from);
        if self.no_stdout {
            call = call.query("stdout", false);
        }
        if self.no_stderr {
            call = call.query("stderr", false);
        }
        call
    }
}

/// A request on one container.
fn on(method: Method, container: &str, action: &str) -> Call {
    Call::new(method, &["containers", container, action])
}

impl Client {
    /// `GET /v1/containers`: one page.
    ///
    /// # Errors
    /// Any [`ClientError`]; the same is true of every method here.
    pub async fn containers(
        &self,
        options: &ListOptions,
    ) -> Result<Page<ContainerSummary>, ClientError> {
        self.json(list(options)).await
    }

    /// `GET /v1/containers?fields=`: one page, only these fields of a [`ContainerSummary`].
    ///
    /// # Errors
    /// Any [`ClientError`].
    pub async fn container_fields(
        &self,
        options: &ListOptions,
        fields: &[&str],
    ) -> Result<Page<serde_json::Value>, ClientError> {
        self.json(list(options).query("fields", fields.join(",")))
            .await
    }

    /// `GET /v1/containers`: all pages; `options.limit` is not used.
    ///
    /// # Errors
    /// Any [`ClientError`].
    pub async fn all_containers(
        &self,
        options: &ListOptions,
    ) -> Result<Vec<ContainerSummary>, ClientError> {
        let mut page = ListOptions {
            limit: Some(1000),
            ..options.clone()
        };
        let mut items = Vec::new();
        loop {
            let answer = self.containers(&page).await?;
            items.extend(answer.items);
            page.cursor = answer.next;
            if page.cursor.is_none() {
                return Ok(items);
            }
        }
    }

    /// `POST /v1/containers`.
    ///
    /// # Errors
    /// Any [`ClientError`].
    pub async fn create_container(
        &self,
        config: &ContainerConfig,
        options: &CreateOptions,
    ) -> Result<Container, ClientError> {
        let mut call = Call::post(&["containers"])
            .flag("start", options.start)
            .duration("wait", options.wait)
            .json(config)?;
        if let Some(key) = &options.idempotency_key {
            call = call.header(IDEMPOTENCY_KEY, key)?;
        }
        self.json(call).await
    }

    /// `POST /v1/containers?dry_run`: how it would be built.
    ///
    /// # Errors
    /// Any [`ClientError`].
    pub async fn plan_container(&self, config: &ContainerConfig) -> Result<Plan, ClientError> {
        self.json(
            Call::post(&["containers"])
                .flag("dry_run", true)
                .json(config)?,
        )
        .await
    }

    /// `GET /v1/containers/{c}`.
    ///
    /// # Errors
    /// Any [`ClientError`].
    pub async fn container(&self, container: &str) -> Result<Container, ClientError> {
        self.json(Call::get(&["containers", container])).await
    }

    /// `GET /v1/containers/{c}`, unless it is still of this generation.
    ///
    /// # Errors
    /// Any [`ClientError`].
    pub async fn container_if_changed(
        &self,
        container: &str,
        generation: u64,
    ) -> Result<Option<Container>, ClientError> {
        let call = Call::get(&["containers", container]);
        let reply = self
            .send_ok(call.header(IF_NONE_MATCH, &etag(generation))?)
            .await?;
        let (request, parts, bytes) = self.collect(reply).await?;
        if parts.status == StatusCode::NOT_MODIFIED {
            return Ok(None);
        }
        serde_json::from_slice(&bytes)
            .map(Some)
            .map_err(|source| ClientError::Decode { request, source })
    }

    /// `PATCH /v1/containers/{c}`; with `generation` only while it is of that generation.
    ///
    /// # Errors
    /// Any [`ClientError`].
    pub async fn update_container(
        &self,
        container: &str,
        patch: &ContainerPatch,
        generation: Option<u64>,
    ) -> Result<Container, ClientError> {
        let mut call = Call::new(Method::PATCH, &["containers", container]).json(patch)?;
        if let Some(generation) = generation {
            call = call.header(IF_MATCH, &etag(generation))?;
        }
        self.json(call).await
    }

    /// `DELETE /v1/containers/{c}`. `Some` when it was not gone within `wait`.
    ///
    /// # Errors
    /// Any [`ClientError`].
    pub async fn remove_container(
        &self,
        container: &str,
        force: bool,
        wait: Option<Duration>,
    ) -> Result<Option<Container>, ClientError> {
        let call = Call::new(Method::DELETE, &["containers", container])
            .flag("force", force)
            .duration("wait", wait);
        let reply = self.send_ok(call).await?;
        let (request, parts, bytes) = self.collect(reply).await?;
        if parts.status == StatusCode::NO_CONTENT {
            return Ok(None);
        }
        serde_json::from_slice(&bytes)
            .map(Some)
            .map_err(|source| ClientError::Decode { request, source })
    }

    /// `POST .../start`; with `wait`, waits so long for its end.
    ///
    /// # Errors
    /// Any [`ClientError`].
    pub async fn start_container(
        &self,
        container: &str,
        wait: Option<Duration>,
    ) -> Result<Container, ClientError> {
        self.json(on(Method::POST, container, "start").duration("wait", wait))
            .await
    }

    /// `POST .../stop`. `false` beside it when it had not ended within `wait`.
    ///
    /// # Errors
    /// Any [`ClientError`].
    pub async fn stop_container(
        &self,
        container: &str,
        request: &StopRequest,
        wait: Option<Duration>,
    ) -> Result<(Container, bool), ClientError> {
        let call = on(Method::POST, container, "stop")
            .duration("wait", wait)
            .json(request)?;
        let (value, status) = self.json_status(call).await?;
        Ok((value, status != StatusCode::ACCEPTED))
    }

    /// `POST .../restart`.
    ///
    /// # Errors
    /// Any [`ClientError`].
    pub async fn restart_container(
        &self,
        container: &str,
        request: &StopRequest,
    ) -> Result<Container, ClientError> {
        self.json(on(Method::POST, container, "restart").json(request)?)
            .await
    }

    /// `POST .../kill`.
    ///
    /// # Errors
    /// Any [`ClientError`].
    pub async fn kill_container(
        &self,
        container: &str,
        request: &KillRequest,
    ) -> Result<(), ClientError> {
        self.empty(on(Method::POST, container, "kill").json(request)?)
            .await
    }

    /// `POST .../pause`.
    ///
    /// # Errors
    /// Any [`ClientError`].
    pub async fn pause_container(&self, container: &str) -> Result<Container, ClientError> {
        self.json(on(Method::POST, container, "pause")).await
    }

    /// `POST .../resume`.
    ///
    /// # Errors
    /// Any [`ClientError`].
    pub async fn resume_container(&self, container: &str) -> Result<Container, ClientError> {
        self.json(on(Method::POST, container, "resume")).await
    }

    /// `POST .../resize`.
    ///
    /// # Errors
    /// Any [`ClientError`].
    pub async fn resize_container(
        &self,
        container: &str,
        size: TermSize,
    ) -> Result<(), ClientError> {
        self.empty(on(Method::POST, container, "resize").json(&size)?)
            .await
    }

    /// `GET .../wait`; without `timeout` for as long as it takes.
    ///
    /// # Errors
    /// Any [`ClientError`].
    pub async fn wait_container(
        &self,
        container: &str,
        condition: WaitFor,
        timeout: Option<Duration>,
    ) -> Result<WaitResult, ClientError> {
        let condition = match condition {
            WaitFor::Exited => "exited",
            WaitFor::Running => "running",
            WaitFor::Removed => "removed",
        };
        let call = on(Method::GET, container, "wait").query("for", condition);
        self.json(call.duration("timeout", timeout)).await
    }

    /// `GET .../logs`, line by line.
    ///
    /// # Errors
    /// Any [`ClientError`].
    pub async fn logs(
        &self,
        container: &str,
        options: &LogOptions,
    ) -> Result<JsonLines<LogLine>, ClientError> {
        self.lines(options.apply(on(Method::GET, container, "logs")))
            .await
    }

    /// `GET .../logs` as the bytes that the program wrote; with a time before each line when
    /// `timestamps`.
    ///
    /// # Errors
    /// Any [`ClientError`].
    pub async fn raw_logs(
        &self,
        container: &str,
        options: &LogOptions,
        timestamps: bool,
    ) -> Result<BodyStream, ClientError> {
        let call = options.apply(on(Method::GET, container, "logs"));
        self.stream(call.flag("timestamps", timestamps), "text/plain")
            .await
    }

    /// `GET .../stats`, once.
    ///
    /// # Errors
    /// Any [`ClientError`].
    pub async fn stats(&self, container: &str) -> Result<Stats, ClientError> {
        self.json(on(Method::GET, container, "stats")).await
    }

    /// `GET .../stats?stream`, until the container ends.
    ///
    /// # Errors
    /// Any [`ClientError`].
    pub async fn stats_stream(
        &self,
        container: &str,
        interval: Option<Duration>,
    ) -> Result<JsonLines<Stats>, ClientError> {
        let call = on(Method::GET, container, "stats").flag("stream", true);
        self.lines(call.duration("interval", interval)).await
    }

    /// `GET .../top`.
    ///
    /// # Errors
    /// Any [`ClientError`].
    pub async fn top(&self, container: &str) -> Result<Top, ClientError> {
        self.json(on(Method::GET, container, "top")).await
    }

    /// `GET .../changes`.
    ///
    /// # Errors
    /// Any [`ClientError`].
    pub async fn changes(&self, container: &str) -> Result<Changes, ClientError> {
        self.json(on(Method::GET, container, "changes")).await
    }

    /// `GET .../export`: the whole root as tar.
    ///
    /// # Errors
    /// Any [`ClientError`].
    pub async fn export(&self, container: &str) -> Result<BodyStream, ClientError> {
        self.stream(on(Method::GET, container, "export"), "application/x-tar")
            .await
    }

    /// `GET .../files?stat`: what lies at a container path.
    ///
    /// # Errors
    /// Any [`ClientError`].
    pub async fn stat_file(&self, container: &str, path: &str) -> Result<FileStat, ClientError> {
        let call = on(Method::GET, container, "files").query("path", path);
        self.json(call.flag("stat", true)).await
    }

    /// `GET .../files`: a file or directory as tar; entry names start with its base name.
    ///
    /// # Errors
    /// Any [`ClientError`].
    pub async fn get_files(&self, container: &str, path: &str) -> Result<BodyStream, ClientError> {
        let call = on(Method::GET, container, "files").query("path", path);
        self.stream(call, "application/x-tar").await
    }

    /// `PUT .../files`: unpacks a tar archive into the existing directory `path`.
    ///
    /// # Errors
    /// Any [`ClientError`].
    pub async fn put_files<S>(
        &self,
        container: &str,
        path: &str,
        archive: S,
    ) -> Result<(), ClientError>
    where
        S: Stream<Item = io::Result<Bytes>> + Send + 'static,
    {
        let call = on(Method::PUT, container, "files").query("path", path);
        self.empty(call.stream("application/x-tar", archive)).await
    }

    /// `GET .../plan`: how it is built, with timings once it was.
    ///
    /// # Errors
    /// Any [`ClientError`].
    pub async fn plan(&self, container: &str) -> Result<Plan, ClientError> {
        self.json(on(Method::GET, container, "plan")).await
    }

    /// `GET .../namespaces`.
    ///
    /// # Errors
    /// Any [`ClientError`].
    pub async fn container_namespaces(
        &self,
        container: &str,
    ) -> Result<ContainerNamespaces, ClientError> {
        self.json(on(Method::GET, container, "namespaces")).await
    }
}

fn list(options: &ListOptions) -> Call {
    let call = Call::get(&["containers"])
        .maybe("limit", options.limit)
        .maybe("cursor", options.cursor.as_ref());
    options
        .filters
        .iter()
        .fold(call, |call, filter| call.query("filter", filter))
}

fn etag(generation: u64) -> String {
    format!("\"{generation}\"")
}
