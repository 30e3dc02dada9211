//! The HTTP client against a daemon played by the test.

use std::io;
use std::time::Duration;

use crate::fake::{Fake, Reply};
use bytes::Bytes;
use lbctl::client::{
    AttachFrom, AttachOptions, Client, ClientError, CreateOptions, EventOptions, ListOptions,
    LogOptions, Received,
};
use littlebox_types::{
    Channel, ClientControl, ContainerConfig, ExitStatus, Problem, ServerControl, StopRequest,
};
use serde_json::json;

fn container(name: &str) -> serde_json::Value {
    json!({
        "id": "0190b5a4-0000-7000-8000-0123456789ab", "name": name, "state": "running",
        "rootfs": "host", "command": ["true"], "labels": {},
        "created_at": "2026-01-01T00:00:00Z", "generation": 1,
        "user_namespace": {"source": "new"}, "a_field_of_tomorrow": [1],
        "config": {"rootfs": "host", "command": ["true"]},
    })
}

fn problem(code: &str) -> Problem {
    Problem {
        kind: format!("urn:littlebox:problem:{code}"),
        title: "title".into(),
        status: 404,
        detail: "there is no container 'x'".into(),
        code: code.into(),
        hint: Some("look".into()),
        ..Problem::default()
    }
}

#[tokio::test]
async fn a_problem_becomes_a_typed_error() {
    let fake = Fake::start(|_| Reply::json(404, &problem("container_not_found")));
    let error = fake.client().container("x").await.unwrap_err();
    assert_eq!(error.code(), Some("container_not_found"));
    assert_eq!(error.hint().as_deref(), Some("look"));
    assert_eq!(error.to_string(), "there is no container 'x'");
}

#[tokio::test]
async fn an_answer_outside_the_api_is_told_as_such() {
    let fake = Fake::start(|request| match request.target.as_str() {
        "/v1" => Reply::text(502, "<html>"),
        _ => Reply::text(200, "<html>"),
    });
    let client = fake.client();
    let error = client.version().await.unwrap_err();
    assert!(matches!(error, ClientError::Unexpected { .. }), "{error}");
    assert_eq!(
        error.to_string(),
        "littleboxd answered GET /v1 with 502 Bad Gateway"
    );
    let error = client.system().await.unwrap_err();
    assert!(matches!(error, ClientError::Decode { .. }), "{error}");
}

#[tokio::test]
async fn a_missing_daemon_is_told_with_what_to_do() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("s");
    let error = Client::new(&socket).version().await.unwrap_err();
    assert!(matches!(error, ClientError::Connect { .. }) && error.is_disconnect());
    assert!(error.hint().unwrap().contains("is littleboxd running?"));
    drop(std::os::unix::net::UnixListener::bind(&socket).unwrap());
    let error = Client::new(&socket).version().await.unwrap_err();
    assert!(error.hint().unwrap().contains("nobody listens"), "{error}");
}

#[tokio::test]
async fn requests_say_what_the_api_wants() {
    let fake = Fake::start(|request| {
        let expected = "POST /v1/containers?start=true&wait=1500ms";
        assert_eq!(format!("{} {}", request.method, request.target), expected);
        assert_eq!(request.header("host"), Some("localhost"));
        assert_eq!(request.header("content-type"), Some("application/json"));
        assert_eq!(request.header("idempotency-key"), Some("key"));
        let body: ContainerConfig = serde_json::from_slice(&request.body).unwrap();
        assert_eq!(body.rootfs, "host");
        Reply::json(201, &container("made"))
    });
    let config = ContainerConfig {
        rootfs: "host".into(),
        ..ContainerConfig::default()
    };
    let options = CreateOptions {
        start: true,
        wait: Some(Duration::from_millis(1500)),
        idempotency_key: Some("key".into()),
    };
    let made = fake
        .client()
        .create_container(&config, &options)
        .await
        .unwrap();
    assert_eq!(made.summary.name.as_str(), "made");
}

