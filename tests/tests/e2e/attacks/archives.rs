//! Archives that go into a container, and copies that race with it.

use std::fs;
use std::os::unix::fs::symlink;
use std::process::Command;

use tar::EntryType;

use super::prelude::*;

/// One entry of an archive, with names that the tar crate would refuse to write.
struct Made {
    header: tar::Header,
    data: Vec<u8>,
}

impl Made {
    fn new(kind: EntryType, name: &str, link: &str, data: &[u8]) -> Self {
        let mut header = tar::Header::new_gnu();
        header.set_size(data.len() as u64);
        header.set_mode(0o644);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(1_000_000_000);
        header.set_entry_type(kind);
        let old = header.as_old_mut();
        old.name[..name.len()].copy_from_slice(name.as_bytes());
        old.linkname[..link.len()].copy_from_slice(link.as_bytes());
        header.set_cksum();
        Self {
            header,
            data: data.to_vec(),
        }
    }

    fn file(name: &str) -> Self {
        Self::new(EntryType::Regular, name, "", b"intruder")
    }

    fn link(name: &str, target: &str) -> Self {
        Self::new(EntryType::Symlink, name, target, b"")
    }

    fn hard(name: &str, target: &str) -> Self {
        Self::new(EntryType::Link, name, target, b"")
    }

    fn dir(name: &str) -> Self {
        Self::new(EntryType::Directory, name, "", b"")
    }

    fn pax(records: &[(&str, &[u8])]) -> Self {
        let mut data = Vec::new();
        for (key, value) in records {
            let mut len = key.len() + value.len() + 4;
            while len.to_string().len() + key.len() + value.len() + 3 != len {
                len = len.to_string().len() + key.len() + value.len() + 3;
            }
            data.extend(format!("{len} {key}=").bytes());
            data.extend(*value);
            data.push(b'\n');
        }
        Self::new(EntryType::XHeader, "pax", "", &data)
    }

    /// With a size that the data does not have.
    fn sized(mut self, size: u64) -> Self {
        self.header.set_size(size);
        self.header.set_cksum();
        self
    }

    fn append(&self, archive: &mut Vec<u8>) {
        archive.extend(self.header.as_bytes());
        archive.extend(&self.data);
        archive.resize(archive.len().next_multiple_of(512), 0);
    }
}

fn archive(entries: &[Made]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for entry in entries {
        entry.append(&mut bytes);
    }
    bytes.extend([0; 1024]);
    bytes
}

fn put(t: &Bed, c: &str, path: &str, archive: Vec<u8>) -> Response {
    let path = format!("/v1/containers/{c}/files?path={}", encode(path));
    t.send(&Request::new(Method::Put, path).body("application/x-tar", archive))
}

fn get(t: &Bed, c: &str, path: &str) -> Response {
    t.get(&format!("/v1/containers/{c}/files?path={}", encode(path)))
}

