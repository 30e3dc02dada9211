//! The command line against a daemon played by the test: what real containers do not do at will.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::process::{Output, Stdio};
use std::sync::Mutex;
use std::time::Duration;

use crate::fake::{Fake, Reply, Request};
use littlebox_types::ServerControl;
use serde_json::json;
use tokio::process::Command;

const ID: &str = "0190b5a4-0000-7000-8000-0123456789ab";

fn container() -> Reply {
    let value = json!({
        "id": ID, "name": "a", "state": "running", "rootfs": "host", "command": ["true"],
        "labels": {}, "created_at": "2026-01-01T00:00:00Z", "generation": 1,
        "user_namespace": {"source": "new"},
        "config": {"rootfs": "host", "command": ["true"]},
    });
    Reply::json(201, &value)
}

fn command(fake: &Fake, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_lbctl"));
    command
        .args(args)
        .env("LITTLEBOX_SOCKET", fake.socket())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    command
}

async fn lbctl(fake: &Fake, args: &[&str]) -> Output {
    let output = command(fake, args).output();
    tokio::time::timeout(Duration::from_secs(30), output)
        .await
        .expect("it hangs")
        .unwrap()
}

fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn attached(position: u64) -> ServerControl {
    ServerControl::Attached {
        terminal: false,
        position,
    }
}

/// A foreground run whose attach streams end as this tells, one after the other.
fn run(plays: Vec<fn() -> Reply>) -> Fake {
    let plays = Mutex::new(plays.into_iter());
    Fake::start(
        move |request: &Request| match (request.method.as_str(), request.path()) {
            ("POST", "/v1/containers") => container(),
            ("GET", path) if path.ends_with("/attach") => {
                let play = plays.lock().unwrap().next().expect("one attach too many");
                play()
            }
            other => panic!("{other:?}"),
        },
    )
}

fn exits(reason: serde_json::Value) -> Reply {
    Reply::web_socket(move |mut socket| {
        Box::pin(async move {
            socket.control(&attached(0)).await;
            socket.control(&reason).await;
            socket.closed().await;
        })
    })
}

#[tokio::test]
async fn an_unknown_exit_is_never_a_success() {
    let fake = run(vec![|| {
        exits(json!({"type": "exit", "reason": "unknown", "detail": "its helper was lost"}))
    }]);
    let output = lbctl(&fake, &["run", "host", "true"]).await;
    assert_eq!(output.status.code(), Some(125));
    assert!(
        stderr(&output).contains("unknown: its helper was lost"),
        "{}",
        stderr(&output)
    );
}

#[tokio::test]
async fn a_signal_is_128_and_its_number() {
    let fake = run(vec![|| {
        exits(json!({"type": "exit", "reason": "signaled", "signal": 9, "signal_name": "SIGKILL"}))
    }]);
    assert_eq!(
        lbctl(&fake, &["run", "host", "true"]).await.status.code(),
        Some(137)
    );
}

#[tokio::test]
async fn a_broken_stream_goes_on_where_it_was() {
    let breaks = || {
        Reply::web_socket(|mut socket| {
            Box::pin(async move {
                socket.control(&attached(40)).await;
                socket.output(1, b"one\ntw").await;
                socket.output(2, b"err\n").await;
            })
        })
    };
    let goes_on = || {
        Reply::web_socket(|mut socket| {
            Box::pin(async move {
                socket.control(&attached(40)).await;
                socket.output(1, b"one\n").await;
                socket.output(2, b"err\n").await;
                socket.output(1, b"two\nthree\n").await;
                let exit = json!({"type": "exit", "reason": "exited", "code": 4});
                socket.control(&exit).await;
                socket.closed().await;
            })
        })
    };
    // A daemon that goes down says so.
    let unavailable = || {
        let problem = json!({
            "type": "urn:littlebox:problem:unavailable", "title": "t", "status": 503,
            "detail": "the daemon is shutting down", "code": "unavailable",
        });
        exits(json!({"type": "error", "problem": problem}))
    };
    let fake = run(vec![breaks, unavailable, goes_on]);
    let output = lbctl(&fake, &["run", "host", "true"]).await;
    assert_eq!(output.status.code(), Some(4), "{}", stderr(&output));
    assert_eq!(
        (stdout(&output).as_str(), stderr(&output).as_str()),
        ("one\ntwo\nthree\n", "err\n")
    );
}

#[tokio::test]
async fn a_broken_stream_goes_on_from_the_last_position_that_was_told() {
    let fake = Fake::start(|request| match request.path() {
        "/v1/containers" => container(),
        _ if request.target.contains("from=70") => Reply::web_socket(|mut socket| {
            Box::pin(async move {
                socket.control(&attached(70)).await;
                socket.output(1, b"two\nthree\n").await;
                let exit = json!({"type": "exit", "reason": "exited", "code": 0});
                socket.control(&exit).await;
                socket.closed().await;
            })
        }),
        _ => Reply::web_socket(|mut socket| {
            Box::pin(async move {
                socket.control(&attached(40)).await;
                socket.output(1, b"one\n").await;
                socket
                    .control(&ServerControl::Position { position: 70 })
                    .await;
                socket.output(1, b"tw").await;
            })
        }),
    });
    let output = lbctl(&fake, &["run", "host", "true"]).await;
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert_eq!(stdout(&output), "one\ntwo\nthree\n");
}

