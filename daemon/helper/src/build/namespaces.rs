//! Which namespaces are cloned, joined or left alone, and in what order.

use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::OnceLock;

use rustix::fs::{Mode, OFlags, fstat, open, stat};
use rustix::io::Errno;
use rustix::thread::{
    LinkNameSpaceType, ThreadNameSpaceType, move_into_link_name_space, move_into_thread_name_spaces,
};

use serde::{Deserialize, Serialize};

use super::idmap;
use crate::defence::stands;
use crate::fault::{Fault, OrFault};
use littlebox_protocol::{
    Defence, IdMapping, LaunchPlan, NamespaceInodes, NamespaceKind, NamespacePlan,
};

/// Where a namespace of the container comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Origin {
    /// The helper's own.
    Host,
    /// A fresh one.
    New,
    /// An existing one.
    Joined,
}

/// How a container's first process comes into its namespaces.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Birth {
    /// It is born in the new ones, and joins the others.
    Inside,
    /// As the child of a process that joins first: before a user namespace is entered or made, and
    /// not by the helper, which stays where it is.
    Middle,
    /// It is born in the helper's, and neither it nor what it still holds of the host is ever seen in
    /// a PID namespace that others live in.
    Outside,
}

/// The plan's namespaces with their descriptors.
#[derive(Debug)]
pub struct Namespaces {
    new: Vec<NamespaceKind>,
    joined: Vec<(NamespaceKind, OwnedFd)>,
    /// The mount namespace that the container lives in, when that is not made for it. Its tree is
    /// built in one of its own all the same, which it leaves when the tree is finished.
    outer_mounts: Option<(Origin, OwnedFd)>,
    /// The new time namespace is made by the child, because its clocks are set first.
    clocks_are_set: bool,
    /// Whose the new user namespace is to be; `None`: the helper's user's, or there is no new one.
    owner: Option<(u32, u32)>,
}

/// The order of joining. The user namespace comes last: the helper is privileged over every
/// namespace as long as it is in its own, and over few once it has entered another.
const JOIN_ORDER: [NamespaceKind; 8] = [
    NamespaceKind::Mnt,
    NamespaceKind::Uts,
    NamespaceKind::Ipc,
    NamespaceKind::Net,
    NamespaceKind::Pid,
    NamespaceKind::Cgroup,
    NamespaceKind::Time,
    NamespaceKind::User,
];

impl Namespaces {
    /// Matches the plan with the descriptors that came beside it.
    pub fn of_plan(plan: &LaunchPlan, fds: Vec<OwnedFd>) -> Result<Namespaces, Fault> {
        let mut fds: Vec<Option<OwnedFd>> = fds.into_iter().map(Some).collect();
        let mut namespaces = Namespaces {
            new: Vec::new(),
            joined: Vec::new(),
            outer_mounts: None,
            clocks_are_set: false,
            owner: None,
        };
        for kind in JOIN_ORDER {
            match plan.namespaces.get(&kind) {
                None if kind == NamespaceKind::Mnt => {
                    namespaces.outer_mounts = Some((Origin::Host, open_own(kind)?));
                }
                None => {}
                Some(NamespacePlan::New) => namespaces.new.push(kind),
                Some(NamespacePlan::Join(index)) => {
                    let fd = fds.get_mut(*index).and_then(Option::take).ok_or_else(|| {
                        Fault::refused(format!("no descriptor for the {} namespace", kind.name()))
                    })?;
                    if kind == NamespaceKind::Mnt {
                        namespaces.outer_mounts = Some((Origin::Joined, fd));
                        continue;
                    }
                    // A process may not enter the user namespace it is in: EINVAL.
                    if kind != NamespaceKind::User || inode(fd.as_fd())? != host_inode(kind)? {
                        namespaces.joined.push((kind, fd));
                    }
                }
            }
        }
        namespaces.clocks_are_set =
            !plan.time_offsets.is_empty() && namespaces.new.contains(&NamespaceKind::Time);
        if namespaces.origin(NamespaceKind::User) == Origin::New {
            namespaces.owner = idmap::owner_of(&plan.uid_map, &plan.gid_map);
        }
        if namespaces.outer_mounts.is_some()
            && namespaces.origin(NamespaceKind::User) != Origin::Host
        {
            return Err(Fault::refused(
                "from a user namespace no mount namespace of others can be entered",
            ));
        }
        Ok(namespaces)
    }

