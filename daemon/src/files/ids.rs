//! Whose ids: the daemon's or the container's.

use std::cell::Cell;

use littlebox_types::{IdMap, IdMaps};
use rustix::io::Errno;
use rustix::thread::{
    CapabilitySet, CapabilitySets, Gid, Uid, capabilities, set_capabilities, set_thread_res_gid,
    set_thread_res_uid,
};
use serde::{Deserialize, Serialize};

/// What the kernel shows inside a user namespace for an id that it does not map
/// (`/proc/sys/kernel/overflowuid`).
const NOBODY: u32 = 65_534;

/// How user and group ids of the host are seen inside the container.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct IdView(Option<IdMaps>);

impl IdView {
    /// The container has the host's ids.
    pub fn identity() -> Self {
        Self(None)
    }

    /// The container is in a user namespace with these maps; `None`: in the host's.
    pub fn new(maps: Option<IdMaps>) -> Self {
        Self(maps)
    }

    /// The maps.
    pub fn maps(&self) -> Option<&IdMaps> {
        self.0.as_ref()
    }

    /// A user id of the host as the container sees it.
    pub fn user_inside(&self, host: u32) -> u32 {
        self.0.as_ref().map_or(host, |maps| inside(&maps.uid, host))
    }

    /// [`IdView::user_inside`], and `None` when the container does not have it.
    pub fn mapped_user_inside(&self, host: u32) -> Option<u32> {
        match &self.0 {
            None => Some(host),
            Some(maps) => mapped_inside(&maps.uid, host),
        }
    }

    /// A group id of the host as the container sees it.
    pub fn group_inside(&self, host: u32) -> u32 {
        self.0.as_ref().map_or(host, |maps| inside(&maps.gid, host))
    }

    /// A user id of the container on the host; `None` when it has none.
    pub fn user_on_host(&self, container: u32) -> Option<u32> {
        match &self.0 {
            None => Some(container),
            Some(maps) => on_host(&maps.uid, container),
        }
    }

    /// A group id of the container on the host; `None` when it has none.
    pub fn group_on_host(&self, container: u32) -> Option<u32> {
        match &self.0 {
            None => Some(container),
            Some(maps) => on_host(&maps.gid, container),
        }
    }

    /// Runs `work` on this thread as the container's root: a file system of a user namespace
    /// refuses new files of an id that it does not map (EOVERFLOW), and the daemon's own is one.
    pub(super) fn as_root<T>(&self, work: impl FnOnce(&Rights<'_>) -> T) -> Result<T, Errno> {
        let first = |map: &[IdMap]| {
            let line = map.iter().min_by_key(|line| line.container_id)?;
            Some(on_host(map, 0).unwrap_or(line.host_id))
        };
        let root = self
            .0
            .as_ref()
            .and_then(|maps| Some((maps, first(&maps.uid)?, first(&maps.gid)?)));
        match root {
            None => Ok(work(&Rights(None))),
            Some((maps, uid, gid)) => {
                let assumed = Assumed::assume(uid, gid)?;
                Ok(work(&Rights(Some((maps, &assumed)))))
            }
        }
    }
}

/// The rights of a thread that acts as a container's root.
pub(super) struct Rights<'a>(Option<(&'a IdMaps, &'a Assumed)>);

impl Rights<'_> {
    /// Whether the container's root has capabilities over a file: only if the container's user namespace maps
    /// its owner and group (user_namespaces(7)). Otherwise the file's mode alone decides.
    pub(super) fn map(&self, (uid, gid): (u32, u32)) -> bool {
        self.0.is_none_or(|(maps, _)| {
            mapped_inside(&maps.uid, uid).is_some() && mapped_inside(&maps.gid, gid).is_some()
        })
    }

    /// Turns this thread's capabilities on or off.
    pub(super) fn with_capabilities(&self, wanted: bool) -> Result<(), Errno> {
        self.0
            .map_or(Ok(()), |(_, assumed)| assumed.have_capabilities(wanted))
    }
}

fn inside(map: &[IdMap], host: u32) -> u32 {
    mapped_inside(map, host).unwrap_or(NOBODY)
}

fn mapped_inside(map: &[IdMap], host: u32) -> Option<u32> {
    map.iter().find_map(|line| {
        let offset = host.checked_sub(line.host_id)?;
        (offset < line.size).then(|| line.container_id + offset)
    })
}

fn on_host(map: &[IdMap], container: u32) -> Option<u32> {
    map.iter().find_map(|line| {
        let offset = container.checked_sub(line.container_id)?;
        (offset < line.size).then(|| line.host_id + offset)
    })
}

/// This thread's effective ids are others until it is dropped. The real and saved ones stay 0, and
/// so do the permitted capabilities (capabilities(7), "Effect of user ID changes").
struct Assumed {
    before: CapabilitySets,
    /// Whether those capabilities are effective now.
    effective: Cell<bool>,
}

impl Assumed {
    fn assume(uid: u32, gid: u32) -> Result<Self, Errno> {
        // From here on the way back is taken whatever fails.
        let assumed = Self {
            before: capabilities(None)?,
            effective: Cell::new(false),
        };
        let keep = |uid: u32| Uid::from_raw(uid);
        set_thread_res_gid(Gid::from_raw(0), Gid::from_raw(gid), Gid::from_raw(0))?;
        // Clears the effective set.
        set_thread_res_uid(keep(0), keep(uid), keep(0))?;
        assumed.have_capabilities(true)?;
        Ok(assumed)
    }

    fn have_capabilities(&self, wanted: bool) -> Result<(), Errno> {
        if self.effective.get() == wanted {
            return Ok(());
        }
        let mut sets = self.before;
        if !wanted {
            sets.effective = CapabilitySet::empty();
        }
        set_capabilities(None, sets)?;
        self.effective.set(wanted);
        Ok(())
    }
}

impl Drop for Assumed {
    fn drop(&mut self) {
        let root = (Uid::from_raw(0), Gid::from_raw(0));
        let restored = set_thread_res_uid(root.0, root.0, root.0)
            .and_then(|()| set_thread_res_gid(root.1, root.1, root.1))
            .and_then(|()| set_capabilities(None, self.before));
        if let Err(error) = restored {
            // A thread of the daemon that is somebody else must do nothing more.
            tracing::error!(%error, "cannot become root again");
            std::process::abort();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn view() -> IdView {
        let line = |container_id, host_id, size| IdMap {
            container_id,
            host_id,
            size,
        };
        IdView::new(Some(IdMaps {
            uid: vec![line(0, 700_000, 1000), line(5000, 900_000, 1)],
            gid: vec![line(0, 800_000, 1000)],
        }))
    }

    #[test]
    fn ids_are_seen_through_the_maps_and_back() {
        let view = view();
        assert_eq!(view.user_inside(700_000), 0);
        assert_eq!(view.user_inside(900_000), 5000);
        assert_eq!(view.user_inside(0), NOBODY);
        assert_eq!(view.user_inside(701_000), NOBODY);
        assert_eq!(view.group_inside(800_999), 999);
        assert_eq!(view.user_on_host(999), Some(700_999));
        assert_eq!(view.user_on_host(1000), None);
        assert_eq!(view.group_on_host(5000), None);
        assert_eq!(IdView::identity().user_inside(7), 7);
        assert_eq!(IdView::identity().group_on_host(7), Some(7));
    }
}
