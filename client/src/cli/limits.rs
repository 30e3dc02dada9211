//! Flags of limits, for `run`, `create` and `update`; and `update`.

use std::collections::BTreeMap;

use clap::Args;
use littlebox_types::{ContainerPatch, IoLimit, Resources, ResourcesPatch};

use super::error::Failure;
use super::parse::{self, Pair};
use super::{Context, many};

#[derive(Debug, Args)]
pub struct ResourceArgs {
    /// Memory limit, e.g. 512m
    #[arg(short, long, value_name = "SIZE", value_parser = parse::size)]
    memory: Option<u64>,
    /// Limit of memory and swap together; -1 for unlimited swap
    #[arg(long, value_name = "SIZE", value_parser = parse::size_or_unlimited,
          allow_hyphen_values = true)]
    memory_swap: Option<i64>,
    /// Memory protected from reclaim when the host runs short
    #[arg(long, value_name = "SIZE", value_parser = parse::size)]
    memory_reservation: Option<u64>,
    /// Memory above which the container is throttled (cgroup v2)
    #[arg(long, value_name = "SIZE", value_parser = parse::size)]
    memory_high: Option<u64>,
    /// How readily memory is swapped, 0 to 100 (cgroup v1)
    #[arg(long, value_name = "N")]
    memory_swappiness: Option<u64>,
    /// CPU limit, e.g. 1.5
    #[arg(long, value_name = "N", value_parser = parse::cpus)]
    cpus: Option<f64>,
    /// CPU time per period in microseconds, instead of --cpus
    #[arg(long, value_name = "US")]
    cpu_quota: Option<u64>,
    /// Length of a period in microseconds (default: 100000)
    #[arg(long, value_name = "US")]
    cpu_period: Option<u64>,
    /// CPU weight relative to others, 1 to 10000 (default: 100)
    #[arg(long, value_name = "N")]
    cpu_weight: Option<u64>,
    /// CPUs to run on, e.g. 0-3,7
    #[arg(long, value_name = "LIST")]
    cpuset_cpus: Option<String>,
    /// Memory nodes to use
    #[arg(long, value_name = "LIST")]
    cpuset_mems: Option<String>,
    /// Limit of processes and threads; -1 for no limit
    #[arg(long, value_name = "N", value_parser = parse::pids, allow_hyphen_values = true)]
    pids_limit: Option<i64>,
    /// I/O weight relative to others, 1 to 10000 (default: 100)
    #[arg(long, value_name = "N")]
    io_weight: Option<u64>,
    /// Limit bytes read per second, e.g. /dev/sda:10m
    #[arg(long, value_name = "DEVICE:SIZE", value_parser = parse::rate_of_bytes)]
    device_read_bps: Vec<(String, u64)>,
    /// Limit bytes written per second
    #[arg(long, value_name = "DEVICE:SIZE", value_parser = parse::rate_of_bytes)]
    device_write_bps: Vec<(String, u64)>,
    /// Limit reads per second
    #[arg(long, value_name = "DEVICE:N", value_parser = parse::rate)]
    device_read_iops: Vec<(String, u64)>,
    /// Limit writes per second
    #[arg(long, value_name = "DEVICE:N", value_parser = parse::rate)]
    device_write_iops: Vec<(String, u64)>,
    /// Limit huge pages of a size, e.g. 2MB=64m
    #[arg(long, value_name = "PAGESIZE=SIZE")]
    hugetlb: Vec<Pair>,
    /// Write a file of the container's cgroup, e.g. memory.oom.group=1 (cgroup v2)
    #[arg(long, value_name = "FILE=VALUE")]
    cgroup_conf: Vec<Pair>,
}

impl ResourceArgs {
    /// The limits, as the API wants them.
    pub fn resources(&self) -> Result<Resources, Failure> {
        Ok(Resources {
            memory: self.memory,
            memory_swap: self.memory_swap,
            memory_reservation: self.memory_reservation,
            memory_high: self.memory_high,
            memory_swappiness: self.memory_swappiness,
            cpus: self.cpus,
            cpu_quota_us: self.cpu_quota,
            cpu_period_us: self.cpu_period,
            cpu_weight: self.cpu_weight,
            cpuset_cpus: self.cpuset_cpus.clone(),
            cpuset_mems: self.cpuset_mems.clone(),
            pids_limit: self.pids_limit,
            io_weight: self.io_weight,
            io_limits: self.io_limits(),
            hugetlb: self.hugetlb()?,
            unified: self
                .cgroup_conf
                .iter()
                .map(|p| (p.key.clone(), p.value.clone()))
                .collect(),
        })
    }

