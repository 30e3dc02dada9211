//! Mounts of a spec (OCI config.md, "mounts"; config-linux.md, "Filesystem mount options").

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::path::{Component, Path, PathBuf};

use littlebox_protocol::{
    MountAttrs, MountIdmap, MountPlan, MountSource, Propagation, RootfsSource, TreeAttrs,
};
use oci_spec::runtime::{LinuxIdMapping, Mount};

use crate::{PlanError, idmap};

/// What a list of mount options says.
#[derive(Debug, Default)]
struct Options {
    /// Of the mount itself.
    top: TreeAttrs,
    /// Of the whole tree (`rro`, `rnosuid`, `rrw`...).
    tree: TreeAttrs,
    propagation: Option<Propagation>,
    /// `bind` (false) or `rbind` (true).
    bind: Option<bool>,
    copy_up: bool,
    /// `idmap` (false) or `ridmap` (true).
    idmap: Option<bool>,
    /// Flags of the superblock, for a fresh filesystem.
    superblock: Vec<String>,
    /// Everything else is the filesystem's own.
    data: Vec<String>,
}

/// Plans the mounts of a spec, in their order, for a container with this root. Of a container with a
/// user namespace, binds whose index is in `idmap_where_possible` are idmapped unless their file
/// system refuses.
pub(crate) fn plan(
    mounts: &[Mount],
    root: &RootfsSource,
    user_namespace: bool,
    idmap_where_possible: &BTreeSet<usize>,
) -> Result<Vec<MountPlan>, PlanError> {
    let planned: Result<Vec<_>, _> = mounts
        .iter()
        .enumerate()
        .map(|(i, mount)| {
            let mut planned = plan_one(mount, i, user_namespace)?;
            if let MountSource::Bind { recursive, .. } = &planned.source
                && user_namespace
                && planned.idmap.is_none()
                && idmap_where_possible.contains(&i)
            {
                planned.idmap = Some(MountIdmap {
                    recursive: *recursive,
                    ..MountIdmap::default()
                });
            }
            Ok(planned)
        })
        .collect();
    let mut planned = planned?;
    if let RootfsSource::Bind { path } = root {
        bind_from_inside(&mut planned, path);
    }
    Ok(planned)
}

/// A source is a path of the host; one below the root is where the mounts before it are made, and
/// means what they have left there.
fn bind_from_inside(mounts: &mut [MountPlan], root: &Path) {
    for i in 0..mounts.len() {
        let (before, rest) = mounts.split_at_mut(i);
        let mount = &mut rest[0];
        let MountSource::Bind {
            path,
            recursive,
            inside,
        } = &mut mount.source
        else {
            continue;
        };
        let leaves = |p: &&Path| p.components().any(|c| c == Component::ParentDir);
        let Some(below) = path.strip_prefix(root).ok().filter(|p| !leaves(p)) else {
            continue;
        };
        let at = Path::new("/").join(below);
        let changed = |earlier: &MountPlan| {
            let covers = at.starts_with(&earlier.destination);
            covers || *recursive && earlier.destination.starts_with(&at)
        };
        if mount.idmap.is_none() && before.iter().any(changed) {
            *inside = Some(at);
        }
    }
}

fn plan_one(mount: &Mount, index: usize, user_namespace: bool) -> Result<MountPlan, PlanError> {
    let at = |field: &str| format!("/mounts/{index}/{field}");
    let options = parse_options(mount.options().as_deref().unwrap_or_default(), index)?;
    let (top, tree) = (options.top, options.tree);
    let propagation = options.propagation;
    let destination = absolute(mount.destination(), &at("destination"))?;
    let asked = options.idmap;
    let source = source(mount, options, index)?;
    let (attrs, cleared, tree) = attrs(top, tree, &source);
    let idmap = id_map(mount, asked, index)?;
    if let Some(idmap) = &idmap {
        if !matches!(source, MountSource::Bind { .. }) {
            return Err(PlanError::new(
                at("options"),
                "only a bind mount can be idmapped; a fresh filesystem belongs to the container anyway",
            ));
        }
        if idmap.uid_map.is_empty() && !user_namespace {
            return Err(PlanError::new(
                at("options"),
                "an idmapped mount needs uidMappings and gidMappings, or a user namespace of the \
                 container whose maps it can take",
            ));
        }
    }
    Ok(MountPlan {
        destination,
        source,
        attrs,
        cleared,
        tree,
        propagation,
        idmap,
    })
}

