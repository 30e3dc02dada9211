//! What a configuration asks of this machine, checked before anything is made.

use std::path::{Path, PathBuf};

use littlebox_types::{ContainerConfig, TimeOffset};
use rustix::time::{ClockId, Timespec, clock_gettime};

use super::devices;
use crate::engine::EngineError;
use crate::spec::{self, ConfigError, Prepared, RootSource};

/// Checks what only the machine can tell, and adds what is found on it: the host's devices.
pub(in crate::engine) fn complete(
    config: &ContainerConfig,
    prepared: &mut Prepared,
) -> Result<(), EngineError> {
    check_root(config, prepared)?;
    check_mounts(config)?;
    check_clocks(config)?;
    check_labels(config)?;
    let mut found = Vec::new();
    for (i, wanted) in prepared.devices.iter().enumerate() {
        found.extend(devices::find(wanted).map_err(|detail| {
            refusal(
                format!("/devices/{i}/path"),
                detail,
                "give the path of a device node, or of a directory with some below it",
            )
        })?);
    }
    add(config, prepared, found);
    Ok(())
}

/// As [`complete`], for showing a container that was created before: a device that is gone by now
/// is left out.
pub(in crate::engine) fn complete_as_far_as_possible(
    config: &ContainerConfig,
    prepared: &mut Prepared,
) {
    let found = prepared
        .devices
        .iter()
        .filter_map(|d| devices::find(d).ok());
    let found = found.flatten().collect();
    add(config, prepared, found);
}

fn add(config: &ContainerConfig, prepared: &mut Prepared, found: Vec<spec::HostDevice>) {
    if config.privileged {
        // What was asked for comes after, and instead of, what is there anyway.
        let mut all = devices::all();
        all.retain(|device| found.iter().all(|asked| asked.path != device.path));
        all.extend(found);
        spec::add_devices(&mut prepared.spec, &all);
    } else {
        spec::add_devices(&mut prepared.spec, &found);
    }
}

fn check_root(config: &ContainerConfig, prepared: &Prepared) -> Result<(), EngineError> {
    if let RootSource::Dir(path) | RootSource::Bind(path) = &prepared.root {
        match std::fs::metadata(path) {
            Ok(meta) if meta.is_dir() => {
                if path.canonicalize().is_ok_and(|p| p == Path::new("/")) {
                    return Err(root_error(config, path, "is the machine's own root"));
                }
            }
            Ok(_) => return Err(root_error(config, path, "is not a directory")),
            Err(e) => return Err(root_error(config, path, &format!("cannot be used: {e}"))),
        }
    }
    Ok(())
}

fn root_error(config: &ContainerConfig, path: &Path, what: &str) -> EngineError {
    let pointer = match (&config.bundle, &config.spec) {
        (Some(_), _) => "/bundle",
        (None, Some(_)) => "/spec/root/path",
        (None, None) => "/rootfs",
    };
    EngineError::Config(ConfigError {
        pointer: pointer.into(),
        detail: format!("the root {} {what}", path.display()),
        hint: Some("give the absolute path of a directory, or as the root 'host'".into()),
    })
}

/// Sources of binds are there, but for those that are made.
fn check_mounts(config: &ContainerConfig) -> Result<(), EngineError> {
    for (index, mount) in config.mounts.iter().enumerate() {
        let Some(source) = &mount.source else {
            continue;
        };
        if mount.create {
            continue;
        }
        if let Err(e) = std::fs::symlink_metadata(source) {
            return Err(EngineError::Config(ConfigError {
                pointer: format!("/mounts/{index}/source"),
                detail: format!("the mount source {source} cannot be used: {e}"),
                hint: Some("make it first, or set \"create\": true to make a directory".into()),
            }));
        }
    }
    Ok(())
}

