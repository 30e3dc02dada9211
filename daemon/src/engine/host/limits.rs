//! Limits and this machine: its disks, CPUs, memory nodes and page sizes, asked before anything is
//! made.

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use littlebox_plan::pointer;
use littlebox_types::Resources;

use crate::engine::EngineError;
use crate::spec::ConfigError;

/// Limits with every block device by its numbers, without those that are gone.
pub(in crate::engine) fn without_missing_devices(asked: &Resources) -> Resources {
    let mut resources = asked.clone();
    resources
        .io_limits
        .retain_mut(|limit| match block_device(&limit.device) {
            Ok(numbers) => {
                limit.device = numbers;
                true
            }
            Err(_) => false,
        });
    resources
}

/// Limits with every block device by its numbers.
///
/// # Errors
/// A device, CPU, memory node or page size that this machine does not have.
pub(in crate::engine) fn on_this_machine(asked: &Resources) -> Result<Resources, EngineError> {
    let mut resources = asked.clone();
    for (i, limit) in resources.io_limits.iter_mut().enumerate() {
        limit.device = block_device(&limit.device).map_err(|detail| ConfigError {
            pointer: format!("/resources/io_limits/{i}/device"),
            detail,
            hint: Some("give the path of a whole disk, like /dev/sda, or MAJOR:MINOR".into()),
        })?;
    }
    let sets = [
        ("cpuset_cpus", &resources.cpuset_cpus, "cpu/online", "CPU"),
        (
            "cpuset_mems",
            &resources.cpuset_mems,
            "node/online",
            "memory node",
        ),
    ];
    for (field, list, file, what) in sets {
        let Some(list) = list else { continue };
        let there = fs::read_to_string(format!("/sys/devices/system/{file}")).unwrap_or_default();
        if let Some(missing) = first_missing(list, there.trim()) {
            return Err(EngineError::Config(ConfigError {
                pointer: format!("/resources/{field}"),
                detail: format!("this machine has no {what} {missing}"),
                hint: Some(format!("it has {}", there.trim())),
            }));
        }
    }
    for size in resources.hugetlb.keys() {
        let sizes = page_sizes();
        if !sizes.contains(size) {
            return Err(EngineError::Config(ConfigError {
                pointer: pointer::below("/resources/hugetlb", size),
                detail: format!("this machine has no huge pages of {size}"),
                hint: Some(format!("it has {}", sizes.join(", "))),
            }));
        }
    }
    Ok(resources)
}

/// `8:0` of `/dev/sda`; of what is `8:0` already, the same when there is such a disk.
fn block_device(device: &str) -> Result<String, String> {
    if !device.starts_with('/') {
        return if is_pair(device) && Path::new("/sys/dev/block").join(device).exists() {
            whole_disk(device.to_owned())
        } else {
            Err(format!("this machine has no block device '{device}'"))
        };
    }
    let meta = fs::metadata(device).map_err(|e| format!("the block device {device}: {e}"))?;
    if !meta.file_type().is_block_device() {
        return Err(format!("{device} is not a block device"));
    }
    let number = meta.rdev();
    let (major, minor) = (rustix::fs::major(number), rustix::fs::minor(number));
    whole_disk(format!("{major}:{minor}"))
}

fn is_pair(text: &str) -> bool {
    let number = |s: &str| !s.is_empty() && s.len() <= 8 && s.bytes().all(|b| b.is_ascii_digit());
    text.split_once(':')
        .is_some_and(|(a, b)| number(a) && number(b))
}

/// The kernel throttles request queues, which partitions have none of.
fn whole_disk(numbers: String) -> Result<String, String> {
    let partition = Path::new("/sys/dev/block").join(&numbers).join("partition");
    if partition.exists() {
        return Err(format!(
            "{numbers} is a partition; the kernel limits whole disks"
        ));
    }
    Ok(numbers)
}

/// The first number of a list `0-3,7` that another one does not have. Both have their grammar
/// checked, or come from the kernel.
fn first_missing(list: &str, there: &str) -> Option<u32> {
    let there: Vec<(u32, u32)> = ranges(there).collect();
    ranges(list).find_map(|(first, last)| {
        (first..=last.min(8192)).find(|n| !there.iter().any(|(a, b)| (a..=b).contains(&n)))
    })
}

fn ranges(list: &str) -> impl Iterator<Item = (u32, u32)> {
    list.split(',').filter_map(|part| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        Some((first.trim().parse().ok()?, last.trim().parse().ok()?))
    })
}

/// The sizes of huge pages, as the cgroup files call them.
fn page_sizes() -> Vec<String> {
    let entries = fs::read_dir("/sys/kernel/mm/hugepages")
        .into_iter()
        .flatten();
    let mut sizes: Vec<u64> = entries
        .flatten()
        .filter_map(|entry| {
            let name = entry.file_name().into_string().ok()?;
            let size = name.strip_prefix("hugepages-")?.strip_suffix("kB")?;
            size.parse().ok()
        })
        .collect();
    sizes.sort_unstable();
    sizes.into_iter().map(page_size_name).collect()
}

fn page_size_name(kib: u64) -> String {
    match kib {
        n if n >= 1 << 20 => format!("{}GB", n >> 20),
        n if n >= 1 << 10 => format!("{}MB", n >> 10),
        n => format!("{n}KB"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_that_is_not_there_is_found() {
        assert_eq!(first_missing("0-1", "0-3"), None);
        assert_eq!(first_missing("0,3", "0-3"), None);
        assert_eq!(first_missing("2-5", "0-3"), Some(4));
        assert_eq!(first_missing("7", "0-1,4-5"), Some(7));
        assert_eq!(first_missing("0", ""), Some(0));
    }

    #[test]
    fn pages_are_named_as_the_kernel_names_its_files() {
        assert_eq!(page_size_name(64), "64KB");
        assert_eq!(page_size_name(2048), "2MB");
        assert_eq!(page_size_name(1 << 20), "1GB");
    }

    #[test]
    fn only_whole_block_devices_have_rates() {
        assert!(
            block_device("/dev/null")
                .unwrap_err()
                .contains("not a block")
        );
        assert!(block_device("/dev/none").unwrap_err().contains("/dev/none"));
        assert!(block_device("../8:0").is_err());
        assert!(block_device("999:999").is_err());
    }
}
