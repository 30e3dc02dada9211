//! Archives, friendly and hostile.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;

use rustix::fs::{CWD, Mode, OFlags, RenameFlags, XattrFlags};
use tar::{Builder, EntryType, Header};

use super::unpack::target;
use super::{Packing, Unpacking, pack, unpack};

/// An archive of entries (name, type, link or contents).
fn archive(entries: &[(&str, EntryType, &str)]) -> Vec<u8> {
    let mut builder = Builder::new(Vec::new());
    for (name, kind, text) in entries {
        let mut header = Header::new_gnu();
        header.set_mode(0o4755);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(1_000_000);
        header.set_entry_type(*kind);
        // Builder::append_data refuses the hostile names that these tests are about.
        header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
        let link = matches!(kind, EntryType::Symlink | EntryType::Link);
        if link {
            header.as_old_mut().linkname[..text.len()].copy_from_slice(text.as_bytes());
        }
        let data = if link { "" } else { text };
        header.set_size(data.len() as u64);
        header.set_cksum();
        builder.append(&header, data.as_bytes()).unwrap();
    }
    builder.into_inner().unwrap()
}

fn packing(source: &Path, keep_owners: bool) -> Packing {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Packing {
        source: rustix::fs::open(source, flags, Mode::empty()).unwrap(),
        name: "src".into(),
        keep_owners,
    }
}

fn unpack_into(dir: &Path, rename: Option<&str>, data: &[u8]) -> io::Result<Vec<String>> {
    let rename = rename.map(OsString::from);
    let directory = dir.to_owned();
    unpack(
        data,
        &Unpacking {
            directory,
            rename,
            keep_owners: false,
        },
    )
}

#[test]
fn names_are_exchanged_and_never_lead_out() {
    let target = |name: &str, rename: Option<&str>| {
        target(Path::new(name), rename.map(OsStr::new)).map(|p| p.map(|p| p.display().to_string()))
    };
    assert_eq!(target("src/a", None).unwrap().as_deref(), Some("src/a"));
    assert_eq!(
        target("src/a", Some("dst")).unwrap().as_deref(),
        Some("dst/a")
    );
    assert_eq!(target("src", Some("dst")).unwrap().as_deref(), Some("dst"));
    assert_eq!(
        target("./a", Some("dst")).unwrap().as_deref(),
        Some("dst/a")
    );
    assert_eq!(target("./a/b", Some(".")).unwrap().as_deref(), Some("a/b"));
    assert_eq!(target(".", Some(".")).unwrap(), None);
    assert_eq!(target("./", Some("dst")).unwrap().as_deref(), Some("dst"));
    for hostile in ["/etc/passwd", "../a", "a/../../b"] {
        assert!(target(hostile, None).is_err(), "{hostile}");
    }
}

#[test]
fn a_tree_comes_back_as_it_was() {
    let dir = tempfile::tempdir().unwrap();
    let src = dir.path().join("src");
    std::fs::create_dir_all(src.join("sub")).unwrap();
    std::fs::write(src.join("sub/file"), "text").unwrap();
    let mode = std::fs::Permissions::from_mode(0o640);
    std::fs::set_permissions(src.join("sub/file"), mode).unwrap();
    symlink("sub/file", src.join("link")).unwrap();
    let long = "n".repeat(200);
    std::fs::write(src.join(&long), "long").unwrap();
    let mut data = Vec::new();
    assert!(pack(packing(&src, false), &mut data).unwrap().is_empty());
    let to = dir.path().join("to");
    std::fs::create_dir(&to).unwrap();
    assert!(unpack_into(&to, Some("dst"), &data).unwrap().is_empty());
    let file = to.join("dst/sub/file");
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "text");
    assert_eq!(file.metadata().unwrap().mode() & 0o7777, 0o640);
    assert_eq!(
        to.join("dst/link").read_link().unwrap(),
        Path::new("sub/file")
    );
    assert_eq!(
        std::fs::read_to_string(to.join("dst").join(long)).unwrap(),
        "long"
    );
}

#[test]
fn links_in_an_archive_lead_nowhere() {
    let dir = tempfile::tempdir().unwrap();
    let (outside, to) = (dir.path().join("outside"), dir.path().join("to"));
    std::fs::create_dir(&outside).unwrap();
    std::fs::create_dir(&to).unwrap();
    let link = outside.to_str().unwrap();
    let through = archive(&[
        ("d", EntryType::Symlink, link),
        ("d/evil", EntryType::Regular, "x"),
    ]);
    assert!(unpack_into(&to, None, &through).is_err());
    let over = archive(&[
        ("f", EntryType::Symlink, &format!("{link}/evil")),
        ("f", EntryType::Regular, "x"),
    ]);
    unpack_into(&to, None, &over).unwrap();
    let hard = archive(&[("h", EntryType::Link, "d/secret")]);
    assert!(unpack_into(&to, None, &hard).is_err());
    assert_eq!(outside.read_dir().unwrap().count(), 0);
    assert!(to.join("f").symlink_metadata().unwrap().is_file());
}

