//! A cgroup that somebody else has frozen.

use std::fs;
use std::path::{Path, PathBuf};

use super::wait_until;

const ROOT: &str = "/sys/fs/cgroup";

/// Frozen until this is dropped. Then it is removed, in all hierarchies.
pub struct Frozen {
    name: String,
    path: PathBuf,
    file: &'static str,
    thawed: &'static str,
}

impl Frozen {
    /// Below the root of the hierarchy that freezes: the v1 freezer, else the v2 tree.
    pub fn make(name: &str) -> Frozen {
        let root = Path::new(ROOT);
        let is_v1 = root.join("freezer/cgroup.procs").exists();
        let (mount, file, frozen, thawed) = if is_v1 {
            (root.join("freezer"), "freezer.state", "FROZEN", "THAWED")
        } else {
            (root.to_owned(), "cgroup.freeze", "1", "0")
        };
        let path = mount.join(name);
        fs::create_dir_all(&path).unwrap();
        fs::write(path.join(file), frozen).unwrap();
        let name = name.to_owned();
        Frozen {
            name,
            path,
            file,
            thawed,
        }
    }

    /// Puts a process into it.
    pub fn attach(&self, pid: u32) {
        fs::write(self.path.join("cgroup.procs"), pid.to_string()).unwrap();
    }

    pub fn thaw(&self) {
        fs::write(self.path.join(self.file), self.thawed).unwrap();
    }

    /// The directories of this name in all hierarchies, and in each of them one below.
    pub fn everywhere(&self, below: &str) -> Vec<PathBuf> {
        let mounts = fs::read_dir(ROOT).unwrap();
        let mounts = mounts.map(|entry| entry.unwrap().path());
        let paths = mounts.chain([PathBuf::from(ROOT)]);
        let paths = paths.map(|mount| mount.join(&self.name).join(below));
        paths.filter(|path| path.exists()).collect()
    }

    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        let _ = fs::write(self.path.join(self.file), self.thawed);
        let mut paths = vec![self.path.clone()];
        // The runtime makes a path in every hierarchy, and leaves all but its last part.
        for hierarchy in fs::read_dir(ROOT).unwrap() {
            paths.push(hierarchy.unwrap().path().join(&self.name));
        }
        for path in paths {
            let removed = wait_until(|| is_removed(&path));
            assert!(removed || std::thread::panicking(), "{}", path.display());
        }
    }
}

fn is_removed(path: &Path) -> bool {
    fs::remove_dir(path).is_ok() || !path.exists()
}
