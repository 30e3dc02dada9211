//! Which cgroup hierarchies this host has.

use std::os::linux::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use super::settings::Setting;

/// v1 controllers that are used without being asked for: memory, CPU time and I/O are counted, and
/// processes limited. Not `cpu` and `cpuset`: entering them takes a millisecond, and an update can
/// do it later. The freezer is for hosts without v2, where it is the only way to pause and to kill
/// safely.
const DEFAULT_V1: [&str; 4] = ["pids", "memory", "cpuacct", "blkio"];

/// v2 controllers that are switched on for every container.
pub const DEFAULT_V2: [&str; 4] = ["cpu", "io", "memory", "pids"];

/// Every controller that a v1 hierarchy can be mounted with (cgroups(7)).
const CONTROLLERS: [&str; 14] = [
    "cpu",
    "cpuacct",
    "cpuset",
    "memory",
    "devices",
    "freezer",
    "blkio",
    "pids",
    "net_cls",
    "net_prio",
    "perf_event",
    "hugetlb",
    "rdma",
    "misc",
];

/// One mounted hierarchy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hierarchy {
    mount: PathBuf,
    unified: bool,
    controllers: Vec<String>,
}

impl Hierarchy {
    /// Where it is mounted.
    pub fn mount(&self) -> &Path {
        &self.mount
    }

    /// Whether it is the v2 one.
    pub fn is_unified(&self) -> bool {
        self.unified
    }

    /// Its controllers; of the v2 hierarchy those that its root offers.
    pub fn controllers(&self) -> &[String] {
        &self.controllers
    }

    /// Whether it has this controller.
    pub fn has(&self, controller: &str) -> bool {
        self.controllers.iter().any(|c| c == controller)
    }

    /// `unified`, or the v1 controllers as they are mounted together: `cpu,cpuacct`.
    pub fn name(&self) -> String {
        if self.unified {
            "unified".to_owned()
        } else {
            self.controllers.join(",")
        }
    }
}

/// The host's hierarchies.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Layout {
    hierarchies: Vec<Hierarchy>,
}

impl Layout {
    /// The host's layout, read from `/proc/self/mountinfo` once per process tree: the zygote
    /// calls this before it forks.
    pub fn detect() -> &'static Layout {
        static LAYOUT: OnceLock<Layout> = OnceLock::new();
        LAYOUT.get_or_init(|| {
            let table = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
            let layout = Layout::parse_visible(&table, is_visible);
            let offered = layout.unified().map(|hierarchy| {
                std::fs::read_to_string(hierarchy.mount.join("cgroup.controllers"))
            });
            layout.offering(&offered.and_then(Result::ok).unwrap_or_default())
        })
    }

    /// The same, with what the root of the v2 hierarchy offers (`cgroup.controllers`).
    #[must_use]
    pub fn offering(mut self, controllers: &str) -> Layout {
        for hierarchy in self.hierarchies.iter_mut().filter(|h| h.unified) {
            hierarchy.controllers = controllers.split_whitespace().map(str::to_owned).collect();
        }
        self
    }

    /// The hierarchies in a mountinfo table (proc_pid_mountinfo(5)). Never panics.
    pub fn parse(mountinfo: &str) -> Layout {
        Layout::parse_visible(mountinfo, |_, _| true)
    }

    /// Of the mounts in the table only those that `visible` admits, by mount point and device.
    fn parse_visible(mountinfo: &str, visible: impl Fn(&Path, &str) -> bool) -> Layout {
        let mut layout = Layout::default();
        let mounts = mountinfo.lines().filter_map(parse_line);
        let mounts = mounts.filter(|mount| visible(&mount.hierarchy.mount, mount.device));
        let (whole, parts): (Vec<_>, Vec<_>) = mounts.partition(|mount| mount.root == "/");
        // In a container without a cgroup namespace of its own (or with mounts from outside of it)
        // a part of the hierarchy is all there is, and stands for it.
        for Mount { hierarchy, .. } in whole.into_iter().chain(parts) {
            let known = |h: &Hierarchy| {
                h.unified == hierarchy.unified
                    && (h.unified || h.controllers == hierarchy.controllers)
            };
            if !layout.hierarchies.iter().any(known) {
                layout.hierarchies.push(hierarchy);
            }
        }
        layout
    }

    /// All of them.
    pub fn all(&self) -> impl Iterator<Item = &Hierarchy> {
        self.hierarchies.iter()
    }

    /// The hierarchies that a container with these limits, and with a device filter or without one,
    /// has a directory in; with `every`, all that have a controller.
    pub fn used(
        &self,
        settings: &[Setting],
        filter: bool,
        every: bool,
    ) -> impl Iterator<Item = &Hierarchy> {
        let wanted = move |controller: &String| {
            every
                || DEFAULT_V1.contains(&controller.as_str())
                || settings.iter().any(|s| s.controller == *controller)
                || (controller == "devices" && filter)
                || (controller == "freezer" && self.unified().is_none())
        };
        self.all()
            .filter(move |h| h.is_unified() || h.controllers().iter().any(wanted))
    }

    /// The v2 hierarchy.
    pub fn unified(&self) -> Option<&Hierarchy> {
        self.hierarchies.iter().find(|h| h.unified)
    }

    /// Whether a controller is to be had on v2, or nowhere; `io` is called `blkio` on v1.
    pub fn is_unified(&self, controller: &str) -> bool {
        let name = if controller == "io" {
            "blkio"
        } else {
            controller
        };
        let on_v1 = self.with(name).is_some_and(|h| !h.is_unified());
        !on_v1 && self.unified().is_some()
    }

    /// The hierarchy with this controller.
    pub fn with(&self, controller: &str) -> Option<&Hierarchy> {
        self.hierarchies.iter().find(|h| h.has(controller))
    }
}

