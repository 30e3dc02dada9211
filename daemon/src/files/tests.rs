//! Real directories as roots. Most of these need root: owners, devices, `trusted.*` attributes.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{self, File, Permissions};
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use lbctl::types::ChangeKind;
use proptest::prelude::*;
use rustix::fs::{CWD, FileType, Mode, XattrFlags};

use super::*;

fn root_of(path: &Path) -> File {
    File::open(path).unwrap()
}

fn pack_path(root: &Path, path: &str) -> Result<Vec<u8>, FileError> {
    let mut out = Vec::new();
    pack(root_of(root).as_fd(), path, &IdView, &mut out)?;
    Ok(out)
}

fn unpack_into(root: &Path, dir: &str, archive: &[u8]) -> Result<(), FileError> {
    unpack(
        root_of(root).as_fd(),
        dir,
        &IdView,
        archive,
        &Bounds::default(),
    )
}

fn mknod(path: &Path, kind: FileType, device: (u32, u32)) {
    let device = rustix::fs::makedev(device.0, device.1);
    rustix::fs::mknodat(CWD, path, kind, Mode::from_raw_mode(0o640), device).unwrap();
}

/// Everything that an archive keeps, by path.
fn listing(top: &Path) -> BTreeMap<PathBuf, String> {
    let mut found = BTreeMap::new();
    let mut left = vec![top.to_owned()];
    while let Some(path) = left.pop() {
        let metadata = path.symlink_metadata().unwrap();
        let name = path.strip_prefix(top).unwrap().to_owned();
        let content = if metadata.is_file() {
            format!("{:?}", fs::read(&path).unwrap())
        } else if metadata.is_symlink() {
            format!("{:?}", fs::read_link(&path).unwrap())
        } else {
            String::new()
        };
        if metadata.is_dir() {
            left.extend(
                fs::read_dir(&path)
                    .unwrap()
                    .map(|entry| entry.unwrap().path()),
            );
        }
        let linked = if metadata.nlink() > 1 && !metadata.is_dir() {
            format!(" with {} links", metadata.nlink())
        } else {
            String::new()
        };
        let mode = if metadata.is_symlink() {
            0
        } else {
            metadata.mode()
        };
        let xattrs = xattrs(&path);
        found.insert(
            name,
            format!(
                "{mode:o} {}:{} {}.{} dev {} {xattrs:?}{linked} {content}",
                metadata.uid(),
                metadata.gid(),
                metadata.mtime(),
                metadata.mtime_nsec(),
                metadata.rdev(),
            ),
        );
    }
    found
}

fn xattrs(path: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut names = [0u8; 4096];
    let len = rustix::fs::llistxattr(path, &mut names[..]).unwrap();
    let names = String::from_utf8(names[..len].to_vec()).unwrap();
    let value = |name: &str| {
        let mut value = [0u8; 4096];
        let len = rustix::fs::lgetxattr(path, name, &mut value[..]).unwrap();
        value[..len].to_vec()
    };
    names
        .split_terminator('\0')
        .filter(|name| !name.starts_with("security.selinux"))
        .map(|name| (name.to_owned(), value(name)))
        .collect()
}