#[test]
fn a_hostile_archive_writes_nothing_outside() {
    // Row 19, CVE-2025-47290, CVE-2021-32760, CVE-2025-62518. What is refused is told with 400, and
    // what is not has been resolved inside.
    let t = Bed::new();
    let canary = Canary::new();
    let out = canary.path().to_str().unwrap();
    let up = "../../../../../../..";
    let corpus = vec![
        vec![Made::file(&format!("{up}{out}/up"))],
        vec![Made::file(&format!("a/../{up}{out}/up"))],
        vec![Made::file(&format!("{out}/absolute"))],
        vec![Made::file(&format!("//{out}/absolute"))],
        vec![Made::link("trap", out), Made::file("trap/through")],
        vec![Made::link("trap", out), Made::dir("trap/through")],
        vec![
            Made::link("trap", out),
            Made::dir("trap"),
            Made::file("trap/through"),
        ],
        vec![
            Made::link("trap", &format!("{up}{out}")),
            Made::file("trap/through"),
        ],
        vec![
            Made::link("file", &format!("{out}/file")),
            Made::file("file"),
        ],
        vec![
            Made::link("one", "."),
            Made::link("one/two", out),
            Made::file("two/three"),
        ],
        vec![
            Made::dir("d"),
            Made::link("d", out),
            Made::file("d/through"),
        ],
        vec![
            Made::hard("hard", &format!("{out}/file")),
            Made::file("hard"),
        ],
        vec![
            Made::hard("hard", &format!("{up}{out}/file")),
            Made::file("hard"),
        ],
        vec![
            Made::link("l", &format!("{out}/file")),
            Made::hard("h", "l"),
            Made::file("h"),
        ],
        vec![Made::file(".wh...")],
        vec![Made::file(".wh..wh..opq"), Made::file(".wh.file")],
        vec![
            Made::pax(&[("path", format!("{up}{out}/pax").as_bytes())]),
            Made::file("x"),
        ],
        vec![Made::pax(&[("path", b"a\0b")]), Made::file("x")],
        vec![
            Made::pax(&[("linkpath", format!("{up}{out}/file").as_bytes())]),
            Made::hard("hard", "x"),
            Made::file("hard"),
        ],
        // Two readers that disagree on the size see different entries (CVE-2025-62518).
        vec![
            Made::pax(&[("size", b"1024")]),
            Made::new(
                EntryType::Regular,
                "outer",
                "",
                &archive(&[Made::file("inner")])[..1024],
            )
            .sized(0),
        ],
        vec![Made::new(EntryType::Char, "null", "", b"")],
        vec![Made::new(EntryType::Block, "disk", "", b"")],
        vec![Made::file("trap").sized(u64::MAX >> 1)],
        vec![Made::file("")],
        vec![Made::link("empty", "")],
    ];
    let c = id(&t.sleeper());
    for running in [true, false] {
        if !running {
            let _stopped = t.post(&format!("/v1/containers/{c}/stop"));
            t.wait(&c);
        }
        for (n, entries) in corpus.iter().enumerate() {
            let response = put(&t, &c, "/tmp", archive(entries));
            let status = response.status();
            assert!(matches!(status, 204 | 400 | 404 | 413), "{n}: {status}");
            assert!(canary.is_untouched(), "{n}: something was written outside");
        }
    }
    let smuggled = get(&t, &c, "/tmp/inner");
    assert_eq!(smuggled.status(), 404, "an entry in an entry's content");
    t.finish();
}

#[test]
fn an_archive_gives_what_gnu_tar_makes_of_it() {
    // Row 19: what is not refused is understood as elsewhere.
    let t = Bed::new();
    let c = id(&t.sleeper());
    let dir = t.dirs.base_path.join("tree");
    fs::create_dir_all(dir.join("a/deep/one")).unwrap();
    fs::write(dir.join("a/file"), "contents").unwrap();
    fs::write(dir.join(format!("a/{}", "long".repeat(50))), "").unwrap();
    fs::hard_link(dir.join("a/file"), dir.join("a/hard")).unwrap();
    symlink("/no/where", dir.join("a/soft")).unwrap();
    symlink("deep", dir.join("a/through")).unwrap();
    for format in ["gnu", "pax", "ustar"] {
        let made = Command::new("tar")
            .args(["-c", "--numeric-owner", "-f", "-", "--format", format, "-C"])
            .arg(&dir)
            .arg("a")
            .output()
            .unwrap();
        if format == "ustar" {
            // A name too long for it is left out, with a word; the rest counts.
            assert!(!made.stdout.is_empty());
        } else {
            assert!(made.status.success(), "{format}");
        }
        let target = format!("/tmp/{format}");
        t.exec(&c, &["mkdir", &target]);
        let _none = put(&t, &c, &target, made.stdout).expect(204);
        let list = |archive: &[u8]| {
            let file = t.dirs.base_path.join("listed.tar");
            fs::write(&file, archive).unwrap();
            let out = Command::new("tar")
                .args(["--numeric-owner", "-tvf"])
                .arg(&file)
                .output()
                .unwrap();
            fs::remove_file(file).unwrap();
            assert!(out.status.success());
            let text = String::from_utf8_lossy(&out.stdout).into_owned();
            let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
            lines.sort();
            lines
        };
        let ours = list(&get(&t, &c, &format!("{target}/a")).expect(200).body);
        let again = Command::new("tar")
            .args(["-c", "--numeric-owner", "--sort=name", "-f", "-", "-C"])
            .arg(&dir)
            .arg("a")
            .output()
            .unwrap();
        let theirs = list(&again.stdout);
        if format != "ustar" {
            assert_eq!(ours, theirs, "{format}");
        }
    }
    fs::remove_dir_all(dir).unwrap();
    t.finish();
}