    /// Whether there is a new time namespace with clocks of its own (see [`super::clocks`]).
    pub fn clocks_are_set(&self) -> bool {
        self.clocks_are_set
    }

    /// The ids that the new user namespace is made by.
    pub fn owner(&self) -> Option<(u32, u32)> {
        self.owner
    }

    /// Where one kind comes from.
    pub fn origin(&self, kind: NamespaceKind) -> Origin {
        if self.new.contains(&kind) {
            Origin::New
        } else if let Some((origin, _)) = &self.outer_mounts
            && kind == NamespaceKind::Mnt
        {
            *origin
        } else if self.given(kind).is_some() {
            Origin::Joined
        } else {
            Origin::Host
        }
    }

    /// The descriptor of a joined namespace.
    pub fn given(&self, kind: NamespaceKind) -> Option<BorrowedFd<'_>> {
        if kind == NamespaceKind::Mnt {
            return self
                .outer_mounts()
                .filter(|_| self.origin(kind) == Origin::Joined);
        }
        self.joined
            .iter()
            .find(|(k, _)| *k == kind)
            .map(|(_, fd)| fd.as_fd())
    }

    /// The mount namespace that is entered when the tree is finished; `None`: it stays in its own.
    pub fn outer_mounts(&self) -> Option<BorrowedFd<'_>> {
        self.outer_mounts.as_ref().map(|(_, fd)| fd.as_fd())
    }

    /// The flags of `clone3`, always a mount namespace among them: nothing is ever mounted in
    /// another. The cgroup namespace is not among them: its root is the cgroup of
    /// the process that makes it, which must be inside the container's first. Nor is a time
    /// namespace whose clocks are set.
    pub fn clone_flags(&self) -> u64 {
        let made = self.new.iter().filter(|k| !self.is_made_by_child(**k));
        made.fold(clone_flag(NamespaceKind::Mnt), |flags, kind| {
            flags | clone_flag(*kind)
        })
    }

    /// Whether a new time namespace has to be entered after it was made: `unshare` makes one for the
    /// children to come (time_namespaces(7)), where a clone is born in it.
    pub fn time_is_made_beside(&self) -> bool {
        self.origin(NamespaceKind::Time) == Origin::New
            && !self.clocks_are_set
            && self.birth() == Birth::Outside
    }

    fn is_made_by_child(&self, kind: NamespaceKind) -> bool {
        self.origin(kind) == Origin::New
            && match kind {
                NamespaceKind::Cgroup => true,
                NamespaceKind::Time => self.clocks_are_set || self.time_is_made_beside(),
                _ => false,
            }
    }

    /// What a process must join to be in the container.
    pub fn membership(&self) -> Membership {
        let joined = self.joined.iter().map(|(kind, _)| *kind);
        let mounts = self.given(NamespaceKind::Mnt).map(|_| NamespaceKind::Mnt);
        Membership {
            kinds: (self.new.iter().copied().chain(joined).chain(mounts)).collect(),
            user: self.origin(NamespaceKind::User),
            own_root: self.outer_mounts.is_some(),
        }
    }

    /// How the first process comes into them.
    pub fn birth(&self) -> Birth {
        if self.origin(NamespaceKind::Pid) == Origin::Joined && stands(Defence::JoinsLast) {
            return Birth::Outside;
        }
        match self.origin(NamespaceKind::User) {
            Origin::New if !self.joined.is_empty() => Birth::Middle,
            Origin::Joined => Birth::Middle,
            Origin::New | Origin::Host => Birth::Inside,
        }
    }

    /// Whether the child still has to join what was given.
    pub fn joins_in_child(&self) -> bool {
        !self.joined.is_empty() && self.birth() == Birth::Inside
    }

    /// The helper's part before the clone: children are born in a given PID namespace.
    pub fn enter_pid_for_children(&self) -> Result<(), Fault> {
        self.given(NamespaceKind::Pid)
            .map_or(Ok(()), |fd| join(NamespaceKind::Pid, fd))
    }

    /// Joins all that was given.
    pub fn join_all(&self) -> Result<(), Fault> {
        self.joined
            .iter()
            .try_for_each(|(kind, fd)| join(*kind, fd.as_fd()))
    }

    /// Joins all that was given, apart from the PID namespace, which the child was born in.
    pub fn join_in_child(&self) -> Result<(), Fault> {
        let mut rest = self
            .joined
            .iter()
            .filter(|(kind, _)| *kind != NamespaceKind::Pid);
        rest.try_for_each(|(kind, fd)| join(*kind, fd.as_fd()))
    }

    /// Reads again what the child makes only on its way: its cgroup namespace, and a time
    /// namespace whose clocks are set.
    pub fn refresh(&self, inodes: &mut [NamespaceInodes], pid: u32) {
        for entry in inodes
            .iter_mut()
            .filter(|entry| self.is_made_by_child(entry.kind))
        {
            let path = format!("/proc/{pid}/ns/{}", entry.kind.name());
            // A program that has ended already has no namespaces any more.
            entry.container = namespace_inode(&path).unwrap_or(0);
        }
    }

    /// The inodes of the container's namespaces beside the host's, for the child `pid`.
    pub fn inodes(&self, pid: u32) -> Result<Vec<NamespaceInodes>, Fault> {
        let container = |kind: NamespaceKind| match self.origin(kind) {
            Origin::Host => host_inode(kind),
            Origin::Joined => self.given(kind).map_or(Ok(0), inode),
            Origin::New => namespace_inode(&format!("/proc/{pid}/ns/{}", kind.name())),
        };
        NamespaceKind::ALL
            .into_iter()
            .filter(|kind| exists(*kind))
            .map(|kind| {
                Ok(NamespaceInodes {
                    kind,
                    host: host_inode(kind)?,
                    container: container(kind)?,
                })
            })
            .collect()
    }
}

