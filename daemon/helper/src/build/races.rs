//! Races against the routines that resolve, mount and mask, without a container around them: a tree
//! is built and mounted into while somebody exchanges a directory of it for a link, thousands of
//! times in the seconds that hundreds of starts take. `tests/tests/e2e/attacks` has those, and
//! `docs/security.md` the table.
//!
//! Each race is run twice: with the defence it must fail each time, and without it it must succeed.
//! `LITTLEBOX_ATTACK_TRIES` says how often it is tried.

use std::fs;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use rustix::fs::{AtFlags, CWD, Mode, OFlags, RenameFlags, open, renameat_with, statfs, unlinkat};
use rustix::mount::{MountPropagationFlags, UnmountFlags, mount_change, unmount};
use tempfile::TempDir;

use super::masks;
use super::mounts::{self, Context};
use super::paths::PROC_MAGIC;
use super::rootfs;
use super::tree::{Tree, attach};
use crate::cgroup::Cgroup;
use crate::defence;
use crate::fault::Fault;
use crate::sys;
use littlebox_protocol::{
    Defence, LayerIdmap, MountAttrs, MountPlan, MountSource, Propagation, RootfsPlan, RootfsSource,
};

/// How often a race that must fail is run, unless the environment says otherwise.
const TRIES: u64 = 3000;
/// How many tries a tree sees: to take one down costs more than all else.
const BATCH: usize = 25;
/// How often one that must succeed is tried at most.
const PATIENCE: u64 = 200_000;
/// What a canary holds.
const SECRET: &str = "the host's";

fn tries() -> u64 {
    let asked = std::env::var("LITTLEBOX_ATTACK_TRIES").ok();
    asked.and_then(|n| n.parse().ok()).unwrap_or(TRIES)
}

/// A root with a volume that the attacker holds too, and a directory that stands for the host.
struct Ground {
    dir: TempDir,
}

impl Ground {
    fn new() -> Ground {
        let dir = tempfile::Builder::new()
            .prefix("lbt-race-")
            .tempdir_in("/var/tmp");
        let ground = Ground {
            dir: dir.expect("a directory"),
        };
        for name in ["at", "root/volume", "root/dev", "volume", "canary"] {
            fs::create_dir_all(ground.path(name)).expect("a directory");
        }
        fs::write(ground.path("canary/file"), SECRET).expect("a file");
        ground
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn canary_is_untouched(&self) -> bool {
        let entries = fs::read_dir(self.path("canary"))
            .expect("the canary")
            .count();
        let file = fs::read_to_string(self.path("canary/file"));
        entries == 1 && file.is_ok_and(|text| text == SECRET)
    }

    /// A batch of tries in a tree of the root, attached in this thread's mount namespace meanwhile.
    fn in_tree(
        &self,
        prepare: &MountPlan,
        mut attempt: impl FnMut(&mut Tree, usize) -> Try,
    ) -> Vec<Try> {
        let plan = RootfsPlan {
            source: RootfsSource::Bind {
                path: self.path("root"),
            },
            read_only: false,
            propagation: Propagation::Rprivate,
            label: None,
            idmap: LayerIdmap::Auto,
        };
        let root = rootfs::make(&plan, None, &mut Vec::new()).expect("a root");
        let at = self.path("at");
        let place = open(&at, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).expect("a place");
        attach(root.mount.as_fd(), place, Path::new("/")).expect("the root attached");
        let mut tree = Tree::new(root.mount);
        mount(&mut tree, prepare).expect("the volume");
        let done = (0..BATCH).map(|n| attempt(&mut tree, n)).collect();
        unmount(&at, UnmountFlags::DETACH).expect("the root detached");
        done
    }
}

fn mount(tree: &mut Tree, plan: &MountPlan) -> Result<(), Fault> {
    let cgroup = Cgroup::default();
    let context = Context {
        cgroup: &cgroup,
        maps: None,
        cgroup_namespace: false,
    };
    let source = mounts::open_source(plan)?;
    mounts::mount(tree, plan, source, context, &mut Vec::new())
}

fn planned(destination: &str, source: MountSource) -> MountPlan {
    MountPlan {
        destination: destination.into(),
        source,
        attrs: MountAttrs::default(),
        cleared: MountAttrs::default(),
        tree: None,
        propagation: None,
        idmap: None,
    }
}

fn bind(source: PathBuf, destination: &str) -> MountPlan {
    let recursive = false;
    planned(
        destination,
        MountSource::Bind {
            path: source,
            recursive,
            inside: None,
        },
    )
}

fn fresh(fstype: &str, destination: &str) -> MountPlan {
    let source = MountSource::Filesystem {
        fstype: fstype.to_owned(),
        options: Vec::new(),
        copy_up: false,
    };
    planned(destination, source)
}

/// What one try came to.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Try {
    /// The victim did what it was asked for, where it was asked for.
    Done,
    /// It refused.
    Refused,
    /// The attack succeeded.
    Reached,
}

