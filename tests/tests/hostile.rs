//! Roots that lie: links, pipes and programs made to reach the host. What each once did to another
//! runtime is named by its advisory.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;

use littlebox_tests::prelude::*;

/// A copy of the busybox root that a test may spoil.
struct Root(PathBuf);

impl Root {
    fn new(t: &Bed) -> Self {
        let path = t.dirs.base_path.join("hostile-root");
        littlebox_tests::roots::run(
            std::process::Command::new("cp")
                .arg("-a")
                .arg(busybox_root())
                .arg(&path),
        );
        Self(path)
    }

    fn config(&self, command: &[&str]) -> Value {
        json!({"rootfs": format!("dir:{}", self.0.display()), "command": command})
    }
}

impl Drop for Root {
    fn drop(&mut self) {
        let _shown_by_the_oracle = fs::remove_dir_all(&self.0);
    }
}

/// A directory on the host that must stay as it is.
struct Canary(PathBuf);

impl Canary {
    fn new(t: &Bed) -> Self {
        let path = t.dirs.base_path.join("canary");
        fs::create_dir(&path).unwrap();
        fs::write(path.join("file"), "untouched").unwrap();
        Self(path)
    }

    #[track_caller]
    fn check(self) {
        let names: Vec<_> = fs::read_dir(&self.0)
            .unwrap()
            .map(|e| e.unwrap().file_name())
            .collect();
        assert_eq!(names, ["file"], "something was made on the host");
        let contents = fs::read_to_string(self.0.join("file")).unwrap();
        assert_eq!(contents, "untouched");
        fs::remove_dir_all(&self.0).unwrap();
    }
}

/// Starts; it may be refused, but only as a start that failed or a request that is wrong.
#[track_caller]
fn start_or_refusal(t: &Bed, config: &Value) -> Option<String> {
    let response = t.post_json("/v1/containers?start=true&wait=20s", config);
    if response.status() == 201 {
        let container: Container = response.json();
        return Some(t.stdout(&id(&container)));
    }
    assert!(
        matches!(response.status(), 400 | 422),
        "{} {}",
        response.status(),
        response.text()
    );
    None
}

#[test]
fn a_working_directory_through_a_descriptor_does_not_leave_the_root() {
    // CVE-2024-21626.
    let t = Bed::new();
    let c = id(&t.sleeper());
    for n in (3..40).chain([100, 255, 1023]) {
        let dir = format!("/proc/self/fd/{n}");
        let config = with(
            busybox(&["sh", "-c", "pwd; ls ../../.. 2>/dev/null"]),
            json!({"working_dir": dir}),
        );
        if let Some(out) = start_or_refusal(&t, &config) {
            assert!(
                !out.contains("lost+found") && !out.contains("boot"),
                "{n}: {out}"
            );
        }
        let exec = json!({"command": ["pwd"], "working_dir": dir});
        let response = t.post_json(&format!("/v1/containers/{c}/execs?wait=10s"), &exec);
        assert_eq!(response.status(), 422, "{n}: {}", response.text());
    }
    t.finish();
}

#[test]
fn a_root_whose_proc_or_sys_or_dev_is_a_link_reaches_nothing_outside() {
    // CVE-2019-19921, CVE-2023-27561, CVE-2026-41579.
    let t = Bed::new();
    for name in ["proc", "sys", "dev"] {
        let root = Root::new(&t);
        let canary = Canary::new(&t);
        fs::remove_dir(root.0.join(name)).unwrap();
        symlink(&canary.0, root.0.join(name)).unwrap();
        let script = "grep -c ' /proc proc ' /proc/mounts";
        if let Some(out) = start_or_refusal(&t, &root.config(&["sh", "-c", script])) {
            assert_eq!(out, "1\n", "{name}");
        }
        canary.check();
    }
    t.finish();
}

#[test]
fn a_passwd_that_is_a_pipe_a_link_or_huge_neither_hangs_nor_leaks() {
    // CVE-2024-9676, CVE-2026-47262.
    let t = Bed::new();
    let root = Root::new(&t);
    let passwd = root.0.join("etc/passwd");
    let config = with(root.config(&["id", "-u"]), json!({"user": "user"}));
    let begin = Instant::now();

    fs::remove_file(&passwd).unwrap();
    littlebox_tests::roots::run(std::process::Command::new("mkfifo").arg(&passwd));
    assert!(start_or_refusal(&t, &config).is_none());

    fs::remove_file(&passwd).unwrap();
    symlink("/dev/zero", &passwd).unwrap();
    assert!(start_or_refusal(&t, &config).is_none());

    fs::remove_file(&passwd).unwrap();
    let host = t.dirs.base_path.join("host-passwd");
    fs::write(&host, "user:x:4711:4711::/:/bin/sh\n").unwrap();
    symlink(&host, &passwd).unwrap();
    assert!(
        start_or_refusal(&t, &config).is_none(),
        "it read the host's file"
    );

    fs::remove_file(&passwd).unwrap();
    let file = fs::File::create(&passwd).unwrap();
    file.set_len(1 << 30).unwrap();
    assert!(start_or_refusal(&t, &config).is_none());
    assert!(begin.elapsed() < Duration::from_secs(15));

    fs::write(&passwd, "user:x:4294967295:0::/:/bin/sh\n").unwrap();
    assert!(start_or_refusal(&t, &config).is_none(), "user -1");
    t.finish();
}

