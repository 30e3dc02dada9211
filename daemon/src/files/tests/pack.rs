//! Out, and in again.

use std::io::Write;
use std::process::{Command, Stdio};

use proptest::prelude::*;

use super::*;

#[test]
fn everything_round_trips() {
    let from = zoo();
    let to = tempfile::tempdir().unwrap();
    unpack_into(to.path(), "/", &pack_path(from.path(), "/data").unwrap()).unwrap();
    assert_eq!(
        listing(&from.path().join("data")),
        listing(&to.path().join("data"))
    );
}

#[test]
fn gnu_tar_reads_what_we_write_and_we_read_what_it_writes() {
    let from = zoo();
    let to = tempfile::tempdir().unwrap();
    let archive = pack_path(from.path(), "/data").unwrap();
    let mut tar = Command::new("tar")
        .args([
            "--extract",
            "--xattrs",
            "--xattrs-include=user.*",
            "--same-permissions",
        ])
        .args(["--numeric-owner", "--file=-", "--directory"])
        .arg(to.path())
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    tar.stdin.take().unwrap().write_all(&archive).unwrap();
    assert!(tar.wait().unwrap().success());
    assert_eq!(
        listing(&from.path().join("data")),
        listing(&to.path().join("data"))
    );

    for format in ["--format=pax", "--format=gnu"] {
        let archive = create_with_tar(from.path(), format);
        let to = tempfile::tempdir().unwrap();
        unpack_into(to.path(), "/", &archive).unwrap();
        let strip =
            |found: BTreeMap<PathBuf, String>| -> Vec<PathBuf> { found.into_keys().collect() };
        assert_eq!(
            strip(listing(&from.path().join("data"))),
            strip(listing(&to.path().join("data")))
        );
        assert_eq!(
            fs::read(to.path().join("data/deep/hard")).unwrap(),
            b"hello\n"
        );
        assert_eq!(
            fs::read(to.path().join("data").join("n".repeat(250))).unwrap(),
            b"long name"
        );
        if format == "--format=pax" {
            assert_eq!(
                listing(&from.path().join("data/deep")),
                listing(&to.path().join("data/deep"))
            );
        }
    }
}

fn create_with_tar(directory: &Path, format: &str) -> Vec<u8> {
    let output = Command::new("tar")
        .args([
            "--create",
            format,
            "--xattrs",
            "--numeric-owner",
            "--file=-",
        ])
        .arg("--directory")
        .arg(directory)
        .arg("data")
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    output.stdout
}

#[test]
fn names_start_with_the_base_name() {
    let root = zoo();
    let first = |path: &str| {
        let archive = pack_path(root.path(), path).unwrap();
        let bounds = Bounds::default();
        let mut reader = littlebox_archive::Reader::new(&archive[..], &bounds);
        String::from_utf8(reader.next_entry().unwrap().unwrap().path).unwrap()
    };
    assert_eq!(first("/data"), "data/");
    assert_eq!(first("data/deep/"), "deep/");
    assert_eq!(first("/data/."), "./");
    assert_eq!(first("/"), "./");
    assert_eq!(first("/data/file"), "file");
    assert_eq!(first("/../../data/file"), "file");
    assert_eq!(first("/data/absolute"), "absolute");
}

#[test]
fn stat_tells_what_lies_there() {
    let root = zoo();
    let stat = |path: &str| stat(root_of(root.path()).as_fd(), path, &IdView::identity());
    let file = stat("/data/file").unwrap();
    assert_eq!(
        (file.kind.as_str(), file.size, file.mode.as_str()),
        ("file", 6, "4755")
    );
    assert_eq!(file.modified_at, "2001-09-09T01:46:40.000000005Z");
    let link = stat("/data/absolute").unwrap();
    assert_eq!(
        (link.kind.as_str(), link.link_target.as_deref()),
        ("symlink", Some("/etc/passwd"))
    );
    assert_eq!((link.uid, link.gid), (5, 6));
    assert_eq!(stat("data/fifo").unwrap().kind, "fifo");
    assert_eq!(stat("").unwrap().kind, "directory");
    assert!(matches!(
        stat("/data/none"),
        Err(FileError::NotFound { .. })
    ));
    assert!(matches!(
        stat("/data/file/x"),
        Err(FileError::NotADirectory { .. })
    ));
    assert!(matches!(stat("/data/\0"), Err(FileError::NotFound { .. })));
    assert!(matches!(
        stat(&"/x".repeat(3000)),
        Err(FileError::Limit { .. })
    ));
}

