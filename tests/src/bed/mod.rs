//! The test bed: a daemon of the test's own, short words for what tests do, and the oracle around.

mod containers;
mod lbctl;
mod words;

use std::path::Path;
use std::time::Duration;

use ::littlebox_types::SystemInfo;
use rustix::process::Signal;
use serde_json::Value;

use crate::daemon::{Daemon, Dirs, Options};
use crate::http::{Client, Method, Request, Response, Stream};
use crate::oracle::{self, Facts, Subject};
use crate::proc;
use crate::ws::Ws;

pub use words::*;

/// How a bed is made.
#[derive(Debug, Default)]
pub struct BedBuilder {
    options: Options,
}

impl BedBuilder {
    /// An environment variable for the daemon.
    #[must_use]
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.options.env.push((name.into(), value.into()));
        self
    }

    /// The configuration file.
    #[must_use]
    pub fn config(mut self, text: &str) -> Self {
        self.options.config = Some(text.into());
        self
    }

    /// The switch that makes failure injection possible.
    #[must_use]
    pub fn faults(self) -> Self {
        self.env("LITTLEBOX_TEST_FAULTS", "1")
    }

    /// The state directory on a tmpfs of so many bytes.
    #[must_use]
    pub fn state_size(mut self, bytes: u64) -> Self {
        self.options.state_size = Some(bytes);
        self
    }

    /// The socket handed over as systemd does it.
    #[must_use]
    pub fn socket_activation(mut self) -> Self {
        self.options.socket_activation = true;
        self
    }

    /// The umask that the daemon is started with.
    #[must_use]
    pub fn umask(mut self, umask: u32) -> Self {
        self.options.umask = Some(umask);
        self
    }

    /// The daemon behind a shell script that ends with `exec "$@"`, run by `unshare` with these
    /// flags: in mount and cgroup namespaces of the test's own.
    #[must_use]
    pub fn unshared(mut self, flags: &[&str], script: &str) -> Self {
        let shell = ["sh", "-euc", script, "sh"];
        let command = ["unshare"].iter().chain(flags).chain(&shell);
        self.options.surroundings = command.map(|s| (*s).to_owned()).collect();
        self
    }

    /// The daemon behind a program that becomes it in the end.
    #[must_use]
    pub fn surroundings(mut self, command: Vec<String>) -> Self {
        self.options.surroundings = command;
        self
    }

    /// Starts the daemon and takes the first snapshot.
    #[track_caller]
    pub fn build(self) -> Bed {
        Bed::with(self.options)
    }
}

/// A daemon of the test's own. Ends with [`Bed::finish`].
#[derive(Debug)]
pub struct Bed {
    /// Its directories.
    pub dirs: Dirs,
    /// How it is (re)started.
    pub options: Options,
    /// Its client.
    pub client: Client,
    /// Whose traces the oracle looks for.
    pub subject: Subject,
    daemon: Option<Daemon>,
    before: Facts,
    finished: bool,
}

impl Bed {
    /// A daemon with its defaults.
    #[track_caller]
    pub fn new() -> Self {
        BedBuilder::default().build()
    }

    /// A daemon otherwise.
    pub fn builder() -> BedBuilder {
        BedBuilder::default()
    }

    #[track_caller]
    fn with(options: Options) -> Self {
        let dirs = Dirs::new(options.state_size);
        let daemon = Daemon::start(&dirs, &options);
        let client = Client::new(&dirs.socket);
        let system: SystemInfo = client
            .send(&Request::new(Method::Get, "/v1/system"))
            .expect(200)
            .json();
        let subject = Subject::new(&dirs, &system.cgroup_parent);
        let before = oracle::live(&subject, daemon.pid());
        Self {
            dirs,
            options,
            client,
            subject,
            daemon: Some(daemon),
            before,
            finished: false,
        }
    }

    // ---- requests -------------------------------------------------------------------------

    /// Sends a request.
    #[track_caller]
    pub fn send(&self, request: &Request) -> Response {
        self.client.send(request)
    }

    /// GET.
    #[track_caller]
    pub fn get(&self, path: &str) -> Response {
        self.send(&Request::new(Method::Get, path))
    }

    /// POST without a body.
    #[track_caller]
    pub fn post(&self, path: &str) -> Response {
        self.send(&Request::new(Method::Post, path))
    }

    /// POST with a JSON body.
    #[track_caller]
    pub fn post_json(&self, path: &str, body: &Value) -> Response {
        self.send(&Request::new(Method::Post, path).json(body))
    }

    /// DELETE.
    #[track_caller]
    pub fn delete(&self, path: &str) -> Response {
        self.send(&Request::new(Method::Delete, path))
    }

    /// GET as a stream.
    #[track_caller]
    pub fn stream(&self, path: &str) -> Stream {
        self.client
            .stream(&Request::new(Method::Get, path))
            .expect(200)
    }

    /// A WebSocket.
    #[track_caller]
    pub fn ws(&self, path: &str) -> Ws {
        Ws::open(&self.client, path)
    }

    // ---- the daemon -----------------------------------------------------------------------

    /// The daemon's PID.
    #[track_caller]
    pub fn pid(&self) -> u32 {
        self.daemon.as_ref().expect("the daemon runs").pid()
    }

    /// What the daemon says of itself.
    #[track_caller]
    pub fn system(&self) -> SystemInfo {
        self.get("/v1/system").expect(200).json()
    }

    /// `kill -9` of the daemon.
    #[track_caller]
    pub fn kill9(&mut self) {
        self.daemon.take().expect("the daemon runs").kill9();
    }