/// The namespaces of a container that are not the host's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Membership {
    kinds: Vec<NamespaceKind>,
    user: Origin,
    /// The root of its processes is not that of their mount namespace.
    #[serde(default)]
    own_root: bool,
}

impl Membership {
    /// Where the user namespace comes from.
    pub fn user(&self) -> Origin {
        self.user
    }

    /// Whether the container has other PIDs than the host.
    pub fn has_pid(&self) -> bool {
        self.kinds.contains(&NamespaceKind::Pid)
    }

    /// Whether who has joined the namespaces must take over the root directory as well.
    pub fn has_own_root(&self) -> bool {
        self.own_root
    }

    /// A mask for [`join_process`], without the PID namespace: a process is born in that one.
    pub fn mask(&self) -> ThreadNameSpaceType {
        let kinds = self.kinds.iter().filter(|k| **k != NamespaceKind::Pid);
        kinds.fold(ThreadNameSpaceType::empty(), |mask, kind| {
            let flag = u32::try_from(clone_flag(*kind)).unwrap_or(0);
            mask | ThreadNameSpaceType::from_bits_retain(flag)
        })
    }
}

/// Joins one namespace by its descriptor.
pub fn join(kind: NamespaceKind, fd: BorrowedFd<'_>) -> Result<(), Fault> {
    move_into_link_name_space(fd, Some(link_type(kind))).fault_at("setns", kind.name())
}

/// Joins namespaces of a process at once (setns(2) by pidfd, kernel 5.8).
pub fn join_process(pidfd: BorrowedFd<'_>, mask: ThreadNameSpaceType) -> Result<(), Fault> {
    if mask.is_empty() {
        return Ok(());
    }
    move_into_thread_name_spaces(pidfd, mask).fault("setns")
}

/// This process' next children are born in a container's PID namespace. Where that has ended with
/// a short program, no child will be asked for.
pub fn bear_children_in(container: BorrowedFd<'_>) -> Result<(), Fault> {
    match join_process(container, ThreadNameSpaceType::PROCESS_ID) {
        Err(fault) if fault.is(Errno::SRCH) => Ok(()),
        joined => joined,
    }
}

/// This process' next children are born in its own PID namespace (pid_namespaces(7)).
pub fn bear_children_outside() -> Result<(), Fault> {
    join(NamespaceKind::Pid, open_own(NamespaceKind::Pid)?.as_fd())
}

/// A namespace of this process.
fn open_own(kind: NamespaceKind) -> Result<OwnedFd, Fault> {
    let path = format!("/proc/self/ns/{}", kind.name());
    open(&path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).fault_at("open", path)
}

/// Opens `/proc/PID/ns/user` of a child.
pub fn open_user_namespace(pid: u32) -> Result<OwnedFd, Fault> {
    let path = format!("/proc/{pid}/ns/user");
    open(&path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).fault_at("open", path)
}

