//! Who is at the other end of a connection, and how many connections each may have.
//!
//! A container that sees the socket through a bind mount could connect: the id map of the mount makes
//! it the socket's owner. Nothing that a container asks is done, unless it was given the socket itself.

use std::collections::HashMap;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use nix::errno::Errno;
use nix::sys::socket::{getsockopt, sockopt};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use tokio::net::UnixStream;

use crate::faults::Defence;
use crate::idpool::PoolConfig;

/// The process at the other end of the socket (`SO_PEERCRED`, unix(7)).
#[derive(Debug, Clone, Copy)]
pub struct Peer {
    /// Its PID when it connected.
    pub pid: i32,
    /// Its user.
    pub uid: u32,
    /// Its group.
    pub gid: u32,
    /// Where it is.
    pub place: Whereabouts,
}

/// Whether a process is in a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Whereabouts {
    /// It is not.
    Outside,
    /// It is, or nobody knows because it has ended.
    Inside,
    /// The daemon has no descriptor or memory left to look.
    Unknown(Errno),
}

/// Most connections of all containers together, served slowly and to be refused.
const INSIDE_LIMIT: usize = 64;

/// Knows peers and counts their connections.
#[derive(Debug)]
pub struct Peers {
    pool: PoolConfig,
    /// Inode of the daemon's own user namespace.
    own_namespace: Option<u64>,
    /// Most connections of one process, and of one user who is not the daemon's.
    share: usize,
    open: Mutex<HashMap<Key, usize>>,
}

/// Whose connections are counted together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Key {
    Process(i32),
    User(u32),
    Inside,
}

impl Peers {
    /// With the ids of containers, and the most connections of all peers.
    pub fn new(pool: PoolConfig, max_connections: usize) -> Arc<Self> {
        Arc::new(Self {
            pool,
            own_namespace: user_namespace("self"),
            share: max_connections.div_ceil(2),
            open: Mutex::default(),
        })
    }

    /// Who has connected; `None` when the kernel does not say.
    pub fn identify(&self, stream: &UnixStream) -> Option<Peer> {
        let credentials = getsockopt(stream, sockopt::PeerCredentials).ok()?;
        let uid = credentials.uid();
        let pid = credentials.pid();
        let place = if !Defence::OutsidePeers.stands() {
            Whereabouts::Outside
        } else if self.pool.overlaps(uid, 1) {
            Whereabouts::Inside
        } else {
            match self.is_neighbour(stream, pid) {
                Ok(true) => Whereabouts::Outside,
                Ok(false) => Whereabouts::Inside,
                Err(errno) => Whereabouts::Unknown(errno),
            }
        };
        Some(Peer {
            pid,
            uid,
            gid: credentials.gid(),
            place,
        })
    }

    /// Whether a process is in the daemon's own user namespace. One that has ended is not known to be.
    fn is_neighbour(&self, stream: &UnixStream, pid: i32) -> Result<bool, Errno> {
        let Some(own) = self.own_namespace else {
            // A kernel without user namespaces has no others.
            return Ok(true);
        };
        // Before Linux 6.5 the socket has no pidfd to give.
        let pidfd = getsockopt(stream, sockopt::PeerPidfd).or_else(|_| {
            let pid = Pid::from_raw(pid).ok_or(Errno::ESRCH)?;
            pidfd_open(pid, PidfdFlags::empty())
                .map_err(|errno| Errno::from_raw(errno.raw_os_error()))
        });
        let pidfd = match pidfd {
            Ok(pidfd) => pidfd,
            Err(errno @ (Errno::EMFILE | Errno::ENFILE | Errno::ENOMEM)) => return Err(errno),
            Err(_) => return Ok(false),
        };
        let namespace = user_namespace(&pid.to_string());
        // Alive after the look, so it was this process that was looked at.
        Ok(namespace == Some(own) && is_alive(pidfd.as_fd()))
    }

