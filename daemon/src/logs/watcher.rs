//! One inotify instance for all followers: a user may have 128 of them (`max_user_instances`,
//! inotify(7)), but many thousand watches.
//!
//! Directories are watched, not files: so a file that does not exist yet, and one that takes a
//! rotated one's place, are seen too.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::fs::inotify::{self, CreateFlags, ReadFlags, WatchFlags};
use rustix::io::Errno;
use tokio::io::unix::AsyncFd;
use tokio::sync::Notify;
use tokio::sync::futures::OwnedNotified;
use tokio::task::AbortHandle;

/// Wakes followers when their files change.
#[derive(Debug)]
pub struct Watcher {
    shared: Arc<Shared>,
    task: Option<AbortHandle>,
}

#[derive(Debug)]
struct Shared {
    /// `None`: followers poll.
    inotify: Option<AsyncFd<OwnedFd>>,
    watches: Mutex<Watches>,
}

#[derive(Debug, Default)]
struct Watches {
    directories: HashMap<PathBuf, Directory>,
    by_descriptor: HashMap<i32, PathBuf>,
}

#[derive(Debug, Default)]
struct Directory {
    /// The kernel's watch; `None` while the directory does not exist.
    descriptor: Option<i32>,
    names: HashMap<OsString, Name>,
}

#[derive(Debug, Default)]
struct Name {
    notify: Arc<Notify>,
    watches: usize,
}

impl Watcher {
    /// Opens the inotify instance and starts its task; must be called inside a tokio runtime.
    ///
    /// Without an instance (inotify_init1(2): `EMFILE` when others of the daemon's user have used
    /// them up) followers poll: a daemon that must start again does.
    pub fn new() -> Arc<Self> {
        let opened = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK);
        Self::of(
            opened
                .map_err(io::Error::from)
                .and_then(crate::asyncfd::watch),
        )
    }

    pub(super) fn of(inotify: io::Result<AsyncFd<OwnedFd>>) -> Arc<Self> {
        let inotify = inotify
            .inspect_err(|error| tracing::warn!(%error, "no inotify instance; logs are polled"))
            .ok();
        let shared = Arc::new(Shared {
            inotify,
            watches: Mutex::default(),
        });
        let task = shared.inotify.is_some().then(|| {
            let shared = Arc::clone(&shared);
            crate::vital::spawn("file watcher", async move { dispatch(&shared).await })
                .abort_handle()
        });
        Arc::new(Self { shared, task })
    }

    /// Watches the file at `path`, whether it exists or not.
    pub(super) fn watch(self: &Arc<Self>, path: &Path) -> Watch {
        let directory = match path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
            _ => PathBuf::from("."),
        };
        let name = path.file_name().unwrap_or_default().to_owned();
        let mut watches = self.shared.lock();
        let entry = watches
            .directories
            .entry(directory.clone())
            .or_default()
            .names
            .entry(name.clone())
            .or_default();
        entry.watches += 1;
        let notify = Arc::clone(&entry.notify);
        drop(watches);
        Watch {
            watcher: Arc::clone(self),
            directory,
            name,
            notify,
        }
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        if let Some(task) = &self.task {
            task.abort();
        }
    }
}

/// Interest in one file.
#[derive(Debug)]
pub(super) struct Watch {
    watcher: Arc<Watcher>,
    directory: PathBuf,
    name: OsString,
    notify: Arc<Notify>,
}

impl Watch {
    /// Completes at the next change after this call, even if it is polled only later.
    pub(super) fn changed(&self) -> OwnedNotified {
        Arc::clone(&self.notify).notified_owned()
    }

    /// Makes sure that the kernel watches the directory; `false` when it cannot (the directory
    /// does not exist, no watches are left), so that the caller polls.
    pub(super) fn is_live(&self) -> bool {
        let Some(inotify) = &self.watcher.shared.inotify else {
            return false;
        };
        let mut guard = self.watcher.shared.lock();
        let watches = &mut *guard;
        let Some(directory) = watches.directories.get_mut(&self.directory) else {
            return false;
        };
        if directory.descriptor.is_none() {
            let flags = WatchFlags::MODIFY
                | WatchFlags::CREATE
                | WatchFlags::MOVED_FROM
                | WatchFlags::MOVED_TO
                | WatchFlags::ONLYDIR;
            directory.descriptor =
                inotify::add_watch(inotify.get_ref(), &self.directory, flags).ok();
            if let Some(descriptor) = directory.descriptor {
                watches
                    .by_descriptor
                    .insert(descriptor, self.directory.clone());
            }
        }
        directory.descriptor.is_some()
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let mut guard = self.watcher.shared.lock();
        let watches = &mut *guard;
        let Some(directory) = watches.directories.get_mut(&self.directory) else {
            return;
        };
        if let Some(name) = directory.names.get_mut(&self.name) {
            name.watches -= 1;
            if name.watches == 0 {
                directory.names.remove(&self.name);
            }
        }
        if directory.names.is_empty() {
            if let (Some(descriptor), Some(inotify)) =
                (directory.descriptor, &self.watcher.shared.inotify)
            {
                watches.by_descriptor.remove(&descriptor);
                // EINVAL when the directory is gone and the kernel has removed the watch itself.
                let _ = inotify::remove_watch(inotify.get_ref(), descriptor);
            }
            watches.directories.remove(&self.directory);
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Watches> {
        self.watches.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads every event that waits. `false` when inotify itself is broken.
    fn drain(&self, inotify: &OwnedFd) -> bool {
        let mut buffer = [MaybeUninit::uninit(); 8192];
        let mut reader = inotify::Reader::new(inotify, &mut buffer);
        loop {
            match reader.next() {
                Ok(event) => {
                    let name = event
                        .file_name()
                        .map(|name| OsStr::from_bytes(name.to_bytes()));
                    self.lock().notify(event.wd(), event.events(), name);
                }
                Err(Errno::AGAIN) => return true,
                Err(Errno::INTR) => {}
                Err(_) => return false,
            }
        }
    }
}

impl Watches {
    fn notify(&mut self, descriptor: i32, events: ReadFlags, name: Option<&OsStr>) {
        if events.contains(ReadFlags::QUEUE_OVERFLOW) {
            for name in self
                .directories
                .values()
                .flat_map(|directory| directory.names.values())
            {
                name.notify.notify_waiters();
            }
            return;
        }
        let Some(path) = self.by_descriptor.get(&descriptor) else {
            return;
        };
        let Some(directory) = self.directories.get_mut(path) else {
            return;
        };
        if events.contains(ReadFlags::IGNORED) {
            // The directory was removed, and with it the watch.
            directory.descriptor = None;
            self.by_descriptor.remove(&descriptor);
            return;
        }
        if let Some(name) = name.and_then(|name| directory.names.get(name)) {
            name.notify.notify_waiters();
        }
    }
}

async fn dispatch(shared: &Shared) {
    let Some(inotify) = &shared.inotify else {
        return;
    };
    loop {
        let Ok(mut ready) = inotify.readable().await else {
            return;
        };
        ready.clear_ready();
        if !shared.drain(inotify.get_ref()) {
            // Followers poll without it.
            tracing::error!("inotify failed; logs are polled from now on");
            return;
        }
    }
}
