//! Users that an image or a request lies about.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

use super::prelude::*;

/// Users and groups that would wrap to root, or to "no change" of setresuid(2), if somebody parsed
/// them carelessly.
const WRAPPING: [&str; 12] = [
    "4294967296",
    "4294967295",
    "18446744073709551616",
    "-1",
    "-0",
    "+0",
    " 0",
    "0x0",
    "0 ",
    "1e0",
    "0:4294967296",
    "0:-1",
];

#[test]
fn an_id_that_does_not_fit_never_becomes_root() {
    // Row 17, CVE-2024-40635.
    let t = Bed::new();
    let c = id(&t.sleeper());
    for user in WRAPPING {
        let config = with(busybox(&["id", "-u"]), json!({"user": user}));
        assert_eq!(run_or_refusal(&t, &config), None, "{user:?}");
        let exec = json!({"command": ["id", "-u"], "user": user});
        let response = t.post_json(&format!("/v1/containers/{c}/execs?wait=10s"), &exec);
        assert!(matches!(response.status(), 400 | 422), "{user:?}");
    }
    let group = with(busybox(&["id"]), json!({"groups": ["4294967296"]}));
    assert_eq!(run_or_refusal(&t, &group), None);
    t.finish();
}

#[test]
fn a_passwd_that_is_a_pipe_a_device_a_link_or_huge_neither_hangs_nor_leaks() {
    // Row 17, CVE-2024-9676, CVE-2026-47262. One side: without these checks the start would hang, or
    // the machine's memory be gone.
    let t = Bed::new();
    let root = Root::new(&t);
    let passwd = root.0.join("etc/passwd");
    let config = with(root.config(&["id", "-u"]), json!({"user": "user"}));
    let refused = |what: &str| assert_eq!(run_or_refusal(&t, &config), None, "{what}");

    fs::remove_file(&passwd).unwrap();
    littlebox_tests::roots::run(Command::new("mkfifo").arg(&passwd));
    refused("a pipe");

    for target in ["/dev/zero", "/proc/self/mem", "/dev/stdin", "passwd"] {
        root.replace_by_link("etc/passwd", Path::new(target));
        refused(target);
    }
    let canary = Canary::new();
    let user = "user:x:4711:4711::/:/bin/sh\n";
    fs::write(canary.path().join("passwd"), user).unwrap();
    root.replace_by_link("etc/passwd", &canary.path().join("passwd"));
    refused("the host's file");

    fs::remove_file(&passwd).unwrap();
    fs::File::create(&passwd).unwrap().set_len(1 << 30).unwrap();
    refused("1 GiB");

    for line in [
        "user:x:4294967295:0::/:/bin/sh\n",
        "user:x:4294967296:0::/:/bin/sh\n",
        "user:x:-1:0::/:/bin/sh\n",
        "user:x:1000:4294967295::/:/bin/sh\n",
        "user:x::::/:/bin/sh\n",
    ] {
        fs::write(&passwd, line).unwrap();
        refused(line);
    }
    drop(root);
    t.finish();
}

#[test]
fn a_passwd_through_a_descriptor_of_the_helper_is_not_read() {
    // Row 17, CVE-2024-9676, both sides: the link leads out by a descriptor that the helper still has.
    let t = weak_bed();
    let canary = Canary::new();
    let passwd = canary.path().join("passwd");
    fs::write(&passwd, "user:x:4711:4711::/:/bin/sh\n").unwrap();
    let root = Root::new(&t);
    let reaches = |labels: Value| {
        (3..64).any(|n| {
            let link = format!("/proc/self/fd/{n}/../../../../../../..{}", passwd.display());
            root.replace_by_link("etc/passwd", Path::new(&link));
            let more = json!({"user": "user", "labels": labels, "namespaces": {"user": "host"}});
            let config = with(root.config(&["id", "-u"]), more);
            run_or_refusal(&t, &config).as_deref() == Some("4711\n")
        })
    };
    assert!(!reaches(json!({})));
    assert!(reaches(without(Defence::InRoot)), "the attack is no attack");
    drop(root);
    t.finish();
}

#[test]
fn a_passwd_through_a_link_inside_the_image_is_read() {
    // What is refused above is not refused for being a link.
    let t = Bed::new();
    let root = Root::new(&t);
    fs::rename(root.0.join("etc/passwd"), root.0.join("etc/real")).unwrap();
    symlink("/etc/real", root.0.join("etc/passwd")).unwrap();
    let config = with(root.config(&["id", "-u"]), json!({"user": "user"}));
    assert_eq!(run_or_refusal(&t, &config).as_deref(), Some("1000\n"));
    drop(root);
    t.finish();
}

#[test]
fn a_passwd_that_is_too_large_stops_no_numeric_user() {
    let t = Bed::new();
    let root = Root::new(&t);
    let passwd = root.0.join("etc/passwd");
    let users: String = (0..60_000).map(|n| format!("u{n}:x:7:7::/:\n")).collect();
    fs::write(&passwd, users + "late:x:4711:4712::/:/bin/sh\n").unwrap();
    let run = |user: Value| {
        let config = with(
            // The image's own programs would read all of the file.
            root.config(&[
                "sed",
                "-n",
                r"s/^[UG]id:\t\([0-9]*\).*/\1/p",
                "/proc/self/status",
            ]),
            json!({"user": user}),
        );
        run_or_refusal(&t, &config)
    };
    assert_eq!(run(json!("late")).as_deref(), Some("4711\n4712\n"));
    fs::File::create(&passwd).unwrap().set_len(1 << 30).unwrap();
    assert_eq!(run(json!("5")).as_deref(), Some("5\n0\n"));
    assert_eq!(run(Value::Null).as_deref(), Some("0\n0\n"));
    drop(root);
    t.finish();
}

#[test]
fn root_has_the_same_groups_whether_it_is_named_or_not() {
    let t = Bed::new();
    let root = Root::new(&t);
    fs::write(root.0.join("etc/group"), "root:x:0:\nwheel:x:10:root\n").unwrap();
    for more in [json!({}), json!({"user": "0"}), json!({"user": "root"})] {
        let config = with(root.config(&["id", "-G"]), more);
        assert_eq!(run_or_refusal(&t, &config).as_deref(), Some("0 10\n"));
    }
    drop(root);
    t.finish();
}
