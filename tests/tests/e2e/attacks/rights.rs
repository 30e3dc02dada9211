//! What a container's processes may do: capabilities, system calls, terminals, what the kernel
//! shows them.

use super::prelude::*;

/// `/proc/self/status` of a program, by start and by exec.
fn statuses(t: &Bed, more: &Value) -> Vec<BTreeMap<String, String>> {
    let parse = |text: String| {
        let pairs = text.lines().filter_map(|line| line.split_once(":\t"));
        pairs.map(|(k, v)| (k.to_owned(), v.to_owned())).collect()
    };
    let status = ["cat", "/proc/self/status"];
    let (_, out) = t.run(&with(busybox(&status), more.clone()));
    let c = id(&t.sleeper_with(more.clone()));
    let exec = t.exec(&c, &status);
    t.remove(&c);
    vec![parse(out), parse(exec)]
}

const NONE: &str = "0000000000000000";

#[test]
fn no_capability_is_inheritable_or_ambient() {
    // Row 11, CVE-2022-24769, CVE-2022-29162.
    let t = weak_bed();
    for user in ["0", "1000", "1000:1000"] {
        let more = json!({"user": user});
        for status in statuses(&t, &more) {
            assert_eq!(status["CapInh"], NONE, "{user}");
            assert_eq!(status["CapAmb"], NONE, "{user}");
            assert_eq!(status["NoNewPrivs"], "1", "{user}");
            let held = u64::from_str_radix(&status["CapBnd"], 16).unwrap();
            assert!(held.count_ones() <= 11, "{user}: {held:#x}");
        }
        let weak = with(more, json!({"labels": without(Defence::Inheritable)}));
        for status in statuses(&t, &weak) {
            assert_ne!(status["CapInh"], NONE, "{user}: the attack is no attack");
        }
    }
    t.finish();
}

#[test]
fn an_added_capability_is_not_inheritable_either() {
    let t = Bed::new();
    for more in [
        json!({"user": "1000", "capabilities": {"add": ["NET_ADMIN"]}}),
        json!({"privileged": true}),
    ] {
        for status in statuses(&t, &more) {
            assert_eq!(status["CapInh"], NONE);
            assert_eq!(status["CapAmb"], NONE);
        }
    }
    t.finish();
}

#[test]
fn a_container_cannot_raise_the_limits_of_its_own_cgroup() {
    // Row 12, CVE-2022-0492: the view of the cgroup is read-only. What is attacked is the
    // container's own limit of processes, which only its uid 0 could change.
    let t = weak_bed();
    let script = "for f in /sys/fs/cgroup/pids.max /sys/fs/cgroup/pids/pids.max; do \
        [ -e $f ] || continue; cat $f; (echo max > $f) 2>/dev/null; cat $f; done";
    let strong = json!({"namespaces": {"user": "host"}, "resources": {"pids_limit": 77}});
    assert_eq!(t.sh_with(script, strong.clone()), "77\n77\n");
    let weak = with(strong, json!({"labels": without(Defence::ReadOnlyCgroup)}));
    assert_eq!(t.sh_with(script, weak), "77\nmax\n");
    assert_eq!(
        t.sh_with(script, json!({"resources": {"pids_limit": 77}})),
        "77\n77\n"
    );
    t.finish();
}

#[test]
fn the_cgroup_v1_release_agent_is_out_of_reach() {
    // Row 12, CVE-2022-0492, the known sequence. Opened for writing and never written to: on a
    // machine where that succeeded it would be the machine's own. So there is no other side.
    let t = Bed::new();
    let script = "mkdir /tmp/cg
        for kind in memory rdma pids cpu; do
            mount -t cgroup -o $kind cgroup /tmp/cg 2>/dev/null && echo MOUNTED
            unshare -UrmC mount -t cgroup -o $kind cgroup /tmp/cg 2>/dev/null && echo MOUNTED
        done
        find / -name release_agent 2>/dev/null | while read f; do
            (: >> $f) 2>/dev/null && echo OPENED $f
        done; true";
    for user in [json!({}), json!({"namespaces": {"user": "host"}})] {
        assert_eq!(t.sh_with(script, user), "");
    }
    t.finish();
}

