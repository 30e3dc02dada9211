//! Mounts that a link of the image, or a racer, tries to aim at the host.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, FileType, Mode, makedev, mknodat};

use super::prelude::*;

/// A volume that an attacker holds too: `real` is a directory, `evil` leads to the canary.
struct Volume {
    dir: PathBuf,
}

impl Volume {
    fn new(t: &Bed, canary: &Canary) -> Self {
        let dir = t.dirs.base_path.join("volume");
        fs::create_dir_all(dir.join("real")).unwrap();
        symlink(canary.path(), dir.join("evil")).unwrap();
        // For whoever root is in a user namespace.
        for dir in [dir.clone(), dir.join("real")] {
            fs::set_permissions(dir, fs::Permissions::from_mode(0o777)).unwrap();
        }
        Self { dir }
    }

    fn race(&self) -> Racer {
        Racer::start(&self.dir.join("real"), &self.dir.join("evil"))
    }
}

impl Drop for Volume {
    fn drop(&mut self) {
        let _shown_by_the_oracle = fs::remove_dir_all(&self.dir);
    }
}

/// A container whose mounts and working directory go through what is raced for.
fn through(volume: &Volume, labels: Value) -> Value {
    let source = volume.dir.parent().unwrap().join("sock");
    with(
        busybox(&["true"]),
        json!({
            "labels": labels,
            "working_dir": "/volume/real/cwd",
            "mounts": [
                bind(&volume.dir, "/volume"),
                {"type": "tmpfs", "destination": "/volume/real/directory"},
                bind(&source, "/volume/real/file"),
            ],
        }),
    )
}

#[test]
fn a_mount_target_swapped_for_a_link_makes_and_mounts_nothing_on_the_host() {
    // Row 3, CVE-2021-30465, and row 9, CVE-2024-45310.
    let t = Bed::new();
    let canary = Canary::new();
    let volume = Volume::new(&t, &canary);
    let racer = volume.race();
    let mut started = 0;
    let starts = for_race_time(50, || {
        let ran = run_or_refusal(&t, &through(&volume, json!({})));
        started += u64::from(ran.is_some());
        assert!(canary.is_untouched(), "something was made on the host");
    });
    let swaps = racer.stop();
    assert!(started > 0, "none of {starts} starts won its race");
    assert!(swaps > starts, "{swaps} exchanges during {starts} starts");
    drop(volume);
    t.finish();
}

#[test]
fn without_resolution_in_the_root_a_swapped_mount_target_reaches_the_host() {
    // The other side of rows 3 and 9.
    let t = weak_bed();
    let canary = Canary::new();
    let volume = Volume::new(&t, &canary);
    let racer = volume.race();
    let config = through(&volume, without(Defence::InRoot));
    let reached = attacker::until_success(|| {
        run_or_refusal(&t, &config);
        !canary.is_untouched()
    });
    racer.stop();
    assert!(reached, "the attack is no attack");
    drop(volume);
    t.finish();
}

#[test]
fn a_link_of_the_image_is_followed_inside_the_root() {
    // Rows 3, 8 and 9 without a race: CVE-2024-45310, CVE-2026-41579, CVE-2026-47766.
    for (defence, reaches) in [(None, false), (Some(Defence::InRoot), true)] {
        let t = weak_bed();
        let (root, canary) = (Root::new(&t), Canary::new());
        root.replace_by_link("data", canary.path());
        root.make_dir(canary.path());
        let labels = defence.map_or(json!({}), without);
        let config = with(
            root.config(&["true"]),
            json!({
                "labels": labels,
                "mounts": [{"type": "tmpfs", "destination": "/data/made"}],
            }),
        );
        let ran = run_or_refusal(&t, &config);
        assert!(ran.is_some() || reaches);
        assert_eq!(!canary.is_untouched(), reaches, "{defence:?}");
        drop(root);
        t.finish();
    }
}