/// A root with one of everything in `/data`.
fn zoo() -> tempfile::TempDir {
    let root = tempfile::tempdir().unwrap();
    let data = root.path().join("data");
    fs::create_dir_all(data.join("deep/er")).unwrap();
    fs::write(data.join("file"), b"hello\n").unwrap();
    fs::write(data.join("empty"), b"").unwrap();
    fs::write(data.join("block"), [7u8; 512]).unwrap();
    fs::write(data.join("deep/er/more"), vec![9u8; 300_001]).unwrap();
    fs::hard_link(data.join("file"), data.join("deep/hard")).unwrap();
    symlink("/etc/passwd", data.join("absolute")).unwrap();
    symlink(format!("../{}", "x".repeat(200)), data.join("long-link")).unwrap();
    fs::write(data.join("n".repeat(250)), b"long name").unwrap();
    fs::write(data.join(OsStr::from_bytes(b"not \xff utf8")), b"bytes").unwrap();
    mknod(&data.join("fifo"), FileType::Fifo, (0, 0));
    fs::set_permissions(data.join("file"), Permissions::from_mode(0o4755)).unwrap();
    fs::set_permissions(data.join("deep"), Permissions::from_mode(0o1777)).unwrap();
    std::os::unix::fs::chown(data.join("empty"), Some(1234), Some(3_000_000)).unwrap();
    std::os::unix::fs::lchown(data.join("absolute"), Some(5), Some(6)).unwrap();
    rustix::fs::setxattr(
        data.join("block"),
        "user.binary",
        b"a\nb=\0c",
        XattrFlags::empty(),
    )
    .unwrap();
    rustix::fs::setxattr(data.join("deep"), "user.note", b"dir", XattrFlags::empty()).unwrap();
    for (name, secs, nanos) in [
        ("file", 1_000_000_000, 5),
        ("empty", -2, 500_000_000),
        ("deep", 7, 0),
    ] {
        let times = rustix::fs::Timestamps {
            last_access: rustix::fs::Timespec {
                tv_sec: secs,
                tv_nsec: nanos,
            },
            last_modification: rustix::fs::Timespec {
                tv_sec: secs,
                tv_nsec: nanos,
            },
        };
        rustix::fs::utimensat(CWD, data.join(name), &times, rustix::fs::AtFlags::empty()).unwrap();
    }
    root
}

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
        let mut reader = super::tar::Reader::new(&archive[..], &bounds);
        String::from_utf8(reader.next().unwrap().unwrap().path).unwrap()
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
    let stat = |path: &str| stat(root_of(root.path()).as_fd(), path, &IdView);
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
    let packed = pack_all(root_of(&inside).as_fd(), &IdView, &mut out);
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
    let mut reader = super::tar::Reader::new(archive, &bounds);
    let mut names = Vec::new();
    while let Some(entry) = reader.next().unwrap() {
        names.push(String::from_utf8_lossy(&entry.path).into_owned());
    }
    names
}

/// An entry of a made-up archive.
struct Made {
    header: ::tar::Header,
    name: Vec<u8>,
    content: Vec<u8>,
}

impl Made {
    fn new(kind: ::tar::EntryType, name: &str, link: &str, content: &[u8]) -> Self {
        let mut header = ::tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(0o644);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(1);
        header.set_size(content.len() as u64);
        let gnu = header.as_gnu_mut().unwrap();
        gnu.linkname[..link.len()].copy_from_slice(link.as_bytes());
        Self {
            header,
            name: name.as_bytes().to_vec(),
            content: content.to_vec(),
        }
    }

    fn file(name: &str, content: &[u8]) -> Self {
        Self::new(::tar::EntryType::Regular, name, "", content)
    }

    fn symlink(name: &str, target: &str) -> Self {
        Self::new(::tar::EntryType::Symlink, name, target, b"")
    }

    fn bytes(&self) -> Vec<u8> {
        let mut header = self.header.clone();
        header.as_old_mut().name[..self.name.len()].copy_from_slice(&self.name);
        header.set_cksum();
        let mut bytes = header.as_bytes().to_vec();
        bytes.extend_from_slice(&self.content);
        bytes.resize(bytes.len().next_multiple_of(512), 0);
        bytes
    }
}

fn archive(entries: &[Made]) -> Vec<u8> {
    let mut bytes: Vec<u8> = entries.iter().flat_map(Made::bytes).collect();
    bytes.extend_from_slice(&[0; 1024]);
    bytes
}

/// A root beside a directory that must stay as it is.
struct Target {
    _whole: tempfile::TempDir,
    root: PathBuf,
    outside: PathBuf,
}

impl Target {
    fn new() -> Self {
        let whole = tempfile::tempdir().unwrap();
        let (root, outside) = (whole.path().join("root"), whole.path().join("outside"));
        fs::create_dir(&root).unwrap();
        fs::create_dir(&outside).unwrap();
        fs::write(outside.join("canary"), b"canary").unwrap();
        Self {
            _whole: whole,
            root,
            outside,
        }
    }