#[test]
fn archives_that_promise_or_repeat_without_end_stay_within_bounds() {
    // Row 20, CVE-2023-25153, CVE-2025-58183.
    let t = Bed::new();
    let c = id(&t.sleeper());
    let small = || put(&t, &c, "/tmp", archive(&[Made::file("a")])).expect(204);
    let _warm = small();
    let memory = || {
        let rss = &proc::status(t.pid())["VmRSS"];
        rss.trim_end_matches(" kB").trim().parse::<u64>().unwrap()
    };
    let before = memory();
    let sparse = Made::new(EntryType::GNUSparse, "sparse", "", b"").sized(10 << 30);
    let refused = |what: &str, status: u16, bytes: Vec<u8>| {
        let response = put(&t, &c, "/tmp", bytes);
        assert_eq!(response.status(), status, "{what}: {}", response.text());
    };
    refused("a sparse header of 10 GiB", 400, archive(&[sparse]));
    let pax = Made::pax(&[
        ("GNU.sparse.major", b"1"),
        ("GNU.sparse.realsize", b"10737418240"),
    ]);
    refused("sparse by PAX", 400, archive(&[pax, Made::file("sparse")]));
    let promise = Made::pax(&[]).sized(8 << 30);
    refused("8 GiB of PAX records", 413, archive(&[promise]));
    let promise = Made::new(EntryType::GNULongName, "n", "", b"").sized(8 << 30);
    refused("a name of 8 GiB", 413, archive(&[promise]));
    let name = vec![b'n'; 5000];
    let long = Made::pax(&[("path", &name)]);
    refused(
        "a name of 5000 bytes",
        413,
        archive(&[long, Made::file("x")]),
    );
    // Each header within its bound, and all of them kept until the entry comes.
    let value = vec![b'v'; 900_000];
    let many: Vec<Made> = (0..100)
        .map(|n| Made::pax(&[(&format!("SCHILY.xattr.user.{n}"), &value)]))
        .chain([Made::file("attributes")])
        .collect();
    refused("90 MB of attributes of one file", 413, archive(&many));
    let grown = memory().saturating_sub(before);
    assert!(grown < 32 * 1024, "the daemon grew by {grown} KiB");
    // 512 KiB of archive for each directory's name would otherwise stay until the end.
    assert_eq!(get(&t, &c, "/tmp/attributes").status(), 404, "left behind");
    let _fine = small();
    t.finish();
}

#[test]
fn a_tree_that_a_container_made_to_fill_the_daemon_does_not() {
    // Row 24 in the other direction: what comes out is bounded as well.
    let t = Bed::new();
    let c = id(&t.sleeper());
    // A pipe, a device, a socket: nothing waits for them.
    t.exec(
        &c,
        &[
            "sh",
            "-c",
            "mkdir /tmp/odd; mkfifo /tmp/odd/pipe; echo x > /tmp/odd/file",
        ],
    );
    let out = get(&t, &c, "/tmp/odd").expect(200);
    assert!(contains(&out.body, b"odd/pipe"));
    t.finish();
}

/// A tree as deep and one as wide as a container cares to make them: what reads them says so or
/// does it, and their removal is gone on with by the next daemon, which serves meanwhile.
fn hostile_trees(nofile: &str) {
    let mut t = Bed::builder()
        .faults()
        .env("LITTLEBOX_TEST_CRASH", "remove.files")
        .surroundings(vec!["prlimit".to_owned(), format!("--nofile={nofile}")])
        .build();
    let c = id(&t.sleeper_with(json!({"mounts": [attacker::mount()]})));
    assert_eq!(
        t.exec(&c, &["/attacker", "dig", "/deep", "20000"]),
        "done\n"
    );
    assert_eq!(
        t.exec(&c, &["/attacker", "fill", "/wide", "20000"]),
        "done\n"
    );
    for what in ["changes", "export", "files?path=/deep", "files?path=/"] {
        t.get(&format!("/v1/containers/{c}/{what}"))
            .problem(413, "body_too_large");
    }
    let wide = get(&t, &c, "/wide").expect(200);
    assert!(wide.body.len() > 20_000 * 512);
    let removal = Request::new(Method::Delete, format!("/v1/containers/{c}?force=true"));
    let _it_may_crash_before_the_answer = t.client.try_send(&removal);
    t.wait_crashed();
    t.options
        .env
        .retain(|(name, _)| name != "LITTLEBOX_TEST_CRASH");
    t.start_again();
    assert_eq!(t.sh("echo served"), "served\n");
    t.finish();
}

#[test]
fn trees_of_any_depth_and_width_are_told_and_removed_with_few_descriptors() {
    hostile_trees("1024:1024");
}

#[test]
fn trees_of_any_depth_and_width_are_told_and_removed_with_many_descriptors() {
    hostile_trees("20000:20000");
}