#[test]
fn setuid_bits_and_devices_are_left_out() {
    let dir = tempfile::tempdir().unwrap();
    let data = archive(&[
        ("su", EntryType::Regular, "x"),
        ("null", EntryType::Char, ""),
    ]);
    let skipped = unpack_into(dir.path(), None, &data).unwrap();
    assert_eq!(skipped, ["null (a device or pipe)"]);
    assert_eq!(
        dir.path().join("su").metadata().unwrap().mode() & 0o7777,
        0o755
    );
    assert!(!dir.path().join("null").exists());
}

#[test]
fn setuid_bits_go_where_the_owner_goes() {
    let dir = tempfile::tempdir().unwrap();
    let src = dir.path().join("src");
    std::fs::write(&src, "x").unwrap();
    for (mode, without) in [(0o6755, 0o755), (0o1777, 0o1777)] {
        std::fs::set_permissions(&src, std::fs::Permissions::from_mode(mode)).unwrap();
        for (keep_owners, expected) in [(true, mode), (false, without)] {
            let mut data = Vec::new();
            pack(packing(&src, keep_owners), &mut data).unwrap();
            let mut archive = tar::Archive::new(&data[..]);
            let entry = archive.entries().unwrap().next().unwrap().unwrap();
            assert_eq!(entry.header().mode().unwrap() & 0o7777, expected);
        }
    }
}

#[test]
fn times_before_1970_and_attributes_are_kept_on_demand() {
    let dir = tempfile::tempdir().unwrap();
    let src = dir.path().join("src");
    std::fs::write(&src, "text").unwrap();
    rustix::fs::setxattr(&src, "user.note", b"kept", XattrFlags::empty()).unwrap();
    let old = std::time::UNIX_EPOCH - std::time::Duration::from_millis(1500);
    let file = std::fs::File::options().write(true).open(&src).unwrap();
    file.set_modified(old).unwrap();
    for keep_owners in [true, false] {
        let mut data = Vec::new();
        pack(packing(&src, keep_owners), &mut data).unwrap();
        let to = tempfile::tempdir().unwrap();
        let unpacking = Unpacking {
            directory: to.path().to_owned(),
            rename: None,
            keep_owners,
        };
        unpack(&data[..], &unpacking).unwrap();
        let copy = to.path().join("src");
        assert_eq!(copy.metadata().unwrap().modified().unwrap(), old);
        let mut value = [0u8; 16];
        let found = rustix::fs::getxattr(&copy, "user.note", &mut value[..]);
        assert_eq!(found.is_ok(), keep_owners);
    }
}

#[test]
fn files_of_the_kernel_are_read_to_their_end() {
    let mut data = Vec::new();
    pack(
        packing(Path::new("/proc/sys/kernel/ostype"), false),
        &mut data,
    )
    .unwrap();
    let to = tempfile::tempdir().unwrap();
    unpack_into(to.path(), None, &data).unwrap();
    assert_eq!(std::fs::read(to.path().join("src")).unwrap(), b"Linux\n");
}

/// A container that may write to the source exchanges a file and a directory with links to what is
/// not its own while they are packed, a thousand times.
#[test]
fn a_source_that_changes_meanwhile_gives_nothing_foreign() {
    use std::sync::atomic::{AtomicBool, Ordering};

    const TRIES: u32 = 1000;
    let dir = tempfile::tempdir().unwrap();
    let (src, outside) = (dir.path().join("src"), dir.path().join("outside"));
    std::fs::create_dir_all(src.join("dir")).unwrap();
    std::fs::create_dir(&outside).unwrap();
    std::fs::write(src.join("dir/file"), "ours").unwrap();
    std::fs::write(src.join("file"), "ours").unwrap();
    std::fs::write(outside.join("file"), "foreign secret").unwrap();
    symlink(&outside, src.join("dir-link")).unwrap();
    symlink(outside.join("file"), src.join("file-link")).unwrap();
    let done = AtomicBool::new(false);
    let (mut ours, mut links) = (0, 0);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                for (a, b) in [("dir", "dir-link"), ("file", "file-link")] {
                    let (a, b) = (src.join(a), src.join(b));
                    rustix::fs::renameat_with(CWD, &a, CWD, &b, RenameFlags::EXCHANGE).unwrap();
                }
            }
        });
        for _ in 0..TRIES {
            let mut data = Vec::new();
            pack(packing(&src, false), &mut data).unwrap();
            let has = |text: &[u8]| data.windows(text.len()).any(|part| part == text);
            if has(b"foreign secret") {
                done.store(true, Ordering::Relaxed);
                panic!("foreign content was packed");
            }
            ours += u32::from(has(b"ours"));
            links += u32::from(has(b"outside/file"));
        }
        done.store(true, Ordering::Relaxed);
    });
    assert!(ours > 0 && links > 0, "{ours} {links}");
}