#[test]
fn an_image_whose_proc_or_sys_is_a_link_is_refused() {
    // Row 4, CVE-2019-19921, CVE-2023-27561, CVE-2023-28642.
    let t = weak_bed();
    for name in ["proc", "sys"] {
        let (root, canary) = (Root::new(&t), Canary::new());
        fs::create_dir(root.0.join("fake")).unwrap();
        root.replace_by_link(name, Path::new("/fake"));
        let look = root.config(&["sh", "-c", "ls /fake | grep -cE '^(version|kernel)$'"]);
        assert_eq!(run_or_refusal(&t, &look), None, "{name}");
        let weak = with(look, json!({"labels": without(Defence::RealProc)}));
        assert_eq!(run_or_refusal(&t, &weak).as_deref(), Some("1\n"), "{name}");
        // To the host.
        root.replace_by_link(name, canary.path());
        assert_eq!(run_or_refusal(&t, &root.config(&["true"])), None);
        assert!(canary.is_untouched());
        drop(root);
    }
    t.finish();
}

#[test]
fn an_image_whose_dev_is_a_link_gets_its_devices_inside() {
    // Row 8, CVE-2026-41579, CVE-2026-47766. The devices are made in a tmpfs that is held by its
    // descriptor.
    let t = weak_bed();
    let (root, canary) = (Root::new(&t), Canary::new());
    root.replace_by_link("dev", canary.path());
    root.make_dir(canary.path());
    let out = run_or_refusal(&t, &root.config(&["sh", "-c", "ls /dev/null /dev/zero"]));
    assert_eq!(out.as_deref(), Some("/dev/null\n/dev/zero\n"));
    assert!(canary.is_untouched());
    for name in ["null", "console", "pts", "shm", "fd"] {
        root.replace_by_link("dev", Path::new("/devices"));
        let devices = root.0.join("devices");
        fs::create_dir(&devices).unwrap();
        symlink(canary.path(), devices.join(name)).unwrap();
        let terminal = with(root.config(&["true"]), json!({"terminal": true}));
        run_or_refusal(&t, &terminal);
        assert!(canary.is_untouched(), "{name}");
        fs::remove_dir_all(devices).unwrap();
    }
    // The other side: by their paths they are made where the link leads on the host.
    root.replace_by_link("dev", canary.path());
    let weak = json!({"labels": without(Defence::DevByDescriptor), "namespaces": {"user": "host"}});
    run_or_refusal(&t, &with(root.config(&["true"]), weak));
    assert!(!canary.is_untouched(), "the attack is no attack");
    drop(root);
    t.finish();
}

/// A volume for `/dev` in which `null` is a null device and `evil` leads to a masked file.
fn device_volume(t: &Bed) -> PathBuf {
    let dir = t.dirs.base_path.join("devices");
    fs::create_dir(&dir).unwrap();
    let mode = Mode::from_raw_mode(0o666);
    let kind = FileType::CharacterDevice;
    mknodat(CWD, dir.join("null"), kind, mode, makedev(1, 3)).unwrap();
    symlink("/proc/interrupts", dir.join("evil")).unwrap();
    dir
}

#[test]
fn a_null_device_swapped_for_a_link_unmasks_nothing() {
    // Row 5, CVE-2025-31133.
    let t = weak_bed();
    let dir = device_volume(&t);
    let config = |labels: Value| {
        with(
            busybox(&["sh", "-c", "wc -c < /proc/interrupts"]),
            json!({"labels": labels, "mounts": [bind(&dir, "/dev")]}),
        )
    };
    let racer = Racer::start(&dir.join("null"), &dir.join("evil"));
    let strong = config(json!({}));
    let starts = for_race_time(50, || {
        let out = run_or_refusal(&t, &strong);
        assert_eq!(out.as_deref(), Some("0\n"));
    });
    let weak = config(without(Defence::MaskDevice));
    let unmasked =
        attacker::until_success(|| run_or_refusal(&t, &weak).is_some_and(|out| out != "0\n"));
    let swaps = racer.stop();
    assert!(swaps > starts, "{swaps} exchanges during {starts} starts");
    assert!(unmasked, "the attack is no attack");
    fs::remove_dir_all(dir).unwrap();
    t.finish();
}

