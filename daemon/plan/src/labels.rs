//! Labels of Linux security modules (OCI config.md, "Linux Process": `apparmorProfile`,
//! `selinuxLabel`; config-linux.md: `mountLabel`).

use littlebox_protocol::{LabelPlan, MountPlan, MountSource};
use oci_spec::runtime::{Linux, Process};

use crate::PlanError;

/// The longest label that is taken; the kernel reads at most a page.
const LIMIT: usize = 2048;

/// Checks the name of an AppArmor profile.
///
/// # Errors
/// What is wrong, as a sentence.
pub fn check_profile(name: &str) -> Result<(), String> {
    let bad = |c: char| c.is_control() || c.is_whitespace();
    if name.is_empty() || name.len() > LIMIT || name.contains(bad) {
        return Err(format!(
            "'{}' is not the name of an AppArmor profile",
            name.escape_default()
        ));
    }
    Ok(())
}

/// Checks an SELinux context: `USER:ROLE:TYPE[:LEVEL]`.
///
/// # Errors
/// What is wrong, as a sentence.
pub fn check_context(context: &str) -> Result<(), String> {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-' | ':' | ',');
    let parts = context
        .split(':')
        .take_while(|part| !part.is_empty())
        .count();
    if parts < 3 || context.len() > LIMIT || !context.chars().all(plain) {
        return Err(format!(
            "'{}' is not an SELinux context; write it as USER:ROLE:TYPE:LEVEL",
            context.escape_default()
        ));
    }
    Ok(())
}

/// Plans the labels of a process; `base` is the pointer of its object. `unconfined` is what a
/// process without an AppArmor profile is.
pub(crate) fn plan(process: &Process, base: &str) -> Result<LabelPlan, PlanError> {
    let given = |label: &Option<String>| label.clone().filter(|l| !l.is_empty());
    let apparmor = given(process.apparmor_profile()).filter(|p| p != "unconfined");
    let selinux = given(process.selinux_label());
    if let Some(profile) = &apparmor {
        check_profile(profile).map_err(|m| PlanError::new(format!("{base}/apparmorProfile"), m))?;
    }
    if let Some(context) = &selinux {
        check_context(context).map_err(|m| PlanError::new(format!("{base}/selinuxLabel"), m))?;
    }
    Ok(LabelPlan { apparmor, selinux })
}

/// The label of the container's filesystems.
pub(crate) fn mount_label(linux: Option<&Linux>) -> Result<Option<String>, PlanError> {
    let label = linux.and_then(|l| l.mount_label().clone());
    let label = label.filter(|l| !l.is_empty());
    if let Some(context) = &label {
        check_context(context).map_err(|m| PlanError::new("/linux/mountLabel", m))?;
    }
    Ok(label)
}

/// Labels the fresh filesystems that can be: the mount option `context` of SELinux.
pub(crate) fn label_mounts(mounts: &mut [MountPlan], label: Option<&str>) {
    let Some(label) = label else { return };
    for mount in mounts {
        if let MountSource::Filesystem {
            fstype, options, ..
        } = &mut mount.source
            && matches!(fstype.as_str(), "tmpfs" | "devpts")
            && !options.iter().any(|o| o.starts_with("context="))
        {
            options.push(format!("context={label}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contexts_have_three_parts_and_a_level() {
        for good in [
            "system_u:system_r:container_t",
            "system_u:system_r:container_t:s0:c1,c2",
            "u:r:t:s0-s15:c0.c1023",
        ] {
            assert_eq!(check_context(good), Ok(()), "{good}");
        }
        for bad in ["", "a:b", "a::b:c", "a:b:c d", "a:b:c\n", "a:b:\"c\""] {
            assert!(check_context(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn profiles_are_one_word() {
        assert!(check_profile("docker-default").is_ok() && check_profile("a//b").is_ok());
        assert!(check_profile("").is_err() && check_profile("a\nexec b").is_err());
    }
}
