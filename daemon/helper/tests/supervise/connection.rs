//! Connections of clients that ask for what is not known, do not read, or send garbage.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::time::Duration;

use crate::support::bed::Bed;
use crate::support::process::{Helper, Zygote, readable};
use littlebox_protocol::{Call, Reply};

#[test]
fn a_request_of_a_newer_daemon_is_refused_and_the_connection_stays() {
    use std::os::fd::AsFd;
    let (bed, zygote) = (Bed::new(), Zygote::start());
    let (mut helper, _) = zygote.launch(&bed.plan("sleep 100"));
    let unknown = serde_json::json!({ "seq": 99, "call": { "levitate": { "metres": 3 } } });
    littlebox_protocol::channel::send(helper.connection.as_fd(), &unknown, Vec::new()).unwrap();
    assert!(matches!(helper.reply(99), (Reply::Failed(_), _)));
    assert_eq!(helper.status().exit, None);
    helper.finish();
}

#[test]
fn a_connection_that_never_reads_is_dropped_and_holds_nobody_up() {
    use littlebox_protocol::Request;
    use std::os::fd::AsFd;
    let (bed, zygote) = (Bed::new(), Zygote::start());
    let (mut helper, _) = zygote.launch(&bed.plan("sleep 100"));
    let stuck = Helper::connect(&bed.run_dir());
    let sent_until_dropped = (0..100_000).find(|seq| {
        let call = Call::Status;
        let request = Request { seq: *seq, call };
        littlebox_protocol::channel::send(stuck.connection.as_fd(), &request, Vec::new()).is_err()
    });
    assert!(
        sent_until_dropped.is_some(),
        "it may keep the helper busy forever"
    );
    assert_eq!(helper.status().exit, None);
    let rss = std::fs::read_to_string(format!("/proc/{}/status", helper.pid)).unwrap();
    let rss = rss.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    let kilobytes: u64 = rss.split_whitespace().nth(1).unwrap().parse().unwrap();
    assert!(kilobytes < 20_000, "{rss}");
    drop(stuck);
    helper.finish();
}

#[test]
fn garbage_on_a_connection_costs_that_connection_alone() {
    let (bed, zygote) = (Bed::new(), Zygote::start());
    let (mut helper, _) = zygote.launch(&bed.plan("sleep 100"));
    for garbage in [&b"no json"[..], &[0xff; 65000], b"{\"memfd\":9999999999}"] {
        let other = Helper::connect(&bed.run_dir());
        rustix::io::write(&other.connection, garbage).unwrap();
        assert!(
            readable(&other.connection, Duration::from_secs(10)),
            "it is closed"
        );
    }
    assert_eq!(helper.status().exit, None);
    helper.finish();
}