#[test]
fn a_deep_tree_within_the_reach_of_paths_comes_out() {
    let t = Bed::new();
    let c = id(&t.sleeper_with(json!({"mounts": [attacker::mount()]})));
    assert_eq!(t.exec(&c, &["/attacker", "dig", "/deep", "1000"]), "done\n");
    let deepest = format!("deep{}/", "/d".repeat(1000));
    let out = get(&t, &c, "/deep").expect(200);
    assert!(contains(&out.body, deepest.as_bytes()));
    let changes = t.get(&format!("/v1/containers/{c}/changes")).expect(200);
    assert!(changes.text().contains(deepest.trim_end_matches('/')));
    t.finish();
}

/// A container that may write to what is copied exchanges it with links to the canary.
#[test]
fn a_source_of_a_copy_that_changes_meanwhile_brings_nothing_foreign() {
    let t = Bed::new();
    let canary = Canary::new();
    let c = id(&t.sleeper());
    let source = t.dirs.base_path.join("shared");
    fs::create_dir_all(source.join("dir")).unwrap();
    fs::write(source.join("dir/file"), "ours").unwrap();
    symlink(canary.path(), source.join("link")).unwrap();
    let racer = attacker::Racer::start(&source.join("dir"), &source.join("link"));
    let from = format!("{}/.", source.display());
    let mut ours = 0;
    attacker::for_race_time(50, || {
        t.exec(&c, &["rm", "-rf", "/tmp/x"]);
        t.lbctl_ok(&["cp", &from, &format!("{c}:/tmp/x")]);
        let out = get(&t, &c, "/tmp/x").expect(200);
        assert!(!contains(&out.body, Canary::SECRET.as_bytes()));
        ours += u32::from(contains(&out.body, b"ours"));
    });
    let swaps = racer.stop();
    assert!(ours > 0 && swaps > 1000, "{ours} {swaps}");
    fs::remove_dir_all(source).unwrap();
    t.finish();
}

#[test]
fn a_missing_bind_source_is_not_made_through_a_planted_link() {
    let t = Bed::new();
    let canary = Canary::new();
    let shared = t.dirs.base_path.join("shared");
    fs::create_dir(&shared).unwrap();
    let bind = |source: &std::path::Path, create: bool| json!({"mounts": [{"type": "bind", "source": source, "destination": "/shared", "create": create}]});
    let script = format!("ln -s {} /shared/planted", canary.path().display());
    t.sh_with(&script, bind(&shared, false));
    let config = with(busybox(&["true"]), bind(&shared.join("planted/new"), true));
    let problem = t
        .post_json("/v1/containers?start=true", &config)
        .problem(422, "start_failed");
    assert!(problem.detail.contains("symbolic link"), "{problem:?}");
    assert!(canary.is_untouched());
    fs::remove_dir_all(shared).unwrap();
    t.finish();
}

/// A container that exchanges a directory and a link to the canary, while files are copied in and
/// out through their names; whether the host was reached.
fn swap_race(t: &Bed, canary: &Canary, repeat: &dyn Fn(&mut dyn FnMut()) -> u64) -> bool {
    let script = format!(
        "mkdir /w /w/real; echo inside > /w/real/file; ln -s {} /w/evil; \
         exec /attacker exchange /w/real /w/evil",
        canary.path().display()
    );
    let config = with(
        busybox(&["sh", "-c", &script]),
        json!({"mounts": [attacker::mount()]}),
    );
    let c = id(&t.start(&config));
    t.ready(&c);
    let mut reached = false;
    let mut inside = 0;
    repeat(&mut || {
        // An archive that cannot be completed breaks off: then there is nothing to see.
        let path = format!("/v1/containers/{c}/files?path=/w/real/file");
        let Ok(out) = t.client.try_send(&Request::new(Method::Get, path)) else {
            return;
        };
        assert!(matches!(out.status(), 200 | 404), "{}", out.text());
        inside += u64::from(out.status() == 200);
        reached |= contains(&out.body, Canary::SECRET.as_bytes());
        let response = put(t, &c, "/w/real", archive(&[Made::file("intruder")]));
        assert!(
            matches!(response.status(), 204 | 400 | 404),
            "{}",
            response.text()
        );
        reached |= !canary.is_untouched();
    });
    assert!(inside > 0, "no copy came to an end");
    t.post_json(
        &format!("/v1/containers/{c}/kill"),
        &json!({"signal": "SIGTERM"}),
    );
    t.exit(&c);
    let out = t.stdout(&c);
    let swaps: u64 = out.lines().last().unwrap().parse().unwrap();
    assert!(swaps > 1000, "{swaps} exchanges");
    t.remove(&c);
    reached
}

