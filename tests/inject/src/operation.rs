//! What is done to the engine while a system call fails, and what must be true afterwards.

use littlebox_tests::prelude::*;
use littlebox_types::{Container, ContainerState};

/// One thing that a client asks for.
#[derive(Debug)]
pub struct Operation {
    /// Its name on the command line.
    pub name: &'static str,
    /// What is there before: the container that it is about.
    pub prepare: fn(&Bed) -> String,
    /// What is asked.
    pub act: Act,
    /// What must be so when the answer says that it was done.
    pub holds: fn(&Bed, &str, &Response) -> Result<(), String>,
}

/// How it is asked.
#[derive(Debug, Clone, Copy)]
pub enum Act {
    /// A request about the prepared container.
    Request(fn(&str) -> Request),
    /// The daemon is killed and started again; meanwhile something happens to the container, of which
    /// these are the program and the helper.
    Recovery(fn(u32, u32)),
    /// The daemon is told to end, and started again afterwards.
    Restart,
}

/// Every operation.
pub const ALL: &[Operation] = &[
    Operation {
        name: "create",
        prepare: |_| String::new(),
        act: Act::Request(|_| post("/v1/containers").json(&short())),
        holds: |t, _, answer| in_state(t, &made(answer), &[ContainerState::Created]),
    },
    Operation {
        name: "start",
        prepare: created,
        act: Act::Request(|c| post(&format!("/v1/containers/{c}/start"))),
        holds: |t, c, _| runs(t, c),
    },
    Operation {
        name: "run",
        prepare: |_| String::new(),
        act: Act::Request(|_| post("/v1/containers?start=true").json(&sleeper_config())),
        holds: |t, _, answer| runs(t, &made(answer)),
    },
    Operation {
        name: "run-terminal",
        prepare: |_| String::new(),
        act: Act::Request(|_| {
            let config = with(sleeper_config(), json!({"terminal": true}));
            post("/v1/containers?start=true").json(&config)
        }),
        holds: |t, _, answer| runs(t, &made(answer)),
    },
    Operation {
        name: "exec",
        prepare: running,
        act: Act::Request(|c| exec(c, &json!({"command": ["echo", "hi"]}))),
        holds: |_, _, answer| said(answer, "hi"),
    },
    Operation {
        name: "exec-terminal",
        prepare: running,
        act: Act::Request(|c| exec(c, &json!({"command": ["echo", "hi"], "terminal": true}))),
        holds: |_, _, answer| said(answer, "hi"),
    },
    Operation {
        name: "kill",
        prepare: running,
        act: Act::Request(|c| {
            post(&format!("/v1/containers/{c}/kill")).json(&json!({"signal": "KILL"}))
        }),
        holds: |t, c, _| ends(t, c),
    },
    Operation {
        name: "stop",
        prepare: running,
        act: Act::Request(|c| post(&format!("/v1/containers/{c}/stop?wait=20s"))),
        holds: |t, c, _| ends(t, c),
    },
    Operation {
        name: "restart",
        prepare: running,
        act: Act::Request(|c| post(&format!("/v1/containers/{c}/restart"))),
        holds: |t, c, _| runs(t, c),
    },
    Operation {
        name: "pause",
        prepare: running,
        act: Act::Request(|c| post(&format!("/v1/containers/{c}/pause"))),
        holds: |t, c, _| in_state(t, c, &[ContainerState::Paused]),
    },
    Operation {
        name: "resume",
        prepare: |t| {
            let c = running(t);
            let _paused = t.post(&format!("/v1/containers/{c}/pause")).expect(200);
            c
        },
        act: Act::Request(|c| post(&format!("/v1/containers/{c}/resume"))),
        holds: |t, c, _| runs(t, c),
    },
    Operation {
        name: "update",
        prepare: running,
        act: Act::Request(|c| {
            let resources = json!({"resources": {"pids_limit": 77, "memory": 77 << 20}});
            Request::new(Method::Patch, format!("/v1/containers/{c}")).json(&resources)
        }),
        holds: |t, c, _| has_limit(t, c),
    },
    Operation {
        name: "rename",
        prepare: running,
        act: Act::Request(|c| {
            let name = json!({"name": "renamed"});
            Request::new(Method::Patch, format!("/v1/containers/{c}")).json(&name)
        }),
        holds: |t, c, _| {
            let id = id(&t.inspect("renamed"));
            (id == c).then_some(()).ok_or(format!("renamed is {id}"))
        },
    },
    Operation {
        name: "copy-in",
        prepare: running,
        act: Act::Request(|c| {
            Request::new(Method::Put, format!("/v1/containers/{c}/files?path=/tmp"))
                .body("application/x-tar", archive())
        }),
        holds: |t, c, _| {
            let found = t.exec(c, &["cat", "/tmp/hello"]);
            (found == "hello").then_some(()).ok_or(found)
        },
    },
    Operation {
        name: "copy-out",
        prepare: running,
        act: Act::Request(|c| get(&format!("/v1/containers/{c}/files?path=/etc"))),
        holds: |_, _, answer| is_whole(answer),
    },
    Operation {
        name: "stat",
        prepare: running,
        act: Act::Request(|c| get(&format!("/v1/containers/{c}/files?path=/etc&stat=true"))),
        holds: |_, _, answer| said(answer, "\"directory\""),
    },
    Operation {
        name: "changes",
        prepare: |t| {
            let c = running(t);
            t.exec(&c, &["touch", "/etc/new"]);
            c
        },
        act: Act::Request(|c| get(&format!("/v1/containers/{c}/changes"))),
        holds: |_, _, answer| said(answer, "/etc/new"),
    },
    Operation {
        name: "logs",
        prepare: running,
        act: Act::Request(|c| get(&format!("/v1/containers/{c}/logs"))),
        holds: |_, _, answer| said(answer, "ready"),
    },
    Operation {
        name: "inspect",
        prepare: running,
        act: Act::Request(|c| get(&format!("/v1/containers/{c}/namespaces"))),
        holds: |_, _, _| Ok(()),
    },
    Operation {
        name: "remove",
        prepare: |t| {
            let c = id(&t.start(&short()));
            let _exit = t.exit(&c);
            c
        },
        act: Act::Request(|c| Request::new(Method::Delete, format!("/v1/containers/{c}?wait=20s"))),
        holds: is_gone,
    },
    Operation {
        name: "remove-running",
        prepare: running,
        act: Act::Request(|c| {
            Request::new(
                Method::Delete,
                format!("/v1/containers/{c}?force=true&wait=20s"),
            )
        }),
        holds: is_gone,
    },
    Operation {
        name: "recovery",
        prepare: running,
        act: Act::Recovery(|_, _| ()),
        holds: |t, c, _| runs(t, c),
    },
    Operation {
        name: "recovery-paused",
        prepare: |t| {
            let c = running(t);
            let _paused = t.post(&format!("/v1/containers/{c}/pause")).expect(200);
            c
        },
        act: Act::Recovery(|_, _| ()),
        holds: |t, c, _| in_state(t, c, &[ContainerState::Paused]),
    },
    Operation {
        name: "recovery-ended",
        prepare: |t| {
            let c = id(&t.start(&busybox(&["sh", "-c", EXITS_WITH_7])));
            t.ready(&c);
            c
        },
        act: Act::Recovery(|program, helper| {
            proc::kill(program, Signal::TERM);
            proc::until("the helper has recorded the exit", || !proc::alive(helper));
        }),
        holds: |t, c, _| {
            let code = code(&t.exit(c));
            (code == Some(7))
                .then_some(())
                .ok_or(format!("its exit code is {code:?}"))
        },
    },
    Operation {
        name: "daemon-restart",
        prepare: running,
        act: Act::Restart,
        holds: |t, c, _| runs(t, c),
    },
];

