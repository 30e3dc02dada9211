//! Writing settings into a cgroup's files, all of them or none.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use rustix::io::Errno;

use super::directories::enable_above;
use super::file::write_file;
use super::{Cgroup, CgroupDir, no_controller};
use crate::fault::{Fault, OrFault};
use littlebox_protocol::cgroup::settings::{FileWrite, Setting};

/// What a file held before it was written.
#[derive(Debug)]
struct Before {
    file: PathBuf,
    value: String,
}

impl Cgroup {
    /// Writes the settings of a new cgroup. With `best_effort` what cannot be set is a warning.
    pub(super) fn write_each(
        &self,
        settings: &[Setting],
        best_effort: bool,
        warnings: &mut Vec<String>,
    ) -> Result<(), Fault> {
        if !best_effort {
            return self.write_all(settings);
        }
        for setting in settings {
            if let Err(fault) = self.write_all(std::slice::from_ref(setting)) {
                warnings.push(fault.sentence());
            }
        }
        Ok(())
    }

    /// Writes all settings, or none: what was written before a failure is set back.
    ///
    /// Some limits bind each other (memory to memory and swap, a burst to the quota), and in which
    /// order they may be written depends on whether they go up or down. So one that the kernel
    /// refuses is tried again after the others.
    pub(super) fn write_all(&self, settings: &[Setting]) -> Result<(), Fault> {
        let mut before = Vec::new();
        let mut left: Vec<&Setting> = settings.iter().collect();
        loop {
            let count = left.len();
            let mut refused = None;
            let mut again = Vec::new();
            for setting in left {
                match self.write_one(setting) {
                    Ok(was) => before.extend(was),
                    Err(fault) if fault.is(Errno::INVAL) || fault.is(Errno::BUSY) => {
                        refused.get_or_insert(fault);
                        again.push(setting);
                    }
                    Err(fault) => return Err(set_back(&before, fault)),
                }
            }
            match refused {
                None => return Ok(()),
                Some(fault) if again.len() == count => return Err(set_back(&before, fault)),
                Some(_) => left = again,
            }
        }
    }

    /// Writes one setting; tells what was there before.
    fn write_one(&self, setting: &Setting) -> Result<Option<Before>, Fault> {
        let dir = self
            .dirs
            .iter()
            .find(|dir| dir.hierarchy.has(&setting.controller))
            .ok_or_else(|| no_controller(setting))?;
        if let Some(written) = first_file(dir, setting)? {
            return Ok(Some(written));
        }
        // A v2 file is there only when the controller is on in all directories above.
        if dir.hierarchy.is_unified() {
            enable_above(&dir.hierarchy, &self.path, &setting.controller).map_err(|fault| {
                let why = fault.sentence();
                fault.because(format!("{}: {why}", setting.field))
            })?;
            if let Some(written) = first_file(dir, setting)? {
                return Ok(Some(written));
            }
        }
        if setting.optional {
            return Ok(None);
        }
        let file = setting.writes.first().map_or("", |write| &write.file);
        Err(Fault::of("open", Errno::NOENT)
            .at(dir.path.join(file).display())
            .because(format!(
                "{}: this kernel cannot enforce the limit: it has no {file}",
                setting.field
            )))
    }
}

/// Writes into the first of the setting's files that there is; `None`: there is none.
fn first_file(dir: &CgroupDir, setting: &Setting) -> Result<Option<Before>, Fault> {
    for write in &setting.writes {
        let file = dir.path.join(&write.file);
        let text = match fs::read_to_string(&file) {
            Ok(text) => text,
            Err(e) if e.kind() == ErrorKind::NotFound => continue,
            // Write-only files have nothing to be set back to.
            Err(e) if e.kind() == ErrorKind::InvalidInput => {
                put(dir, &file, write, setting)?;
                return Ok(None);
            }
            // Without knowing what was there it could not be set back.
            Err(e) => return Err(e).fault_at("read", file.display()),
        };
        let before = Before {
            value: line_before(&text, setting.key.as_deref(), &write.default),
            file,
        };
        put(dir, &before.file, write, setting)?;
        return Ok(Some(before));
    }
    Ok(None)
}

