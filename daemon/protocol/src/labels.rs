//! Labels of Linux security modules.

use serde::{Deserialize, Serialize};

/// What a process is labelled with from its execve on.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct LabelPlan {
    /// The name of an AppArmor profile that is loaded.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub apparmor: Option<String>,
    /// An SELinux context.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub selinux: Option<String>,
}

impl LabelPlan {
    /// Nothing is asked for.
    pub fn is_empty(&self) -> bool {
        self.apparmor.is_none() && self.selinux.is_none()
    }
}