#[test]
fn links_never_lead_out() {
    let outside = tempfile::tempdir().unwrap();
    fs::write(outside.path().join("secret"), b"secret").unwrap();
    let root = tempfile::tempdir().unwrap();
    symlink(outside.path(), root.path().join("out")).unwrap();
    symlink("../../../../../../etc", root.path().join("up")).unwrap();
    symlink("loop", root.path().join("loop")).unwrap();
    for path in [
        "/out/secret",
        "/up/passwd",
        "/out/",
        "/../../../../etc/passwd",
    ] {
        assert!(
            matches!(
                pack_path(root.path(), path),
                Err(FileError::NotFound { .. })
            ),
            "{path}"
        );
    }
    assert!(matches!(
        pack_path(root.path(), "/loop/x"),
        Err(FileError::Escape { .. })
    ));
    let archive = archive(&[Made::file("x", b"x")]);
    assert!(unpack_into(root.path(), "/out", &archive).is_err());
    assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 1);
}

#[test]
fn a_magic_link_is_refused() {
    let host = Path::new("/");
    assert!(matches!(
        pack_path(host, "/proc/self/root/etc/hostname"),
        Err(FileError::Escape { .. })
    ));
}

#[test]
fn a_file_of_the_kernel_has_its_content() {
    let archive = pack_path(Path::new("/"), "/proc/sys/kernel/ostype").unwrap();
    let to = tempfile::tempdir().unwrap();
    unpack_into(to.path(), "/", &archive).unwrap();
    assert_eq!(fs::read(to.path().join("ostype")).unwrap(), b"Linux\n");
}

#[test]
fn export_stays_in_its_mount() {
    let root = zoo();
    for directory in ["tmp", "data/covered"] {
        fs::create_dir_all(root.path().join(directory)).unwrap();
    }
    fs::write(root.path().join("hosts"), b"below").unwrap();
    // The mounts are made in a mount namespace of their own, seen through that process' root.
    let script =
        "mount -t tmpfs t tmp && touch tmp/inside && mount --bind data hosts-dir && exec sleep 60";
    fs::create_dir(root.path().join("hosts-dir")).unwrap();
    let mut child = Command::new("unshare")
        .args(["--mount", "sh", "-c", script])
        .current_dir(root.path())
        .spawn()
        .unwrap();
    let inside = PathBuf::from(format!(
        "/proc/{}/root{}",
        child.id(),
        root.path().display()
    ));
    let end = std::time::Instant::now() + std::time::Duration::from_secs(10);
    while fs::read_to_string(format!("/proc/{}/comm", child.id())).unwrap() != "sleep\n" {
        assert!(std::time::Instant::now() < end);
        std::thread::sleep(std::time::Duration::from_millis(2));
    }
    let mut out = Vec::new();
    let packed = pack_all(root_of(&inside).as_fd(), &IdView::identity())
        .and_then(|packing| packing.write(&mut out));
    child.kill().unwrap();
    child.wait().unwrap();
    packed.unwrap();
    let names = names_of(&out);
    assert!(names.contains(&"data/file".to_owned()) && names.contains(&"tmp/".to_owned()));
    assert!(names.contains(&"hosts-dir/".to_owned()));
    assert!(!names.contains(&"tmp/inside".to_owned()), "{names:?}");
    assert!(!names.contains(&"hosts-dir/file".to_owned()), "{names:?}");
}

fn names_of(archive: &[u8]) -> Vec<String> {
    let bounds = Bounds::default();
    let mut reader = littlebox_archive::Reader::new(archive, &bounds);
    let mut names = Vec::new();
    while let Some(entry) = reader.next_entry().unwrap() {
        names.push(String::from_utf8_lossy(&entry.path).into_owned());
    }
    names
}
/// A small tree: names with contents, some below directories.
fn trees() -> impl Strategy<Value = Vec<(String, Vec<u8>, u32, i64)>> {
    let name = "[a-c]{1,2}(/[a-c]{1,2}){0,3}";
    let content = proptest::collection::vec(any::<u8>(), 0..1500);
    proptest::collection::vec((name, content, 0u32..0o10000, -5i64..2_000_000_000), 0..15)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn any_tree_round_trips(tree in trees()) {
        let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let data = from.path().join("data");
        fs::create_dir(&data).unwrap();
        for (name, content, mode, time) in &tree {
            let path = data.join(name);
            if fs::create_dir_all(path.parent().unwrap()).is_err() || path.is_dir() {
                continue;
            }
            fs::write(&path, content).unwrap();
            fs::set_permissions(&path, Permissions::from_mode(*mode)).unwrap();
            let time = rustix::fs::Timespec { tv_sec: *time, tv_nsec: 1 };
            let times = rustix::fs::Timestamps { last_access: time, last_modification: time };
            rustix::fs::utimensat(CWD, &path, &times, rustix::fs::AtFlags::empty()).unwrap();
        }
        let archive = pack_path(from.path(), "data").unwrap();
        unpack_into(to.path(), "/", &archive).unwrap();
        prop_assert_eq!(listing(&data), listing(&to.path().join("data")));
    }
}