/// Exits with a code that nothing else gives.
const EXITS_WITH_7: &str = "trap 'exit 7' TERM; echo ready; while :; do sleep 0.05; done";

fn post(path: &str) -> Request {
    Request::new(Method::Post, path)
}

fn get(path: &str) -> Request {
    Request::new(Method::Get, path)
}

fn exec(container: &str, config: &Value) -> Request {
    post(&format!("/v1/containers/{container}/execs?wait=20s")).json(config)
}

fn short() -> Value {
    busybox(&["true"])
}

fn created(t: &Bed) -> String {
    id(&t.create(&sleeper_config()))
}

fn running(t: &Bed) -> String {
    id(&t.sleeper())
}

/// A file `hello` that says so.
fn archive() -> Vec<u8> {
    let mut archive = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_size(5);
    header.set_mode(0o644);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    archive
        .append_data(&mut header, "hello", &b"hello"[..])
        .expect("memory takes everything");
    archive.into_inner().expect("memory takes everything")
}

/// The container that an answer shows.
fn made(answer: &Response) -> String {
    id(&answer.json::<Container>())
}

fn in_state(t: &Bed, c: &str, wanted: &[ContainerState]) -> Result<(), String> {
    let state = t.state(c);
    if wanted.contains(&state) {
        return Ok(());
    }
    Err(format!("it is {state:?} after a success"))
}

fn runs(t: &Bed, c: &str) -> Result<(), String> {
    in_state(t, c, &[ContainerState::Running])?;
    let pid = pid1(&t.inspect(c));
    if proc::alive(pid) {
        return Ok(());
    }
    Err(format!("process {pid} does not live after a success"))
}

fn ends(t: &Bed, c: &str) -> Result<(), String> {
    let _exit = t.exit(c);
    Ok(())
}

fn is_gone(t: &Bed, c: &str, _: &Response) -> Result<(), String> {
    match t.get(&format!("/v1/containers/{c}")).status() {
        404 => Ok(()),
        status => Err(format!("it is still there after a success: {status}")),
    }
}

fn said(answer: &Response, wanted: &str) -> Result<(), String> {
    if answer.text().contains(wanted) {
        return Ok(());
    }
    Err(format!("no {wanted:?} in {}", answer.text()))
}

/// An archive that is taken for a whole one ends as one does (tar(5)).
fn is_whole(answer: &Response) -> Result<(), String> {
    let archive = &answer.body;
    let ends = archive.len() >= 1024 && archive.ends_with(&[0; 1024]);
    ends.then_some(()).ok_or(format!(
        "an archive of {} bytes without an end",
        archive.len()
    ))
}

fn has_limit(t: &Bed, c: &str) -> Result<(), String> {
    let container = t.inspect(c);
    let pid = pid1(&container);
    let limit = cgroup_file(pid, "pids", "pids.max");
    if limit.as_deref().map(str::trim) == Some("77") {
        return Ok(());
    }
    Err(format!("pids.max is {limit:?} after a success"))
}

/// A file of a process' cgroup, in the hierarchy of a v1 controller or the unified one.
fn cgroup_file(pid: u32, controller: &str, file: &str) -> Option<String> {
    let memberships = proc::cgroup(pid);
    memberships.lines().find_map(|line| {
        let (_, rest) = line.split_once(':')?;
        let (controllers, path) = rest.split_once(':')?;
        let mount = match controllers {
            "" => std::path::PathBuf::from("/sys/fs/cgroup"),
            named if named.split(',').any(|name| name == controller) => {
                std::path::Path::new("/sys/fs/cgroup").join(controller)
            }
            _ => return None,
        };
        let path = mount.join(path.trim_start_matches('/')).join(file);
        std::fs::read_to_string(path).ok()
    })
}