#[tokio::test]
async fn statuses_tell_what_has_come_about() {
    let fake = Fake::start(|request| match (request.method.as_str(), request.path()) {
        ("DELETE", "/v1/containers/gone") => Reply::empty(204),
        ("DELETE", _) => Reply::json(202, &container("slow")),
        ("POST", "/v1/containers/slow/stop") => Reply::json(202, &container("slow")),
        ("POST", _) => Reply::json(200, &container("fast")),
        ("GET", "/v1/health") => Reply::json(
            503,
            &json!({"status": "degraded", "checks": {"zygote": "gone"}}),
        ),
        ("GET", "/v1/containers/same") => {
            assert_eq!(request.header("if-none-match"), Some("\"7\""));
            Reply::empty(304)
        }
        other => panic!("{other:?}"),
    });
    let client = fake.client();
    let wait = Some(Duration::ZERO);
    assert!(
        client
            .remove_container("gone", true, wait)
            .await
            .unwrap()
            .is_none()
    );
    assert!(
        client
            .remove_container("slow", true, wait)
            .await
            .unwrap()
            .is_some()
    );
    let request = StopRequest::default();
    assert!(
        !client
            .stop_container("slow", &request, wait)
            .await
            .unwrap()
            .1
    );
    assert!(
        client
            .stop_container("fast", &request, wait)
            .await
            .unwrap()
            .1
    );
    assert_eq!(client.health().await.unwrap().status, "degraded");
    assert!(
        client
            .container_if_changed("same", 7)
            .await
            .unwrap()
            .is_none()
    );
}

#[tokio::test]
async fn pages_are_followed() {
    let fake = Fake::start(|request| {
        let page = if request.target.contains("cursor=c%202") {
            json!({"items": [container("b")]})
        } else {
            json!({"items": [container("a")], "next": "c 2"})
        };
        Reply::json(200, &page)
    });
    let items = fake
        .client()
        .all_containers(&ListOptions::default())
        .await
        .unwrap();
    let names: Vec<_> = items.iter().map(|c| c.name.as_str()).collect();
    assert_eq!(names, ["a", "b"]);
}

#[tokio::test]
async fn requests_that_follow_each_other_use_one_connection() {
    let fake = Fake::start(|_| Reply::json(404, &problem("not_found")));
    let client = fake.client();
    for _ in 0..3 {
        client.version().await.unwrap_err();
    }
    assert_eq!(fake.connections(), 1);
}

#[tokio::test]
async fn a_connection_that_the_daemon_closed_is_replaced() {
    let fake = Fake::start(|_| Reply::json(200, &container("a")).and_close());
    let client = fake.client();
    for _ in 0..5 {
        client.container("a").await.unwrap();
        tokio::task::yield_now().await;
    }
    assert!(fake.connections() >= 2);
}

#[tokio::test]
async fn json_lines_are_joined_from_pieces() {
    let event = |seq: u64| json!({"seq": seq, "at": "t", "kind": "k", "id": "i"}).to_string();
    let text = format!("{}\n\n{}\n{}", event(1), event(2), event(3));
    let pieces = text.as_bytes().chunks(7).map(<[u8]>::to_vec).collect();
    let fake = Fake::start(move |request| {
        assert_eq!(
            request.target,
            "/v1/events?since_seq=0&follow=false&filter=kind%3Dk"
        );
        assert_eq!(request.header("accept"), Some("application/x-ndjson"));
        Reply::chunks(Vec::clone(&pieces))
    });
    let options = EventOptions {
        since_seq: Some(0),
        no_follow: true,
        filters: vec!["kind=k".into()],
    };
    let mut lines = fake.client().events(&options).await.unwrap();
    for seq in 1..=3 {
        assert_eq!(lines.next().await.unwrap().unwrap().seq, seq);
    }
    assert!(lines.next().await.unwrap().is_none());
}

#[tokio::test]
async fn a_stream_that_fails_ends_with_its_problem() {
    let line = serde_json::to_vec(&problem("unavailable")).unwrap();
    let fake = Fake::start(move |_| Reply::chunks(vec![line.clone(), b"\n".to_vec()]));
    let mut lines = fake
        .client()
        .logs("a", &LogOptions::default())
        .await
        .unwrap();
    let error = lines.next().await.unwrap_err();
    assert!(
        error.code() == Some("unavailable") && error.is_disconnect(),
        "{error}"
    );
}

