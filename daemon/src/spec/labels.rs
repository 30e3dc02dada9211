//! Labels of security modules.

use littlebox_types::ContainerConfig;
use oci_spec::runtime::Process;

use super::ConfigError;
use super::check::{error_with, shown};

/// What a process without a label is called.
const UNCONFINED: &str = "unconfined";

/// Sets the labels of a process.
pub(super) fn set(process: &mut Process, config: &ContainerConfig) -> Result<(), ConfigError> {
    if let Some(profile) = config.apparmor.as_ref().filter(|p| *p != UNCONFINED) {
        littlebox_plan::labels::check_profile(profile).map_err(|_| {
            error_with(
                "/apparmor",
                format!("{} is not the name of an AppArmor profile", shown(profile)),
                "give the name of a profile that is loaded, or unconfined",
            )
        })?;
    }
    if let Some(context) = &config.selinux {
        littlebox_plan::labels::check_context(context).map_err(|_| {
            error_with(
                "/selinux",
                format!("{} is not an SELinux context", shown(context)),
                "write it as USER:ROLE:TYPE:LEVEL",
            )
        })?;
    }
    process.set_apparmor_profile(config.apparmor.clone());
    process.set_selinux_label(config.selinux.clone());
    Ok(())
}

/// The label of the container's filesystems: what container policies call `container_file_t`, at
/// the level of the process, so that containers of other levels cannot read them.
pub(super) fn mount_label(config: &ContainerConfig) -> Option<String> {
    let level = config.selinux.as_ref()?.splitn(4, ':').nth(3);
    let level = level.map(|l| format!(":{l}")).unwrap_or_default();
    Some(format!("system_u:object_r:container_file_t{level}"))
}
