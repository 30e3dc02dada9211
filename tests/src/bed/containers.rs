//! Containers, execs and events in short words.

use littlebox_types::{
    Container, ContainerState, ContainerSummary, Event, Exec, ExecState, Exit, ExitStatus, LogLine,
    Page, WaitResult,
};
use serde_json::{Value, json};

use super::{Bed, busybox, exec_code, id, sleeper_config, with};
use crate::http::{Method, Request, encode};
use crate::proc;

/// Containers.
impl Bed {
    /// Creates.
    #[track_caller]
    pub fn create(&self, config: &Value) -> Container {
        self.post_json("/v1/containers", config).expect(201).json()
    }

    /// No container can be made from busybox and what is asked for beside it: 400, with the pointer
    /// to what is wrong, before anything is made.
    #[track_caller]
    pub fn refuses<'a>(&self, cases: impl IntoIterator<Item = (Value, &'a str)>) {
        for (more, pointer) in cases {
            let config = with(busybox(&["true"]), more);
            let problem = self
                .post_json("/v1/containers", &config)
                .problem(400, "invalid_request");
            assert_eq!(problem.pointer.as_deref(), Some(pointer), "{config}");
        }
        assert!(self.list().is_empty(), "something was made");
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
}

/// Execs.
impl Bed {
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
}

/// Events.
impl Bed {
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
}
