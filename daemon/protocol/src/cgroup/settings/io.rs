//! Block devices: v1 `blkio`, v2 `io`.

use super::{FileWrite, Inexpressible, Setting, max_or, refuse};
use crate::{IoDevicePlan, IoPlan};

/// The normal weight of BFQ and of v2.
const NORMAL: u64 = 100;

pub(super) fn settings(
    plan: &IoPlan,
    unified: bool,
    all: &mut Vec<Setting>,
) -> Result<(), Inexpressible> {
    let leaf = plan.leaf_weight.is_some() || plan.devices.iter().any(|d| d.leaf_weight.is_some());
    refuse(unified && leaf, "blockIO.leafWeight needs cgroup v1")?;
    all.extend(weight(plan, unified));
    for device in &plan.devices {
        let key = format!("{}:{}", device.major, device.minor);
        all.extend(device_weight(device, &key, unified));
        if unified {
            all.extend(io_max(device, &key));
        } else {
            v1_device(device, &key, all);
        }
    }
    if let Some(weight) = plan.leaf_weight {
        let write = one("blkio.leaf_weight", weight.to_string(), "500");
        all.push(setting(false, "blockIO.leafWeight", vec![write], None));
    }
    Ok(())
}

fn setting(
    unified: bool,
    field: &'static str,
    writes: Vec<FileWrite>,
    key: Option<&str>,
) -> Setting {
    Setting {
        controller: if unified { "io" } else { "blkio" }.to_owned(),
        field,
        writes,
        key: key.map(str::to_owned),
        optional: false,
    }
}

fn one(file: &str, value: String, default: &str) -> FileWrite {
    FileWrite {
        file: file.to_owned(),
        value,
        default: default.to_owned(),
    }
}

/// BFQ's file where its scheduler is in use, else that of the cost model (v2) or of CFQ (v1).
fn weight(plan: &IoPlan, unified: bool) -> Option<Setting> {
    let (bfq, other) = match (plan.blkio_weight, plan.weight) {
        (Some(oci), _) if unified => (oci, weight_from_oci(oci)),
        (Some(oci), _) => (oci, oci),
        (None, Some(weight)) if unified => (weight.clamp(1, 1000), weight),
        (None, Some(weight)) => (weight.clamp(1, 1000), weight.clamp(10, 1000)),
        (None, None) => return None,
    };
    let other_file = if unified { "io.weight" } else { "blkio.weight" };
    let bfq_file = if unified {
        "io.bfq.weight"
    } else {
        "blkio.bfq.weight"
    };
    let writes = vec![
        one(bfq_file, bfq.to_string(), &NORMAL.to_string()),
        one(other_file, other.to_string(), &NORMAL.to_string()),
    ];
    Some(setting(unified, "io_weight", writes, None))
}

fn device_weight(device: &IoDevicePlan, key: &str, unified: bool) -> Option<Setting> {
    let weight = device.blkio_weight?;
    let line = |weight: u64, none: &str| {
        if weight == 0 {
            format!("{key} {none}")
        } else {
            format!("{key} {weight}")
        }
    };
    let writes = if unified {
        let default = format!("{key} default");
        vec![
            one("io.bfq.weight", line(weight, "default"), &default),
            one(
                "io.weight",
                line(weight_from_oci(weight), "default"),
                &default,
            ),
        ]
    } else {
        let default = format!("{key} 0");
        vec![
            one("blkio.bfq.weight_device", line(weight, "0"), &default),
            one("blkio.weight_device", line(weight, "0"), &default),
        ]
    };
    Some(setting(unified, "blockIO.weightDevice", writes, Some(key)))
}

/// The OCI spec's 10 to 1000 as v2's 1 to 10,000 (as runc and crun do it).
fn weight_from_oci(weight: u64) -> u64 {
    if weight == 0 {
        return 0;
    }
    1 + weight.clamp(10, 1000).saturating_sub(10) * 9_999 / 990
}

fn io_max(device: &IoDevicePlan, key: &str) -> Option<Setting> {
    let rates = [
        ("rbps", device.read_bps),
        ("wbps", device.write_bps),
        ("riops", device.read_iops),
        ("wiops", device.write_iops),
    ];
    let asked: String = rates
        .iter()
        .filter_map(|(name, rate)| Some(format!(" {name}={}", max_or((*rate)?))))
        .collect();
    let none = format!("{key} rbps=max wbps=max riops=max wiops=max");
    (!asked.is_empty()).then(|| {
        let write = one("io.max", format!("{key}{asked}"), &none);
        setting(true, "io_limits", vec![write], Some(key))
    })
}

fn v1_device(device: &IoDevicePlan, key: &str, all: &mut Vec<Setting>) {
    let rates = [
        ("blkio.throttle.read_bps_device", device.read_bps),
        ("blkio.throttle.write_bps_device", device.write_bps),
        ("blkio.throttle.read_iops_device", device.read_iops),
        ("blkio.throttle.write_iops_device", device.write_iops),
    ];
    let none = format!("{key} 0");
    for (file, rate) in rates {
        let Some(rate) = rate else { continue };
        // 0 is no limit.
        let rate = if rate == u64::MAX { 0 } else { rate };
        let write = one(file, format!("{key} {rate}"), &none);
        all.push(setting(false, "io_limits", vec![write], Some(key)));
    }
    if let Some(weight) = device.leaf_weight {
        let write = one("blkio.leaf_weight_device", format!("{key} {weight}"), &none);
        all.push(setting(false, "blockIO.leafWeight", vec![write], Some(key)));
    }
}
