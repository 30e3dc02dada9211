//! A plan as sentences and equivalent shell commands.

use littlebox_helper::protocol::{LaunchPlan, Step};

/// One step of a start, explained.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExplainedStep {
    /// Which.
    pub step: Step,
    /// What happens and why, as a sentence.
    pub what: String,
    /// Shell commands that would do the same, where there are any.
    pub commands: Vec<String>,
}

/// Explains every step that this plan needs, in the order of the helper's work.
pub fn explain(_plan: &LaunchPlan) -> Vec<ExplainedStep> {
    Vec::new()
}