/// The options `idmap` and `ridmap` and the mount's own maps, each of which asks for an idmapped
/// mount that must not be left out; without maps of its own it takes the container's.
fn id_map(
    mount: &Mount,
    asked: Option<bool>,
    index: usize,
) -> Result<Option<MountIdmap>, PlanError> {
    let own = |map: &Option<Vec<LinuxIdMapping>>, field: &str| {
        let map = idmap::from_spec(map.as_deref().unwrap_or_default());
        if !map.is_empty() {
            idmap::check(&map).map_err(|(i, message)| {
                PlanError::new(format!("/mounts/{index}/{field}/{i}"), message)
            })?;
        }
        Ok(map)
    };
    let uid_map = own(mount.uid_mappings(), "uidMappings")?;
    let gid_map = own(mount.gid_mappings(), "gidMappings")?;
    if uid_map.is_empty() != gid_map.is_empty() {
        let missing = if uid_map.is_empty() {
            "uidMappings"
        } else {
            "gidMappings"
        };
        return Err(PlanError::new(
            format!("/mounts/{index}/{missing}"),
            "uidMappings and gidMappings are given together or not at all",
        ));
    }
    Ok(
        (asked.is_some() || !uid_map.is_empty()).then_some(MountIdmap {
            recursive: asked == Some(true),
            required: true,
            uid_map,
            gid_map,
        }),
    )
}

/// The destination; a relative one is taken from `/`, as the specification allows for old configs.
fn absolute(destination: &Path, pointer: &str) -> Result<PathBuf, PlanError> {
    let bytes = destination.as_os_str().as_encoded_bytes();
    if bytes.is_empty() || bytes.contains(&0) {
        return Err(PlanError::new(
            pointer,
            "a mount destination is a path without a zero byte",
        ));
    }
    let destination = if bytes[0] == b'/' {
        destination.to_owned()
    } else {
        Path::new("/").join(destination)
    };
    if destination == Path::new("/") {
        return Err(PlanError::new(
            pointer,
            "nothing can be mounted over the root itself; use root.path",
        ));
    }
    Ok(destination)
}

fn source(mount: &Mount, options: Options, index: usize) -> Result<MountSource, PlanError> {
    let kind = mount.typ().as_deref().unwrap_or("none");
    let recursive = options.bind.or((kind == "bind").then_some(false));
    if let Some(recursive) = recursive {
        return bind_source(mount, recursive, &options, index);
    }
    match kind {
        "none" | "" => Err(PlanError::new(
            format!("/mounts/{index}/type"),
            "a mount needs a filesystem type, or the option bind or rbind",
        )),
        // The helper mounts the hierarchies that the host has, whichever version was named.
        "cgroup" | "cgroup2" => Ok(MountSource::Cgroup),
        fstype => Ok(filesystem_source(
            fstype,
            mount.source().as_deref(),
            options,
        )),
    }
}

