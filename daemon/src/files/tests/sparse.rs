//! Holes, and files that are not what they seem.

use std::io::{Seek, SeekFrom, Write};
use std::process::{Command, Stdio};

use super::*;

const GIB: u64 = 1 << 30;

/// A file of 2 GiB with two words in it.
fn holes(path: &Path) {
    let mut file = File::create(path).unwrap();
    file.write_all(b"begin").unwrap();
    file.seek(SeekFrom::Start(GIB)).unwrap();
    file.write_all(b"middle").unwrap();
    file.set_len(2 * GIB).unwrap();
}

fn assert_holes(path: &Path) {
    let metadata = path.metadata().unwrap();
    assert_eq!(metadata.len(), 2 * GIB);
    assert!(metadata.blocks() < 1024, "{} blocks", metadata.blocks());
    let mut file = File::open(path).unwrap();
    let mut read = |at: u64, len: usize| {
        let mut bytes = vec![0; len];
        file.seek(SeekFrom::Start(at)).unwrap();
        std::io::Read::read_exact(&mut file, &mut bytes).unwrap();
        bytes
    };
    assert_eq!(read(0, 6), b"begin\0");
    assert_eq!(read(GIB, 7), b"middle\0");
    assert_eq!(read(2 * GIB - 1, 1), b"\0");
}

#[test]
fn holes_stay_holes() {
    let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    fs::create_dir(from.path().join("d")).unwrap();
    holes(&from.path().join("d/holes"));
    File::create(from.path().join("d/nothing"))
        .unwrap()
        .set_len(2 * GIB)
        .unwrap();
    let archive = pack_path(from.path(), "/d").unwrap();
    assert!(archive.len() < 64 * 1024, "{} bytes", archive.len());
    unpack_into(to.path(), "/", &archive).unwrap();
    assert_holes(&to.path().join("d/holes"));
    let nothing = to.path().join("d/nothing").metadata().unwrap();
    assert_eq!((nothing.len(), nothing.blocks()), (2 * GIB, 0));

    let tar = tempfile::tempdir().unwrap();
    let mut child = Command::new("tar")
        .args(["-xf", "-", "-C"])
        .arg(tar.path())
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(&archive).unwrap();
    assert!(child.wait().unwrap().success());
    assert_holes(&tar.path().join("d/holes"));
    assert_eq!(
        tar.path().join("d/nothing").metadata().unwrap().len(),
        2 * GIB
    );
}

#[test]
fn a_file_of_many_parts_is_the_same_again() {
    let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let mut file = File::create(from.path().join("many")).unwrap();
    for n in 0..200u64 {
        file.seek(SeekFrom::Start(n * 65_536)).unwrap();
        file.write_all(&n.to_le_bytes()).unwrap();
    }
    drop(file);
    let archive = pack_path(from.path(), "/many").unwrap();
    unpack_into(to.path(), "/", &archive).unwrap();
    let read = |top: &Path| fs::read(top.join("many")).unwrap();
    assert!(read(from.path()) == read(to.path()));
}

#[test]
fn sparse_archives_of_gnu_tar_are_unpacked() {
    let from = tempfile::tempdir().unwrap();
    holes(&from.path().join("holes"));
    for format in [
        &["--format=gnu"][..],
        &["--format=posix", "--sparse-version=1.0"],
    ] {
        let made = Command::new("tar")
            .args(["-cSf", "-", "-C"])
            .arg(from.path())
            .args(format)
            .arg("holes")
            .output()
            .unwrap();
        assert!(made.status.success());
        let to = tempfile::tempdir().unwrap();
        unpack_into(to.path(), "/", &made.stdout).unwrap();
        assert_holes(&to.path().join("holes"));
    }
    let old = Command::new("tar")
        .args(["-cSf", "-", "-C"])
        .arg(from.path())
        .args(["--format=posix", "--sparse-version=0.1", "holes"])
        .output()
        .unwrap();
    let to = tempfile::tempdir().unwrap();
    let refused = unpack_into(to.path(), "/", &old.stdout).unwrap_err();
    assert!(
        refused.to_string().contains("--sparse-version=1.0"),
        "{refused}"
    );
}

