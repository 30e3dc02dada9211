//! The test bed: a daemon of the test's own, short words for what tests do, and the oracle around.

use std::io::Read;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use lbctl::types::{
    Container, ContainerState, ContainerSummary, Event, Exec, ExecState, Exit, ExitStatus, LogLine,
    Page, SystemInfo, WaitResult,
};
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::daemon::{Daemon, Dirs, Options, binary};
use crate::http::{Client, Method, Request, Response, Stream, encode};
use crate::oracle::{self, Facts, Subject};
use crate::proc;
use crate::pty::Pty;
use crate::roots::busybox_root;
use crate::ws::Ws;

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

    // ---- containers -----------------------------------------------------------------------

    /// Creates.
    #[track_caller]
    pub fn create(&self, config: &Value) -> Container {
        self.post_json("/v1/containers", config).expect(201).json()
    }

    /// Creates and starts.
    #[track_caller]
    pub fn start(&self, config: &Value) -> Container {
        self.post_json("/v1/containers?start=true", config)
            .expect(201)
            .json()
    }

    /// A busybox container that runs until it is told to end.
    #[track_caller]
    pub fn sleeper(&self) -> Container {
        self.sleeper_with(json!({}))
    }

    /// The same with more of a configuration.
    #[track_caller]
    pub fn sleeper_with(&self, more: Value) -> Container {
        let container = self.start(&with(sleeper_config(), more));
        self.ready(&id(&container));
        container
    }

    /// Waits until a container has said that it is ready: before it has set its traps, PID 1 of a
    /// PID namespace is deaf to signals (pid_namespaces(7)).
    #[track_caller]
    pub fn ready(&self, container: &str) {
        proc::until("the container says `ready`", || {
            self.stdout(container).contains("ready")
        });
    }

    /// Inspects.
    #[track_caller]
    pub fn inspect(&self, container: &str) -> Container {
        self.get(&format!("/v1/containers/{container}"))
            .expect(200)
            .json()
    }

    /// The state of a container.
    #[track_caller]
    pub fn state(&self, container: &str) -> ContainerState {
        self.inspect(container).summary.state
    }

    /// Every container, over all pages.
    #[track_caller]
    pub fn list(&self) -> Vec<ContainerSummary> {
        let mut items = Vec::new();
        let mut path = "/v1/containers?limit=1000".to_owned();
        loop {
            let page: Page<ContainerSummary> = self.get(&path).expect(200).json();
            items.extend(page.items);
            match page.next {
                Some(cursor) => {
                    path = format!("/v1/containers?limit=1000&cursor={}", encode(&cursor));
                }
                None => return items,
            }
        }
    }

    /// Waits for the end of a container's program.
    #[track_caller]
    pub fn wait(&self, container: &str) -> WaitResult {
        self.wait_for(container, "exited")
    }

    /// Waits for a condition; the test fails when it does not come true.
    #[track_caller]
    pub fn wait_for(&self, container: &str, condition: &str) -> WaitResult {
        let seconds = 30 * proc::patience();
        let path = format!("/v1/containers/{container}/wait?for={condition}&timeout={seconds}s");
        let result: WaitResult = self.get(&path).expect(200).json();
        assert!(result.satisfied, "{condition} never came: {result:?}");
        result
    }

    /// How a container's program ended.
    #[track_caller]
    pub fn exit(&self, container: &str) -> Exit {
        let result = self.wait(container);
        match result.exit {
            Some(exit) => exit,
            None => panic!("no exit in {result:?}"),
        }
    }

    /// Removes, running or not, and waits until it is gone.
    #[track_caller]
    pub fn remove(&self, container: &str) {
        let path = format!("/v1/containers/{container}?force=true&wait=30s");
        let _none = self.delete(&path).expect(204);
    }

    /// Runs a container to its end: how it ended and what it wrote to stdout.
    #[track_caller]
    pub fn run(&self, config: &Value) -> (Exit, String) {
        let container = self.start(config);
        let id = id(&container);
        let exit = self.exit(&id);
        (exit, self.stdout(&id))
    }

    /// As [`Bed::run`] of a shell script in busybox; it must end with 0.
    #[track_caller]
    pub fn sh(&self, script: &str) -> String {
        self.sh_with(script, json!({}))
    }

    /// As [`Bed::sh`] with more of a configuration.
    #[track_caller]
    pub fn sh_with(&self, script: &str, more: Value) -> String {
        let (exit, stdout) = self.run(&with(busybox(&["sh", "-c", script]), more));
        assert_eq!(exit.status, ExitStatus::Exited { code: 0 }, "{stdout}");
        stdout
    }

    /// Everything a container wrote to stdout, as it wrote it.
    #[track_caller]
    pub fn stdout(&self, container: &str) -> String {
        String::from_utf8_lossy(&self.logs_raw(container, "stdout=true&stderr=false")).into_owned()
    }

    /// The log as raw bytes.
    #[track_caller]
    pub fn logs_raw(&self, container: &str, query: &str) -> Vec<u8> {
        let path = format!("/v1/containers/{container}/logs?{query}");
        self.send(&Request::new(Method::Get, path).header("accept", "text/plain"))
            .expect(200)
            .body
    }

    /// The log as records.
    #[track_caller]
    pub fn logs(&self, container: &str, query: &str) -> Vec<LogLine> {
        self.get(&format!("/v1/containers/{container}/logs?{query}"))
            .expect(200)
            .ndjson()
    }

    // ---- execs ----------------------------------------------------------------------------

    /// Runs a command inside to its end, by the configuration of an exec.
    #[track_caller]
    pub fn exec_with(&self, container: &str, config: &Value) -> Exec {
        let path = format!("/v1/containers/{container}/execs?wait=30s");
        let exec: Exec = self.post_json(&path, config).expect(201).json();
        assert_eq!(exec.state, ExecState::Exited, "{exec:?}");
        exec
    }

    /// Runs a command inside to its end; it must succeed. Its stdout.
    #[track_caller]
    pub fn exec(&self, container: &str, command: &[&str]) -> String {
        let exec = self.exec_with(container, &json!({"command": command}));
        let output = exec.output.clone().expect("wait shows the output");
        assert_eq!(exec_code(&exec), Some(0), "{exec:?}");
        output.stdout
    }

    /// Starts a command inside without waiting for it.
    #[track_caller]
    pub fn exec_start(&self, container: &str, config: &Value) -> Exec {
        self.post_json(&format!("/v1/containers/{container}/execs"), config)
            .expect(201)
            .json()
    }

    /// An exec, now.
    #[track_caller]
    pub fn exec_inspect(&self, exec: &str) -> Exec {
        self.get(&format!("/v1/execs/{exec}")).expect(200).json()
    }

    /// An exec, when it has ended.
    #[track_caller]
    pub fn exec_wait(&self, exec: &str) -> Exec {
        let exec: Exec = self
            .get(&format!("/v1/execs/{exec}?wait=30s"))
            .expect(200)
            .json();
        assert!(exec.exit.is_some(), "{exec:?}");
        exec
    }

    // ---- events ---------------------------------------------------------------------------

    /// Every event so far.
    #[track_caller]
    pub fn events(&self) -> Vec<Event> {
        self.get("/v1/events?since_seq=0&follow=false")
            .expect(200)
            .ndjson()
    }

    /// The kinds of the events of one container so far.
    #[track_caller]
    pub fn events_of(&self, container: &Container) -> Vec<String> {
        let id = id(container);
        self.events()
            .into_iter()
            .filter(|e| e.container_id.as_deref() == Some(&id))
            .map(|e| e.kind)
            .collect()
    }

    // ---- lbctl ----------------------------------------------------------------------------

    /// Runs the command line, without stdin.
    #[track_caller]
    pub fn lbctl(&self, args: &[&str]) -> Output {
        self.lbctl_command(args)
            .stdin(Stdio::null())
            .output()
            .unwrap()
    }

    /// The command line, to be run.
    #[track_caller]
    pub fn lbctl_command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(binary("lbctl"));
        command
            .args(args)
            .env("LITTLEBOX_SOCKET", &self.dirs.socket)
            .env_remove("NO_COLOR");
        command
    }

    /// Runs the command line with this stdin.
    #[track_caller]
    pub fn lbctl_stdin(&self, args: &[&str], stdin: &[u8]) -> Output {
        use std::io::Write;
        let mut child = self
            .lbctl_command(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut pipe = child.stdin.take().expect("stdin is piped");
        let stdin = stdin.to_vec();
        // It may end without reading.
        let writer = std::thread::spawn(move || drop(pipe.write_all(&stdin)));
        let output = child.wait_with_output().unwrap();
        writer.join().unwrap();
        output
    }

    /// Runs the command line; it must succeed. Its stdout.
    #[track_caller]
    pub fn lbctl_ok(&self, args: &[&str]) -> String {
        let out = self.lbctl(args);
        assert!(
            out.status.success(),
            "lbctl {args:?}: {}\n{}{}",
            out.status,
            String::from_utf8_lossy(&out.stdout),
            String::from_utf8_lossy(&out.stderr)
        );
        String::from_utf8_lossy(&out.stdout).into_owned()
    }

    /// The command line on a terminal of 24 rows and 80 columns.
    #[track_caller]
    pub fn lbctl_pty(&self, args: &[&str]) -> Pty {
        let socket = self.dirs.socket.to_str().unwrap();
        Pty::spawn(
            &binary("lbctl"),
            args,
            &[("LITTLEBOX_SOCKET", socket)],
            (24, 80),
        )
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

// ---- short words ------------------------------------------------------------------------------

/// A container's id as text.
pub fn id(container: &Container) -> String {
    container.summary.id.to_string()
}

/// A container's name as text.
pub fn name(container: &Container) -> String {
    container.summary.name.to_string()
}

/// PID 1 of a running container, on the host.
#[track_caller]
pub fn pid1(container: &Container) -> u32 {
    container.summary.pid.expect("it runs")
}

/// A configuration: busybox and a command.
pub fn busybox(command: &[&str]) -> Value {
    json!({"rootfs": format!("dir:{}", busybox_root().display()), "command": command})
}

/// A configuration: busybox, and a program that ends at SIGTERM.
pub fn sleeper_config() -> Value {
    let script = "trap 'exit 0' TERM; echo ready; while :; do sleep 1000 & wait $!; done";
    busybox(&["sh", "-c", script])
}

/// `config` with the fields of `more`.
pub fn with(mut config: Value, more: Value) -> Value {
    let (Value::Object(into), Value::Object(from)) = (&mut config, more) else {
        panic!("configurations are objects");
    };
    into.extend(from);
    config
}

/// The code of an exit, when it returned one.
pub fn code(exit: &Exit) -> Option<i32> {
    match exit.status {
        ExitStatus::Exited { code } => Some(code),
        ExitStatus::Signaled { .. } | ExitStatus::Unknown { .. } => None,
    }
}

/// The code of an exec that ended.
pub fn exec_code(exec: &Exec) -> Option<i32> {
    exec.exit.as_ref().and_then(code)
}

/// Everything a reader gives.
pub fn read_all(mut reader: impl Read) -> Vec<u8> {
    let mut bytes = Vec::new();
    reader.read_to_end(&mut bytes).unwrap();
    bytes
}
