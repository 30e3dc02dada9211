//! The `process` object of a spec.

use littlebox_helper::protocol::ExecPlan;
use oci_spec::runtime::Process;

use crate::{ExecEnvelope, PlanError};

/// Makes the plan of an exec from an OCI `process` object.
///
/// # Errors
/// A [`PlanError`] names the first value that is wrong or cannot be expressed; its pointer is
/// relative to the process object.
pub fn exec_plan(_process: &Process, _envelope: ExecEnvelope) -> Result<ExecPlan, PlanError> {
    Err(PlanError::new("", "not written yet"))
}
