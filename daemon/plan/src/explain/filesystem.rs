//! The steps that build the container's file tree.

use littlebox_protocol::{
    LaunchPlan, MountAttrs, MountPlan, MountSource, NamespaceKind, NamespacePlan, Propagation,
    RootfsSource,
};

use super::Explanation;
use super::shell::{in_root, quote, quote_path};

pub(super) fn rootfs(plan: &LaunchPlan) -> Explanation {
    let make_root = "ROOT=$(mktemp -d)".to_owned();
    Some(match &plan.rootfs.source {
        RootfsSource::Overlay {
            lower,
            upper,
            work,
            volatile,
        } => {
            let lower: Vec<_> = lower.iter().map(|p| p.to_string_lossy()).collect();
            let mut options = format!(
                "lowerdir={},upperdir={},workdir={}",
                lower.join(":"),
                upper.display(),
                work.display()
            );
            if *volatile {
                options.push_str(",volatile");
            }
            if let Some(label) = &plan.rootfs.label {
                options.push_str(&format!(",context=\"{label}\""));
            }
            (
                "The root is an overlay: the directories below stay as they are, writes go to a directory of the container's own.".into(),
                vec![make_root, format!("mount -t overlay overlay -o {} \"$ROOT\"", quote(&options))],
            )
        }
        RootfsSource::Bind { path } => (
            "The root is a directory as it is; the container's writes go into it.".into(),
            vec![
                make_root,
                format!("mount --rbind {} \"$ROOT\"", quote_path(path)),
            ],
        ),
    })
}

fn propagation_name(propagation: Propagation) -> &'static str {
    match propagation {
        Propagation::Rprivate => "rprivate",
        Propagation::Private => "private",
        Propagation::Rslave => "rslave",
        Propagation::Slave => "slave",
        Propagation::Rshared => "rshared",
        Propagation::Shared => "shared",
        Propagation::Runbindable => "runbindable",
        Propagation::Unbindable => "unbindable",
    }
}

pub(super) fn propagation(plan: &LaunchPlan) -> Explanation {
    let propagation = plan.rootfs.propagation;
    let what = match propagation {
        Propagation::Rprivate
        | Propagation::Private
        | Propagation::Runbindable
        | Propagation::Unbindable => {
            "The mounts inherited from the host are cut off: none that is made here appears there, and none from there here."
        }
        Propagation::Rslave | Propagation::Slave => {
            "The mounts inherited from the host become slaves: later ones of the host appear here, none from here there."
        }
        Propagation::Rshared | Propagation::Shared => {
            "The mounts stay shared with the host: what is mounted on one side appears on the other."
        }
    };
    Some((
        what.into(),
        vec![format!("mount --make-{} /", propagation_name(propagation))],
    ))
}

pub(super) fn attach_root() -> Explanation {
    Some((
        "The finished root is attached in the container's own mount namespace, where nobody else sees it.".into(),
        vec!["cd \"$ROOT\"".into()],
    ))
}

pub(super) fn mounts(plan: &LaunchPlan) -> Explanation {
    if plan.mounts.is_empty() {
        return None;
    }
    Some((
        format!(
            "{} filesystems are mounted below the root, each first made without a place and then attached by descriptor, so that a link in the image cannot lead a mount elsewhere.",
            plan.mounts.len()
        ),
        plan.mounts.iter().flat_map(mount).collect(),
    ))
}

fn mount(mount: &MountPlan) -> Vec<String> {
    let target = in_root(&mount.destination);
    let flags = flags(mount.attrs);
    let mut commands = Vec::new();
    match &mount.source {
        MountSource::Bind {
            path,
            recursive,
            inside,
        } => {
            let path = match inside {
                Some(at) => in_root(at),
                None => quote_path(path),
            };
            let bind = if *recursive { "--rbind" } else { "--bind" };
            commands.push(format!("mount {bind} {path} {target}"));
            let own = [flags, cleared(mount.cleared)].concat();
            let mut remounts = vec![words(&own, mount.attrs.recursive)];
            if let Some(tree) = mount.tree {
                let whole = [self::flags(tree.set), cleared(tree.clear)].concat();
                remounts.push(words(&whole, true));
            }
            remounts.retain(|words| !words.is_empty());
            let remount = |words| format!("mount -o remount,bind,{words} {target}");
            commands.extend(remounts.into_iter().map(remount));
        }
        MountSource::Filesystem {
            fstype, options, ..
        } => {
            let named = options.iter().find_map(|o| o.strip_prefix("source="));
            let source = quote(named.unwrap_or(fstype));
            let mut all: Vec<&str> = flags;
            let options = options.iter().map(String::as_str);
            all.extend(options.filter(|option| !option.starts_with("source=")));
            let options = if all.is_empty() {
                String::new()
            } else {
                format!(" -o {}", quote(&all.join(",")))
            };
            let fstype = quote(fstype);
            commands.push(format!("mount -t {fstype} {source} {target}{options}"));
        }
        MountSource::Cgroup => {
            let options = if flags.is_empty() {
                String::new()
            } else {
                format!(" -o {}", flags.join(","))
            };
            commands.push(format!("mount -t cgroup2 cgroup2 {target}{options}"));
        }
    }
    if let Some(propagation) = mount.propagation {
        commands.push(format!(
            "mount --make-{} {target}",
            propagation_name(propagation)
        ));
    }
    commands
}