/// Labels need their security module, and AppArmor the profile.
fn check_labels(config: &ContainerConfig) -> Result<(), EngineError> {
    if let Some(profile) = config.apparmor.as_ref().filter(|p| *p != "unconfined") {
        let enabled = std::fs::read_to_string("/sys/module/apparmor/parameters/enabled");
        if !enabled.is_ok_and(|text| text.starts_with('Y')) {
            return Err(refusal(
                "/apparmor".into(),
                "AppArmor is not active on this machine".into(),
                "leave it out, or start the kernel with AppArmor",
            ));
        }
        // Without securityfs the helper's write tells.
        let loaded = std::fs::read_to_string("/sys/kernel/security/apparmor/profiles");
        let line = format!("{profile} (");
        if loaded.is_ok_and(|list| list.lines().all(|l| !l.starts_with(&line))) {
            return Err(refusal(
                "/apparmor".into(),
                format!("no AppArmor profile '{profile}' is loaded"),
                "load it with apparmor_parser(8) first",
            ));
        }
    }
    if config.selinux.is_some() && !Path::new("/sys/fs/selinux/enforce").exists() {
        return Err(refusal(
            "/selinux".into(),
            "SELinux is not active on this machine".into(),
            "leave it out, or start the kernel with SELinux",
        ));
    }
    Ok(())
}

/// A clock of a container may not be before its zero.
fn check_clocks(config: &ContainerConfig) -> Result<(), EngineError> {
    let Some(offsets) = config.time_offsets else {
        return Ok(());
    };
    let clocks = [
        ("monotonic", offsets.monotonic, ClockId::Monotonic),
        ("boottime", offsets.boottime, ClockId::Boottime),
    ];
    for (name, offset, clock) in clocks {
        let now = clock_gettime(clock);
        if let Some(offset) = offset
            && is_before_zero(now, offset)
        {
            return Err(refusal(
                format!("/time_offsets/{name}"),
                format!(
                    "the clock {name} of this machine stands at {} seconds and cannot be set back by more",
                    now.tv_sec
                ),
                "a clock of a container cannot be before its zero",
            ));
        }
    }
    Ok(())
}

fn is_before_zero(now: Timespec, offset: TimeOffset) -> bool {
    let nanos = now.tv_nsec + i64::from(offset.nanos);
    let secs = now.tv_sec + nanos / 1_000_000_000;
    secs.saturating_add(offset.secs) < 0
}

fn refusal(pointer: String, detail: String, hint: &str) -> EngineError {
    EngineError::Config(ConfigError {
        pointer,
        detail,
        hint: Some(hint.into()),
    })
}

/// What tells of the heat of this machine's CPUs, a side channel: the directory of each CPU that has
/// one, and all of a CPU that is offline, whose directory would come with it.
pub(in crate::engine) fn thermal_directories() -> Vec<PathBuf> {
    thermal_directories_in(Path::new("/sys/devices/system/cpu"))
}

fn thermal_directories_in(cpus: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(cpus) else {
        return Vec::new();
    };
    let (mut hidden, mut offline) = (Vec::new(), Vec::new());
    for cpu in entries.filter_map(|entry| Some(entry.ok()?.path())) {
        let throttle = cpu.join("thermal_throttle");
        if throttle.is_dir() {
            hidden.push(throttle);
        } else if std::fs::read_to_string(cpu.join("online")).is_ok_and(|on| on.trim() == "0") {
            offline.push(cpu);
        }
    }
    if !hidden.is_empty() {
        hidden.append(&mut offline);
    }
    hidden.sort();
    hidden
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_heat_of_a_cpu_that_comes_later_is_hidden_with_the_cpu() {
        let cpus = tempfile::tempdir().unwrap();
        let make = |name: &str, online: &str| {
            let cpu = cpus.path().join(name);
            std::fs::create_dir_all(&cpu).unwrap();
            std::fs::write(cpu.join("online"), online).unwrap();
            cpu
        };
        let (first, _) = (make("cpu0", "1\n"), make("cpu1", "1\n"));
        let offline = make("cpu2", "0\n");
        assert!(thermal_directories_in(cpus.path()).is_empty());
        let throttle = first.join("thermal_throttle");
        std::fs::create_dir(&throttle).unwrap();
        assert_eq!(thermal_directories_in(cpus.path()), [throttle, offline]);
    }

    #[test]
    fn a_clock_can_be_set_back_to_its_zero_and_no_further() {
        let now = Timespec {
            tv_sec: 10,
            tv_nsec: 600_000_000,
        };
        let set = |secs, nanos| is_before_zero(now, TimeOffset { secs, nanos });
        assert!(!set(-10, 0) && set(-11, 0));
        // The nanoseconds count forwards: 10.6 s - 11 s + 0.5 s.
        assert!(!set(-11, 500_000_000) && set(-12, 500_000_000));
        assert!(set(i64::MIN, 0) && !set(i64::MAX, 0));
    }
}