    fn unpack(&self, entries: &[Made]) -> Result<(), FileError> {
        let before = listing(&self.outside);
        let result = unpack_into(&self.root, "/", &archive(entries));
        assert_eq!(listing(&self.outside), before, "the outside changed");
        result
    }

    fn has(&self, path: &str) -> bool {
        self.root.join(path).symlink_metadata().is_ok()
    }
}

#[test]
fn dots_are_refused_wherever_they_stand() {
    for name in ["../x", "a/../../x", "/../x", "..", "a/.."] {
        let target = Target::new();
        let result = target.unpack(&[Made::file(name, b"x")]);
        assert!(
            matches!(result, Err(FileError::BadArchive { .. })),
            "{name}: {result:?}"
        );
        let link = Made::new(::tar::EntryType::Link, "l", name, b"");
        assert!(
            matches!(target.unpack(&[link]), Err(FileError::BadArchive { .. })),
            "{name}"
        );
    }
}

#[test]
fn absolute_names_stay_inside() {
    let target = Target::new();
    let name = format!("{}/canary", target.outside.display());
    let short = if name.len() <= 100 {
        name
    } else {
        "/outside/canary".to_owned()
    };
    target.unpack(&[Made::file(&short, b"mine")]).unwrap();
    assert!(target.has(short.trim_start_matches('/')));
}

#[test]
fn writing_through_a_link_stays_inside() {
    let target = Target::new();
    let outside = target.outside.to_str().unwrap().to_owned();
    for link in [outside.as_str(), "../outside", "/../../outside"] {
        let result = target.unpack(&[Made::symlink("l", link), Made::file("l/canary", b"evil")]);
        // The link leads to a directory of that name inside, which does not exist.
        assert!(result.is_err(), "{link}");
    }
    // A link as the last component is replaced, not followed.
    target
        .unpack(&[
            Made::symlink("canary", &format!("{outside}/canary")),
            Made::file("canary", b"mine"),
        ])
        .unwrap();
    assert!(
        target
            .root
            .join("canary")
            .symlink_metadata()
            .unwrap()
            .is_file()
    );
}

#[test]
fn a_link_inside_is_followed_as_in_a_chroot() {
    let target = Target::new();
    fs::create_dir_all(target.root.join("usr/lib")).unwrap();
    symlink("/usr/lib", target.root.join("lib")).unwrap();
    let directory = Made::new(::tar::EntryType::Directory, "lib/", "", b"");
    target
        .unpack(&[directory, Made::file("lib/so", b"x")])
        .unwrap();
    assert!(target.has("usr/lib/so"));
    assert!(
        target
            .root
            .join("lib")
            .symlink_metadata()
            .unwrap()
            .is_symlink()
    );
}

#[test]
fn hard_links_reach_only_inside() {
    let target = Target::new();
    let outside = target.outside.to_str().unwrap().to_owned();
    for link in [format!("{outside}/canary"), "/etc/passwd".to_owned()] {
        let link = &link[..link.len().min(100)];
        let result = target.unpack(&[Made::new(::tar::EntryType::Link, "hard", link, b"")]);
        assert!(
            matches!(result, Err(FileError::BadArchive { .. })),
            "{link}"
        );
    }
    let entries = [
        Made::symlink("s", &outside[..outside.len().min(100)]),
        Made::new(::tar::EntryType::Link, "hard", "s/canary", b""),
    ];
    assert!(target.unpack(&entries).is_err());
    assert!(!target.has("hard"));
    assert_eq!(target.outside.join("canary").metadata().unwrap().nlink(), 1);
}

#[test]
fn devices_are_refused_and_fifos_are_not() {
    let target = Target::new();
    for kind in [::tar::EntryType::Char, ::tar::EntryType::Block] {
        let result = target.unpack(&[Made::new(kind, "dev", "", b"")]);
        assert!(matches!(result, Err(FileError::BadArchive { .. })));
    }
    assert!(!target.has("dev"));
    target
        .unpack(&[Made::new(::tar::EntryType::Fifo, "fifo", "", b"")])
        .unwrap();
    assert!(target.has("fifo"));
}

