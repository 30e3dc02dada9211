//! An archive that a client sends: whatever it holds, nothing is written outside the root.
#![no_main]

use std::fs;
use std::os::fd::AsFd;

use libfuzzer_sys::fuzz_target;
use littleboxd::files::{Bounds, IdView, unpack};

fuzz_target!(|archive: &[u8]| {
    let outside = tempfile::tempdir().expect("a temporary directory");
    let root = outside.path().join("root");
    fs::create_dir(&root).expect("an empty directory takes a directory");
    let root = fs::File::open(&root).expect("it was just made");
    let bounds = Bounds {
        entries: 64,
        bytes: 1 << 20,
        ..Bounds::default()
    };
    let _ = unpack(root.as_fd(), "/", &IdView::identity(), archive, &bounds);
    let left: Vec<_> = fs::read_dir(outside.path()).expect("it is there").collect();
    assert_eq!(
        left.len(),
        1,
        "something was written beside the root: {left:?}"
    );
});