fn bind_source(
    mount: &Mount,
    recursive: bool,
    options: &Options,
    index: usize,
) -> Result<MountSource, PlanError> {
    let at = |field: &str| format!("/mounts/{index}/{field}");
    // Options of a filesystem (`mode=755`) are not a bind's; the kernel passes them over, and so do
    // engines that write them. A word may have been meant as a protection.
    if let Some(option) = options.data.iter().find(|option| !option.contains('=')) {
        return Err(PlanError::new(
            at("options"),
            format!("a bind mount does not know the option '{option}'"),
        ));
    }
    if options.copy_up {
        return Err(PlanError::new(
            at("options"),
            "tmpcopyup is an option of tmpfs only",
        ));
    }
    match mount.source() {
        Some(path) if path.is_absolute() => Ok(MountSource::Bind {
            path: path.clone(),
            recursive,
            inside: None,
        }),
        Some(path) => Err(PlanError::new(
            at("source"),
            format!(
                "the bind source '{}' is relative; resolve it against the bundle first",
                path.display()
            ),
        )),
        None => Err(PlanError::new(at("source"), "a bind mount needs a source")),
    }
}

/// A fresh filesystem. Its source, if only a name that mount(8) shows, is fsconfig(2)'s `source`.
fn filesystem_source(fstype: &str, source: Option<&Path>, options: Options) -> MountSource {
    let mut list = options.superblock;
    let named = |source: &&Path| !source.as_os_str().is_empty() && *source != Path::new(fstype);
    if let Some(source) = source.filter(named) {
        list.push(format!("source={}", source.display()));
    }
    list.extend(options.data);
    MountSource::Filesystem {
        fstype: fstype.to_owned(),
        options: list,
        copy_up: options.copy_up,
    }
}

fn parse_options(options: &[String], index: usize) -> Result<Options, PlanError> {
    let mut parsed = Options::default();
    for (i, option) in options.iter().enumerate() {
        parse_option(&mut parsed, option)
            .map_err(|message| PlanError::new(format!("/mounts/{index}/options/{i}"), message))?;
    }
    Ok(parsed)
}

fn parse_option(parsed: &mut Options, option: &str) -> Result<(), String> {
    if let Some((recursive, name, value)) = attribute(option) {
        let attrs = if recursive {
            &mut parsed.tree
        } else {
            &mut parsed.top
        };
        set_tree_attribute(attrs, name, value);
        return Ok(());
    }
    if let Some(propagation) = propagation(option) {
        parsed.propagation = Some(propagation);
        return Ok(());
    }
    if IGNORED.contains(&option) {
        return Ok(());
    }
    if SUPERBLOCK.contains(&option) {
        parsed.superblock.push(option.to_owned());
        return Ok(());
    }
    match option {
        "" => {}
        // Beside `rbind` it says nothing new: mount(2) takes both as flags.
        "bind" => {
            parsed.bind.get_or_insert(false);
        }
        "rbind" => parsed.bind = Some(true),
        "tmpcopyup" => parsed.copy_up = true,
        "idmap" => parsed.idmap = Some(false),
        "ridmap" => parsed.idmap = Some(true),
        "remount" => return Err("a new mount cannot be a remount".into()),
        other if other.contains('\0') => return Err("an option may not contain a zero byte".into()),
        other => parsed.data.push(other.to_owned()),
    }
    Ok(())
}

/// What the kernel does anyway, or what is no more (mandatory locking, since 5.15).
const IGNORED: [&str; 13] = [
    "defaults",
    "async",
    "norelatime",
    "rnorelatime",
    "loud",
    "silent",
    "mand",
    "nomand",
    "iversion",
    "noiversion",
    "nolazytime",
    "acl",
    "noacl",
];

/// Options of a fresh filesystem's superblock.
const SUPERBLOCK: [&str; 3] = ["sync", "dirsync", "lazytime"];

/// Options with a meaning of their own.
const WORDS: [&str; 5] = ["bind", "rbind", "tmpcopyup", "idmap", "ridmap"];

