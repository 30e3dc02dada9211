//! Names in an archive, taken for what they are: somebody's word.

use littlebox_archive::bad;

use super::{FileError, shown};

/// Where an entry goes.
pub(super) struct Place {
    /// Below the directory that is unpacked into, without `.` and doubled slashes.
    pub(super) path: Vec<u8>,
    /// How much of it is the parent.
    parent_len: usize,
}

impl Place {
    /// `None` for the directory itself.
    pub(super) fn of(path: &[u8]) -> Result<Option<Self>, FileError> {
        let mut clean: Vec<u8> = Vec::with_capacity(path.len());
        let mut parent_len = 0;
        for component in path.split(|byte| *byte == b'/') {
            match component {
                b"" | b"." => continue,
                b".." => return Err(bad(&format!("{}: '..' in a name", shown(path)))),
                _ if component.contains(&0) => {
                    return Err(bad(&format!("{}: a zero byte in a name", shown(path))));
                }
                _ => {}
            }
            parent_len = clean.len();
            if !clean.is_empty() {
                clean.push(b'/');
            }
            clean.extend_from_slice(component);
        }
        Ok((!clean.is_empty()).then_some(Self {
            path: clean,
            parent_len,
        }))
    }

    pub(super) fn parent(&self) -> &[u8] {
        &self.path[..self.parent_len]
    }

    pub(super) fn name(&self) -> &[u8] {
        match self.parent_len {
            0 => &self.path,
            len => &self.path[len + 1..],
        }
    }
}
