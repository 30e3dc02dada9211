//! What a container's processes look like from outside.

use std::time::Duration;

use super::prelude::*;

/// More of them than the daemon would read at once.
const LOCKED: usize = 20;

/// A container that may serve a file system of its own, below `/mnt`.
fn with_fuse(command: &[&str]) -> Value {
    with(
        busybox(command),
        json!({
            "mounts": [attacker::mount(), {"type": "tmpfs", "destination": "/mnt"}],
            "devices": [{"path": "/dev/fuse"}],
            "capabilities": {"add": ["SYS_ADMIN"]},
            "seccomp": "unconfined",
        }),
    )
}

/// A container with processes whose memory maps are locked for good: whoever reads the command line
/// of one waits, and so does `ps` of the host.
fn with_locked_maps(t: &Bed) -> Container {
    let locked = LOCKED.to_string();
    let container = t.start(&with_fuse(&["/attacker", "lock-maps", "/mnt", &locked]));
    proc::until("the maps are locked", || {
        t.stdout(&id(&container)) == "done\n"
    });
    container
}

#[test]
fn processes_with_locked_memory_hide_their_command_lines_and_hold_nobody_up() {
    let t = Bed::new();
    let other = id(&t.sleeper());
    let container = with_locked_maps(&t);
    let c = id(&container);
    let top = |c: &str| -> Vec<String> {
        let top: Top = t.get(&format!("/v1/containers/{c}/top")).expect(200).json();
        top.processes.into_iter().map(|p| p.command).collect()
    };
    let commands = top(&c);
    assert_eq!(commands[0], format!("/attacker lock-maps /mnt {LOCKED}"));
    assert_eq!(commands[1..], vec!["[attacker]"; LOCKED]);
    std::thread::scope(|scope| {
        let asked: Vec<_> = (0..LOCKED).map(|_| scope.spawn(|| top(&c))).collect();
        for _ in 0..5 {
            assert!(
                top(&other)[0].starts_with("sh -c trap"),
                "{:?}",
                top(&other)
            );
            for of in [&other, &c] {
                let _stats = t.get(&format!("/v1/containers/{of}/stats")).expect(200);
                let _ns = t
                    .get(&format!("/v1/containers/{of}/namespaces"))
                    .expect(200);
            }
        }
        let listed = t.get("/v1/namespaces").expect(200).text();
        assert!(listed.contains("\"sh -c trap"), "{listed}");
        for answer in asked {
            assert_eq!(answer.join().unwrap().len(), 1 + LOCKED);
        }
    });
    t.remove(&c);
    let gone = || (!proc::alive(pid1(&container))).then_some(());
    proc::eventually_within(Duration::from_secs(10), "they are gone", gone);
    t.finish();
}

#[test]
fn a_program_that_keeps_its_output_locked_is_ended_without_its_helper() {
    let t = Bed::new();
    let other = id(&t.sleeper());
    let container = t.start(&with_fuse(&["/attacker", "hold-output", "/mnt"]));
    let c = id(&container);
    let helper = proc::parent(pid1(&container)).unwrap();
    let stuck = || proc::status(helper)["State"].starts_with('D');
    let wake = || {
        t.post_json(
            &format!("/v1/containers/{c}/kill"),
            &json!({"signal": "CONT"}),
        )
    };
    std::thread::scope(|scope| {
        // The helper looks for output whenever it is asked for something.
        let waking = scope.spawn(|| while wake().status() == 204 {});
        proc::until("the helper waits for the program", stuck);
        assert_eq!(t.exec(&other, &["echo", "served"]), "served\n");
        t.remove(&c);
        waking.join().unwrap();
    });
    assert!(!proc::alive(helper));
    t.finish();
}
