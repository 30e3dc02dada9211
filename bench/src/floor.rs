//! `floor.c`: built here, run here.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, bail};

/// The built program and a directory for its containers.
pub struct Floor {
    program: PathBuf,
    dir: PathBuf,
}

/// Nanoseconds as the floor prints them, in milliseconds.
const MS: f64 = 1e6;

impl Floor {
    /// Compiles it below `work`.
    ///
    /// # Errors
    /// No C compiler.
    pub fn build(work: &Path) -> anyhow::Result<Self> {
        let (source, program) = (work.join("floor.c"), work.join("floor"));
        let dir = work.join("floor.d");
        std::fs::create_dir(&dir)?;
        std::fs::write(&source, include_str!("../floor.c"))?;
        let status = Command::new("gcc")
            .args(["-O2", "-static", "-o"])
            .arg(&program)
            .arg(&source)
            .status()
            .context("gcc")?;
        if !status.success() {
            bail!("gcc: {status}");
        }
        Ok(Floor { program, dir })
    }

    /// `(to running, whole life)` of `count` containers, milliseconds. `flags`: `nonet`, `full`.
    ///
    /// # Errors
    /// A container that could not be made.
    pub fn lives(
        &self,
        root: &Path,
        count: usize,
        flags: &[&str],
    ) -> anyhow::Result<Vec<(f64, f64)>> {
        let mut command = Command::new(&self.program);
        command
            .arg("life")
            .arg(root)
            .arg(&self.dir)
            .arg(count.to_string())
            .args(flags);
        rows(command)?
            .into_iter()
            .map(|row| match row.as_slice() {
                [running, whole] => Ok((running / MS, whole / MS)),
                _ => bail!("the floor printed {row:?}"),
            })
            .collect()
    }

    /// Containers per second.
    ///
    /// # Errors
    /// As [`Self::lives`].
    pub fn rate(
        &self,
        root: &Path,
        seconds: f64,
        workers: usize,
        flags: &[&str],
    ) -> anyhow::Result<f64> {
        let mut command = Command::new(&self.program);
        command.arg("rate").arg(root).arg(&self.dir);
        command
            .args([seconds.to_string(), workers.to_string()])
            .args(flags);
        single(command)
    }

    /// setns, fork, exec, wait: milliseconds per exec in the namespaces of `pid`.
    ///
    /// # Errors
    /// The process is gone, or the program is not there.
    pub fn execs(&self, pid: u64, count: usize, program: &[&str]) -> anyhow::Result<Vec<f64>> {
        let mut command = Command::new(&self.program);
        command
            .args(["exec", &pid.to_string(), &count.to_string()])
            .args(program);
        column(command)
    }

    /// Starts a program so many times and waits for each; milliseconds. `wrap` is put in front of
    /// the floor itself, so that it is not measured.
    ///
    /// # Errors
    /// The program is not there.
    pub fn spawns(
        &self,
        wrap: &[String],
        count: usize,
        program: &[String],
    ) -> anyhow::Result<Vec<f64>> {
        let mut words = wrap.to_vec();
        words.push(self.program.to_string_lossy().into_owned());
        let (first, rest) = words.split_first().context("an empty command")?;
        let mut command = Command::new(first);
        command
            .args(rest)
            .args(["spawn", &count.to_string()])
            .args(program);
        column(command)
    }

    /// clone3 of a process as small as the zygote, exit, wait; milliseconds.
    ///
    /// # Errors
    /// No more processes.
    pub fn clones(&self, count: usize) -> anyhow::Result<Vec<f64>> {
        let mut command = Command::new(&self.program);
        command.args(["clone", &count.to_string()]);
        column(command)
    }

    /// Pipe, stamp per line, file: `(bytes, lines, seconds)`.
    ///
    /// # Errors
    /// The program is not there, or the disk is full.
    pub fn log(&self, file: &Path, program: &[&str]) -> anyhow::Result<(f64, f64, f64)> {
        let mut command = Command::new(&self.program);
        command.arg("log").arg(file).args(program);
        match rows(command)?.first().map(Vec::as_slice) {
            Some([bytes, lines, ns]) => Ok((*bytes, *lines, ns / 1e9)),
            other => bail!("the floor printed {other:?}"),
        }
    }
}

fn rows(mut command: Command) -> anyhow::Result<Vec<Vec<f64>>> {
    let output = command
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()?;
    if !output.status.success() {
        bail!("{command:?}: {}", output.status);
    }
    String::from_utf8(output.stdout)?
        .lines()
        .map(|line| Ok(line.split(' ').map(str::parse).collect::<Result<_, _>>()?))
        .collect()
}

fn column(command: Command) -> anyhow::Result<Vec<f64>> {
    Ok(rows(command)?
        .into_iter()
        .flatten()
        .map(|ns| ns / MS)
        .collect())
}

fn single(command: Command) -> anyhow::Result<f64> {
    rows(command)?
        .into_iter()
        .flatten()
        .next()
        .context("the floor printed nothing")
}