#[test]
fn the_helper_cannot_be_rewritten_from_inside() {
    // CVE-2019-5736: the program is the helper itself, opened for writing while it runs.
    let t = Bed::new();
    let root = Root::new(&t);
    let script = root.0.join("bin/evil");
    fs::write(&script, "#!/proc/self/exe\n").unwrap();
    littlebox_tests::roots::run(std::process::Command::new("chmod").arg("755").arg(&script));
    let helper = littlebox_tests::daemon::binary("littlebox-helper");
    let before = fs::read(&helper).unwrap();
    let _either = start_or_refusal(&t, &root.config(&["/bin/evil"]));
    let c = id(&t.start(&with(
        root.config(&[
            "sh",
            "-c",
            "while :; do for p in /proc/[0-9]*; do echo x 2>/dev/null > $p/exe; done; done",
        ]),
        json!({"name": "racer"}),
    )));
    for _ in 0..30 {
        let response = t.post_json(
            &format!("/v1/containers/{c}/execs?wait=5s"),
            &json!({"command": ["/bin/evil"]}),
        );
        assert!(
            matches!(response.status(), 201 | 422),
            "{}",
            response.text()
        );
    }
    t.remove(&c);
    assert!(fs::read(&helper).unwrap() == before);
    assert_eq!(t.sh("echo fine"), "fine\n");
    t.finish();
}

#[test]
fn an_exec_gives_nothing_of_the_helper_away_before_it_is_inside() {
    // CVE-2016-9962: the joining process is not dumpable, so that nobody without CAP_SYS_PTRACE
    // looks into it.
    let t = Bed::new();
    let scan = "while :; do for p in /proc/[0-9]*; do \
        ls -l $p/fd 2>/dev/null | grep -E 'littlebox|helper.sock|container.log|/lbt-' && echo LEAK; \
        done; done";
    let c = id(&t.start(&busybox(&["sh", "-c", scan])));
    for _ in 0..100 {
        t.exec(&c, &["true"]);
    }
    let out = t.stdout(&c);
    assert!(!out.contains("LEAK"), "{out}");
    t.finish();
}

#[test]
fn typed_input_cannot_be_pushed_into_the_callers_terminal() {
    let t = Bed::new();
    let mut pty = t.lbctl_pty(&[
        "run",
        "--rm",
        "-it",
        &format!("dir:{}", busybox_root().display()),
        "sh",
        "-c",
        "tty; cut -d' ' -f7 /proc/self/stat",
    ]);
    assert_eq!(pty.wait(), 0);
    let text = pty.text();
    // Its terminal is one of its own devpts, not the one that lbctl runs on.
    assert!(
        text.contains("/dev/pts/0") || text.contains("/dev/console"),
        "{text}"
    );
    t.finish();
}

#[test]
fn masked_files_read_empty_and_cannot_be_unmasked() {
    let t = Bed::new();
    let script = "for f in kcore keys timer_list sched_debug interrupts; do \
        [ -e /proc/$f ] && echo size $(wc -c < /proc/$f); done; \
        umount /proc/timer_list 2>/dev/null && echo UNMASKED; \
        mount -o remount,rw /sys 2>/dev/null && echo WRITABLE; true";
    let out = t.sh(script);
    assert!(out.contains("size 0\n"), "{out}");
    assert!(out.lines().all(|l| l == "size 0"), "{out}");
    t.finish();
}

#[test]
fn the_cgroup_v1_release_agent_is_out_of_reach() {
    // CVE-2022-0492.
    let t = Bed::new();
    let out = t.sh(
        "mkdir /tmp/cg; mount -t cgroup -o memory cgroup /tmp/cg 2>&1; \
         unshare -Urm true 2>&1; \
         find / -name release_agent 2>/dev/null | head -3 | while read f; do echo x > $f && echo WROTE; done; true",
    );
    assert!(!out.contains("WROTE"), "{out}");
    t.finish();
}