#[test]
fn a_copy_that_races_with_a_link_stays_inside() {
    // Row 18, CVE-2018-15664, CVE-2026-41567, CVE-2026-41568.
    let t = Bed::new();
    assert!(!swap_race(&t, &Canary::new(), &|attempt| thousands(
        attempt
    )));
    t.finish();
}

#[test]
fn a_copy_that_is_not_resolved_in_the_root_reaches_the_host() {
    // The other side.
    let t = Bed::builder()
        .faults()
        .env("LITTLEBOX_TEST_WEAKEN", "files_in_root")
        .build();
    let reached = attacker::until_success(|| {
        swap_race(&t, &Canary::new(), &|attempt| for_race_time(100, attempt))
    });
    assert!(reached, "the attack is no attack");
    t.finish();
}

#[test]
fn a_copy_runs_no_program_and_no_name_service_of_the_image() {
    // Row 18, CVE-2019-14271.
    let t = Bed::new();
    let root = Root::new(&t);
    let canary = Canary::new();
    for name in ["tar", "xz", "gzip", "unpigz", "docker-tar", "sh"] {
        let path = root.0.join("bin").join(name);
        let _link = fs::remove_file(&path);
        let script = format!(
            "#!/bin/busybox sh\necho > {}/ran\n",
            canary.path().display()
        );
        fs::write(path, script).unwrap();
    }
    fs::write(
        root.0.join("etc/nsswitch.conf"),
        "passwd: evil\ngroup: evil\n",
    )
    .unwrap();
    let config = with(
        root.config(&["/bin/busybox", "sleep", "1000"]),
        json!({"mounts": [bind(canary.path(), canary.path().to_str().unwrap())]}),
    );
    let c = id(&t.start(&config));
    let compressed = [&[0xfd, b'7', b'z', b'X', b'Z', 0][..], &[0; 1000]].concat();
    assert_eq!(put(&t, &c, "/tmp", compressed).status(), 400);
    let _none = put(&t, &c, "/tmp", archive(&[Made::file("x")])).expect(204);
    let _out = get(&t, &c, "/tmp/x").expect(200);
    let _all = t.get(&format!("/v1/containers/{c}/export")).expect(200);
    assert!(canary.is_untouched(), "a program of the image ran");
    let maps = fs::read_to_string(format!("/proc/{}/maps", t.pid())).unwrap();
    assert!(!maps.contains("hostile-root"), "{maps}");
    t.remove(&c);
    drop(root);
    t.finish();
}

#[test]
fn an_archive_gives_no_file_of_the_kernel_to_a_container() {
    // A container chooses what lies at the path that a client copies to: by a link, and with
    // CAP_SYS_ADMIN by a mount.
    let t = Bed::new();
    let c = id(&t.sleeper_with(json!({"capabilities": {"add": ["SYS_ADMIN"]}})));
    let plant =
        "ln -s /proc /app; ln -s /sys/fs/cgroup /cg; : >/file; mount --bind /proc/slabinfo /file";
    t.exec(&c, &["sh", "-c", plant]);
    let before = owner_and_mode("/proc/driver");
    for (path, directory, name) in [
        ("/", true, "app/driver"),
        ("/app", true, "tty"),
        ("/", true, "cg/made"),
        ("/", false, "file"),
    ] {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(match directory {
            true => tar::EntryType::Directory,
            false => tar::EntryType::Regular,
        });
        header.set_mode(0o700);
        header.set_size(0);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(1_000_000_000);
        let mut archive = tar::Builder::new(Vec::new());
        archive
            .append_data(&mut header, name, std::io::empty())
            .unwrap();
        let put = Request::new(Method::Put, format!("/v1/containers/{c}/files?path={path}"));
        let body = archive.into_inner().unwrap();
        t.send(&put.body("application/x-tar", body))
            .problem(409, "file_refused");
    }
    assert_eq!(owner_and_mode("/proc/driver"), before);
    assert!(
        t.exec(&c, &["sh", "-c", "ls /cg/made 2>&1 || true"])
            .contains("No such")
    );
    t.finish();
}

fn owner_and_mode(path: &str) -> (u32, u32) {
    use std::os::unix::fs::MetadataExt;
    let found = std::fs::metadata(path).unwrap();
    (found.uid(), found.mode())
}
