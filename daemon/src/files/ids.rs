//! Whose ids: the daemon's or the container's.

/// How user and group ids of the host are seen inside the container. The identity for now: this
/// is the one place where the id maps of a user namespace will be applied.
#[derive(Debug, Clone, Copy, Default)]
pub struct IdView;

impl IdView {
    /// The container has the host's ids.
    pub fn identity() -> Self {
        Self
    }

    /// A host id as the container sees it.
    pub fn to_container(&self, host: u32) -> u32 {
        host
    }

    /// A container id on the host; `None` when it has none.
    pub fn to_host(&self, container: u32) -> Option<u32> {
        Some(container)
    }
}
