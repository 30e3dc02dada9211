//! The launch plan.

use littlebox_helper::protocol::LaunchPlan;
use oci_spec::runtime::Spec;

use crate::{Envelope, PlanError};

/// Makes the plan of a container from its OCI runtime spec.
///
/// # Errors
/// A [`PlanError`] names the first value that is wrong or cannot be expressed.
pub fn launch_plan(_spec: &Spec, _envelope: Envelope) -> Result<LaunchPlan, PlanError> {
    Err(PlanError::new("", "not written yet"))
}
