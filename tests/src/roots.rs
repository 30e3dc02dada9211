//! Root filesystems made once and kept: Debian's busybox, and a Debian made by mmdebstrap.

use std::fs::{self, File, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::fs::{FlockOperation, flock};

/// Counts changes of what the functions below make, so that an old cache is not used.
const VERSION: u32 = 2;

const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\n\
    daemon:x:1:1:daemon:/usr/sbin:/bin/false\n\
    user:x:1000:1000:a user:/home/user:/bin/sh\n";
const GROUP: &str = "root:x:0:\ndaemon:x:1:\nwheel:x:10:user\nusers:x:100:user,root\n\
    audio:x:29:\nuser:x:1000:\n";

/// Where the roots are kept: `LITTLEBOX_TEST_CACHE`, or `.cache` beside this package.
pub fn cache_dir() -> PathBuf {
    std::env::var_os("LITTLEBOX_TEST_CACHE").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join(".cache"),
        PathBuf::from,
    )
}

/// A directory with Debian's static busybox and links to it, a passwd and a group file. Use it
/// read-only: it is shared by all tests.
pub fn busybox_root() -> PathBuf {
    cached("busybox", make_busybox)
}

/// Debian 12, `mmdebstrap --variant=minbase`. Use it read-only: it is shared by all tests.
pub fn debian_root() -> PathBuf {
    cached("debian", make_debian)
}

fn cached(name: &str, make: fn(&Path)) -> PathBuf {
    let cache = cache_dir();
    fs::create_dir_all(&cache).expect("the cache directory can be made");
    let done = cache.join(format!("{name}-{VERSION}"));
    let lock = File::create(cache.join(format!("{name}.lock"))).unwrap();
    flock(&lock, FlockOperation::LockExclusive).unwrap();
    if done.is_dir() {
        return done;
    }
    let making = tempfile::Builder::new()
        .prefix(name)
        .permissions(Permissions::from_mode(0o755))
        .tempdir_in(&cache)
        .unwrap();
    make(making.path());
    fs::rename(making.keep(), &done).unwrap();
    done
}

fn make_busybox(root: &Path) {
    let source = ["/usr/bin/busybox", "/bin/busybox"]
        .into_iter()
        .find(|p| Path::new(p).exists())
        .expect("busybox is missing: apt-get install busybox-static");
    for dir in [
        "bin",
        "dev",
        "etc",
        "home/user",
        "proc",
        "root",
        "run",
        "sys",
        "tmp",
        "usr/bin",
        "var/log",
    ] {
        fs::create_dir_all(root.join(dir)).unwrap();
    }
    fs::set_permissions(root.join("tmp"), Permissions::from_mode(0o1777)).unwrap();
    fs::copy(source, root.join("bin/busybox")).unwrap();
    fs::write(root.join("etc/passwd"), PASSWD).unwrap();
    fs::write(root.join("etc/group"), GROUP).unwrap();
    fs::write(root.join("etc/motd"), "welcome\n").unwrap();
    run(Command::new("chroot")
        .arg(root)
        .args(["/bin/busybox", "--install", "-s", "/bin"]));
}

fn make_debian(root: &Path) {
    let tar = root.with_extension("tar");
    run(Command::new("mmdebstrap")
        .args(["--quiet", "--variant=minbase", "bookworm"])
        .arg(&tar));
    run(Command::new("tar")
        .args(["--numeric-owner", "--exclude=./dev/*", "-xf"])
        .arg(&tar)
        .arg("-C")
        .arg(root));
    fs::remove_file(&tar).unwrap();
}

/// Runs a command that must succeed.
#[track_caller]
pub fn run(command: &mut Command) {
    match command.output() {
        Ok(out) if out.status.success() => {}
        Ok(out) => panic!(
            "{command:?}: {}: {}",
            out.status,
            String::from_utf8_lossy(&out.stderr)
        ),
        Err(e) => panic!("{command:?}: {e}"),
    }
}