#[tokio::test]
async fn a_program_that_ended_while_the_daemon_was_away_tells_its_code() {
    let breaks = Mutex::new(true);
    let fake = Fake::start(move |request| match request.path() {
        "/v1/containers" => container(),
        path if path.ends_with("/attach") && std::mem::take(&mut *breaks.lock().unwrap()) => {
            Reply::web_socket(|mut socket| {
                Box::pin(async move { socket.control(&attached(0)).await })
            })
        }
        path if path.ends_with("/attach") => Reply::json(
            404,
            &json!({
                "type": "urn:littlebox:problem:container_not_found", "title": "t", "status": 404,
                "detail": "gone", "code": "container_not_found",
            }),
        ),
        path if path.ends_with("/wait") => {
            let exit = json!({"reason": "exited", "code": 6});
            Reply::json(200, &json!({"id": ID, "satisfied": true, "exit": exit}))
        }
        other => panic!("{other}"),
    });
    let output = lbctl(&fake, &["run", "host", "true"]).await;
    assert_eq!(output.status.code(), Some(6), "{}", stderr(&output));
}

#[tokio::test]
async fn output_flows_while_stdin_is_stuck() {
    let fake = run(vec![|| {
        Reply::web_socket(|mut socket| {
            Box::pin(async move {
                socket.control(&attached(0)).await;
                // Nothing is read from the client, which has more to send than fits anywhere.
                tokio::time::sleep(Duration::from_millis(300)).await;
                socket.output(1, &vec![b'x'; 4 << 20]).await;
                let exit = json!({"type": "exit", "reason": "exited", "code": 0});
                socket.control(&exit).await;
                tokio::time::sleep(Duration::from_secs(5)).await;
            })
        })
    }]);
    let output = command(&fake, &["run", "-i", "host", "true"])
        .stdin(std::fs::File::open("/dev/zero").unwrap())
        .output();
    let output = tokio::time::timeout(Duration::from_secs(30), output)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(
        (output.status.code(), output.stdout.len()),
        (Some(0), 4 << 20)
    );
}

#[tokio::test]
async fn several_containers_are_told_in_order_and_errors_do_not_stop() {
    let fake = Fake::start(|request| {
        if request.path().contains("/bad/") {
            let problem = json!({
                "type": "urn:littlebox:problem:container_not_found", "title": "t", "status": 404,
                "detail": "there is no container 'bad'", "code": "container_not_found",
                "hint": "see lbctl ps",
            });
            return Reply::json(404, &problem);
        }
        Reply::empty(204)
    });
    let output = lbctl(&fake, &["kill", "a", "bad", "b"]).await;
    assert_eq!(
        (output.status.code(), stdout(&output).as_str()),
        (Some(1), "a\nb\n")
    );
    assert_eq!(
        stderr(&output),
        "lbctl: there is no container 'bad'\nhint: see lbctl ps\n"
    );
    let output = lbctl(&fake, &["--json", "kill", "bad"]).await;
    let problem: serde_json::Value = serde_json::from_slice(&output.stderr).unwrap();
    assert_eq!(problem["code"], "container_not_found");
}

#[tokio::test]
async fn events_resume_after_the_last_that_was_seen() {
    let asked = Mutex::new(Vec::new());
    let fake = Fake::start(move |request| {
        if request.path() == "/v1/system" {
            let system = json!({
                "pid": 1, "started_at": "t", "paths": {}, "containers": {},
                "storage_driver": "overlay", "cgroup": "v2", "cgroup_parent": "/",
                "last_event_seq": 7,
            });
            return Reply::json(200, &system);
        }
        let mut asked = asked.lock().unwrap();
        asked.push(request.target.clone());
        let event = |seq: u64| {
            format!(
                "{}\n",
                json!({"seq": seq, "at": "t", "kind": "k", "id": "i"})
            )
            .into_bytes()
        };
        match asked.len() {
            1 => {
                assert_eq!(request.target, "/v1/events?since_seq=7");
                Reply::chunks(vec![event(8)]).cut_off()
            }
            2 => {
                assert_eq!(request.target, "/v1/events?since_seq=8");
                Reply::chunks(vec![event(9)]).cut_off()
            }
            _ => Reply::json(
                404,
                &json!({
                    "type": "urn:littlebox:problem:not_found", "title": "t", "status": 404,
                    "detail": "enough", "code": "not_found",
                }),
            ),
        }
    });
    let output = lbctl(&fake, &["events"]).await;
    assert_eq!(stdout(&output), "t k i\nt k i\n");
    assert_eq!(output.status.code(), Some(1));
}

#[tokio::test]
async fn a_variable_that_is_not_utf8_is_refused_and_not_dropped() {
    use std::os::unix::ffi::OsStrExt;
    let fake = Fake::start(|_| panic!("nothing is to be asked"));
    let output = command(&fake, &["run", "-e", "NAME", "host", "true"])
        .env("NAME", std::ffi::OsStr::from_bytes(b"caf\xe9"))
        .output()
        .await
        .unwrap();
    assert_eq!(output.status.code(), Some(125));
    assert!(
        stderr(&output).contains("the value of 'NAME' in lbctl's environment is not UTF-8"),
        "{}",
        stderr(&output)
    );
}
