//! The spec's `linux` object.

use std::collections::HashMap;

use littlebox_plan::pointer;
use littlebox_types::{ContainerConfig, Propagation};
use oci_spec::runtime::{Linux, LinuxDeviceCgroup};

use super::namespaces::{self, Sources};
use super::{ConfigError, SpecContext, check, clocks, devices, hiding, labels, resources};

/// Namespaces, limits and what of the root is hidden.
pub(super) fn for_spec(
    config: &ContainerConfig,
    ctx: &SpecContext<'_>,
    sources: &Sources,
) -> Result<Linux, ConfigError> {
    let mut linux = Linux::default();
    linux.set_namespaces(Some(namespaces::for_spec(sources)));
    if let Some((uid, gid)) = namespaces::id_maps(config, sources, ctx.range)? {
        linux.set_uid_mappings(Some(uid));
        linux.set_gid_mappings(Some(gid));
    }
    linux.set_time_offsets(clocks::for_spec(config, sources)?);
    linux.set_sysctl(sysctls(config, sources)?);
    let mut resources = resources::for_spec(&config.resources)?;
    if config.privileged {
        // Every device, as the capability to make its node means it.
        let mut all = LinuxDeviceCgroup::default();
        all.set_allow(true);
        all.set_access(Some("rwm".to_owned()));
        resources.set_devices(Some(vec![all]));
    }
    devices::add_rules(&mut resources, config)?;
    linux.set_resources(Some(resources));
    linux.set_mount_label(labels::mount_label(config));
    let propagation = config.propagation.unwrap_or(Propagation::Rprivate);
    linux.set_rootfs_propagation(Some(propagation.to_string()));
    hiding::set(&mut linux, config)?;
    Ok(linux)
}

fn sysctls(
    config: &ContainerConfig,
    sources: &Sources,
) -> Result<Option<HashMap<String, String>>, ConfigError> {
    check::at_most(config.sysctls.len(), 256, "/sysctls", "sysctls")?;
    for (name, value) in &config.sysctls {
        let pointer = || pointer::below("/sysctls", name);
        littlebox_plan::sysctl::check(name, value, |kind| namespaces::is_new(sources, kind))
            .map_err(|detail| check::error(pointer(), detail))?;
        if name == "kernel.hostname" && config.hostname.is_some() {
            return Err(check::error_with(
                pointer(),
                "the host name is given twice",
                "leave out this sysctl or the field hostname",
            ));
        }
    }
    let map = || {
        config
            .sysctls
            .iter()
            .map(|(k, v)| (k.clone(), v.clone()))
            .collect()
    };
    Ok((!config.sysctls.is_empty()).then(map))
}
