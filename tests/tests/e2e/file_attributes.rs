//! What an archive says of files beside their content, and what it must not reach.

use std::path::Path;

use littlebox_tests::prelude::*;

/// An entry of an archive and its extended attributes.
struct Entry<'a> {
    name: &'a str,
    kind: tar::EntryType,
    content: &'a [u8],
    attributes: Vec<(String, Vec<u8>)>,
}

impl<'a> Entry<'a> {
    fn new(name: &'a str, kind: tar::EntryType, content: &'a [u8]) -> Self {
        Self {
            name,
            kind,
            content,
            attributes: Vec::new(),
        }
    }

    fn file(name: &'a str, content: &'a [u8]) -> Self {
        Self::new(name, tar::EntryType::Regular, content)
    }

    fn with(mut self, name: &str, value: &[u8]) -> Self {
        self.attributes.push((name.to_owned(), value.to_vec()));
        self
    }

    fn archive(&self) -> Vec<u8> {
        let mut builder = tar::Builder::new(Vec::new());
        let records = self.attributes.iter().map(|(name, value)| {
            let key = format!("SCHILY.xattr.{name}");
            (key, &value[..])
        });
        let records: Vec<_> = records.collect();
        let records = records.iter().map(|(key, value)| (key.as_str(), *value));
        builder.append_pax_extensions(records).unwrap();
        let mut header = tar::Header::new_ustar();
        header.set_size(self.content.len() as u64);
        header.set_mode(0o755);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(1_000_000_000);
        header.set_entry_type(self.kind);
        if self.kind == tar::EntryType::Symlink {
            header.set_link_name("target").unwrap();
        }
        builder
            .append_data(&mut header, self.name, self.content)
            .unwrap();
        builder.into_inner().unwrap()
    }
}

fn put(t: &Bed, c: &str, path: &str, entry: &Entry<'_>) -> Response {
    let path = format!("/v1/containers/{c}/files?path={path}");
    t.send(&Request::new(Method::Put, path).body("application/x-tar", entry.archive()))
}

fn names(path: &Path) -> Vec<String> {
    let mut names = [0; 4096];
    let len = rustix::fs::llistxattr(path, &mut names[..]).unwrap();
    let names = String::from_utf8(names[..len].to_vec()).unwrap();
    names.split_terminator('\0').map(str::to_owned).collect()
}

#[test]
fn attributes_that_steer_an_overlay_or_the_kernel_do_not_reach_the_writable_layer() {
    let t = Bed::new();
    let (running, stopped) = (id(&t.sleeper()), id(&t.create(&busybox(&["ls", "/etc"]))));
    let mut etc = Entry::new("etc/", tar::EntryType::Directory, b"").with("user.kept", b"1");
    for overlay in ["trusted.overlay", "user.overlay"] {
        for (name, value) in [
            ("opaque", &b"y"[..]),
            ("redirect", b"/bin"),
            ("whiteout", b"y"),
            ("xwhiteouts", b"y"),
            ("metacopy", b""),
        ] {
            etc = etc.with(&format!("{overlay}.{name}"), value);
        }
    }
    for name in [
        "trusted.x",
        "security.ima",
        "security.selinux",
        "system.posix_acl_access",
    ] {
        etc = etc.with(name, b"junk");
    }
    for c in [&running, &stopped] {
        let _none = put(&t, c, "/", &etc).expect(204);
        let upper = t.dirs.state.join("containers").join(c).join("upper/etc");
        let mut found = names(&upper);
        // What the kernel notes itself when it copies a directory up.
        let own = ["trusted.overlay.origin", "trusted.overlay.impure"];
        found.retain(|name| !own.contains(&name.as_str()) && name != "security.selinux");
        assert_eq!(found, ["user.kept"]);
        let changes = t.get(&format!("/v1/containers/{c}/changes"));
        assert!(!changes.expect(200).text().contains("deleted"));
    }
    assert!(t.exec(&running, &["ls", "/etc"]).contains("passwd"));
    let start = format!("/v1/containers/{stopped}/start?wait=20s");
    let _run = t.post(&start).expect(200);
    assert!(t.stdout(&stopped).contains("passwd"));
    t.finish();
}