/// How a race went.
#[derive(Debug, Default)]
struct Score {
    tries: u64,
    done: u64,
    reached: u64,
    swaps: u64,
}

/// Runs the victim at most `most` times, until it is reached, in a thread with a mount namespace of
/// its own and without `off`, while `a` and `b` are exchanged.
fn race(
    (a, b): (&Path, &Path),
    off: Option<Defence>,
    most: u64,
    mut victim: impl FnMut() -> Vec<Try> + Send,
) -> Score {
    let (stop, swaps) = (AtomicBool::new(false), AtomicU64::new(0));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                renameat_with(CWD, a, CWD, b, RenameFlags::EXCHANGE).expect("an exchange");
                swaps.fetch_add(1, Ordering::Relaxed);
            }
        });
        let run = scope.spawn(|| {
            sys::unshare_mount_namespace().expect("a mount namespace: these tests need root");
            let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
            mount_change("/", private).expect("private mounts");
            defence::tests::turn_off(off);
            let mut score = Score::default();
            while score.tries < most && score.reached == 0 {
                for came_to in victim() {
                    score.tries += 1;
                    score.done += u64::from(came_to == Try::Done);
                    score.reached += u64::from(came_to == Try::Reached);
                }
            }
            score
        });
        let ended = run.join();
        stop.store(true, Ordering::Relaxed);
        let mut score = ended.expect("the victim's thread");
        score.swaps = swaps.load(Ordering::Relaxed);
        score
    })
}

/// Both sides of a race: with the defence it is lost each time, without it it is won.
fn both_sides(defence: Defence, mut run: impl FnMut(Option<Defence>, u64) -> Score) {
    let strong = run(None, tries());
    assert!(strong.tries >= tries() && strong.reached == 0, "{strong:?}");
    // It was a race: much was exchanged, and the victim was not refused each time.
    assert!(strong.done > 0 && strong.swaps > strong.tries, "{strong:?}");
    let weak = run(Some(defence), PATIENCE);
    assert!(weak.reached > 0, "the attack is no attack: {weak:?}");
}