fn flags(attrs: MountAttrs) -> Vec<&'static str> {
    let all = [
        ("ro", attrs.read_only),
        ("nosuid", attrs.nosuid),
        ("nodev", attrs.nodev),
        ("noexec", attrs.noexec),
        ("noatime", attrs.noatime),
        ("strictatime", attrs.strictatime),
        ("relatime", attrs.relatime),
        ("nodiratime", attrs.nodiratime),
        ("nosymfollow", attrs.nosymfollow),
    ];
    all.into_iter()
        .filter(|(_, set)| *set)
        .map(|(name, _)| name)
        .collect()
}

/// What mount(8) calls their absence.
fn cleared(attrs: MountAttrs) -> Vec<&'static str> {
    let all = [
        ("rw", attrs.read_only),
        ("suid", attrs.nosuid),
        ("dev", attrs.nodev),
        ("exec", attrs.noexec),
        ("diratime", attrs.nodiratime),
        ("symfollow", attrs.nosymfollow),
    ];
    let wanted = all.into_iter().filter(|(_, set)| *set);
    wanted.map(|(name, _)| name).collect()
}

fn words(flags: &[&str], recursive: bool) -> String {
    let suffix = if recursive { "=recursive" } else { "" };
    let words: Vec<String> = flags.iter().map(|f| format!("{f}{suffix}")).collect();
    words.join(",")
}

pub(super) fn devices(plan: &LaunchPlan) -> Explanation {
    if plan.devices.is_empty() {
        return None;
    }
    let mut commands: Vec<String> = plan
        .devices
        .iter()
        .map(|d| {
            let parent = d.path.parent().filter(|_| !d.path.starts_with("/dev"));
            let parent = parent.map(|p| format!("mkdir -p {} && ", in_root(p)));
            format!(
                "{}mknod -m {:03o} {} {} {} {}",
                parent.unwrap_or_default(),
                d.mode,
                in_root(&d.path),
                d.kind,
                d.major,
                d.minor
            )
        })
        .collect();
    let links = [
        ("/proc/self/fd", "/dev/fd"),
        ("/proc/self/fd/0", "/dev/stdin"),
        ("/proc/self/fd/1", "/dev/stdout"),
        ("/proc/self/fd/2", "/dev/stderr"),
        ("pts/ptmx", "/dev/ptmx"),
    ];
    commands.extend(links.map(|(to, at)| format!("ln -s {to} \"$ROOT\"{at}")));
    Some((
        "The container's /dev gets the few devices that programs need, and no other.".into(),
        commands,
    ))
}

pub(super) fn terminal(plan: &LaunchPlan) -> Explanation {
    let size = plan.process.terminal?;
    Some((
        "A pseudo terminal is opened from the container's own /dev/pts and bound at /dev/console."
            .into(),
        vec![
            "touch \"$ROOT\"/dev/console".into(),
            "mount --bind \"$TTY\" \"$ROOT\"/dev/console".into(),
            format!("stty -F \"$TTY\" rows {} cols {}", size.rows, size.cols),
        ],
    ))
}

pub(super) fn masked_paths(plan: &LaunchPlan) -> Explanation {
    if plan.masked_paths.is_empty() && plan.readonly_paths.is_empty() {
        return None;
    }
    let mut commands = Vec::new();
    for path in &plan.masked_paths {
        let at = in_root(path);
        commands.push(format!(
            "if [ -d {at} ]; then mount -t tmpfs -o ro,size=4k tmpfs {at}; elif [ -e {at} ]; then mount --bind /dev/null {at}; fi"
        ));
    }
    for path in &plan.readonly_paths {
        let at = in_root(path);
        commands.push(format!(
            "if [ -e {at} ]; then mount --rbind {at} {at} && mount -o remount,bind,ro {at}; fi"
        ));
    }
    Some((
        "Paths that tell of the host read empty, and the kernel's switches cannot be written; a path that this kernel lacks is passed over.".into(),
        commands,
    ))
}

pub(super) fn pivot_root(plan: &LaunchPlan) -> Explanation {
    let whose = match plan.namespaces.get(&NamespaceKind::Mnt) {
        Some(NamespacePlan::New) => None,
        Some(NamespacePlan::Join(_)) => Some("the given"),
        None => Some("the host's"),
    };
    if let Some(whose) = whose {
        return Some((
            format!(
                "The process goes into {whose} mount namespace with the finished tree as its root, which is attached in none: nothing is mounted there. No command does the same."
            ),
            Vec::new(),
        ));
    }
    Some((
        "The new root becomes /, and the old one is detached: no path leads back to the host."
            .into(),
        vec!["pivot_root . .".into(), "umount -l .".into(), "cd /".into()],
    ))
}

pub(super) fn readonly_root(plan: &LaunchPlan) -> Explanation {
    plan.rootfs.read_only.then(|| {
        (
            "The root itself becomes read-only; what is mounted below it stays as it is.".into(),
            vec!["mount -o remount,bind,ro /".into()],
        )
    })
}
