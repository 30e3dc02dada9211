//! Files in and out, changes against the base, export.

use std::fs;
use std::io::Read;

use littlebox_tests::prelude::*;

/// The entries of a tar by path, with the contents of regular files.
fn untar(bytes: &[u8]) -> BTreeMap<String, (tar::Header, Vec<u8>)> {
    let mut archive = tar::Archive::new(bytes);
    let mut entries = BTreeMap::new();
    for entry in archive.entries().unwrap() {
        let mut entry = entry.unwrap();
        let path = entry.path().unwrap().to_string_lossy().into_owned();
        let mut contents = Vec::new();
        entry.read_to_end(&mut contents).unwrap();
        let path = path
            .trim_start_matches("./")
            .trim_end_matches('/')
            .to_owned();
        entries.insert(path, (entry.header().clone(), contents));
    }
    entries
}

fn file_header(size: usize, kind: tar::EntryType) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_size(size as u64);
    header.set_mode(0o644);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(1_000_000_000);
    header.set_entry_type(kind);
    header
}

fn put(t: &Bed, c: &str, path: &str, archive: Vec<u8>) -> Response {
    let request = Request::new(
        Method::Put,
        format!("/v1/containers/{c}/files?path={}", encode(path)),
    )
    .body("application/x-tar", archive);
    t.send(&request)
}

fn get(t: &Bed, c: &str, path: &str) -> Response {
    t.get(&format!("/v1/containers/{c}/files?path={}", encode(path)))
}

fn tar_of(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (name, data) in files {
        let mut header = file_header(data.len(), tar::EntryType::Regular);
        header.set_uid(1000);
        header.set_gid(1000);
        header.set_mode(0o640);
        builder.append_data(&mut header, name, *data).unwrap();
    }
    builder.into_inner().unwrap()
}

#[test]
fn files_go_in_and_come_out_of_a_running_container() {
    let t = Bed::new();
    let c = id(&t.sleeper());
    let archive = tar_of(&[("a.txt", b"hello\n"), ("dir/b.bin", &[0, 255, 10])]);
    let _none = put(&t, &c, "/tmp", archive).expect(204);
    assert_eq!(t.exec(&c, &["cat", "/tmp/a.txt"]), "hello\n");
    assert_eq!(
        t.exec(&c, &["stat", "-c", "%u:%g %a", "/tmp/a.txt"]),
        "1000:1000 640\n"
    );
    let out = get(&t, &c, "/tmp/a.txt").expect(200);
    assert_eq!(out.head.content_type(), Some("application/x-tar"));
    let entries = untar(&out.body);
    assert_eq!(entries["a.txt"].1, b"hello\n");
    assert_eq!(entries["a.txt"].0.uid().unwrap(), 1000);
    let entries = untar(&get(&t, &c, "/tmp/dir").expect(200).body);
    assert_eq!(entries["dir/b.bin"].1, [0, 255, 10]);
    t.finish();
}

#[test]
fn files_of_a_stopped_and_of_a_created_container_are_reached() {
    let t = Bed::new();
    let c = id(&t.start(&busybox(&["sh", "-c", "echo made > /made"])));
    t.wait(&c);
    let entries = untar(&get(&t, &c, "/made").expect(200).body);
    assert_eq!(entries["made"].1, b"made\n");
    let _none = put(&t, &c, "/", tar_of(&[("later", b"x")])).expect(204);
    let created = id(&t.create(&busybox(&["cat", "/etc/before"])));
    let _none = put(
        &t,
        &created,
        "/etc",
        tar_of(&[("before", b"put before the start\n")]),
    )
    .expect(204);
    let _run = t
        .post(&format!("/v1/containers/{created}/start?wait=20s"))
        .expect(200);
    assert_eq!(t.stdout(&created), "put before the start\n");
    t.finish();
}