    /// Starts it again on the same directories.
    #[track_caller]
    pub fn start_again(&mut self) {
        assert!(self.daemon.is_none(), "it runs already");
        self.daemon = Some(Daemon::start(&self.dirs, &self.options));
    }

    /// Starts it again where it may end before it is ready; whether it runs.
    #[track_caller]
    pub fn try_start_again(&mut self) -> bool {
        assert!(self.daemon.is_none(), "it runs already");
        let mut daemon = Daemon::spawn(&self.dirs, &self.options);
        let ready = daemon.wait_ready(&self.dirs).is_ok();
        self.daemon = ready.then_some(daemon);
        ready
    }

    /// Whether the daemon runs; one that has ended is reaped, and can be started again.
    pub fn daemon_runs(&mut self) -> bool {
        self.daemon = self
            .daemon
            .take()
            .and_then(|mut daemon| daemon.is_running().then_some(daemon));
        self.daemon.is_some()
    }

    /// `kill -9`, then started again.
    #[track_caller]
    pub fn crash(&mut self) {
        self.kill9();
        self.start_again();
    }

    /// SIGTERM; it must end with 0.
    #[track_caller]
    pub fn stop(&mut self) {
        let status = self.daemon.take().expect("the daemon runs").stop();
        assert!(status.success(), "littleboxd ended with {status}");
    }

    /// Waits until the daemon has ended by itself (a crash point).
    #[track_caller]
    pub fn wait_crashed(&mut self) {
        let status = self.daemon.take().expect("the daemon runs").wait();
        assert!(!status.success(), "it did not crash: {status}");
    }

    /// How many descriptors the daemon has open.
    #[track_caller]
    pub fn descriptors(&self) -> usize {
        proc::descriptors(self.pid()).len()
    }

    /// The same without those of the database, whose pool grows with use.
    #[track_caller]
    pub fn unpooled_descriptors(&self) -> usize {
        proc::descriptors(self.pid())
            .iter()
            .filter(|target| !oracle::is_pooled(&target.to_string_lossy()))
            .count()
    }

    // ---- the end --------------------------------------------------------------------------

    /// Removes every container and holds the machine against the first snapshot.
    #[track_caller]
    pub fn nothing_leaks(&self) {
        for container in self.list() {
            let path = format!("/v1/containers/{}?force=true&wait=30s", container.id);
            let response = self.delete(&path);
            // An auto-removed one may go by itself.
            assert!(
                matches!(response.status(), 204 | 404),
                "{} {}",
                response.status(),
                response.text()
            );
        }
        let pid = self.pid();
        let mut last = Vec::new();
        for _ in 0..200 {
            last = oracle::difference(&self.before, &oracle::live(&self.subject, pid));
            if last.is_empty() {
                return;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        panic!("the test left something behind:\n{}", last.join("\n"));
    }

    /// The end of every test: nothing leaks, the daemon stops, nothing of it remains.
    #[track_caller]
    pub fn finish(mut self) {
        self.nothing_leaks();
        self.stop();
        self.nothing_remains();
        self.finished = true;
    }

    /// The end of a test that has stopped the daemon itself, after [`Bed::nothing_leaks`].
    #[track_caller]
    pub fn finish_stopped(mut self) {
        assert!(self.daemon.is_none(), "the daemon runs");
        self.nothing_remains();
        self.finished = true;
    }

    /// Nothing of the stopped daemon runs, listens or is mounted.
    #[track_caller]
    fn nothing_remains(&self) {
        let mut last = Facts::new();
        for _ in 0..200 {
            last = oracle::dead(&self.subject);
            // A state directory on a tmpfs is the harness' own mount.
            last.retain(|f| !(f.starts_with("mount ") && self.options.state_size.is_some()));
            if last.is_empty() {
                return;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        let lines: Vec<_> = last.into_iter().collect();
        panic!("the stopped daemon left:\n{}", lines.join("\n"));
    }

    /// After a failed test: end what still runs, by PID.
    fn clean_up(&mut self) {
        if self.daemon.as_mut().is_some_and(Daemon::is_running) {
            let ids = self
                .client
                .try_send(&Request::new(Method::Get, "/v1/containers?limit=1000"));
            let ids: Vec<String> = ids
                .ok()
                .and_then(|r| serde_json::from_slice::<Value>(&r.body).ok())
                .and_then(|v| v["items"].as_array().cloned())
                .unwrap_or_default()
                .iter()
                .filter_map(|c| c["id"].as_str().map(str::to_owned))
                .collect();
            for id in ids {
                let path = format!("/v1/containers/{id}?force=true&wait=5s");
                let _best_effort = self.client.try_send(&Request::new(Method::Delete, path));
            }
        }
        if let Some(daemon) = self.daemon.take() {
            daemon.kill9();
        }
        for _ in 0..20 {
            let left = oracle::members(&self.subject, None);
            if left.is_empty() {
                break;
            }
            for pid in left {
                proc::kill(pid, Signal::KILL);
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

impl Default for Bed {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Bed {
    fn drop(&mut self) {
        if !self.finished {
            if std::thread::panicking() {
                let log = self.dirs.log_text();
                let lines: Vec<_> = log.lines().collect();
                let tail = lines.len().saturating_sub(150);
                eprintln!("---- the daemon's log ----\n{}", lines[tail..].join("\n"));
            } else {
                eprintln!("a test ended without `finish`");
            }
            self.clean_up();
        }
        for instance in oracle::instance_cgroups(&self.subject) {
            remove_empty(&instance);
        }
    }
}

/// Removes cgroup directories from below; one that is in use stays (cgroups(7)).
fn remove_empty(dir: &Path) {
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|t| t.is_dir()) {
            remove_empty(&entry.path());
        }
    }
    let _busy = std::fs::remove_dir(dir);
}