    /// The rates, by device in the order in which they were named.
    fn io_limits(&self) -> Vec<IoLimit> {
        type Rate = fn(&mut IoLimit) -> &mut Option<u64>;
        let lists: [(&[(String, u64)], Rate); 4] = [
            (&self.device_read_bps, |l| &mut l.read_bps),
            (&self.device_write_bps, |l| &mut l.write_bps),
            (&self.device_read_iops, |l| &mut l.read_iops),
            (&self.device_write_iops, |l| &mut l.write_iops),
        ];
        let mut limits: Vec<IoLimit> = Vec::new();
        for (list, rate) in lists {
            for (device, value) in list {
                let known = limits.iter().position(|l| l.device == *device);
                let index = known.unwrap_or_else(|| {
                    let device = device.clone();
                    limits.push(IoLimit {
                        device,
                        ..IoLimit::default()
                    });
                    limits.len() - 1
                });
                *rate(&mut limits[index]) = Some(*value);
            }
        }
        limits
    }

    fn hugetlb(&self) -> Result<BTreeMap<String, u64>, Failure> {
        let limit = |pair: &Pair| {
            let bytes = parse::size(&pair.value)
                .map_err(|e| Failure::usage(format!("--hugetlb {}: {e}", pair.key), ""))?;
            Ok((pair.key.clone(), bytes))
        };
        self.hugetlb.iter().map(limit).collect()
    }
}

// `lbctl update`.
#[derive(Debug, Args)]
pub struct UpdateArgs {
    #[command(flatten)]
    limits: ResourceArgs,
    /// Remove a limit, by its name in the API's resources, e.g. memory, cpus, io_limits
    #[arg(long, value_name = "LIMIT")]
    lift: Vec<String>,
    /// Containers, by name or id
    #[arg(required = true, value_name = "CONTAINER")]
    names: Vec<String>,
}

/// Changes limits, of containers that run at once.
pub async fn update(ctx: &Context, args: UpdateArgs) -> Result<i32, Failure> {
    let patch = patch(&args)?;
    if patch == ResourcesPatch::default() {
        return Err(Failure::usage(
            "there is nothing to change",
            "name a limit, like --memory 512m, or one to lift, like --lift memory",
        ));
    }
    let patch = ContainerPatch {
        resources: Some(patch),
        ..ContainerPatch::default()
    };
    many::each_container(ctx, &args.names, async |name| {
        ctx.client.update_container(name, &patch, None).await
    })
    .await
}

fn patch(args: &UpdateArgs) -> Result<ResourcesPatch, Failure> {
    let asked = args.limits.resources()?;
    let patch = ResourcesPatch {
        memory: asked.memory.into(),
        memory_swap: asked.memory_swap.into(),
        memory_reservation: asked.memory_reservation.into(),
        memory_high: asked.memory_high.into(),
        memory_swappiness: asked.memory_swappiness.into(),
        cpus: asked.cpus.into(),
        cpu_quota_us: asked.cpu_quota_us.into(),
        cpu_period_us: asked.cpu_period_us.into(),
        cpu_weight: asked.cpu_weight.into(),
        cpuset_cpus: asked.cpuset_cpus.into(),
        cpuset_mems: asked.cpuset_mems.into(),
        pids_limit: asked.pids_limit.into(),
        io_weight: asked.io_weight.into(),
        io_limits: Some(asked.io_limits).filter(|l| !l.is_empty()).into(),
        hugetlb: Some(asked.hugetlb).filter(|l| !l.is_empty()).into(),
        unified: Some(asked.unified).filter(|l| !l.is_empty()).into(),
    };
    lift(patch, &args.lift)
}

/// Lifts limits by their names in the API, in which `null` is what lifts one.
fn lift(patch: ResourcesPatch, names: &[String]) -> Result<ResourcesPatch, Failure> {
    let unknown = |name: &str| {
        Failure::usage(
            format!("unknown limit '{name}'"),
            "names are those of the API's resources, like memory, cpus, pids_limit, io_limits",
        )
    };
    let mut json = serde_json::json!(patch);
    for name in names {
        let field = match name.replace('-', "_").as_str() {
            // As the options are called.
            field @ ("cpu_quota" | "cpu_period") => format!("{field}_us"),
            field => field.to_owned(),
        };
        let lifted = serde_json::json!({ &field: null });
        serde_json::from_value::<ResourcesPatch>(lifted).map_err(|_| unknown(name))?;
        json[field] = serde_json::Value::Null;
    }
    serde_json::from_value(json).map_err(|_| unknown(&names.join(", ")))
}
