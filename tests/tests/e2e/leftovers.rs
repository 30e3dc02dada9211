//! What is left of containers that nobody knows holds the daemon's start up neither, and is removed as
//! soon as it can be.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use littlebox_tests::dead_mount::DeadMount;
use littlebox_tests::oracle;
use littlebox_tests::prelude::*;

/// A process that cannot be killed, in cgroups of its own.
struct Undead {
    process: Child,
    cgroups: Vec<PathBuf>,
}

impl Undead {
    /// Puts it into the cgroup of a container that has no row.
    fn in_a_strangers_cgroup(t: &Bed, dead: &DeadMount) -> Self {
        Self::in_cgroup_of(t, dead, &ContainerId::generate().to_string())
    }

    fn in_cgroup_of(t: &Bed, dead: &DeadMount, container: &str) -> Self {
        let before = dead.taken();
        let process = Command::new("stat")
            .arg(dead.path.join(before.to_string()))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        proc::until("it waits in the kernel", || dead.taken() > before);
        let mut cgroups = Vec::new();
        for instance in oracle::instance_cgroups(&t.subject) {
            let cgroup = instance.join(container);
            std::fs::create_dir_all(&cgroup).unwrap();
            let entered = std::fs::write(cgroup.join("cgroup.procs"), process.id().to_string());
            match entered {
                Ok(()) => cgroups.push(cgroup),
                Err(_) => std::fs::remove_dir(&cgroup).unwrap(),
            }
        }
        assert!(!cgroups.is_empty(), "this machine has cgroups");
        Self { process, cgroups }
    }

    fn is_left(&self) -> bool {
        self.cgroups.iter().any(|cgroup| cgroup.exists())
    }
}

fn leftovers(t: &Bed) -> String {
    let metrics = t.get("/metrics").expect(200).text();
    let line = metrics
        .lines()
        .find_map(|line| line.strip_prefix("littlebox_leftovers "));
    line.expect("it is counted").to_owned()
}

#[test]
fn a_cgroup_that_does_not_empty_is_removed_when_it_does() {
    let mut t = Bed::new();
    let c = id(&t.sleeper());
    t.kill9();
    let dead = DeadMount::unkillable(t.dirs.base_path.join("dead"));
    let mut undead: Vec<Undead> = (0..3)
        .map(|_| Undead::in_a_strangers_cgroup(&t, &dead))
        .collect();
    t.start_again();
    assert!(undead.iter().all(Undead::is_left));
    assert_eq!(t.exec(&c, &["echo", "on"]), "on\n");
    assert_eq!(leftovers(&t), "3");
    drop(dead);
    for one in &mut undead {
        let _reaped = one.process.wait().unwrap();
    }
    proc::eventually_within(Duration::from_secs(90), "all is gone", || {
        (!undead.iter().any(Undead::is_left)).then_some(())
    });
    proc::until("nothing is counted", || leftovers(&t) == "0");
    t.finish();
}

#[test]
fn the_cgroup_of_a_container_that_has_ended_is_removed_when_it_can_be() {
    let t = Bed::new();
    let container = t.sleeper();
    let c = id(&container);
    let dead = DeadMount::unkillable(t.dirs.base_path.join("dead"));
    let mut undead = Undead::in_cgroup_of(&t, &dead, &c);
    // Nobody else removes it then.
    proc::kill(container.helper_pid.expect("a helper"), Signal::KILL);
    t.exit(&c);
    proc::until("it is left", || leftovers(&t) == "1");
    // Long enough for some of the tries.
    std::thread::sleep(Duration::from_secs(2));
    assert!(undead.is_left());
    drop(dead);
    let _reaped = undead.process.wait().unwrap();
    proc::eventually_within(Duration::from_secs(90), "it is gone", || {
        (!undead.is_left()).then_some(())
    });
    proc::until("nothing is counted", || leftovers(&t) == "0");
    assert_eq!(t.state(&c), ContainerState::Exited);
    t.finish();
}