/// Mounts into `/volume/real`, which is exchanged for a link to the canary: what is to be made there
/// must be made inside.
fn race_of_targets(victim: impl Fn(&Ground, &mut Tree, usize) -> Result<(), Fault> + Sync) {
    both_sides(Defence::InRoot, |off, most| {
        let ground = Ground::new();
        let (real, evil) = (ground.path("volume/real"), ground.path("volume/evil"));
        fs::create_dir(&real).expect("a directory");
        symlink(ground.path("canary"), &evil).expect("a link");
        fs::write(ground.path("root/file"), "").expect("a file");
        for n in 0..BATCH {
            for name in ["directory", "file"] {
                let (link, target) = (format!("volume/{name}{n}"), format!("real/{name}{n}"));
                symlink(target, ground.path(&link)).expect("a link");
            }
        }
        let inside: OwnedFd =
            open(&real, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).expect("the directory");
        let volume = bind(ground.path("volume"), "/volume");
        race((&real, &evil), off, most, || {
            let tries = ground.in_tree(&volume, |tree, n| {
                let made = victim(&ground, tree, n);
                match (made, ground.canary_is_untouched()) {
                    (_, false) => Try::Reached,
                    (Ok(()), true) => Try::Done,
                    (Err(_), true) => Try::Refused,
                }
            });
            // Made anew each time: the making is part of the race.
            for n in 0..BATCH {
                let _ = unlinkat(&inside, format!("directory{n}"), AtFlags::REMOVEDIR);
                let _ = unlinkat(&inside, format!("file{n}"), AtFlags::empty());
            }
            tries
        })
    });
}

/// Rows 3 and 9, CVE-2021-30465 and CVE-2024-45310.
#[test]
fn targets_of_mounts_are_made_and_mounted_inside() {
    race_of_targets(|ground, tree, n| {
        let directory = fresh("tmpfs", &format!("/volume/real/directory{n}"));
        let file = bind(ground.path("root/file"), &format!("/volume/real/file{n}"));
        mount(tree, &directory).and(mount(tree, &file))
    });
}

/// The same through links that dangle, whose targets are made where they point to.
#[test]
fn targets_behind_dangling_links_are_made_and_mounted_inside() {
    race_of_targets(|ground, tree, n| {
        let directory = fresh("tmpfs", &format!("/volume/directory{n}"));
        let file = bind(ground.path("root/file"), &format!("/volume/file{n}"));
        mount(tree, &directory).and(mount(tree, &file))
    });
}

/// Row 4, CVE-2019-19921, CVE-2023-27561, CVE-2023-28642, with a race.
#[test]
fn proc_is_mounted_on_no_link() {
    both_sides(Defence::RealProc, |off, most| {
        let ground = Ground::new();
        for name in ["root/proc", "root/fake"] {
            fs::create_dir(ground.path(name)).expect("a directory");
        }
        symlink("/fake", ground.path("root/evil")).expect("a link");
        let (real, evil) = (ground.path("root/proc"), ground.path("root/evil"));
        let (volume, proc) = (
            bind(ground.path("volume"), "/volume"),
            fresh("proc", "/proc"),
        );
        race((&real, &evil), off, most, || {
            ground.in_tree(&volume, |tree, _| {
                let mounted = mount(tree, &proc);
                let fake = statfs(ground.path("at/fake")).expect("the directory");
                match mounted {
                    _ if fake.f_type == PROC_MAGIC => Try::Reached,
                    Ok(()) => Try::Done,
                    Err(_) => Try::Refused,
                }
            })
        })
    });
}

/// Row 5, CVE-2025-31133.
#[test]
fn what_is_masked_reads_empty() {
    both_sides(Defence::MaskDevice, |off, most| {
        let ground = Ground::new();
        for n in 0..BATCH {
            fs::write(ground.path(&format!("root/masked{n}")), SECRET).expect("a file");
        }
        fs::write(ground.path("root/shown"), SECRET).expect("a file");
        let (null, evil) = (ground.path("volume/null"), ground.path("volume/evil"));
        fs::write(&null, "").expect("a file");
        symlink("/shown", &evil).expect("a link");
        let volume = bind(ground.path("volume"), "/dev");
        race((&null, &evil), off, most, || {
            ground.in_tree(&volume, |tree, n| {
                let masked = [PathBuf::from(format!("/masked{n}"))];
                let applied = masks::apply(tree, &masked, &[]);
                match (applied, fs::read(ground.path(&format!("at/masked{n}")))) {
                    (Ok(()), Ok(text)) if text.is_empty() => Try::Done,
                    (Ok(()), _) => Try::Reached,
                    (Err(_), _) => Try::Refused,
                }
            })
        })
    });
}