/// Writes `uid_map` and `gid_map` of a child in a new user namespace (user_namespaces(7)). The
/// helper is privileged in the parent namespace, so `setgroups` may stay allowed.
pub fn write_id_maps(pid: u32, uid_map: &[IdMapping], gid_map: &[IdMapping]) -> Result<(), Fault> {
    for (file, map) in [("uid_map", uid_map), ("gid_map", gid_map)] {
        let path = format!("/proc/{pid}/{file}");
        let fd =
            open(&path, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty()).fault_at("open", &path)?;
        // The kernel takes the whole map in one write only.
        File::from(fd)
            .write_all(render_map(map).as_bytes())
            .map_err(|error| {
                Fault::of("write", Errno::from_io_error(&error).unwrap_or(Errno::IO))
                    .at(&path)
                    .because("the kernel refuses this id map: ranges may not overlap or be empty")
            })?;
    }
    Ok(())
}

fn render_map(map: &[IdMapping]) -> String {
    map.iter()
        .map(|m| format!("{} {} {}\n", m.container_id, m.host_id, m.size))
        .collect()
}

/// The id on the host of an id in the container.
pub fn host_id(map: &[IdMapping], id: u32) -> Option<u32> {
    map.iter().find_map(|m| {
        let offset = id
            .checked_sub(m.container_id)
            .filter(|offset| *offset < m.size)?;
        m.host_id.checked_add(offset)
    })
}

fn inode(fd: BorrowedFd<'_>) -> Result<u64, Fault> {
    Ok(fstat(fd).fault("fstat")?.st_ino)
}

fn namespace_inode(path: &str) -> Result<u64, Fault> {
    Ok(stat(path).fault_at("stat", path)?.st_ino)
}

/// The inode of this process' own namespace; read once, the zygote's children inherit it.
fn host_inode(kind: NamespaceKind) -> Result<u64, Fault> {
    let cached = host_inodes().iter().find(|(k, _)| *k == kind);
    cached
        .map(|(_, inode)| *inode)
        .ok_or_else(|| Fault::refused(format!("this kernel has no {} namespaces", kind.name())))
}

fn exists(kind: NamespaceKind) -> bool {
    host_inodes().iter().any(|(k, _)| *k == kind)
}

/// Inodes of this process' own namespaces, of the kinds that the kernel has. Called by the zygote
/// before it forks, so that helpers need not look again.
pub fn host_inodes() -> &'static [(NamespaceKind, u64)] {
    static INODES: OnceLock<Vec<(NamespaceKind, u64)>> = OnceLock::new();
    INODES.get_or_init(|| {
        let read = |kind: NamespaceKind| {
            Some((
                kind,
                stat(format!("/proc/self/ns/{}", kind.name())).ok()?.st_ino,
            ))
        };
        NamespaceKind::ALL.into_iter().filter_map(read).collect()
    })
}

fn clone_flag(kind: NamespaceKind) -> u64 {
    let flag = match kind {
        NamespaceKind::Mnt => libc::CLONE_NEWNS,
        NamespaceKind::Uts => libc::CLONE_NEWUTS,
        NamespaceKind::Ipc => libc::CLONE_NEWIPC,
        NamespaceKind::Net => libc::CLONE_NEWNET,
        NamespaceKind::Pid => libc::CLONE_NEWPID,
        NamespaceKind::User => libc::CLONE_NEWUSER,
        NamespaceKind::Cgroup => libc::CLONE_NEWCGROUP,
        // CLONE_NEWTIME of time_namespaces(7); libc lacks it on some targets.
        NamespaceKind::Time => 0x80,
    };
    flag.unsigned_abs().into()
}

fn link_type(kind: NamespaceKind) -> LinkNameSpaceType {
    match kind {
        NamespaceKind::Mnt => LinkNameSpaceType::Mount,
        NamespaceKind::Uts => LinkNameSpaceType::HostNameAndNISDomainName,
        NamespaceKind::Ipc => LinkNameSpaceType::InterProcessCommunication,
        NamespaceKind::Net => LinkNameSpaceType::Network,
        NamespaceKind::Pid => LinkNameSpaceType::ProcessID,
        NamespaceKind::User => LinkNameSpaceType::User,
        NamespaceKind::Cgroup => LinkNameSpaceType::ControlGroup,
        NamespaceKind::Time => LinkNameSpaceType::Time,
    }
}