#[test]
fn a_container_does_not_hide_its_base_from_those_who_compare() {
    let t = Bed::new();
    let c = id(&t.sleeper());
    let opaque = Entry::new("etc/", tar::EntryType::Directory, b"");
    let _none = put(&t, &c, "/", &opaque).expect(204);
    // As any program in it may do.
    let upper = t.dirs.state.join("containers").join(&c).join("upper/etc");
    let flags = rustix::fs::XattrFlags::empty();
    rustix::fs::setxattr(&upper, "user.overlay.opaque", b"y", flags).unwrap();
    let changes = t.get(&format!("/v1/containers/{c}/changes")).expect(200);
    assert!(!changes.text().contains("deleted"), "{}", changes.text());
    t.finish();
}

#[test]
fn attributes_that_the_kernel_refuses_are_the_archives_fault() {
    let t = Bed::new();
    let c = id(&t.sleeper());
    let long = format!("user.{}", "n".repeat(300));
    for (name, value) in [
        ("security.capability", &b"junk"[..]),
        ("user.a\0b", b"x"),
        (&long, b"x"),
        ("user.large", &[7; 70_000]),
    ] {
        let file = Entry::file("f", b"x").with(name, value);
        let problem = put(&t, &c, "/tmp", &file).problem(400, "bad_archive");
        assert!(problem.detail.contains("attribute"), "{problem:?}");
    }
    let mut many = Entry::file("f", b"x");
    for n in 0..3000 {
        many = many.with(&format!("user.{n}"), &[7; 200]);
    }
    let response = put(&t, &c, "/tmp", &many);
    // Where there is room for so many of them.
    if response.status() != 204 {
        let problem = response.problem(409, "file_refused");
        assert!(problem.hint.unwrap().contains("extended attributes"));
    }
    t.finish();
}

#[test]
fn archives_with_the_same_names_at_once_are_no_fault() {
    let t = Bed::new();
    let c = id(&t.sleeper());
    let kinds = [
        tar::EntryType::Regular,
        tar::EntryType::Symlink,
        tar::EntryType::Fifo,
    ];
    std::thread::scope(|scope| {
        for kind in kinds.repeat(2) {
            let (t, c) = (&t, &c);
            scope.spawn(move || {
                let mut entry = Entry::new("name", kind, b"");
                if kind == tar::EntryType::Regular {
                    entry = Entry::file("name", b"x");
                }
                for _ in 0..50 {
                    let response = put(t, c, "/tmp", &entry);
                    if response.status() != 204 {
                        response.problem(409, "file_refused");
                    }
                }
            });
        }
    });
    t.finish();
}

#[test]
fn a_file_that_is_mounted_in_a_container_is_written_into_and_stays_mounted() {
    let t = Bed::new();
    let source = t.dirs.base_path.join("conf");
    std::fs::write(&source, "old").unwrap();
    let mount = json!({"type": "bind", "source": source, "destination": "/etc/conf"});
    let c = id(&t.sleeper_with(json!({ "mounts": [mount] })));
    let _none = put(&t, &c, "/etc", &Entry::file("conf", b"new")).expect(204);
    assert_eq!(std::fs::read_to_string(&source).unwrap(), "new");
    assert_eq!(t.exec(&c, &["cat", "/etc/conf"]), "new");
    let mounts = t.exec(&c, &["cat", "/proc/self/mountinfo"]);
    assert!(mounts.contains(" /etc/conf "), "{mounts}");
    // Nothing else takes its place.
    let link = Entry::new("conf", tar::EntryType::Fifo, b"");
    put(&t, &c, "/etc", &link).problem(409, "file_refused");
    t.finish();
}
