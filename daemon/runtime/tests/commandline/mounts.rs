//! Whose mount namespace a container lives in, and options of whole trees of mounts.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};

use crate::support::{Bed, wait_until};
use rustix::thread::{CpuSet, sched_getcpu, sched_setaffinity};
use serde_json::json;

const SCRIPT: &str = "readlink /proc/self/ns/mnt; cat /proc/kcore | head -c1; \
                      cat /volume/file; echo 2>/dev/null >/etc/new || echo sealed; \
                      echo done; exec sleep 100";

/// A container with a bind, without a mount namespace of its own.
fn bed_without_mounts(script: &str) -> Bed {
    let mut bed = Bed::new(script);
    fs::create_dir(bed.path("volume")).unwrap();
    fs::write(bed.path("volume/file"), "volume\n").unwrap();
    let volume = json!({"destination": "/volume", "type": "bind", "source": bed.path("volume"), "options": ["rbind", "rprivate"]});
    bed.config["mounts"].as_array_mut().unwrap().push(volume);
    let namespaces = &mut bed.config["linux"]["namespaces"];
    let own = |namespace: &serde_json::Value| namespace["type"] == "mount";
    namespaces.as_array_mut().unwrap().retain(|n| !own(n));
    bed.config["linux"]["readonlyPaths"] = json!(["/etc"]);
    bed
}

/// Mounts of a process that have to do with the test.
fn mounts_of(process: &str, bed: &Bed) -> Vec<String> {
    let all = fs::read_to_string(format!("/proc/{process}/mountinfo")).unwrap();
    let words = [bed.path("").to_str().unwrap().to_owned(), bed.id.clone()];
    all.lines()
        .filter(|line| words.iter().any(|word| line.contains(word.as_str())))
        .map(str::to_owned)
        .collect()
}

#[test]
fn without_a_mount_namespace_a_container_lives_in_the_hosts_and_mounts_nothing_there() {
    let bed = bed_without_mounts(SCRIPT);
    bed.create().ok();
    bed.start().ok();
    let host = fs::read_link("/proc/self/ns/mnt").unwrap();
    let host = host.to_str().unwrap();
    assert!(wait_until(|| bed.output().ends_with("done\n")));
    assert_eq!(bed.output(), format!("{host}\nvolume\nsealed\ndone\n"));
    assert_eq!(mounts_of("self", &bed), Vec::<String>::new());

    // An exec finds itself among the same files.
    let exec = "readlink /proc/self/ns/mnt; cat /volume/file; ls /";
    let seen = bed.run(&["exec", &bed.id, "sh", "-c", exec]).ok();
    let root = "bin\ndev\netc\nproc\nsys\ntmp\nvolume\n";
    assert_eq!(seen, format!("{host}\nvolume\n{root}"));
    bed.run(&["kill", &bed.id, "KILL"]).ok();
    bed.wait_for("stopped");
    bed.delete().ok();
}

#[test]
fn no_way_leads_above_the_root_that_is_in_no_mount_namespace() {
    // A descriptor from outside of a second root is the classic way out of a chroot.
    let escape = "exec 9</; busybox chroot /inner /bin/ls /proc/self/fd/9/../../..";
    let mut bed = bed_without_mounts(escape);
    let bin = bed.rootfs().join("bin");
    let mounts = bed.config["mounts"].as_array_mut().unwrap();
    mounts.push(json!({"destination": "/inner/proc", "type": "proc"}));
    mounts.push(
        json!({"destination": "/inner/bin", "type": "bind", "source": bin, "options": ["bind"]}),
    );
    for set in ["bounding", "permitted", "effective"] {
        let set = &mut bed.config["process"]["capabilities"][set];
        set.as_array_mut().unwrap().push(json!("CAP_SYS_CHROOT"));
    }
    let ran = bed.run_container();
    assert_eq!(ran.ok(), "bin\ndev\netc\ninner\nproc\nsys\ntmp\nvolume\n");
}

#[test]
fn a_terminal_works_without_a_mount_namespace() {
    let mut bed = bed_without_mounts("busybox tty; test -c /dev/console && stty size");
    bed.config["process"]["terminal"] = json!(true);
    bed.config["process"]["consoleSize"] = json!({"height": 11, "width": 22});
    assert_eq!(bed.run_container().ok(), "/dev/pts/0\n11 22\n");
}

/// A process with a mount namespace of its own, which ends with the test.
struct Other(Child);

impl Other {
    fn new() -> Other {
        let mut command = Command::new("unshare");
        command.args(["--mount", "sh", "-c", "echo; exec sleep 1000"]);
        let mut child = command
            .process_group(0)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        // It has unshared when it speaks.
        let mut word = [0];
        std::io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut word).unwrap();
        Other(child)
    }

    fn path(&self, file: &str) -> String {
        format!("/proc/{}/{file}", self.0.id())
    }
}

