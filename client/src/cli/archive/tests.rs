//! Archives, friendly and hostile.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;

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
    let packing = Packing {
        source: src,
        name: "src".into(),
        keep_owners: false,
    };
    pack(&packing, &mut data).unwrap();
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
