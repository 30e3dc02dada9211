//! Archives that mean harm, and those that are merely broken.

use std::io::Read;
use std::os::unix::fs::chown;

use ::tar::EntryType;
use littlebox_types::{IdMap, IdMaps};
use proptest::prelude::*;
use rustix::io::Errno;

use super::*;

#[test]
fn dots_are_refused_wherever_they_stand() {
    for name in ["../x", "a/../../x", "/../x", "..", "a/.."] {
        let target = Target::new();
        let result = target.unpack(&[Made::file(name, b"x")]);
        assert!(
            matches!(result, Err(FileError::BadArchive { .. })),
            "{name}: {result:?}"
        );
        let link = Made::new(EntryType::Link, "l", name, b"");
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
    let directory = Made::new(EntryType::Directory, "lib/", "", b"");
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
        let result = target.unpack(&[Made::new(EntryType::Link, "hard", link, b"")]);
        assert!(
            matches!(result, Err(FileError::BadArchive { .. })),
            "{link}"
        );
    }
    let entries = [
        Made::symlink("s", &outside[..outside.len().min(100)]),
        Made::new(EntryType::Link, "hard", "s/canary", b""),
    ];
    assert!(target.unpack(&entries).is_err());
    assert!(!target.has("hard"));
    assert_eq!(target.outside.join("canary").metadata().unwrap().nlink(), 1);
}

#[test]
fn devices_are_refused_and_fifos_are_not() {
    let target = Target::new();
    for kind in [EntryType::Char, EntryType::Block] {
        let result = target.unpack(&[Made::new(kind, "dev", "", b"")]);
        assert!(matches!(result, Err(FileError::BadArchive { .. })));
    }
    assert!(!target.has("dev"));
    target
        .unpack(&[Made::new(EntryType::Fifo, "fifo", "", b"")])
        .unwrap();
    assert!(target.has("fifo"));
}

#[test]
fn malformed_sparse_files_and_unknown_types_are_refused() {
    let target = Target::new();
    for kind in [EntryType::GNUSparse, EntryType::new(b'V')] {
        let result = target.unpack(&[Made::new(kind, "x", "", b"stored, and nowhere in the map")]);
        assert!(matches!(result, Err(FileError::BadArchive { .. })));
    }
    let records = b"22 GNU.sparse.major=1\n";
    let entries = [
        Made::new(EntryType::XHeader, "p", "", records),
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
        Made::new(EntryType::XHeader, "p", "", record.as_bytes()),
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
    let directory = Made::new(EntryType::Directory, "file/", "", b"");
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
        Made::new(EntryType::Directory, "elsewhere/", "", b""),
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
            (root_of(&target.root).as_fd(), RootOf::Program),
            "/",
            &IdView::identity(),
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
    let header = [Made::new(EntryType::XHeader, "p", "", &[b' '; 600])];
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
    let mut header = Made::new(EntryType::XHeader, "p", "", b"");
    header.header.set_size(8 * 1024 * 1024 * 1024);
    let header = header.bytes();
    let input = Read::chain(&header[..], std::io::repeat(b'x')).take(1 << 40);
    let result = unpack(
        (root_of(&target.root).as_fd(), RootOf::Program),
        "/",
        &IdView::identity(),
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
        (root.as_fd(), RootOf::Program),
        "/",
        &IdView::identity(),
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
        Made::new(EntryType::Directory, "./", "", b""),
        Made::file("./x", b"1"),
        Made::new(EntryType::Link, "y", "x", b""),
    ]);
    unpack_into(&target.root, "/sub", &input).unwrap();
    assert_eq!(target.root.join("sub/x").metadata().unwrap().nlink(), 2);
}

#[test]
fn attributes_that_steer_overlayfs_are_not_taken() {
    let target = Target::new();
    let record = b"36 SCHILY.xattr.trusted.overlay.x=y\n";
    let entries = [
        Made::new(EntryType::XHeader, "p", "", record),
        Made::file("x", b"x"),
    ];
    assert_eq!(record.len(), 36);
    target.unpack(&entries).unwrap();
    assert_eq!(xattrs(&target.root.join("x")), BTreeMap::new());
}