impl Drop for Other {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

#[test]
fn a_mount_namespace_by_a_path_is_entered_and_left_as_it_is() {
    let other = Other::new();
    let before = fs::read_to_string(other.path("mountinfo")).unwrap();
    let mut bed = bed_without_mounts(SCRIPT);
    let namespaces = bed.config["linux"]["namespaces"].as_array_mut().unwrap();
    namespaces.push(json!({"type": "mount", "path": other.path("ns/mnt")}));
    bed.create().ok();
    bed.start().ok();
    assert!(wait_until(|| bed.output().ends_with("done\n")));
    let given = fs::read_link(other.path("ns/mnt")).unwrap();
    let given = given.to_str().unwrap();
    assert_eq!(bed.output(), format!("{given}\nvolume\nsealed\ndone\n"));
    let exec = bed.run(&[
        "exec",
        &bed.id,
        "sh",
        "-c",
        "readlink /proc/self/ns/mnt; cat /volume/file",
    ]);
    assert_eq!(exec.ok(), format!("{given}\nvolume\n"));
    let after = fs::read_to_string(other.path("mountinfo")).unwrap();
    assert_eq!(after, before);
    assert_eq!(mounts_of("self", &bed), Vec::<String>::new());
}

#[test]
fn what_takes_a_mount_namespace_of_its_own_is_refused_without_one() {
    let map = json!([{"containerID": 0, "hostID": 100_000, "size": 1000}]);
    type Change = Box<dyn Fn(&mut Bed)>;
    let cases: [(&str, Change); 3] = [
        (
            "/linux/namespaces",
            Box::new(move |bed| {
                let linux = &mut bed.config["linux"];
                linux["uidMappings"] = map.clone();
                linux["gidMappings"] = map.clone();
                let list = linux["namespaces"].as_array_mut().unwrap();
                list.push(json!({"type": "user"}));
            }),
        ),
        (
            "/linux/rootfsPropagation",
            Box::new(|bed| bed.config["linux"]["rootfsPropagation"] = json!("rslave")),
        ),
        (
            "/mounts/3/options",
            Box::new(|bed| bed.config["mounts"][3]["options"] = json!(["rbind", "rshared"])),
        ),
    ];
    for (pointer, change) in cases {
        let mut bed = bed_without_mounts("true");
        change(&mut bed);
        let refused = bed.create().error();
        assert!(refused.contains(pointer), "{pointer}: {refused}");
        assert!(refused.contains("mount namespace of its own"), "{refused}");
        bed.assert_nothing_left();
    }
}

/// What the program of a container can do in `/m`, a bind with these options of a directory with a
/// mount below it, which is `nosuid,noexec`.
fn bound(options: &[&str]) -> String {
    bound_from("", options)
}

/// The same of what is at a path in that directory.
fn bound_from(source: &str, options: &[&str]) -> String {
    let script = "for at in /m /m/below; do \
                      echo 2>/dev/null >$at/new && echo $at written; \
                      $at/busybox true 2>/dev/null && echo $at executed; done; true";
    let mut bed = Bed::new(script);
    let (top, below) = (bed.path("top"), bed.path("below"));
    for at in [&top, &below] {
        fs::create_dir(at).unwrap();
        fs::copy("/bin/busybox", at.join("busybox")).unwrap();
    }
    fs::create_dir(top.join("below")).unwrap();
    let mount = json!({"destination": "/m", "type": "bind", "source": top.join(source), "options": options});
    bed.config["mounts"].as_array_mut().unwrap().push(mount);
    let script = "mount --bind below top/below && mount -o remount,bind,nosuid,noexec top/below";
    bed.run_after(script).ok()
}

#[test]
fn options_of_a_tree_and_of_its_top_stand_together() {
    // The word alone leaves the mount below as it is.
    assert_eq!(bound(&["rbind", "ro"]), "/m executed\n/m/below written\n");
    // Of its own the top is noexec; the whole tree is read-only.
    assert_eq!(bound(&["rbind", "rro", "noexec"]), "");
    // A word that takes an attribute from the whole tree.
    assert_eq!(
        bound(&["rbind", "ro", "rexec"]),
        "/m executed\n/m/below written\n/m/below executed\n"
    );
    assert_eq!(
        bound(&["rbind", "noexec", "rexec", "rro"]),
        "/m executed\n/m/below executed\n"
    );
}

#[test]
fn words_that_clear_take_attributes_from_a_bind() {
    let executed = "/m written\n/m executed\n";
    assert_eq!(bound_from("below", &["bind"]), "/m written\n");
    assert_eq!(bound_from("below", &["bind", "exec"]), executed);
    assert_eq!(bound_from("below", &["bind", "noexec", "exec"]), executed);
    assert_eq!(bound_from("below", &["rbind", "exec", "suid"]), executed);
    assert_eq!(
        bound_from("below", &["bind", "exec", "noexec"]),
        "/m written\n"
    );
}

#[test]
fn bind_beside_rbind_takes_nothing_from_it() {
    assert_eq!(bound(&["rbind", "bind", "rro"]), "/m executed\n");
    assert_eq!(bound(&["bind", "ro"]), "/m executed\n");
    assert_eq!(
        bound(&["rbind", "bind", "ro"]),
        "/m executed\n/m/below written\n"
    );
}

/// A mount namespace can be kept by a file in an older one alone. Linux 6.18 goes by their numbers, of
/// which each CPU has a supply of its own: only on one CPU is the younger one's always the higher.
fn on_one_cpu() {
    let mut this = CpuSet::new();
    this.set(sched_getcpu());
    sched_setaffinity(None, &this).unwrap();
}

#[test]
fn a_tree_with_a_file_that_keeps_a_mount_namespace_can_be_bound() {
    let mut bed = Bed::new("cat /tree/file; test -e /tree/kept/ns && echo there");
    fs::create_dir_all(bed.path("tree/kept")).unwrap();
    fs::write(bed.path("tree/file"), "bound\n").unwrap();
    fs::write(bed.path("tree/kept/ns"), "").unwrap();
    let bind = json!({"destination": "/tree", "type": "bind", "source": bed.path("tree"), "options": ["rbind"]});
    bed.config["mounts"].as_array_mut().unwrap().push(bind);
    on_one_cpu();
    // The namespace is there when its first process says so.
    let script = "mount --bind tree/kept tree/kept && mount --make-private tree/kept && mkfifo there && \
                  { unshare --mount sh -c 'echo >there; exec sleep 1000' >/dev/null 2>&1 & } && \
                  read _ <there; mount --bind /proc/$!/ns/mnt tree/kept/ns; kept=$?; kill $!; wait; \
                  test $kept = 0";
    assert_eq!(bed.run_after(script).ok(), "bound\nthere\n");
}

#[test]
fn a_source_below_the_root_is_what_the_mounts_before_have_made_of_it() {
    let script = "echo new >/scratch/sub/new; cat /seen/new /whole/sub/new; \
                  ls /before; echo x 2>/dev/null >/seen/x || echo sealed";
    let mut bed = Bed::new(script);
    let scratch = bed.rootfs().join("scratch");
    fs::create_dir_all(scratch.join("sub")).unwrap();
    fs::write(scratch.join("sub/image"), "").unwrap();
    let bind = |from: &std::path::Path, to: &str, option: &str| json!({"destination": to, "type": "bind", "source": from, "options": ["rbind", option]});
    let mounts = bed.config["mounts"].as_array_mut().unwrap();
    mounts.push(bind(&scratch.join("sub"), "/before", "ro"));
    mounts.push(json!({"destination": "/scratch", "type": "tmpfs", "options": ["tmpcopyup"]}));
    mounts.push(bind(&scratch.join("sub"), "/seen", "ro"));
    mounts.push(bind(&scratch, "/whole", "rw"));
    let seen = bed.run_container().ok();
    assert_eq!(seen, "new\nnew\nimage\nsealed\n");
    assert!(!scratch.join("sub/new").exists());
}

#[test]
fn a_tmpfs_starts_with_no_copy_of_what_a_link_into_sysfs_leads_to() {
    let mut bed = Bed::new("ls /data");
    std::os::unix::fs::symlink("/sys/kernel", bed.rootfs().join("data")).unwrap();
    let mounts = bed.config["mounts"].as_array_mut().unwrap();
    mounts.push(json!({"destination": "/sys", "type": "sysfs", "options": ["ro"]}));
    mounts.push(json!({"destination": "/data", "type": "tmpfs", "options": ["tmpcopyup"]}));
    let refused = bed.run_container().error();
    assert!(refused.contains("link into /sys"), "{refused}");
}

#[test]
fn a_tmpfs_without_a_mode_has_that_of_the_directory_below() {
    let mut bed = Bed::new("for at in /own /none /said; do busybox stat -c %a $at; done");
    let mode = |mode| std::os::unix::fs::PermissionsExt::from_mode(mode);
    for name in ["own", "said"] {
        let directory = bed.rootfs().join(name);
        fs::create_dir(&directory).unwrap();
        fs::set_permissions(directory, mode(0o2751)).unwrap();
    }
    let mounts = bed.config["mounts"].as_array_mut().unwrap();
    for (at, options) in [
        ("/own", json!([])),
        ("/none", json!(["ro"])),
        ("/said", json!(["mode=700"])),
    ] {
        mounts.push(json!({"destination": at, "type": "tmpfs", "options": options}));
    }
    assert_eq!(bed.run_container().ok(), "2751\n1777\n700\n");
}

#[test]
fn mounts_on_dangling_links_are_made_inside_the_root() {
    let mut bed =
        Bed::new("cat /etc/resolv.conf /run/systemd/stub; echo x >/var/run/x; ls /run/deep; pwd");
    let root = bed.rootfs();
    let link = |to: &str, at: &str| std::os::unix::fs::symlink(to, root.join(at)).unwrap();
    let outside = bed.path("outside");
    fs::create_dir(root.join("var")).unwrap();
    link("../run/systemd/stub", "etc/resolv.conf");
    link("/../../run/deep", "var/run");
    link(outside.to_str().unwrap(), "work");
    let resolv = bed.path("resolv");
    fs::write(&resolv, "nameserver\n").unwrap();
    let mounts = bed.config["mounts"].as_array_mut().unwrap();
    mounts.push(json!({"destination": "/etc/resolv.conf", "type": "bind", "source": resolv, "options": ["bind"]}));
    mounts.push(json!({"destination": "/var/run", "type": "tmpfs"}));
    bed.config["process"]["cwd"] = json!("/work/below");
    bed.config["root"]["readonly"] = json!(true);
    let expected = format!("nameserver\nnameserver\nx\n{}/below\n", outside.display());
    assert_eq!(bed.run_container().ok(), expected);
    assert!(!outside.exists());
}

#[test]
fn devices_are_made_wherever_a_spec_has_them() {
    let mut bed = Bed::new(
        "test -c /data/null && echo x >/data/null && busybox stat -c '%a %u:%g' /data/null /fifo",
    );
    fs::create_dir(bed.rootfs().join("data")).unwrap();
    bed.config["linux"]["devices"] = json!([
        {"path": "/data/null", "type": "c", "major": 1, "minor": 3, "fileMode": 0o646, "uid": 7, "gid": 8},
        {"path": "/fifo", "type": "p", "fileMode": 0o600},
    ]);
    bed.config["linux"]["resources"]["devices"] = json!([
        {"allow": false, "access": "rwm"}, {"allow": true, "type": "c", "major": 1, "minor": 3, "access": "rwm"}
    ]);
    // A second time the nodes are there already.
    for _ in 0..2 {
        assert_eq!(bed.run_container().ok(), "646 7:8\n600 0:0\n");
    }
    fs::remove_file(bed.rootfs().join("data/null")).unwrap();
    fs::write(bed.rootfs().join("data/null"), "").unwrap();
    let refused = bed.run_container().error();
    assert!(
        refused.contains("something else than the device"),
        "{refused}"
    );
}

#[test]
fn the_callers_null_device_is_out_of_reach() {
    // Without a /dev of its own the container has its caller's.
    let mut bed =
        Bed::new("chmod 600 /proc/self/fd/0; chown 7 /proc/self/fd/1; cat; echo written >&2");
    bed.config["mounts"].as_array_mut().unwrap().truncate(1);
    std::os::unix::fs::symlink("/nowhere", bed.rootfs().join("dev/null")).unwrap();
    for set in ["bounding", "permitted", "effective"] {
        let set = &mut bed.config["process"]["capabilities"][set];
        set.as_array_mut().unwrap().push(json!("CAP_FOWNER"));
    }
    for applet in ["chmod", "chown"] {
        std::os::unix::fs::symlink("busybox", bed.rootfs().join("bin").join(applet)).unwrap();
    }
    // Of the test's own, not the host's.
    let script =
        "mknod -m 666 null c 1 3 && mount --bind null /dev/null && exec </dev/null >/dev/null";
    let ran = bed.run_after(script);
    assert_eq!(ran.code, Some(0), "{ran:?}");
    assert!(ran.stderr.contains("written"), "{ran:?}");
    assert_eq!(
        ran.stderr.matches("Read-only file system").count(),
        2,
        "{ran:?}"
    );
    let meta = fs::metadata(bed.path("null")).unwrap();
    assert_eq!((meta.mode() & 0o7777, meta.uid()), (0o666, 0));
}

#[test]
fn a_path_is_masked_once_however_often_it_is_listed() {
    let mut bed = Bed::new("grep -c ' /masked ' /proc/self/mountinfo");
    fs::create_dir(bed.rootfs().join("masked")).unwrap();
    bed.config["linux"]["maskedPaths"] = json!(["/masked", "/proc/kcore", "/masked"]);
    assert_eq!(bed.run_container().ok(), "1\n");
}

#[test]
fn a_destination_with_the_roots_path_before_it_is_in_the_container() {
    let mut bed = Bed::new("grep -c ' /inside ' /proc/self/mountinfo");
    let destination = bed.rootfs().join("inside");
    let mounts = bed.config["mounts"].as_array_mut().unwrap();
    mounts.push(json!({"destination": destination, "type": "tmpfs", "source": "tmpfs"}));
    assert_eq!(bed.run_container().ok(), "1\n");
}