#[test]
fn stat_tells_what_lies_at_a_path() {
    let t = Bed::new();
    let c = id(&t.sleeper());
    t.exec(
        &c,
        &[
            "sh",
            "-c",
            "printf 12345 > /tmp/f; chmod 600 /tmp/f; ln -s /etc/passwd /tmp/l; mkfifo /tmp/p",
        ],
    );
    let stat = |path: &str| -> FileStat {
        t.get(&format!("/v1/containers/{c}/files?path={path}&stat=true"))
            .expect(200)
            .json()
    };
    let file = stat("/tmp/f");
    assert_eq!(
        (file.kind.as_str(), file.size, file.mode.as_str()),
        ("file", 5, "0600")
    );
    assert_eq!(stat("/tmp").kind, "directory");
    assert_eq!(stat("/tmp/p").kind, "fifo");
    assert_eq!(stat("/dev/null").kind, "char");
    let link = stat("/tmp/l");
    assert_eq!(
        (link.kind.as_str(), link.link_target.as_deref()),
        ("symlink", Some("/etc/passwd"))
    );
    t.finish();
}

#[test]
fn paths_that_are_not_there_or_no_directory_are_told() {
    let t = Bed::new();
    let c = id(&t.sleeper());
    get(&t, &c, "/no/such").problem(404, "path_not_found");
    put(&t, &c, "/no/such", tar_of(&[("x", b"")])).problem(404, "path_not_found");
    let response = put(&t, &c, "/etc/passwd", tar_of(&[("x", b"")]));
    assert_eq!(response.status(), 400, "{}", response.text());
    let missing = t.get(&format!("/v1/containers/{c}/files"));
    missing.problem(400, "invalid_request");
    let wrong = Request::new(Method::Put, format!("/v1/containers/{c}/files?path=/tmp"))
        .body("text/plain", b"hi".to_vec());
    t.send(&wrong).problem(415, "unsupported_media_type");
    let garbage = put(&t, &c, "/tmp", vec![7; 4096]);
    assert_eq!(garbage.status(), 400, "{}", garbage.text());
    t.finish();
}

#[test]
fn links_inside_are_followed_inside_the_root_only() {
    let t = Bed::new();
    let c = id(&t.sleeper());
    let secret = t.dirs.base_path.join("secret");
    fs::write(&secret, "host secret").unwrap();
    t.exec(&c, &["ln", "-s", secret.to_str().unwrap(), "/tmp/out"]);
    t.exec(&c, &["ln", "-s", "/../../../../etc/passwd", "/tmp/up"]);
    t.exec(
        &c,
        &["ln", "-s", t.dirs.base_path.to_str().unwrap(), "/tmp/dir"],
    );
    // Through the directory link: resolved inside, where nothing is.
    get(&t, &c, "/tmp/dir/secret").problem(404, "path_not_found");
    for path in ["/tmp/out", "/tmp/up"] {
        let response = get(&t, &c, path);
        assert!(
            !contains(&response.body, b"host secret"),
            "{path} gave away the host's file"
        );
    }
    let response = put(&t, &c, "/tmp/dir", tar_of(&[("intruder", b"x")]));
    assert!(
        matches!(response.status(), 400 | 404),
        "{}",
        response.text()
    );
    assert!(!t.dirs.base_path.join("intruder").exists());
    t.finish();
}

#[test]
fn devices_and_setuid_come_out_as_they_are() {
    let t = Bed::new();
    let c = id(&t.sleeper());
    t.exec(&c, &["sh", "-c", "mkdir /tmp/d; cp /bin/busybox /tmp/d/suid; chmod 4755 /tmp/d/suid; ln /tmp/d/suid /tmp/d/hard; ln -s suid /tmp/d/soft"]);
    let entries = untar(&get(&t, &c, "/tmp/d").expect(200).body);
    assert_eq!(entries["d/suid"].0.mode().unwrap() & 0o7777, 0o4755);
    let kinds: Vec<tar::EntryType> = ["d/hard", "d/suid", "d/soft"]
        .iter()
        .map(|p| entries[*p].0.entry_type())
        .collect();
    assert!(kinds[..2].contains(&tar::EntryType::Link), "{kinds:?}");
    assert_eq!(kinds[2], tar::EntryType::Symlink);
    t.finish();
}

