//! `devices`: the rules of the device filter.

use littlebox_protocol::{DeviceAccess, DeviceKind, DeviceRule};
use oci_spec::runtime::{LinuxDeviceCgroup, LinuxDeviceType};

use super::{check, refuse};
use crate::PlanError;

/// More rules than a filter needs.
const RULES_MAX: usize = 1024;

/// Character devices that every container may use, whatever its rules say (OCI config-linux.md,
/// "Default Devices"): null, zero, full, random, urandom, tty, console, ptmx, and the terminals of
/// devpts.
const ALWAYS: [(u32, Option<u32>); 9] = [
    (1, Some(3)),
    (1, Some(5)),
    (1, Some(7)),
    (1, Some(8)),
    (1, Some(9)),
    (5, Some(0)),
    (5, Some(1)),
    (5, Some(2)),
    (136, None),
];

/// The filter of a container with these rules: what no rule allows is denied.
///
/// Nodes of any device may be made, as with runc and crun, by who has the capability for it: making
/// opens nothing.
pub(super) fn filter(rules: &[LinuxDeviceCgroup]) -> Result<Vec<DeviceRule>, PlanError> {
    let mut filter = vec![rule(false, DeviceKind::All, None, None, DeviceAccess::ALL)];
    filter.extend(device_rules(rules)?);
    for kind in [DeviceKind::Char, DeviceKind::Block] {
        filter.push(rule(true, kind, None, None, DeviceAccess::MKNOD));
    }
    for (major, minor) in ALWAYS {
        let (kind, access) = (DeviceKind::Char, DeviceAccess::ALL);
        filter.push(rule(true, kind, Some(major), minor, access));
    }
    Ok(filter)
}

fn rule(
    allow: bool,
    kind: DeviceKind,
    major: Option<u32>,
    minor: Option<u32>,
    access: DeviceAccess,
) -> DeviceRule {
    DeviceRule {
        allow,
        kind,
        major,
        minor,
        access,
    }
}

/// A spec's rules in their order. Absent values and negative numbers are wildcards.
///
/// # Errors
/// A [`PlanError`] names the first rule that is none.
pub fn device_rules(rules: &[LinuxDeviceCgroup]) -> Result<Vec<DeviceRule>, PlanError> {
    check(
        rules.len() <= RULES_MAX,
        "devices",
        format!(
            "there are {} rules; at most {RULES_MAX} are taken",
            rules.len()
        ),
    )?;
    rules
        .iter()
        .enumerate()
        .map(|(i, rule)| device_rule(rule, &format!("devices/{i}")))
        .collect()
}

fn device_rule(listed: &LinuxDeviceCgroup, at: &str) -> Result<DeviceRule, PlanError> {
    let kind = match listed.typ() {
        None | Some(LinuxDeviceType::A) => DeviceKind::All,
        Some(LinuxDeviceType::B) => DeviceKind::Block,
        Some(LinuxDeviceType::C | LinuxDeviceType::U) => DeviceKind::Char,
        Some(LinuxDeviceType::P) => {
            return refuse(
                &format!("{at}/type"),
                "a rule is about devices (a, b, c, u); pipes have no filter",
            );
        }
    };
    let number = |n: Option<i64>, field: &str| match n {
        Some(n) if n >= 0 => u32::try_from(n).map(Some).or_else(|_| {
            refuse(
                &format!("{at}/{field}"),
                format!("{n} is not a device number"),
            )
        }),
        _ => Ok(None),
    };
    let access = match listed.access().as_deref() {
        None | Some("") => Some(DeviceAccess::ALL),
        Some(text) => DeviceAccess::parse(text),
    };
    let Some(access) = access else {
        return refuse(&format!("{at}/access"), "access is made of r, w and m");
    };
    let (major, minor) = (
        number(listed.major(), "major")?,
        number(listed.minor(), "minor")?,
    );
    Ok(rule(listed.allow(), kind, major, minor, access))
}