fn put(dir: &CgroupDir, file: &Path, write: &FileWrite, setting: &Setting) -> Result<(), Fault> {
    let value = match (&*write.value, dir.hierarchy.is_unified()) {
        ("", true) => "\n".to_owned(),
        ("", false) => inherited(file)?,
        (value, _) => value.to_owned(),
    };
    write_file(file, &value)
        .fault_at("write", file.display())
        .map_err(|fault| {
            let why = match fault.is(Errno::BUSY) {
                true => " (more than that is in use)",
                false => "",
            };
            fault.because(format!(
                "{}: the kernel refuses {} for {}{why}",
                setting.field,
                value.trim(),
                write.file
            ))
        })
}

/// What the cgroup above has in the same file.
fn inherited(file: &Path) -> Result<String, Fault> {
    let above = file.parent().and_then(Path::parent).zip(file.file_name());
    let above = above.map(|(dir, name)| dir.join(name)).unwrap_or_default();
    let text = fs::read_to_string(&above).fault_at("read", above.display())?;
    Ok(text.trim().to_owned())
}

/// What to write to have a file as it was: its line for `key`, or its only value.
fn line_before(text: &str, key: Option<&str>, default: &str) -> String {
    let Some(key) = key else {
        let first = text.lines().next().unwrap_or_default().trim();
        // Weights are shown as `default 100`, beside those by device; flags as `name 1`.
        let value = first.strip_prefix("default ").unwrap_or(first);
        return match value.strip_prefix("oom_kill_disable ") {
            Some(flag) => flag.to_owned(),
            None => value.to_owned(),
        };
    };
    let line = text
        .lines()
        .find(|line| line.split_whitespace().next() == Some(key));
    line.unwrap_or(default).trim().to_owned()
}

/// Sets everything back, the last one first. What cannot be is added to the fault.
fn set_back(before: &[Before], fault: Fault) -> Fault {
    let mut left: Vec<&Before> = before.iter().rev().collect();
    // As forwards: an order may be forced on us.
    for _ in 0..=before.len() {
        left.retain(|b| {
            let value = if b.value.is_empty() { "\n" } else { &b.value };
            write_file(&b.file, value).is_err()
        });
    }
    if left.is_empty() {
        return fault;
    }
    let files: Vec<String> = left.iter().map(|b| b.file.display().to_string()).collect();
    let detail = fault.sentence();
    fault.because(format!(
        "{detail}; and could not be set back: {}",
        files.join(", ")
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cgroup::Layout;

    #[test]
    fn a_file_that_cannot_be_read_is_not_written() {
        let layout = Layout::parse("31 23 0:28 / /nowhere rw - cgroup cgroup rw,pids");
        let dir = tempfile::tempdir().unwrap();
        let cgroup_dir = CgroupDir {
            hierarchy: layout.with("pids").unwrap().clone(),
            path: dir.path().to_owned(),
            fd: None,
            is_new: true,
        };
        let setting = |file: &str| Setting {
            controller: "pids".into(),
            field: "pids",
            writes: vec![FileWrite {
                file: file.into(),
                value: "1".into(),
                default: String::new(),
            }],
            key: None,
            optional: false,
        };
        fs::create_dir(dir.path().join("unreadable")).unwrap();
        let fault = first_file(&cgroup_dir, &setting("unreadable")).unwrap_err();
        assert!(fault.is(Errno::ISDIR) && fault.sentence().contains("read"));
        assert!(first_file(&cgroup_dir, &setting("none")).unwrap().is_none());
        fs::write(dir.path().join("file"), "7\n").unwrap();
        let before = first_file(&cgroup_dir, &setting("file")).unwrap().unwrap();
        assert_eq!(before.value, "7");
    }

    #[test]
    fn files_are_read_as_they_must_be_written_to_be_set_back() {
        assert_eq!(line_before("max 100000\n", None, ""), "max 100000");
        assert_eq!(line_before("default 100\n8:0 200\n", None, ""), "100");
        assert_eq!(
            line_before("oom_kill_disable 0\nunder_oom 0\n", None, ""),
            "0"
        );
        assert_eq!(line_before("\n", None, ""), "");
    }

    #[test]
    fn a_line_that_is_not_there_yet_goes_back_to_its_default() {
        let text = "8:0 rbps=1 wbps=max riops=max wiops=max\n";
        assert_eq!(line_before(text, Some("8:0"), "8:0 x"), text.trim());
        assert_eq!(
            line_before(text, Some("8:16"), "8:16 rbps=max"),
            "8:16 rbps=max"
        );
        assert_eq!(line_before("", Some("8:16"), "8:16 0"), "8:16 0");
    }
}
