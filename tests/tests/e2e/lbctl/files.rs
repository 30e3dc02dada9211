//! Files in and out by the command line.

use std::os::unix::fs::{FileTypeExt, MetadataExt};

use littlebox_tests::attacker;
use littlebox_tests::prelude::*;
use rustix::fs::{CWD, FileType, Mode};

use super::text;

#[test]
fn cp_copies_files_and_directories_both_ways() {
    let t = Bed::new();
    let c = id(&t.sleeper());
    let dir = t.dirs.base_path.join("cp");
    std::fs::create_dir_all(dir.join("tree/sub")).unwrap();
    std::fs::write(dir.join("tree/sub/file"), "inside a tree\n").unwrap();
    std::fs::write(dir.join("one"), "one\n").unwrap();
    let path = |name: &str| dir.join(name).to_str().expect("UTF-8").to_owned();
    t.lbctl_ok(&["cp", &path("one"), &format!("{c}:/tmp/two")]);
    assert_eq!(t.exec(&c, &["cat", "/tmp/two"]), "one\n");
    t.lbctl_ok(&["cp", &path("tree"), &format!("{c}:/tmp")]);
    assert_eq!(
        t.exec(&c, &["cat", "/tmp/tree/sub/file"]),
        "inside a tree\n"
    );
    t.lbctl_ok(&["cp", &format!("{c}:/tmp/tree"), &path("back")]);
    assert_eq!(
        std::fs::read_to_string(dir.join("back/sub/file")).unwrap(),
        "inside a tree\n"
    );
    t.lbctl_ok(&["cp", &format!("{c}:/etc/motd"), &path("motd")]);
    assert_eq!(
        std::fs::read_to_string(dir.join("motd")).unwrap(),
        "welcome\n"
    );
    let missing = t.lbctl(&["cp", &format!("{c}:/no/such"), &path("x")]);
    assert!(!missing.status.success() && text(&missing.stderr).contains("/no/such"));
    std::fs::remove_dir_all(dir).unwrap();
    t.finish();
}

#[test]
fn cp_goes_through_links_keeps_holes_and_reads_files_of_the_kernel() {
    let t = Bed::new();
    let c = id(&t.sleeper());
    let dir = t.dirs.base_path.join("cp");
    std::fs::create_dir(&dir).unwrap();
    let path = |name: &str| dir.join(name).to_str().expect("UTF-8").to_owned();
    let inside = |name: &str| format!("{c}:/tmp/{name}");
    std::fs::write(dir.join("one"), "one\n").unwrap();
    std::os::unix::fs::symlink("target", dir.join("link")).unwrap();
    t.exec(&c, &["ln", "-s", "target", "/tmp/link"]);
    t.lbctl_ok(&["cp", &path("one"), &inside("link")]);
    assert_eq!(t.exec(&c, &["readlink", "/tmp/link"]), "target\n");
    assert_eq!(t.exec(&c, &["cat", "/tmp/target"]), "one\n");
    t.lbctl_ok(&["cp", &inside("target"), &path("link")]);
    assert!(dir.join("link").is_symlink());
    assert_eq!(
        std::fs::read_to_string(dir.join("target")).unwrap(),
        "one\n"
    );
    // A gibibyte of nothing.
    t.exec(&c, &["truncate", "-s", "1G", "/tmp/holes"]);
    t.lbctl_ok(&["cp", &inside("holes"), &path("holes")]);
    let holes = dir.join("holes").metadata().unwrap();
    assert_eq!((holes.len(), holes.blocks()), (1 << 30, 0));
    t.lbctl_ok(&["cp", &path("holes"), &inside("again")]);
    let again = t.exec(&c, &["stat", "-c", "%s %b", "/tmp/again"]);
    assert_eq!(again, "1073741824 0\n");
    t.lbctl_ok(&["cp", &format!("{c}:/proc/version"), &path("version")]);
    let version = std::fs::read_to_string("/proc/version").unwrap();
    assert_eq!(
        std::fs::read_to_string(dir.join("version")).unwrap(),
        version
    );
    t.lbctl_ok(&["cp", "/proc/version", &inside("version")]);
    assert_eq!(t.exec(&c, &["cat", "/tmp/version"]), version);
    let mut gzip = b"\x1f\x8b\x08".to_vec();
    gzip.resize(2048, 7);
    let refused = t.lbctl_stdin(&["cp", "-", &format!("{c}:/tmp")], &gzip);
    assert!(!refused.status.success() && text(&refused.stderr).contains("gzip"));
    std::fs::remove_dir_all(dir).unwrap();
    t.finish();
}

#[test]
fn cp_takes_the_place_of_no_device_and_hides_nothing_below_a_mount() {
    let t = Bed::new();
    let dir = t.dirs.base_path.join("cp");
    std::fs::create_dir_all(dir.join("mounted")).unwrap();
    let path = |name: &str| dir.join(name).to_str().expect("UTF-8").to_owned();
    let mounts = json!([attacker::bind(&dir.join("mounted"), "/m")]);
    let c = id(&t.sleeper_with(json!({ "mounts": mounts })));
    let fifo = dir.join("fifo");
    rustix::fs::mknodat(CWD, &fifo, FileType::Fifo, Mode::RWXU, 0).unwrap();
    let refused = |from: &str, to: &str, why: &str| {
        let out = t.lbctl(&["cp", from, to]);
        assert!(!out.status.success(), "{from} {to}");
        assert!(text(&out.stderr).contains(why), "{}", text(&out.stderr));
    };
    let (inside, special) = (format!("{c}:/etc/motd"), "is a device, a FIFO or a socket");
    std::fs::write(dir.join("one"), "one\n").unwrap();
    refused(&inside, &path("fifo"), special);
    refused(&path("one"), &format!("{c}:/dev/null"), special);
    refused(&format!("{c}:/dev/null"), &path("null"), special);
    refused(&path("fifo"), &format!("{c}:/fifo"), special);
    assert!(
        std::fs::symlink_metadata(&fifo)
            .unwrap()
            .file_type()
            .is_fifo()
    );

    t.lbctl_ok(&["stop", "-t", "0", &c]);
    let below = "below one of its mounts needs a running container";
    refused(&path("one"), &format!("{c}:/etc/../m//one"), below);
    refused(&format!("{c}:/m/."), &path("back"), below);
    t.lbctl_ok(&["cp", &path("one"), &format!("{c}:/mm")]);
    t.lbctl_ok(&["rm", &c]);
    std::fs::remove_dir_all(dir).unwrap();
    t.finish();
}

#[test]
fn export_writes_a_tar() {
    let t = Bed::new();
    let c = id(&t.create(&busybox(&["true"])));
    let out = t.lbctl(&["export", &c]);
    assert!(out.status.success(), "{}", text(&out.stderr));
    let mut archive = tar::Archive::new(out.stdout.as_slice());
    let names: Vec<String> = archive
        .entries()
        .unwrap()
        .map(|e| e.unwrap().path().unwrap().to_string_lossy().into_owned())
        .collect();
    assert!(
        names.iter().any(|n| n.ends_with("bin/busybox")),
        "{names:?}"
    );
    t.finish();
}
