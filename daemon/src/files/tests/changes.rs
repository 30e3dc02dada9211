//! Overlays, real and made up.

use std::process::Command;

use littlebox_types::ChangeKind;

use super::*;

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
