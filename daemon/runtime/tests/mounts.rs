//! Whose mount namespace a container lives in, and options of whole trees of mounts.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

mod support;

use std::fs;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};

use serde_json::json;
use support::{Bed, wait_until};

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
    assert_eq!(bed.run_container().ok(), "/dev/pts/0\r\n11 22\r\n");
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
    let mount = json!({"destination": "/m", "type": "bind", "source": top, "options": options});
    bed.config["mounts"].as_array_mut().unwrap().push(mount);
    bed.write_config();
    // The host's mounts are those of a namespace of the test's own.
    let script = "mount --bind \"$1\" \"$2/below\" && mount -o remount,bind,nosuid,noexec \"$2/below\" \
                  && shift 2 && exec \"$@\"";
    let mut command = Command::new("unshare");
    command
        .args(["--mount", "sh", "-c", script, "sh"])
        .arg(&below)
        .arg(&top);
    let bundle = bed.bundle();
    let runtime = bed.command(&["run", "--bundle", bundle.to_str().unwrap(), &bed.id]);
    command.arg(runtime.get_program()).args(runtime.get_args());
    let ran: support::Ran = command.stdin(Stdio::null()).output().unwrap().into();
    ran.ok()
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
