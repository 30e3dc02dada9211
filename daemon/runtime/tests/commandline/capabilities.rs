//! Capabilities of a container's process and of its execs.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

use std::process::Command;

use crate::support::{Bed, Ran};
use serde_json::json;

/// A set of a process by its name in proc(5), as a mask.
fn mask(status: &str, name: &str) -> u64 {
    let found = status.lines().find_map(|line| line.strip_prefix(name));
    let digits = found
        .and_then(|rest| rest.strip_prefix(':'))
        .unwrap()
        .trim();
    u64::from_str_radix(digits, 16).unwrap()
}

#[test]
fn a_capability_that_is_not_known_is_left_out_with_a_warning() {
    let mut bed = Bed::new("cat /proc/self/status");
    for set in ["bounding", "permitted", "effective"] {
        bed.config["process"]["capabilities"][set] = json!(["CAP_KILL", "CAP_MADE_UP"]);
    }
    let ran = bed.run_container();
    assert!(ran.stderr.contains("level=warning"), "{ran:?}");
    assert!(ran.stderr.contains("CAP_MADE_UP"), "{ran:?}");
    let status = ran.ok();
    for set in ["CapBnd", "CapPrm", "CapEff"] {
        assert_eq!(mask(&status, set), 1 << 5, "{set}");
    }
}

#[test]
fn what_an_exec_gets_besides_is_ambient_where_the_container_lets_it_inherit() {
    let mut bed = Bed::new("exec sleep 100");
    let capabilities = &mut bed.config["process"]["capabilities"];
    capabilities["bounding"] = json!(["CAP_CHOWN", "CAP_KILL", "CAP_SYSLOG"]);
    capabilities["inheritable"] = json!(["CAP_CHOWN", "CAP_SYSLOG"]);
    capabilities["permitted"] = json!(["CAP_CHOWN", "CAP_KILL"]);
    capabilities["ambient"] = json!(["CAP_CHOWN"]);
    bed.create().ok();
    bed.start().ok();
    let (chown, net_raw, syslog) = (1, 1 << 13, 1 << 34);
    let flags = ["--cap", "CAP_SYSLOG", "--cap", "CAP_NET_RAW"];
    let mut arguments = vec!["exec"];
    arguments.extend(flags);
    arguments.extend([bed.id.as_str(), "cat", "/proc/self/status"]);
    let status = bed.run(&arguments).ok();
    assert_eq!(mask(&status, "CapAmb"), chown | syslog);
    assert_eq!(mask(&status, "CapInh"), chown | syslog);
    assert_eq!(mask(&status, "CapBnd") & net_raw, net_raw);
}

#[test]
fn a_capability_that_the_host_does_not_grant_is_told_in_the_log_from_whichever_set() {
    for set in [
        "bounding",
        "inheritable",
        "permitted",
        "effective",
        "ambient",
    ] {
        let mut bed = Bed::new("cat /proc/self/status");
        for each in ["bounding", "permitted", "effective"] {
            bed.config["process"]["capabilities"][each] = json!(["CAP_KILL"]);
        }
        bed.config["process"]["capabilities"][set] = json!(["CAP_KILL", "CAP_NET_RAW"]);
        bed.write_config();
        let (bundle, log) = (bed.bundle(), bed.path("log"));
        let arguments = [
            "--log",
            log.to_str().unwrap(),
            "run",
            "-b",
            bundle.to_str().unwrap(),
            &bed.id,
        ];
        let runtime = bed.command(&arguments);
        let mut bound = Command::new("setpriv");
        bound
            .args(["--bounding-set", "-net_raw"])
            .arg(runtime.get_program())
            .args(runtime.get_args());
        let status = Ran::from(bound.output().unwrap()).ok();
        assert_eq!(mask(&status, "CapBnd"), 1 << 5, "{set}");
        let log = std::fs::read_to_string(log).unwrap();
        assert!(log.contains("level=warning"), "{set}: {log}");
        assert!(
            log.contains("does not grant: CAP_NET_RAW\""),
            "{set}: {log}"
        );
    }
}
