//! Control groups, in the hierarchies that the host has.

use std::path::Path;

use littlebox_protocol::cgroup::settings::{FileWrite, Setting, settings};
use littlebox_protocol::cgroup::{DEFAULT_V2, Hierarchy, Layout};
use littlebox_protocol::{DeviceRule, LaunchPlan, ResourcePlan};

use super::Explanation;
use super::shell::quote;

pub(super) fn create(plan: &LaunchPlan, host: &Layout) -> Explanation {
    let path = plan.cgroup.path.as_ref()?;
    let limits = &plan.cgroup.resources;
    let mut what = "A control group of the container's own is made and its limits are written, before anything runs in it.".to_owned();
    let settings = match wanted(limits, host) {
        Ok(settings) => settings,
        Err(why) => {
            what.push_str(&format!(" On this host that fails: {why}."));
            Vec::new()
        }
    };
    let mut commands = Vec::new();
    for hierarchy in host.used(
        &settings,
        limits.devices.is_some(),
        plan.cgroup.every_hierarchy,
    ) {
        commands.push(format!("mkdir -p {}", quote(&dir(hierarchy, path))));
        if hierarchy.is_unified() {
            commands.extend(switch_on(hierarchy, path, &settings));
        } else if hierarchy.has("cpuset") {
            commands.extend(inherit_cpuset(hierarchy, path));
        }
    }
    for setting in &settings {
        let hierarchy = host.with(&setting.controller);
        commands.extend(hierarchy.and_then(|h| write(setting, &dir(h, path))));
    }
    if let Some(rules) = &limits.devices {
        what.push_str(&devices(rules));
    }
    Some((what, commands))
}

pub(super) fn attach(plan: &LaunchPlan, host: &Layout) -> Explanation {
    let path = plan.cgroup.path.as_ref()?;
    let limits = &plan.cgroup.resources;
    let settings = wanted(limits, host).unwrap_or_default();
    let commands = host
        .used(
            &settings,
            limits.devices.is_some(),
            plan.cgroup.every_hierarchy,
        )
        .map(|hierarchy| {
            let procs = format!("{}/cgroup.procs", dir(hierarchy, path));
            format!("echo $PID > {}", quote(&procs))
        });
    Some((
        "The first process goes into its control group, where the clone3 call could not make it there.".into(),
        commands.collect(),
    ))
}

fn wanted(limits: &ResourcePlan, host: &Layout) -> Result<Vec<Setting>, String> {
    settings(limits, &|controller| host.is_unified(controller)).map_err(|e| e.0)
}

/// A cgroup's directory in a hierarchy.
fn dir(hierarchy: &Hierarchy, path: &Path) -> String {
    let mount = hierarchy.mount().to_string_lossy();
    // The root is the mount point itself, without a slash behind it.
    format!("{mount}{}", path.to_string_lossy().trim_end_matches('/'))
}

/// The cgroups above a path, from the root down, each with the next below it.
fn levels(path: &Path) -> Vec<(&Path, &Path)> {
    let mut all: Vec<&Path> = path.ancestors().collect();
    all.reverse();
    all.windows(2).map(|pair| (pair[0], pair[1])).collect()
}

/// A v2 cgroup has the files of the controllers that are on in all cgroups above it.
fn switch_on(hierarchy: &Hierarchy, path: &Path, settings: &[Setting]) -> Vec<String> {
    let mut on: Vec<&str> = settings.iter().map(|s| s.controller.as_str()).collect();
    on.extend(DEFAULT_V2);
    on.retain(|controller| hierarchy.has(controller));
    on.sort_unstable();
    on.dedup();
    if on.is_empty() {
        return Vec::new();
    }
    let words: Vec<String> = on
        .iter()
        .map(|controller| format!("+{controller}"))
        .collect();
    let command = |above: &Path| {
        let file = format!("{}/cgroup.subtree_control", dir(hierarchy, above));
        format!("echo {} > {}", quote(&words.join(" ")), quote(&file))
    };
    levels(path)
        .into_iter()
        .map(|(above, _)| command(above))
        .collect()
}

/// Nothing can run in a v1 cpuset before it has CPUs and memory nodes (cpuset(7)).
fn inherit_cpuset(hierarchy: &Hierarchy, path: &Path) -> Vec<String> {
    let command = |(above, below): (&Path, &Path)| {
        let [above, below] = [above, below].map(|level| quote(&dir(hierarchy, level)));
        format!(
            "for f in cpuset.cpus cpuset.mems; do grep -q . {below}/$f || cat {above}/$f > {below}/$f; done"
        )
    };
    levels(path).into_iter().map(command).collect()
}

/// Writes a limit into the first of its files that the kernel has.
fn write(setting: &Setting, dir: &str) -> Option<String> {
    let echo = |write: &FileWrite| {
        let file = quote(&format!("{dir}/{}", write.file));
        (format!("echo {} > {file}", quote(&write.value)), file)
    };
    let (last, others) = setting.writes.split_last()?;
    let (mut command, file) = echo(last);
    if setting.optional {
        command = format!("[ ! -e {file} ] || {command}");
    }
    for (echo, file) in others.iter().rev().map(echo) {
        command = format!("if [ -e {file} ]; then {echo}; else {command}; fi");
    }
    Some(command)
}

/// The device filter in words.
fn devices(rules: &[DeviceRule]) -> String {
    let line = |rule: &DeviceRule| format!("{} {rule}", if rule.allow { "allow" } else { "deny" });
    let rules: Vec<String> = rules.iter().map(line).collect();
    format!(
        " Devices are filtered, by a BPF program or the v1 devices controller; the last rule that matches decides: {}.",
        rules.join(", ")
    )
}