#[test]
fn sparse_and_unknown_types_are_refused() {
    let target = Target::new();
    for kind in [::tar::EntryType::GNUSparse, ::tar::EntryType::new(b'V')] {
        let result = target.unpack(&[Made::new(kind, "x", "", b"")]);
        assert!(matches!(result, Err(FileError::BadArchive { .. })));
    }
    let records = b"22 GNU.sparse.major=1\n";
    let entries = [
        Made::new(::tar::EntryType::XHeader, "p", "", records),
        Made::file("x", b"x"),
    ];
    assert!(matches!(
        target.unpack(&entries),
        Err(FileError::BadArchive { .. })
    ));
}

#[test]
fn the_size_in_an_extended_header_counts() {
    // What hides behind the smaller size of the two would be read as entries of its own.
    let target = Target::new();
    let hidden = archive(&[Made::file("hidden", b"x")]);
    let record = format!(
        "{} size={}\n",
        "00 size=\n".len() + hidden.len().to_string().len(),
        hidden.len()
    );
    let mut file = Made::file("outer", &hidden);
    file.header.set_size(0);
    let entries = [
        Made::new(::tar::EntryType::XHeader, "p", "", record.as_bytes()),
        file,
    ];
    target.unpack(&entries).unwrap();
    assert!(target.has("outer") && !target.has("hidden"));
    assert_eq!(fs::read(target.root.join("outer")).unwrap(), hidden);
}

#[test]
fn directories_and_other_things_do_not_replace_one_another() {
    let target = Target::new();
    fs::create_dir(target.root.join("dir")).unwrap();
    fs::write(target.root.join("dir/precious"), b"x").unwrap();
    fs::write(target.root.join("file"), b"x").unwrap();
    let result = target.unpack(&[Made::file("dir", b"x")]);
    assert!(matches!(result, Err(FileError::IsADirectory { .. })));
    let directory = Made::new(::tar::EntryType::Directory, "file/", "", b"");
    assert!(matches!(
        target.unpack(&[directory]),
        Err(FileError::NotADirectory { .. })
    ));
    let below = Made::file("file/below", b"x");
    assert!(matches!(
        target.unpack(&[below]),
        Err(FileError::NotADirectory { .. })
    ));
    assert!(target.has("dir/precious"));
}

#[test]
fn a_parent_that_is_replaced_by_a_link_is_not_written_into_any_more() {
    let target = Target::new();
    let entries = [
        Made::file("a", b"1"),
        Made::symlink("a", "/elsewhere"),
        Made::new(::tar::EntryType::Directory, "elsewhere/", "", b""),
        Made::file("a/x", b"2"),
    ];
    target.unpack(&entries).unwrap();
    assert!(target.has("elsewhere/x"));
}

#[test]
fn bounds_hold() {
    let target = Target::new();
    let unpack = |entries: &[Made], bounds: Bounds| {
        let input = archive(entries);
        super::unpack(
            root_of(&target.root).as_fd(),
            "/",
            &IdView,
            &input[..],
            &bounds,
        )
    };
    let limit = |result| matches!(result, Err(FileError::Limit { .. }));
    let files = || [Made::file("a", b"123"), Made::file("b", b"123")];
    let all = Bounds::default();
    assert!(limit(unpack(&files(), Bounds { entries: 1, ..all })));
    assert!(limit(unpack(&files(), Bounds { bytes: 5, ..all })));
    assert!(
        unpack(
            &files(),
            Bounds {
                bytes: 6,
                entries: 2,
                ..all
            }
        )
        .is_ok()
    );
    assert!(limit(unpack(
        &[Made::file("long", b"")],
        Bounds {
            name_bytes: 3,
            ..all
        }
    )));
    let header = [Made::new(::tar::EntryType::XHeader, "p", "", &[b' '; 600])];
    assert!(limit(unpack(
        &header,
        Bounds {
            header_bytes: 512,
            ..all
        }
    )));
}