    /// Takes a place for a connection; `None` when its peer has its share already.
    pub fn admit(self: &Arc<Self>, peer: Option<Peer>) -> Option<Place> {
        let keys: Vec<(Key, usize)> = match peer {
            Some(peer) if peer.place == Whereabouts::Outside => {
                let own = peer.uid == rustix::process::geteuid().as_raw();
                let user = (!own).then_some((Key::User(peer.uid), self.share));
                let process = (Key::Process(peer.pid), self.share);
                [Some(process), user].into_iter().flatten().collect()
            }
            Some(_) | None => vec![(Key::Inside, INSIDE_LIMIT.min(self.share))],
        };
        let mut open = self.open();
        let full = |(key, most): &(Key, usize)| open.get(key).is_some_and(|count| count >= most);
        if keys.iter().any(full) {
            return None;
        }
        let keys: Vec<Key> = keys.into_iter().map(|(key, _)| key).collect();
        for key in &keys {
            *open.entry(*key).or_default() += 1;
        }
        drop(open);
        Some(Place {
            peers: Arc::clone(self),
            keys,
        })
    }

    fn open(&self) -> MutexGuard<'_, HashMap<Key, usize>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The place of one connection, given back when it is dropped.
#[derive(Debug)]
pub struct Place {
    peers: Arc<Peers>,
    keys: Vec<Key>,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut open = self.peers.open();
        for key in &self.keys {
            if let Some(count) = open.get_mut(key) {
                *count -= 1;
                if *count == 0 {
                    open.remove(key);
                }
            }
        }
    }
}

/// The inode of a process' user namespace.
fn user_namespace(process: &str) -> Option<u64> {
    let meta = std::fs::metadata(format!("/proc/{process}/ns/user")).ok()?;
    Some(meta.ino())
}

fn is_alive(pidfd: impl AsFd) -> bool {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    let mut fds = [PollFd::from_borrowed_fd(pidfd.as_fd(), PollFlags::IN)];
    // Readable once the process has ended (pidfd_open(2)).
    poll(&mut fds, Some(&Timespec::default())) == Ok(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peers(max: usize) -> Arc<Peers> {
        let pool = PoolConfig {
            start: 65_536 * 10,
            count: 65_536,
            size: 65_536,
            registry: "/nowhere".into(),
        };
        Peers::new(pool, max)
    }

    fn peer(pid: i32, uid: u32, inside: bool) -> Option<Peer> {
        Some(Peer {
            pid,
            uid,
            gid: 0,
            place: if inside {
                Whereabouts::Inside
            } else {
                Whereabouts::Outside
            },
        })
    }

    #[test]
    fn no_process_takes_more_than_half_of_the_connections() {
        let peers = peers(4);
        let uid = rustix::process::geteuid().as_raw();
        let held: Vec<_> = (0..2).map(|_| peers.admit(peer(1, uid, false))).collect();
        assert!(held.iter().all(Option::is_some));
        assert!(peers.admit(peer(1, uid, false)).is_none());
        assert!(peers.admit(peer(2, uid, false)).is_some());
        drop(held);
        assert!(peers.admit(peer(1, uid, false)).is_some());
        assert!(peers.open().is_empty());
    }

    #[test]
    fn nor_does_a_user_with_many_processes_or_all_containers_together() {
        let peers = peers(4);
        let _held: Vec<_> = (0..2)
            .map(|pid| peers.admit(peer(pid, 1000, false)))
            .collect();
        assert!(peers.admit(peer(9, 1000, false)).is_none());
        let _inside: Vec<_> = (0..2)
            .map(|pid| peers.admit(peer(pid, pid.cast_unsigned(), true)))
            .collect();
        assert!(peers.admit(peer(9, 9, true)).is_none());
        assert!(peers.admit(peer(9, 9, false)).is_some());
    }

    #[tokio::test]
    async fn this_process_is_outside_of_every_container() {
        let (ours, _theirs) = UnixStream::pair().unwrap();
        let peer = peers(4).identify(&ours).unwrap();
        assert_eq!(peer.pid.cast_unsigned(), std::process::id());
        assert_eq!(peer.place, Whereabouts::Outside);
    }
}