/// Options that are attributes of a mount: the name, the attribute, and whether it is set. With an
/// `r` before the name they hold for the whole tree.
const ATTRIBUTES: [(&str, Attribute, bool); 17] = [
    ("ro", Attribute::ReadOnly, true),
    ("rw", Attribute::ReadOnly, false),
    ("nosuid", Attribute::Nosuid, true),
    ("suid", Attribute::Nosuid, false),
    ("nodev", Attribute::Nodev, true),
    ("dev", Attribute::Nodev, false),
    ("noexec", Attribute::Noexec, true),
    ("exec", Attribute::Noexec, false),
    ("noatime", Attribute::Noatime, true),
    ("atime", Attribute::Noatime, false),
    ("relatime", Attribute::Relatime, true),
    ("strictatime", Attribute::Strictatime, true),
    ("nostrictatime", Attribute::Strictatime, false),
    ("nodiratime", Attribute::Nodiratime, true),
    ("diratime", Attribute::Nodiratime, false),
    ("nosymfollow", Attribute::Nosymfollow, true),
    ("symfollow", Attribute::Nosymfollow, false),
];

/// Every mount option that has a meaning here, beside those of filesystems, sorted (OCI features.md,
/// "mountOptions").
pub fn mount_options() -> Vec<String> {
    let attributes = ATTRIBUTES
        .iter()
        .flat_map(|(name, ..)| [(*name).to_owned(), format!("r{name}")]);
    let words = IGNORED
        .iter()
        .chain(&SUPERBLOCK)
        .chain(&WORDS)
        .chain(&PROPAGATIONS);
    let mut all: Vec<String> = attributes.chain(words.map(|w| (*w).to_owned())).collect();
    all.sort_unstable();
    all.dedup();
    all
}

#[derive(Clone, Copy)]
enum Attribute {
    ReadOnly,
    Nosuid,
    Nodev,
    Noexec,
    Noatime,
    Relatime,
    Strictatime,
    Nodiratime,
    Nosymfollow,
}

/// Whether the option is an attribute of a mount: for its whole tree?, which one, set or cleared.
fn attribute(option: &str) -> Option<(bool, Attribute, bool)> {
    let plain = |name: &str| {
        let found = ATTRIBUTES.iter().find(|(known, ..)| *known == name);
        found.map(|(_, attribute, value)| (*attribute, *value))
    };
    match plain(option) {
        Some((name, value)) => Some((false, name, value)),
        None => option
            .strip_prefix('r')
            .and_then(plain)
            .map(|(name, value)| (true, name, value)),
    }
}

fn set_attribute(attrs: &mut MountAttrs, name: Attribute, value: bool) {
    match name {
        Attribute::ReadOnly => attrs.read_only = value,
        Attribute::Nosuid => attrs.nosuid = value,
        Attribute::Nodev => attrs.nodev = value,
        Attribute::Noexec => attrs.noexec = value,
        Attribute::Noatime => set_access_times(attrs, value, false, false),
        Attribute::Relatime => set_access_times(attrs, false, value, false),
        Attribute::Strictatime => set_access_times(attrs, false, false, value),
        Attribute::Nodiratime => attrs.nodiratime = value,
        Attribute::Nosymfollow => attrs.nosymfollow = value,
    }
}

/// The three policies exclude each other: the last one counts, as with mount(8).
fn set_access_times(attrs: &mut MountAttrs, noatime: bool, relatime: bool, strictatime: bool) {
    attrs.noatime = noatime;
    attrs.relatime = relatime;
    attrs.strictatime = strictatime;
}

/// Sets or clears an attribute; the last word counts. A policy of access times is never cleared: the
/// kernel's own comes instead of it, unless a word has asked for the third.
fn set_tree_attribute(attrs: &mut TreeAttrs, name: Attribute, value: bool) {
    let third = match name {
        Attribute::Noatime => Some(attrs.set.strictatime),
        Attribute::Strictatime => Some(attrs.set.noatime),
        Attribute::Relatime => Some(true),
        _ => None,
    };
    match (third, value) {
        (Some(_), true) => set_attribute(&mut attrs.set, name, true),
        (Some(true), false) => {}
        (Some(false), false) => set_attribute(&mut attrs.set, Attribute::Relatime, true),
        (None, _) => {
            set_attribute(&mut attrs.set, name, value);
            set_attribute(&mut attrs.clear, name, !value);
        }
    }
}