#[test]
fn a_header_that_promises_a_lot_allocates_little() {
    // An endless stream behind a header of 8 GiB of PAX records.
    let target = Target::new();
    let mut header = Made::new(::tar::EntryType::XHeader, "p", "", b"");
    header.header.set_size(8 * 1024 * 1024 * 1024);
    let header = header.bytes();
    let input = Read::chain(&header[..], std::io::repeat(b'x')).take(1 << 40);
    let result = unpack(
        root_of(&target.root).as_fd(),
        "/",
        &IdView,
        input,
        &Bounds::default(),
    );
    assert!(matches!(result, Err(FileError::Limit { .. })));
}

#[test]
fn broken_archives_are_told() {
    let target = Target::new();
    let good = archive(&[Made::file("a", &[1; 2000])]);
    for len in [100, 512, 600, 2500] {
        let result = unpack_into(&target.root, "/", &good[..len]);
        match len {
            // The last block's padding may be missing, not the content.
            2512.. => result.unwrap(),
            _ => assert!(matches!(result, Err(FileError::BadArchive { .. })), "{len}"),
        }
    }
    let mut wrong = good.clone();
    wrong[0] ^= 1;
    let result = unpack_into(&target.root, "/", &wrong);
    assert!(matches!(result, Err(FileError::BadArchive { .. })));
    assert!(
        unpack_into(&target.root, "/", b"").is_ok(),
        "nothing is an empty archive"
    );
    let failing = std::io::ErrorKind::ConnectionReset;
    struct Broken(std::io::ErrorKind);
    impl Read for Broken {
        fn read(&mut self, _: &mut [u8]) -> std::io::Result<usize> {
            Err(self.0.into())
        }
    }
    let root = root_of(&target.root);
    let result = unpack(
        root.as_fd(),
        "/",
        &IdView,
        Broken(failing),
        &Bounds::default(),
    );
    assert!(matches!(result, Err(FileError::Stream(_))));
}

#[test]
fn missing_parents_are_made() {
    let target = Target::new();
    target.unpack(&[Made::file("a/b/c", b"x")]).unwrap();
    assert_eq!(
        target.root.join("a/b").metadata().unwrap().mode() & 0o7777,
        0o755
    );
    assert!(matches!(
        unpack_into(&target.root, "/none", b""),
        Err(FileError::NotFound { .. })
    ));
    assert!(matches!(
        unpack_into(&target.root, "/a/b/c", b""),
        Err(FileError::NotADirectory { .. })
    ));
}

#[test]
fn unpacking_goes_below_the_directory() {
    let target = Target::new();
    fs::create_dir(target.root.join("sub")).unwrap();
    let input = archive(&[
        Made::new(::tar::EntryType::Directory, "./", "", b""),
        Made::file("./x", b"1"),
        Made::new(::tar::EntryType::Link, "y", "x", b""),
    ]);
    unpack_into(&target.root, "/sub", &input).unwrap();
    assert_eq!(target.root.join("sub/x").metadata().unwrap().nlink(), 2);
}

#[test]
fn attributes_that_steer_overlayfs_are_not_taken() {
    let target = Target::new();
    let record = b"36 SCHILY.xattr.trusted.overlay.x=y\n";
    let entries = [
        Made::new(::tar::EntryType::XHeader, "p", "", record),
        Made::file("x", b"x"),
    ];
    assert_eq!(record.len(), 36);
    target.unpack(&entries).unwrap();
    assert_eq!(xattrs(&target.root.join("x")), BTreeMap::new());
}

fn changed(upper: &Path, lower: &[&Path]) -> Vec<(String, ChangeKind)> {
    let lower: Vec<PathBuf> = lower.iter().map(|path| path.to_path_buf()).collect();
    changes(upper, &lower)
        .unwrap()
        .into_iter()
        .map(|change| (change.path, change.kind))
        .collect()
}

