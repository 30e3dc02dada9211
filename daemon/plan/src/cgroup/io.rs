//! `blockIO`.

use littlebox_protocol::{IoDevicePlan, IoPlan};
use oci_spec::runtime::{LinuxBlockIo, LinuxThrottleDevice, LinuxWeightDevice};

use super::{check, refuse};
use crate::PlanError;

/// Linux' device numbers have 12 and 20 bits (makedev(3)).
const MAJOR_MAX: i64 = 0xfff;
const MINOR_MAX: i64 = 0xf_ffff;

/// Which rate of a device's plan a list sets.
type Rate = fn(&mut IoDevicePlan) -> &mut Option<u64>;

pub(super) fn plan(io: &LinuxBlockIo, plan: &mut IoPlan) -> Result<(), PlanError> {
    plan.blkio_weight = weight(io.weight(), "blockIO/weight")?;
    plan.leaf_weight = weight(io.leaf_weight(), "blockIO/leafWeight")?;
    let devices = io.weight_device().as_deref().unwrap_or_default();
    for (i, device) in devices.iter().enumerate() {
        weight_device(device, &format!("blockIO/weightDevice/{i}"), plan)?;
    }
    let lists: [(&str, &Option<Vec<LinuxThrottleDevice>>, Rate); 4] = [
        (
            "throttleReadBpsDevice",
            io.throttle_read_bps_device(),
            |d| &mut d.read_bps,
        ),
        (
            "throttleWriteBpsDevice",
            io.throttle_write_bps_device(),
            |d| &mut d.write_bps,
        ),
        (
            "throttleReadIOPSDevice",
            io.throttle_read_iops_device(),
            |d| &mut d.read_iops,
        ),
        (
            "throttleWriteIOPSDevice",
            io.throttle_write_iops_device(),
            |d| &mut d.write_iops,
        ),
    ];
    for (name, list, rate) in lists {
        for (i, limit) in list.as_deref().unwrap_or_default().iter().enumerate() {
            let at = format!("blockIO/{name}/{i}");
            let device = device(plan, limit.major(), limit.minor(), &at)?;
            *rate(device) = Some(match limit.rate() {
                // As in v1's files: no limit.
                0 => u64::MAX,
                rate => rate,
            });
        }
    }
    Ok(())
}

fn weight(weight: Option<u16>, field: &str) -> Result<Option<u64>, PlanError> {
    let weight = weight.filter(|w| *w != 0).map(u64::from);
    check(
        weight.is_none_or(|w| (10..=1000).contains(&w)),
        field,
        "a weight is 10 to 1000",
    )?;
    Ok(weight)
}

fn weight_device(listed: &LinuxWeightDevice, at: &str, plan: &mut IoPlan) -> Result<(), PlanError> {
    let own = weight(listed.weight(), &format!("{at}/weight"))?;
    let leaf = weight(listed.leaf_weight(), &format!("{at}/leafWeight"))?;
    let device = device(plan, listed.major(), listed.minor(), at)?;
    device.blkio_weight = own.or(device.blkio_weight);
    device.leaf_weight = leaf.or(device.leaf_weight);
    Ok(())
}

/// The device's plan, a new one when it is named for the first time.
fn device<'p>(
    plan: &'p mut IoPlan,
    major: i64,
    minor: i64,
    at: &str,
) -> Result<&'p mut IoDevicePlan, PlanError> {
    let number = |n: i64, max: i64, field: &str| {
        let number = u32::try_from(n).ok().filter(|_| n <= max);
        number.map_or_else(
            || {
                refuse(
                    &format!("{at}/{field}"),
                    format!("{n} is not a device number"),
                )
            },
            Ok,
        )
    };
    let major = number(major, MAJOR_MAX, "major")?;
    let minor = number(minor, MINOR_MAX, "minor")?;
    let known = |d: &IoDevicePlan| (d.major, d.minor) == (major, minor);
    let index = plan.devices.iter().position(known).unwrap_or_else(|| {
        plan.devices.push(IoDevicePlan {
            major,
            minor,
            ..IoDevicePlan::default()
        });
        plan.devices.len() - 1
    });
    Ok(&mut plan.devices[index])
}
