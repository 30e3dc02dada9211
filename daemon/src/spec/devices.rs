//! Devices of the host in a container, and rules of its device filter.

use std::path::{Path, PathBuf};

use littlebox_types::{ContainerConfig, DeviceConfig};
use oci_spec::runtime::{
    LinuxDevice, LinuxDeviceBuilder, LinuxDeviceCgroup, LinuxDeviceType, LinuxResources, Spec,
};

use super::ConfigError;
use super::check::{at_most, error_with, path, shown};

/// The most entries of a list.
const LIMIT: usize = 1024;

/// A device node of the host that was found, and where it goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostDevice {
    /// Container path.
    pub path: PathBuf,
    /// A block device, else a character device.
    pub block: bool,
    /// Major number.
    pub major: u32,
    /// Minor number.
    pub minor: u32,
    /// Permission bits.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Of `r`, `w` and `m`.
    pub permissions: String,
}

/// A device of the request that was checked: host path, container path, permissions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WantedDevice {
    /// Host path of a node or a directory.
    pub source: PathBuf,
    /// Container path.
    pub path: PathBuf,
    /// Of `r`, `w` and `m`.
    pub permissions: String,
}

/// Reads the devices of a request.
pub(super) fn wanted(config: &ContainerConfig) -> Result<Vec<WantedDevice>, ConfigError> {
    at_most(config.devices.len(), LIMIT, "/devices", "devices")?;
    config.devices.iter().enumerate().map(one).collect()
}

fn one((i, device): (usize, &DeviceConfig)) -> Result<WantedDevice, ConfigError> {
    let at = |field: &str| format!("/devices/{i}/{field}");
    let source = path(&device.path, &at("path"))?;
    let (inside, field) = match &device.container_path {
        Some(text) => (path(text, &at("container_path"))?, "container_path"),
        None => (source.clone(), "path"),
    };
    if !inside.starts_with("/dev") || inside == Path::new("/dev") {
        return Err(error_with(
            at(field),
            "a device goes below /dev of the container",
            "give a container_path like /dev/name",
        ));
    }
    let permissions = device.permissions.clone().unwrap_or_else(|| "rwm".into());
    if !is_access(&permissions) {
        return Err(error_with(
            at("permissions"),
            format!("{} does not say what is allowed", shown(&permissions)),
            "use r (read), w (write) and m (mknod), each at most once",
        ));
    }
    Ok(WantedDevice {
        source,
        path: inside,
        permissions,
    })
}

fn is_access(text: &str) -> bool {
    let bytes = text.as_bytes();
    let once = |b: &u8| bytes.iter().filter(|c| *c == b).count() == 1;
    !text.is_empty() && bytes.iter().all(|b| b"rwm".contains(b) && once(b))
}

/// Puts devices that were found into a spec: their nodes, and rules that allow them.
pub fn add(spec: &mut Spec, found: &[HostDevice]) {
    let Some(linux) = spec.linux_mut().as_mut() else {
        return;
    };
    if found.is_empty() {
        return;
    }
    let mut nodes = linux.devices().clone().unwrap_or_default();
    let mut resources = linux.resources().clone().unwrap_or_default();
    let mut rules = resources.devices().clone().unwrap_or_default();
    for device in found {
        nodes.push(node(device));
        rules.push(rule(device));
    }
    resources.set_devices(Some(rules));
    linux.set_devices(Some(nodes));
    linux.set_resources(Some(resources));
}

fn node(device: &HostDevice) -> LinuxDevice {
    LinuxDeviceBuilder::default()
        .path(device.path.clone())
        .typ(kind(device.block))
        .major(device.major)
        .minor(device.minor)
        .file_mode(device.mode)
        .uid(device.uid)
        .gid(device.gid)
        .build()
        .expect("every field of a device has a default")
}

fn rule(device: &HostDevice) -> LinuxDeviceCgroup {
    let mut rule = LinuxDeviceCgroup::default();
    rule.set_allow(true);
    rule.set_typ(Some(kind(device.block)));
    rule.set_major(Some(device.major.into()));
    rule.set_minor(Some(device.minor.into()));
    rule.set_access(Some(device.permissions.clone()));
    rule
}

fn kind(block: bool) -> LinuxDeviceType {
    if block {
        LinuxDeviceType::B
    } else {
        LinuxDeviceType::C
    }
}

/// Appends the rules of the request to those of the limits.
pub(super) fn add_rules(
    resources: &mut LinuxResources,
    config: &ContainerConfig,
) -> Result<(), ConfigError> {
    at_most(config.device_rules.len(), LIMIT, "/device_rules", "rules")?;
    if config.device_rules.is_empty() {
        return Ok(());
    }
    let mut rules = resources.devices().clone().unwrap_or_default();
    for (i, text) in config.device_rules.iter().enumerate() {
        let parsed = parse_rule(text).ok_or_else(|| {
            error_with(
                format!("/device_rules/{i}"),
                format!("{} is not a rule of a device filter", shown(text)),
                "write it like 'c 1:3 rwm': c, b or a, MAJOR:MINOR where * stands for all, and of r, w, m",
            )
        })?;
        rules.push(parsed);
    }
    resources.set_devices(Some(rules));
    Ok(())
}

/// `TYPE MAJOR:MINOR ACCESS`, as the v1 devices controller has it.
fn parse_rule(text: &str) -> Option<LinuxDeviceCgroup> {
    let words: Vec<&str> = text.split(' ').collect();
    let [kind, numbers, access] = words[..] else {
        return None;
    };
    let kind = match kind {
        "a" => LinuxDeviceType::A,
        "b" => LinuxDeviceType::B,
        "c" => LinuxDeviceType::C,
        _ => return None,
    };
    let number = |text: &str| match text {
        "*" => Some(None),
        text if text.bytes().all(|b| b.is_ascii_digit()) => {
            text.parse::<u32>().ok().map(|n| Some(i64::from(n)))
        }
        _ => None,
    };
    let (major, minor) = numbers.split_once(':')?;
    let mut rule = LinuxDeviceCgroup::default();
    rule.set_allow(true);
    rule.set_typ(Some(kind));
    rule.set_major(number(major)?);
    rule.set_minor(number(minor)?);
    rule.set_access(is_access(access).then(|| access.to_owned()));
    rule.access().is_some().then_some(rule)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_are_read_as_the_devices_controller_writes_them() {
        let rule = parse_rule("c 10:* rw").unwrap();
        assert_eq!(rule.typ(), Some(LinuxDeviceType::C));
        assert_eq!((rule.major(), rule.minor()), (Some(10), None));
        assert_eq!(rule.access().as_deref(), Some("rw"));
        for bad in [
            "",
            "c",
            "c 1:3",
            "x 1:3 r",
            "c 1 r",
            "c 1:3 x",
            "c 1:3 rr",
            "c +1:3 r",
            "c 1:3  r",
            "c 4294967296:0 r",
        ] {
            assert!(parse_rule(bad).is_none(), "{bad:?}");
        }
    }
}
