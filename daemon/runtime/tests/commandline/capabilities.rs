//! Capabilities of a container's process and of its execs.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

use crate::support::Bed;
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