#[test]
fn input_cannot_be_pushed_into_the_callers_terminal() {
    // Row 14, TIOCSTI and TIOCLINUX. A shell on a terminal runs a container and then reads what
    // has been typed: nothing. One side: to give a container the caller's terminal there is no code.
    let t = Bed::new();
    let attacker = format!("{}:/attacker", attacker::program().display());
    let root = format!("dir:{}", busybox_root().display());
    let lbctl = littlebox_tests::daemon::binary("lbctl");
    for mode in ["-it", "-i", "-t"] {
        let run = format!(
            "{} --socket {} run --rm {mode} -v {attacker} {root} /attacker",
            lbctl.display(),
            t.dirs.socket.display()
        );
        let script = format!(
            "{run} push-input 'touch /tmp/pushed'; {run} paste; \
             printf '[%s]\\n' \"$(timeout 1 head -c 1)\""
        );
        let mut pty = littlebox_tests::pty::Pty::spawn(
            std::path::Path::new("/bin/sh"),
            &["-c", &script],
            &[],
            (24, 80),
        );
        assert_eq!(pty.wait(), 0);
        pty.until("[");
        pty.until("]");
        assert!(pty.text().contains("[]"), "{mode}: {}", pty.text());
    }
    t.finish();
}

#[test]
fn a_terminal_is_always_one_of_the_containers_own() {
    // Row 14.
    let t = Bed::new();
    let script = "tty; ls /dev/pts; test $(cut -d' ' -f6 /proc/self/stat) = 1 && echo own session";
    let out = t.sh_with(script, json!({"terminal": true}));
    assert!(
        out.contains("/dev/pts/0") || out.contains("/dev/console"),
        "{out}"
    );
    assert!(out.contains("own session"), "{out}");
    t.finish();
}

#[test]
fn packets_cannot_be_forged() {
    // Row 26, CVE-2020-13401: no raw and no packet socket, in a network of the container's own in
    // which there is nothing but `lo`. The other side is the capability.
    let t = Bed::new();
    let sockets = |more: Value| {
        let config = with(json!({"mounts": [attacker::mount()]}), more);
        t.sh_with(
            "/attacker socket 17 3 768; /attacker socket 2 3 1; ls /sys/class/net",
            config,
        )
    };
    assert_eq!(sockets(json!({})), "EPERM\nEPERM\nlo\n");
    let raw = json!({"capabilities": {"add": ["NET_RAW"]}});
    assert_eq!(sockets(raw), "done\ndone\nlo\n");
    // Nor does it decide what it takes from others.
    let script = "for f in /proc/sys/net/ipv6/conf/*/accept_ra /proc/sys/net/ipv4/ip_forward; do \
        (echo 2 > $f) 2>/dev/null && echo WROTE $f; done; true";
    assert_eq!(t.sh(script), "");
    t.finish();
}

#[test]
fn side_channels_read_empty_and_cannot_be_unmasked() {
    // Row 29. The other side is a privileged container.
    let t = Bed::new();
    let read = "for f in kcore keys timer_list sched_debug interrupts latency_stats; do \
        [ -e /proc/$f ] && echo $f $(head -c 64 /proc/$f | wc -c); done; \
        for d in /proc/acpi /proc/scsi /sys/firmware /sys/devices/virtual/powercap; do \
        [ -e $d ] && echo $d $(ls $d | wc -l); done; true";
    let attempts = "for f in /proc/interrupts /proc/timer_list /sys/firmware; do \
        umount $f 2>/dev/null && echo UNMASKED; \
        mount -o remount,rw $f 2>/dev/null && echo WRITABLE; \
        chmod 777 $f 2>/dev/null; rm -rf $f 2>/dev/null; done; \
        mount -o remount,rw /sys 2>/dev/null && echo WRITABLE; \
        mount -t proc proc /tmp 2>/dev/null && cat /tmp/interrupts;";
    for more in [json!({}), json!({"namespaces": {"user": "host"}})] {
        let out = t.sh_with(&format!("{attempts} {read}"), more);
        assert!(out.contains("interrupts 0\n"), "{out}");
        assert!(out.lines().all(|line| line.ends_with(" 0")), "{out}");
    }
    let open = t.sh_with(read, json!({"privileged": true}));
    assert!(open.contains("interrupts 64\n"), "{open}");
    t.finish();
}