#[test]
fn a_compressed_archive_is_told_as_what_it_is() {
    let to = tempfile::tempdir().unwrap();
    for (magic, name) in [
        (&b"\x1f\x8b\x08"[..], "gzip"),
        (b"\xfd7zXZ\0", "xz"),
        (b"\x28\xb5\x2f\xfd", "zstd"),
        (b"BZh9", "bzip2"),
    ] {
        let mut bytes = magic.to_vec();
        bytes.resize(2048, 7);
        let text = unpack_into(to.path(), "/", &bytes).unwrap_err().to_string();
        assert!(text.contains(name), "{text}");
    }
}

/// Holds a write lease on a file until it is dropped (fcntl(2), F_SETLEASE).
struct Leased(std::process::Child);

impl Leased {
    fn new(path: &Path) -> Self {
        let script = "import fcntl, signal, sys\n\
             signal.signal(signal.SIGIO, signal.SIG_IGN)\n\
             file = open(sys.argv[1], 'r+')\n\
             fcntl.fcntl(file, fcntl.F_SETLEASE, fcntl.F_WRLCK)\n\
             print('leased', flush=True)\n\
             sys.stdin.read()";
        let mut child = Command::new("python3")
            .args(["-c", script])
            .arg(path)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut said = [0; 7];
        let out = child.stdout.as_mut().unwrap();
        std::io::Read::read_exact(out, &mut said).unwrap();
        Self(child)
    }
}

impl Drop for Leased {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        self.0.wait().unwrap();
    }
}

#[test]
fn a_leased_file_is_left_out_and_the_others_are_not() {
    let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    fs::create_dir(from.path().join("d")).unwrap();
    for name in ["a", "b", "leased"] {
        fs::write(from.path().join("d").join(name), name).unwrap();
    }
    let lease = Leased::new(&from.path().join("d/leased"));
    let mut archive = Vec::new();
    let packing = pack(root_of(from.path()).as_fd(), "/d", &IdView::identity());
    let left_out = packing.unwrap().write(&mut archive).unwrap();
    assert_eq!(left_out.len(), 1);
    assert!(left_out[0].starts_with("d/leased: "), "{left_out:?}");
    let alone = pack_path(from.path(), "/d/leased");
    assert!(matches!(alone, Err(FileError::Refused { .. })), "{alone:?}");
    drop(lease);
    unpack_into(to.path(), "/", &archive).unwrap();
    assert!(to.path().join("d/a").exists() && to.path().join("d/b").exists());
    assert!(!to.path().join("d/leased").exists());
    let bounds = Bounds::default();
    let mut reader = littlebox_archive::Reader::new(&archive[..], &bounds);
    while reader.next_entry().unwrap().is_some() {}
    assert_eq!(reader.left_out(), left_out);
}

#[test]
fn a_file_larger_than_any_here_is_too_large_and_no_fault() {
    let target = Target::new();
    let at = i64::MAX - 1;
    let mut map = format!("1\n{at}\n1\n").into_bytes();
    map.resize(512, 0);
    map.push(b'x');
    let records = b"22 GNU.sparse.major=1\n22 GNU.sparse.minor=0\n43 GNU.sparse.realsize=9223372036854775807\n";
    let result = target.unpack(&[
        Made::new(::tar::EntryType::XHeader, "p", "", records),
        Made::file("x", &map),
    ]);
    let Err(FileError::Refused { source, .. }) = result else {
        panic!("{result:?}");
    };
    let expected = rustix::io::Errno::FBIG.raw_os_error();
    assert_eq!(source.raw_os_error(), Some(expected));
}