#[test]
fn changes_of_a_real_overlay() {
    use ChangeKind::{Added, Deleted, Modified};
    let whole = tempfile::tempdir().unwrap();
    let path = |name: &str| whole.path().join(name);
    for name in [
        "low/etc",
        "low/same/deep",
        "low/gone",
        "low/again",
        "lowest/old",
        "up",
        "work",
        "m",
    ] {
        fs::create_dir_all(path(name)).unwrap();
    }
    for name in [
        "low/etc/passwd",
        "low/etc/group",
        "low/same/deep/file",
        "low/gone/x",
        "low/again/1",
        "low/again/2",
        "lowest/old/x",
        "low/touched",
        "low/becomes-dir",
    ] {
        fs::write(path(name), b"x").unwrap();
    }
    // In a mount namespace of its own, because an overlay is a mount.
    let script = "mount -t overlay o -o lowerdir=low:lowest,upperdir=up,workdir=work m && cd m && \
                  echo new >> etc/passwd && rm etc/group && echo a > etc/new && \
                  echo y >> same/deep/file && rm -r gone && \
                  rm -r again && mkdir again && echo z > again/2 && echo z > again/3 && \
                  chmod 600 touched && rm becomes-dir && mkdir becomes-dir && \
                  mkdir -p fresh/inner && rm old/x";
    let status = Command::new("unshare")
        .args(["--mount", "sh", "-ec", script])
        .current_dir(whole.path())
        .status()
        .unwrap();
    assert!(status.success());
    let (low, lowest) = (path("low"), path("lowest"));
    let found = changed(&path("up"), &[&low, &lowest]);
    let expected = [
        ("/again", Modified),
        ("/again/1", Deleted),
        ("/again/2", Modified),
        ("/again/3", Added),
        ("/becomes-dir", Modified),
        ("/etc", Modified),
        ("/etc/group", Deleted),
        ("/etc/new", Added),
        ("/etc/passwd", Modified),
        ("/fresh", Added),
        ("/fresh/inner", Added),
        ("/gone", Deleted),
        ("/old", Modified),
        ("/old/x", Deleted),
        // Its directories were only copied up.
        ("/same/deep/file", Modified),
        ("/touched", Modified),
    ];
    let expected: Vec<(String, ChangeKind)> = expected
        .iter()
        .map(|(path, kind)| ((*path).to_owned(), *kind))
        .collect();
    assert_eq!(found, expected);
}

#[test]
fn whiteouts_by_attribute_count_and_links_in_the_upper_layer_are_not_followed() {
    let whole = tempfile::tempdir().unwrap();
    let (low, up) = (whole.path().join("low"), whole.path().join("up"));
    fs::create_dir_all(low.join("etc")).unwrap();
    fs::create_dir(&up).unwrap();
    fs::write(low.join("a"), b"x").unwrap();
    fs::write(up.join("a"), b"").unwrap();
    rustix::fs::setxattr(
        up.join("a"),
        "trusted.overlay.whiteout",
        b"y",
        XattrFlags::empty(),
    )
    .unwrap();
    symlink("/etc", up.join("etc")).unwrap();
    mknod(&up.join("never-there"), FileType::CharacterDevice, (0, 0));
    assert_eq!(
        changed(&up, &[&low]),
        [
            ("/a".to_owned(), ChangeKind::Deleted),
            ("/etc".to_owned(), ChangeKind::Modified)
        ]
    );
}

#[test]
fn nothing_changed() {
    let whole = tempfile::tempdir().unwrap();
    assert_eq!(changed(whole.path(), &[Path::new("/")]), []);
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

    #[test]
    fn no_archive_makes_unpacking_panic(
        bytes in proptest::collection::vec(any::<u8>(), 0..3000),
        flips in proptest::collection::vec((0usize..4000, any::<u8>()), 0..8),
    ) {
        let target = Target::new();
        let _ = unpack_into(&target.root, "/", &bytes);
        let mut almost = archive(&[
            Made::new(::tar::EntryType::XHeader, "p", "", b"12 path=abc\n"),
            Made::file("a", b"123"),
            Made::symlink("b", "a"),
            Made::new(::tar::EntryType::Link, "c", "a", b""),
        ]);
        for (at, byte) in flips {
            let at = at % almost.len();
            almost[at] = byte;
        }
        let before = listing(&target.outside);
        let _ = unpack_into(&target.root, "/", &almost);
        prop_assert_eq!(listing(&target.outside), before);
    }
}