/// What is set on the mount itself, what is cleared there, and what holds for its tree where there
/// is one: below a fresh filesystem and a bind that is not recursive there is nothing.
fn attrs(
    top: TreeAttrs,
    tree: TreeAttrs,
    source: &MountSource,
) -> (MountAttrs, MountAttrs, Option<TreeAttrs>) {
    let bind =
        |recursive| matches!(source, MountSource::Bind { recursive: r, .. } if *r == recursive);
    let (deep, flat) = (bind(true), bind(false));
    if !deep {
        let cleared = if flat {
            with_tree(top.clear, swapped(tree))
        } else {
            MountAttrs::default()
        };
        return (with_tree(top.set, tree), cleared, None);
    }
    if tree == TreeAttrs::default() {
        return (top.set, top.clear, None);
    }
    let nothing_of_its_own = with_tree(top.set, tree) == tree.set && top.clear.is_empty();
    if nothing_of_its_own && tree.clear.is_empty() {
        let recursive = true;
        let set = MountAttrs {
            recursive,
            ..tree.set
        };
        return (set, MountAttrs::default(), None);
    }
    (top.set, top.clear, Some(tree))
}

fn swapped(TreeAttrs { set, clear }: TreeAttrs) -> TreeAttrs {
    TreeAttrs {
        set: clear,
        clear: set,
    }
}

/// The attributes of a tree's top.
fn with_tree(top: MountAttrs, TreeAttrs { set, clear }: TreeAttrs) -> MountAttrs {
    let flag = |top: bool, set: bool, clear: bool| set || (top && !clear);
    let policy = set.noatime || set.relatime || set.strictatime;
    let times = if policy { set } else { top };
    MountAttrs {
        read_only: flag(top.read_only, set.read_only, clear.read_only),
        nosuid: flag(top.nosuid, set.nosuid, clear.nosuid),
        nodev: flag(top.nodev, set.nodev, clear.nodev),
        noexec: flag(top.noexec, set.noexec, clear.noexec),
        nosymfollow: flag(top.nosymfollow, set.nosymfollow, clear.nosymfollow),
        nodiratime: flag(top.nodiratime, set.nodiratime, clear.nodiratime),
        noatime: times.noatime,
        strictatime: times.strictatime,
        relatime: times.relatime,
        recursive: false,
    }
}

/// Every name that [`propagation`] knows.
const PROPAGATIONS: [&str; 8] = [
    "private",
    "rprivate",
    "slave",
    "rslave",
    "shared",
    "rshared",
    "unbindable",
    "runbindable",
];

/// A propagation by the name that specs and mount(8) give it.
pub(crate) fn propagation(name: &str) -> Option<Propagation> {
    Some(match name {
        "private" => Propagation::Private,
        "rprivate" => Propagation::Rprivate,
        "slave" => Propagation::Slave,
        "rslave" => Propagation::Rslave,
        "shared" => Propagation::Shared,
        "rshared" => Propagation::Rshared,
        "unbindable" => Propagation::Unbindable,
        "runbindable" => Propagation::Runbindable,
        _ => return None,
    })
}

/// Whether `/dev` is at the end a fresh tmpfs of these mounts, so that nodes may be made in it.
pub(crate) fn dev_is_fresh(mounts: &[MountPlan]) -> bool {
    let covers_dev = |m: &&MountPlan| Path::new("/dev").starts_with(clean(&m.destination));
    let last = mounts.iter().rev().find(covers_dev);
    last.is_some_and(|m| {
        clean(&m.destination) == Path::new("/dev")
            && matches!(&m.source, MountSource::Filesystem { fstype, .. }
                if OsStr::new(fstype) == "tmpfs" || OsStr::new(fstype) == "devtmpfs")
    })
}

/// A path without `.` and doubled slashes; `Path` compares by component.
fn clean(path: &Path) -> PathBuf {
    path.components().collect()
}