#[tokio::test]
async fn a_stream_that_is_cut_off_is_not_taken_for_whole() {
    let fake = Fake::start(|_| Reply::chunks(vec![b"{\"se".to_vec()]).cut_off());
    let mut lines = fake
        .client()
        .events(&EventOptions::default())
        .await
        .unwrap();
    let error = lines.next().await.unwrap_err();
    assert!(
        matches!(error, ClientError::Broken { .. }) && error.is_disconnect(),
        "{error}"
    );
}

#[tokio::test]
async fn archives_are_streamed_to_the_daemon() {
    let fake = Fake::start(|request| {
        assert_eq!(request.target, "/v1/containers/a/files?path=%2Ftmp");
        assert_eq!(request.header("content-type"), Some("application/x-tar"));
        assert_eq!(request.body.len(), 300_000);
        Reply::empty(204)
    });
    let pieces = (0..3).map(|_| Ok::<_, io::Error>(Bytes::from(vec![7; 100_000])));
    let body = futures_util::stream::iter(pieces.collect::<Vec<_>>());
    fake.client().put_files("a", "/tmp", body).await.unwrap();
}

const STDIN: AttachOptions = AttachOptions {
    stdin: true,
    from: AttachFrom::Start,
};

#[tokio::test]
async fn an_interactive_stream_carries_both_ways_on_the_first_connection() {
    let fake = Fake::start(|request| {
        if request.method == "POST" {
            return Reply::json(201, &container("a"));
        }
        assert_eq!(
            request.target,
            "/v1/containers/a/attach?logs=true&stdin=true"
        );
        Reply::web_socket(|mut socket| {
            Box::pin(async move {
                let attached = ServerControl::Attached {
                    terminal: false,
                    position: 17,
                };
                socket.control(&attached).await;
                assert_eq!(socket.binary().await, b"\0typed");
                let closed: ClientControl = socket.text().await;
                assert_eq!(closed, ClientControl::CloseStdin);
                socket.output(1, b"out").await;
                socket.output(2, b"err").await;
                let exit = json!({"type": "exit", "reason": "exited", "code": 3});
                socket.control(&exit).await;
            })
        })
    });
    let client = fake.client();
    let config = ContainerConfig::default();
    client
        .create_container(&config, &CreateOptions::default())
        .await
        .unwrap();
    let mut attached = client.attach_container("a", STDIN).await.unwrap();
    assert!(!attached.terminal && attached.position == 17);
    attached.sink.feed_stdin(b"typed").await.unwrap();
    attached
        .sink
        .feed_control(&ClientControl::CloseStdin)
        .await
        .unwrap();
    attached.sink.flush().await.unwrap();
    let mut next = async || attached.stream.next().await.unwrap();
    assert_eq!(
        next().await,
        Received::Output(Channel::Stdout, "out".into())
    );
    assert_eq!(
        next().await,
        Received::Output(Channel::Stderr, "err".into())
    );
    let Received::Control(control) = next().await else {
        panic!("no exit")
    };
    let ServerControl::Exit(exit) = *control else {
        panic!("{control:?}")
    };
    assert_eq!(exit.status, ExitStatus::Exited { code: 3 });
    assert_eq!(fake.connections(), 1);
}

#[tokio::test]
async fn a_refused_attach_is_a_problem() {
    let fake = Fake::start(|_| Reply::json(404, &problem("exec_not_found")));
    let error = fake
        .client()
        .attach_exec("x", AttachOptions::default())
        .await
        .unwrap_err();
    assert_eq!(error.code(), Some("exec_not_found"));
}

#[tokio::test]
async fn an_interactive_stream_without_a_last_word_is_a_disconnect() {
    let fake = Fake::start(|_| {
        Reply::web_socket(|mut socket| {
            Box::pin(async move {
                let attached = ServerControl::Attached {
                    terminal: false,
                    position: 0,
                };
                socket.control(&attached).await;
            })
        })
    });
    let mut attached = fake.client().attach_container("a", STDIN).await.unwrap();
    assert!(attached.stream.next().await.unwrap_err().is_disconnect());
}

#[tokio::test]
async fn another_protocol_is_refused() {
    let fake = Fake::start(|_| Reply::web_socket(|_| Box::pin(async {})).of_protocol("chat"));
    let error = fake
        .client()
        .attach_container("a", STDIN)
        .await
        .unwrap_err();
    assert!(matches!(error, ClientError::Unexpected { .. }), "{error}");
}
