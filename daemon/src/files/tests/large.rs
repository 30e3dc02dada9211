//! Trees as deep and as wide as a container can make them.

use std::io;
use std::os::fd::OwnedFd;

use rustix::fs::OFlags;

use super::*;

/// Makes `levels` directories inside one another below `top`, and returns the innermost.
fn dig(top: &Path, levels: u32) -> OwnedFd {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let mut at = rustix::fs::open(top, flags, Mode::empty()).unwrap();
    for _ in 0..levels {
        rustix::fs::mkdirat(&at, "d", Mode::from_raw_mode(0o755)).unwrap();
        at = rustix::fs::openat(&at, "d", flags, Mode::empty()).unwrap();
    }
    at
}

/// On a thread with a stack that no recursion over such a tree would fit into.
fn with_a_small_stack<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().stack_size(256 * 1024);
        thread.spawn_scoped(scope, work).unwrap().join().unwrap()
    })
}

fn descriptors() -> usize {
    fs::read_dir("/proc/self/fd").unwrap().count()
}

/// The most memory that this process has had, in KiB.
fn peak() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let number = line.unwrap().trim().trim_end_matches(" kB");
    number.parse().unwrap()
}

#[test]
fn twenty_thousand_levels_are_removed_and_too_deep_for_an_archive() {
    let top = tempfile::tempdir().unwrap();
    let tree = top.path().join("tree");
    fs::create_dir(&tree).unwrap();
    drop(dig(&tree, 20_000));
    let lower = tempfile::tempdir().unwrap();
    with_a_small_stack(|| {
        let packed = pack_path(top.path(), "/tree");
        assert!(matches!(packed, Err(FileError::Limit { .. })), "{packed:?}");
        let all = pack_all(root_of(top.path()).as_fd(), &IdView::identity());
        assert!(matches!(all, Err(FileError::Limit { .. })));
        let compared = changes(top.path(), &[lower.path().to_owned()]);
        assert!(matches!(compared, Err(FileError::Limit { .. })));
        remove_tree(&tree).unwrap();
    });
    assert!(!tree.exists());
}

#[test]
fn a_tree_as_deep_as_paths_reach_goes_out_and_in_again() {
    const LEVELS: u32 = 2000;
    let top = tempfile::tempdir().unwrap();
    fs::create_dir(top.path().join("tree")).unwrap();
    let bottom = dig(&top.path().join("tree"), LEVELS);
    let file = rustix::fs::openat(
        &bottom,
        "f",
        OFlags::CREATE | OFlags::WRONLY | OFlags::CLOEXEC,
        Mode::from_raw_mode(0o644),
    );
    drop((bottom, file.unwrap()));
    let to = tempfile::tempdir().unwrap();
    with_a_small_stack(|| {
        let before = descriptors();
        let archive = pack_path(top.path(), "/tree").unwrap();
        unpack_into(to.path(), "/", &archive).unwrap();
        assert_eq!(descriptors(), before);
        let changes = changes(to.path(), &[top.path().to_owned()]).unwrap();
        assert!(changes.iter().any(|change| change.path.ends_with("/d/f")));
        let deep = format!("/tree{}/f", "/d".repeat(2000));
        assert_eq!(pack_path(to.path(), &deep).unwrap().len(), 3 * 512 + 1024);
        for top in [top.path(), to.path()] {
            remove_tree(&top.join("tree")).unwrap();
        }
    });
}

#[test]
fn half_a_million_names_take_little_memory() {
    let top = tempfile::tempdir().unwrap();
    let wide = top.path().join("wide");
    fs::create_dir(&wide).unwrap();
    for n in 0..500_000 {
        rustix::fs::symlinkat("x", CWD, wide.join(format!("name-{n}"))).unwrap();
    }
    let before = peak();
    let packing = pack(root_of(top.path()).as_fd(), "/wide", &IdView::identity());
    packing.unwrap().write(io::sink()).unwrap();
    let grown = peak() - before;
    assert!(grown < 16 * 1024, "an archive took {grown} KiB");
    let lower = tempfile::tempdir().unwrap();
    match changes(top.path(), &[lower.path().to_owned()]) {
        Ok(changes) => assert_eq!(changes.len(), 500_001),
        Err(error) => panic!("{error}"),
    }
    let grown = peak() - before;
    assert!(grown < 160 * 1024, "a comparison took {grown} KiB");
    remove_tree(&wide).unwrap();
    assert!(!wide.exists());
}

#[test]
fn a_removal_goes_on_where_an_earlier_one_was_stopped() {
    let top = tempfile::tempdir().unwrap();
    let tree = top.path().join("tree");
    // Names as the removal itself gives them, full and empty, a file and a link among them.
    for name in ["0/a/b", "1", "2/c/d/e", "x/y/0/1/2"] {
        fs::create_dir_all(tree.join(name)).unwrap();
    }
    fs::write(tree.join("3"), b"").unwrap();
    let outside = top.path().join("outside");
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("canary"), b"canary").unwrap();
    symlink(&outside, tree.join("x/y/link")).unwrap();
    for stop_after in 0..12 {
        let left = std::cell::Cell::new(stop_after);
        let stop = || left.replace(left.get() - 1) <= 0;
        let result = remove_tree_unless(&tree, &stop);
        let kind = result.map_err(|error| error.kind());
        if kind.is_ok() {
            break;
        }
        assert_eq!(kind, Err(io::ErrorKind::Interrupted));
    }
    remove_tree(&tree).unwrap();
    assert!(!tree.exists());
    assert!(outside.join("canary").exists());
    remove_tree(&tree).unwrap();
}

#[test]
fn what_cannot_be_removed_is_told_and_keeps_nothing_else() {
    let top = tempfile::tempdir().unwrap();
    let (tree, held) = (top.path().join("tree"), top.path().join("tree/a/held"));
    fs::create_dir_all(&held).unwrap();
    fs::create_dir_all(tree.join("b/c/d")).unwrap();
    rustix::mount::mount_bind(&held, &held).unwrap();
    let refused = remove_tree(&tree);
    rustix::mount::unmount(&held, rustix::mount::UnmountFlags::DETACH).unwrap();
    assert_eq!(refused.unwrap_err().kind(), io::ErrorKind::ResourceBusy);
    assert!(held.exists() && !tree.join("b").exists());
    remove_tree(&tree).unwrap();
}
