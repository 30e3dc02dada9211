//! What a spec may ask for and a launch plan cannot express.
//!
//! Refused is everything whose absence a program or an administrator would notice. Passed over, as
//! the specification demands or because nothing is lost: unknown properties, `annotations`, the
//! objects of other platforms (`windows`, `solaris`, `vm`, `zos`), `personality` of the native
//! domain, `apparmorProfile` `unconfined`, and empty objects.

use oci_spec::runtime::{Linux, Spec};

use crate::PlanError;

/// Refuses what the plan of a container cannot express.
pub(crate) fn spec(spec: &Spec) -> Result<(), PlanError> {
    if !spec.version().starts_with("1.") {
        return Err(PlanError::new(
            "/ociVersion",
            format!(
                "'{}' is not a version of the specification that is known here; 1.x is",
                spec.version()
            ),
        ));
    }
    match spec.linux() {
        Some(linux) => self::linux(linux),
        None => Ok(()),
    }
}

fn linux(linux: &Linux) -> Result<(), PlanError> {
    refuse(
        "/linux/",
        "this is not supported yet; remove it",
        [
            ("intelRdt", linux.intel_rdt().is_some()),
            (
                "netDevices",
                linux.net_devices().as_ref().is_some_and(|m| !m.is_empty()),
            ),
        ],
    )
}

fn refuse<const N: usize>(
    base: &str,
    why: &str,
    asked: [(&str, bool); N],
) -> Result<(), PlanError> {
    match asked.iter().find(|(_, present)| *present) {
        Some((name, _)) => Err(PlanError::new(format!("{base}{name}"), why)),
        None => Ok(()),
    }
}