#[test]
fn a_console_swapped_for_a_link_covers_nothing_else() {
    // Row 6, CVE-2025-52565. One side: the pty is bound by its descriptor, and its target lies in a
    // tmpfs that nobody else reaches; there is no name left that could be swapped.
    let t = Bed::new();
    let canary = Canary::new();
    let dir = t.dirs.base_path.join("devices");
    fs::create_dir_all(dir.join("pts")).unwrap();
    fs::write(dir.join("console"), "").unwrap();
    fs::write(dir.join("pts/ptmx"), "").unwrap();
    symlink(canary.file(), dir.join("evil")).unwrap();
    let racer = Racer::start(&dir.join("console"), &dir.join("evil"));
    let script = "test -t 0 && test -t 1 && echo terminal; echo typed > /dev/console";
    let config = with(
        busybox(&["sh", "-c", script]),
        json!({"terminal": true, "mounts": [bind(&dir, "/dev")]}),
    );
    let starts = for_race_time(50, || {
        let out = run_or_refusal(&t, &config).unwrap_or_default();
        assert!(out.contains("terminal"), "{out}");
        assert!(canary.is_untouched());
    });
    let swaps = racer.stop();
    assert!(swaps > starts, "{swaps} exchanges during {starts} starts");
    fs::remove_dir_all(dir).unwrap();
    t.finish();
}

const TTL: &str = "/proc/sys/net/ipv4/ip_default_ttl";

#[test]
fn sysctls_go_to_the_kernel_wherever_the_images_proc_leads() {
    // Row 7, CVE-2025-52881. One side: they are written through a procfs that is attached nowhere,
    // so that no path of a container takes part which a test could make it follow.
    let t = Bed::new();
    let root = Root::new(&t);
    let decoy = root.0.join("fake/sys/net/ipv4/ip_default_ttl");
    fs::create_dir_all(decoy.parent().unwrap()).unwrap();
    fs::write(&decoy, "decoy").unwrap();
    symlink("fake", root.0.join("evil")).unwrap();
    let host = fs::read_to_string(TTL).unwrap();
    let racer = Racer::start(&root.0.join("proc"), &root.0.join("evil"));
    let config = with(
        root.config(&["cat", TTL]),
        json!({"sysctls": {"net.ipv4.ip_default_ttl": "77"}}),
    );
    let mut started = 0;
    let starts = for_race_time(50, || {
        if let Some(out) = run_or_refusal(&t, &config) {
            assert_eq!(out, "77\n");
            started += 1;
        }
        assert_eq!(fs::read_to_string(&decoy).unwrap(), "decoy");
        assert_eq!(fs::read_to_string(TTL).unwrap(), host);
    });
    let swaps = racer.stop();
    assert!(started > 0, "none of {starts} starts won its race");
    assert!(swaps > starts, "{swaps} exchanges during {starts} starts");
    drop(root);
    t.finish();
}

#[test]
fn a_link_of_the_image_lays_no_mount_over_proc() {
    // CVE-2019-16884.
    let t = Bed::new();
    let root = Root::new(&t);
    for (name, target) in [("data", "/proc"), ("data", "/proc/self/attr")] {
        root.replace_by_link(name, Path::new(target));
        for destination in ["/data", "/data/sys"] {
            let config = with(
                root.config(&["true"]),
                json!({"mounts": [{"type": "tmpfs", "destination": destination}]}),
            );
            assert_eq!(run_or_refusal(&t, &config), None, "{target} {destination}");
        }
    }
    drop(root);
    t.finish();
}
