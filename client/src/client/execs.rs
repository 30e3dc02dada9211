//! `/v1/execs` and `/v1/containers/{c}/execs`.

use std::time::Duration;

use super::call::Call;
use super::containers::IDEMPOTENCY_KEY;
use super::{BodyStream, Client, ClientError, JsonLines, LogOptions};
use littlebox_types::{Exec, ExecConfig, LogLine, Page, Signal, SignalRequest, TermSize};

impl Client {
    /// `GET /v1/containers/{c}/execs`: one page.
    ///
    /// # Errors
    /// Any [`ClientError`]; the same is true of every method here.
    pub async fn execs(
        &self,
        container: &str,
        limit: Option<u32>,
        cursor: Option<&str>,
    ) -> Result<Page<Exec>, ClientError> {
        let call = Call::get(&["containers", container, "execs"]);
        self.json(call.maybe("limit", limit).maybe("cursor", cursor))
            .await
    }

    /// `POST /v1/containers/{c}/execs`; with `wait`, waits so long for its end and has the output
    /// in the answer.
    ///
    /// # Errors
    /// Any [`ClientError`].
    pub async fn create_exec(
        &self,
        container: &str,
        config: &ExecConfig,
        wait: Option<Duration>,
        idempotency_key: Option<&str>,
    ) -> Result<Exec, ClientError> {
        let mut call = Call::post(&["containers", container, "execs"])
            .duration("wait", wait)
            .json(config)?;
        if let Some(key) = idempotency_key {
            call = call.header(IDEMPOTENCY_KEY, key)?;
        }
        self.json(call).await
    }

    /// `GET /v1/execs/{e}`; with `wait`, waits so long for its end.
    ///
    /// # Errors
    /// Any [`ClientError`].
    pub async fn exec(&self, exec: &str, wait: Option<Duration>) -> Result<Exec, ClientError> {
        self.json(Call::get(&["execs", exec]).duration("wait", wait))
            .await
    }

    /// `POST /v1/execs/{e}/signal`.
    ///
    /// # Errors
    /// Any [`ClientError`].
    pub async fn signal_exec(&self, exec: &str, signal: Signal) -> Result<(), ClientError> {
        let body = SignalRequest { signal };
        self.empty(Call::post(&["execs", exec, "signal"]).json(&body)?)
            .await
    }

    /// `POST /v1/execs/{e}/resize`.
    ///
    /// # Errors
    /// Any [`ClientError`].
    pub async fn resize_exec(&self, exec: &str, size: TermSize) -> Result<(), ClientError> {
        self.empty(Call::post(&["execs", exec, "resize"]).json(&size)?)
            .await
    }

    /// `GET /v1/execs/{e}/output`, line by line. Of the options `from`, `follow` and the streams
    /// are used.
    ///
    /// # Errors
    /// Any [`ClientError`].
    pub async fn exec_output(
        &self,
        exec: &str,
        options: &LogOptions,
    ) -> Result<JsonLines<LogLine>, ClientError> {
        self.lines(output(exec, options)).await
    }

    /// `GET /v1/execs/{e}/output` as the bytes that the program wrote.
    ///
    /// # Errors
    /// Any [`ClientError`].
    pub async fn raw_exec_output(
        &self,
        exec: &str,
        options: &LogOptions,
    ) -> Result<BodyStream, ClientError> {
        self.stream(output(exec, options), "application/octet-stream")
            .await
    }
}

fn output(exec: &str, options: &LogOptions) -> Call {
    let usable = LogOptions {
        tail: None,
        since: None,
        until: None,
        ..options.clone()
    };
    usable.apply(Call::get(&["execs", exec, "output"]))
}