#[test]
fn changes_are_told_against_the_base() {
    let t = Bed::new();
    let c = id(&t.start(&busybox(&[
        "sh",
        "-c",
        "echo x > /new; echo y >> /etc/motd; rm /etc/group; mkdir -p /a/b; touch /a/b/c; rm -r /home; mkdir /home",
    ])));
    t.wait(&c);
    let changes: Changes = t
        .get(&format!("/v1/containers/{c}/changes"))
        .expect(200)
        .json();
    let kinds: BTreeMap<&str, ChangeKind> = changes
        .items
        .iter()
        .map(|c| (c.path.as_str(), c.kind))
        .collect();
    for (path, kind) in [
        ("/new", ChangeKind::Added),
        ("/a", ChangeKind::Added),
        ("/a/b/c", ChangeKind::Added),
        ("/etc/motd", ChangeKind::Modified),
        ("/etc/group", ChangeKind::Deleted),
        ("/home/user", ChangeKind::Deleted),
    ] {
        assert_eq!(kinds.get(path), Some(&kind), "{path} in {kinds:?}");
    }
    assert!(!kinds.contains_key("/etc/passwd"));
    for noise in ["/proc/1", "/dev/null", "/sys/class"] {
        assert!(!kinds.contains_key(noise), "{noise}");
    }
    let none: Changes = t
        .get(&format!(
            "/v1/containers/{}/changes",
            id(&t.create(&busybox(&["true"])))
        ))
        .expect(200)
        .json();
    assert!(none.items.is_empty());
    t.finish();
}

#[test]
fn export_is_the_whole_root_with_its_changes() {
    let t = Bed::new();
    let c = id(&t.start(&busybox(&["sh", "-c", "echo x > /new; rm /etc/group"])));
    t.wait(&c);
    let response = t.get(&format!("/v1/containers/{c}/export")).expect(200);
    let entries = untar(&response.body);
    assert_eq!(entries["new"].1, b"x\n");
    assert!(entries.contains_key("etc/passwd") && !entries.contains_key("etc/group"));
    assert_eq!(
        entries["bin/busybox"].1,
        fs::read(busybox_root().join("bin/busybox")).unwrap()
    );
    assert!(!entries.keys().any(|p| p.starts_with("proc/")));
    t.finish();
}

#[test]
fn what_the_filesystem_in_the_container_refuses_is_no_fault_of_the_engine() {
    let t = Bed::new();
    let c = id(&t.sleeper_with(json!({
        "read_only": true,
        "mounts": [{"type": "tmpfs", "destination": "/small", "size": 65536}],
    })));
    let problem = put(&t, &c, "/", tar_of(&[("x", b"x")])).problem(409, "file_refused");
    assert!(problem.hint.unwrap().contains("read-only"));
    let large = tar_of(&[("large", &[7; 1_000_000])]);
    let problem = put(&t, &c, "/small", large).problem(409, "file_refused");
    assert!(problem.hint.unwrap().contains("full"));
    t.finish();
}

#[test]
fn file_capabilities_count_in_the_container_and_come_out_as_they_went_in() {
    let t = Bed::new();
    let c = id(&t.sleeper_with(json!({"no_new_privileges": false})));
    // CAP_NET_BIND_SERVICE, permitted and effective, version 2 (capabilities(7)).
    let mut value = 0x0200_0001u32.to_le_bytes().to_vec();
    value.extend((1u32 << 10).to_le_bytes());
    value.extend([0; 12]);
    let record = [b"51 SCHILY.xattr.security.capability=", &value[..], b"\n"].concat();
    let record = [record.len().to_string().as_bytes(), &record[2..]].concat();
    let program = std::fs::read("/bin/busybox").unwrap();
    let mut builder = tar::Builder::new(Vec::new());
    let mut header = file_header(record.len(), tar::EntryType::XHeader);
    builder
        .append_data(&mut header, "pax", &record[..])
        .unwrap();
    let mut header = file_header(program.len(), tar::EntryType::Regular);
    header.set_mode(0o755);
    builder
        .append_data(&mut header, "grep", &program[..])
        .unwrap();
    let _none = put(&t, &c, "/tmp", builder.into_inner().unwrap()).expect(204);
    let effective = |program: &str| {
        let command = json!({"command": [program, "CapEff", "/proc/self/status"], "user": "1000"});
        t.exec_with(&c, &command).output.expect("output").stdout
    };
    assert_eq!(effective("/tmp/grep"), "CapEff:\t0000000000000400\n");
    assert_eq!(effective("/bin/grep"), "CapEff:\t0000000000000000\n");
    let out = get(&t, &c, "/tmp/grep").expect(200);
    let found = out.body.windows(record.len()).any(|part| part == record);
    assert!(found, "the archive has no such capabilities");
    t.finish();
}