#[test]
fn a_link_that_is_exchanged_for_something_else_gives_its_owner_to_nobody() {
    use std::sync::atomic::{AtomicBool, Ordering};

    // Somebody inside puts a file of his own in the place of each link as soon as it is made.
    let target = Target::new();
    let ends = AtomicBool::new(false);
    let (spare, victim) = (target.root.join("spare"), target.root.join("l"));
    let mut link = Made::symlink("l", "x");
    link.header.set_uid(1234);
    let stolen = std::thread::scope(|scope| {
        let exchange = scope.spawn(|| {
            let mut stolen = 0;
            while !ends.load(Ordering::Relaxed) {
                fs::write(&spare, b"x").unwrap();
                let owner = File::open(&spare).unwrap();
                let _raced = fs::rename(&spare, &victim);
                std::thread::yield_now();
                stolen += u32::from(owner.metadata().unwrap().uid() == 1234);
            }
            stolen
        });
        let until = std::time::Instant::now() + std::time::Duration::from_secs(2);
        while std::time::Instant::now() < until {
            let _raced = target.unpack(std::slice::from_ref(&link));
        }
        ends.store(true, Ordering::Relaxed);
        exchange.join().unwrap()
    });
    assert_eq!(stolen, 0);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn no_archive_makes_unpacking_panic(
        bytes in proptest::collection::vec(any::<u8>(), 0..3000),
        flips in proptest::collection::vec((0usize..4000, any::<u8>()), 0..8),
    ) {
        let target = Target::new();
        let _ = unpack_into(&target.root, "/", &bytes);
        let mut almost = archive(&[
            Made::new(EntryType::XHeader, "p", "", b"12 path=abc\n"),
            Made::file("a", b"123"),
            Made::symlink("b", "a"),
            Made::new(EntryType::Link, "c", "a", b""),
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

/// A directory that is mounted in another place until it is dropped.
struct Mounted {
    at: PathBuf,
    _directory: tempfile::TempDir,
}

impl Mounted {
    fn bind(directory: tempfile::TempDir, at: PathBuf) -> Self {
        rustix::mount::mount_bind(directory.path(), &at).unwrap();
        Self {
            at,
            _directory: directory,
        }
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        rustix::mount::unmount(&self.at, rustix::mount::UnmountFlags::DETACH).unwrap();
    }
}

/// The root of a container on the host.
const ROOT: u32 = 700_000;

fn of_a_container() -> IdView {
    let line = IdMap {
        container_id: 0,
        host_id: ROOT,
        size: 1000,
    };
    IdView::new(Some(IdMaps {
        uid: vec![line],
        gid: vec![line],
    }))
}

#[test]
fn a_container_has_only_the_rights_of_its_own_root_over_files_of_the_host() {
    let ids = of_a_container();
    let target = Target::new();
    // A volume that is not id mapped.
    fs::create_dir(target.root.join("v")).unwrap();
    let volume = Mounted::bind(tempfile::tempdir().unwrap(), target.root.join("v"));
    let at = |name: &str| volume.at.join(name);
    let make = |name: &str, owner: u32, mode: u32| {
        fs::create_dir(at(name)).unwrap();
        chown(at(name), Some(owner), Some(owner)).unwrap();
        fs::set_permissions(at(name), Permissions::from_mode(mode)).unwrap();
    };
    make("hosts", 0, 0o755);
    make("everybodys", 0, 0o777);
    make("its", ROOT + 7, 0o700);
    fs::create_dir(target.root.join("unmapped")).unwrap();
    fs::write(at("hosts/file"), "the host's").unwrap();
    chown(&target.root, Some(ROOT), Some(ROOT)).unwrap();
    let unpack = |made: Made, of: RootOf| {
        let archive = archive(&[made]);
        unpack(
            (root_of(&target.root).as_fd(), of),
            "/",
            &ids,
            &archive[..],
            &Bounds::default(),
        )
    };
    let before = listing(&at("hosts"));
    for (refused, errno) in [
        (Made::file("v/hosts/new", b"x"), Errno::ACCESS),
        (Made::file("v/hosts/file", b"x"), Errno::ACCESS),
        (Made::file("v/hosts/new/deep", b"x"), Errno::ACCESS),
        (Made::symlink("v/hosts/file", "x"), Errno::ACCESS),
        (
            Made::new(EntryType::Directory, "v/hosts", "", b""),
            Errno::PERM,
        ),
        (
            Made::new(EntryType::Link, "v/hosts/link", "v/its/file", b""),
            Errno::PERM,
        ),
        (
            Made::new(EntryType::Link, "v/its/link", "v/hosts/file", b""),
            Errno::ACCESS,
        ),
    ] {
        fs::write(at("its/file"), "its own").unwrap();
        chown(at("its/file"), Some(ROOT + 7), Some(ROOT + 7)).unwrap();
        let error = unpack(refused, RootOf::Stopped).unwrap_err();
        let FileError::Refused { source, .. } = &error else {
            panic!("{error:?}");
        };
        assert_eq!(
            source.raw_os_error(),
            Some(errno.raw_os_error()),
            "{error:?}"
        );
        assert_eq!(listing(&at("hosts")), before);
    }
    for allowed in ["v/everybodys/new", "v/its/new", "unmapped/new", "new/deep"] {
        unpack(Made::file(allowed, b"x"), RootOf::Stopped).unwrap();
        let made = fs::metadata(target.root.join(allowed)).unwrap();
        assert_eq!(made.uid(), ROOT, "{allowed}");
    }
    // A directory that only its owner may read, in one of the host's.
    let listed = Made::new(EntryType::Directory, "v/hosts/its", "", b"");
    make("hosts/its", ROOT + 7, 0o700);
    unpack(listed, RootOf::Program).unwrap();
    // A program may have chosen a directory of the host for its root.
    unpack(Made::file("unmapped/other", b"x"), RootOf::Program).unwrap_err();
}

#[test]
fn a_hard_link_is_to_the_file_that_was_judged() {
    use std::sync::atomic::{AtomicBool, Ordering};

    let target = Target::new();
    fs::create_dir(target.root.join("v")).unwrap();
    let volume = Mounted::bind(tempfile::tempdir().unwrap(), target.root.join("v"));
    let at = |name: &str| volume.at.join(name);
    for (name, owner) in [("its", ROOT), ("hosts", 0)] {
        fs::write(at(name), "").unwrap();
        chown(at(name), Some(owner), Some(owner)).unwrap();
        fs::set_permissions(at(name), Permissions::from_mode(0o600)).unwrap();
    }
    for directory in [&target.root, &volume.at] {
        chown(directory, Some(ROOT), Some(ROOT)).unwrap();
    }
    let hosts = File::open(at("hosts")).unwrap();
    let link = archive(&[Made::new(EntryType::Link, "v/link", "v/its", b"")]);
    let ends = AtomicBool::new(false);
    let (mut made, mut refused) = (0, 0);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let exchange = rustix::fs::RenameFlags::EXCHANGE;
            while !ends.load(Ordering::Relaxed) {
                rustix::fs::renameat_with(CWD, at("its"), CWD, at("hosts"), exchange).unwrap();
            }
        });
        let until = std::time::Instant::now() + std::time::Duration::from_secs(2);
        while std::time::Instant::now() < until && hosts.metadata().unwrap().nlink() == 1 {
            let root = root_of(&target.root);
            let (root, ids) = ((root.as_fd(), RootOf::Stopped), of_a_container());
            match unpack(root, "/", &ids, &link[..], &Bounds::default()) {
                Ok(()) => made += 1,
                Err(_) => refused += 1,
            }
            let _none = fs::remove_file(at("link"));
        }
        ends.store(true, Ordering::Relaxed);
    });
    assert_eq!(
        hosts.metadata().unwrap().nlink(),
        1,
        "a link to the host's file"
    );
    assert!(made > 0 && refused > 0, "{made} made, {refused} refused");
}