/// One line of the table.
struct Mount<'t> {
    /// Which part of the hierarchy is mounted.
    root: &'t str,
    /// `MAJOR:MINOR` of its file system.
    device: &'t str,
    hierarchy: Hierarchy,
}

/// Whether a mount is not covered by another one: its file system is what is found at its place.
fn is_visible(mount: &Path, device: &str) -> bool {
    std::fs::metadata(mount).is_ok_and(|stat| {
        // makedev(3), for numbers that the kernel gives to file systems without a disk.
        let dev = stat.st_dev();
        let (major, minor) = (dev >> 8 & 0xfff, dev & 0xff | dev >> 12 & 0xfff_ff00);
        format!("{major}:{minor}") == device
    })
}

/// `36 35 98:0 / /mnt rw,noatime master:1 - ext3 /dev/root rw,errors=continue`
fn parse_line(line: &str) -> Option<Mount<'_>> {
    let (mount, filesystem) = line.split_once(" - ")?;
    let mut mount = mount.split(' ').skip(2);
    let (device, root, point) = (mount.next()?, mount.next()?, mount.next()?);
    let mut filesystem = filesystem.split(' ');
    let (fstype, options) = (filesystem.next()?, filesystem.nth(1)?);
    let unified = fstype == "cgroup2";
    let controllers: Vec<String> = match fstype {
        "cgroup2" => Vec::new(),
        "cgroup" => options
            .split(',')
            .filter(|o| CONTROLLERS.contains(o))
            .map(str::to_owned)
            .collect(),
        _ => return None,
    };
    let mount = PathBuf::from(unescape(point));
    (unified || !controllers.is_empty()).then_some(Mount {
        root,
        device,
        hierarchy: Hierarchy {
            mount,
            unified,
            controllers,
        },
    })
}

/// Space, tab, newline and backslash are octal in mountinfo.
fn unescape(path: &str) -> String {
    path.replace("\\040", " ")
        .replace("\\011", "\t")
        .replace("\\012", "\n")
        .replace("\\134", "\\")
}

#[cfg(test)]
mod tests {
    use super::*;

    const HYBRID: &str = "\
30 31 0:32 /docker/y /srv rw,relatime - cgroup cgroup rw,memory
31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,relatime shared:7 - cgroup cgroup rw,cpu,cpuacct
35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory
40 31 0:37 / /sys/fs/cgroup/systemd rw,relatime - cgroup cgroup rw,name=systemd
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
99 31 0:32 /docker/x /mnt rw,relatime - cgroup cgroup rw,memory";

    #[test]
    fn controllers_that_are_mounted_together_are_one_hierarchy() {
        let layout = Layout::parse(HYBRID);
        let cpu = layout.with("cpu").expect("cpu is mounted");
        assert_eq!(Some(cpu), layout.with("cpuacct"));
        assert_eq!(cpu.name(), "cpu,cpuacct");
    }

    #[test]
    fn a_hybrid_host_has_v1_controllers_and_a_unified_tree() {
        let layout = Layout::parse(HYBRID);
        assert_eq!(layout.all().count(), 3);
        assert_eq!(
            layout.unified().map(Hierarchy::mount),
            Some(Path::new("/sys/fs/cgroup/unified"))
        );
        assert_eq!(layout.with("pids"), None);
    }

    #[test]
    fn in_a_container_a_part_is_all_there_is() {
        let table = "41 31 0:32 /docker/x /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n\
                     42 31 0:33 /.. /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n";
        let layout = Layout::parse(table);
        let memory = layout.with("memory").map(Hierarchy::mount);
        assert_eq!(memory, Some(Path::new("/sys/fs/cgroup/memory")));
        assert!(layout.unified().is_some());
    }

    #[test]
    fn a_mount_that_another_one_covers_is_none() {
        let table = "40 31 0:32 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n\
                     41 31 0:99 / /other rw - cgroup cgroup rw,memory\n";
        let layout = Layout::parse_visible(table, |_, device| device == "0:99");
        let memory = layout.with("memory").map(Hierarchy::mount);
        assert_eq!(memory, Some(Path::new("/other")));
    }

    #[test]
    fn a_bind_of_a_part_of_a_hierarchy_is_not_the_hierarchy() {
        let memory = Layout::parse(HYBRID)
            .with("memory")
            .map(|h| h.mount().to_owned());
        assert_eq!(memory, Some(PathBuf::from("/sys/fs/cgroup/memory")));
    }
}
