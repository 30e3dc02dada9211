//! A daemon on directories of its own.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use crate::http::Client;

/// A running daemon. Dropped, it removes its containers and ends.
pub struct Daemon {
    bin: PathBuf,
    dir: PathBuf,
    run: tempfile::TempDir,
    child: Child,
}

impl Daemon {
    /// Starts one below `dir`, which must not exist yet.
    ///
    /// # Errors
    /// It ends, or does not answer within 30 s.
    pub fn start(bin: &Path, dir: PathBuf) -> anyhow::Result<Self> {
        std::fs::create_dir(&dir)?;
        let run = tempfile::Builder::new()
            .prefix("lb-bench.")
            .tempdir_in(tmpfs())?;
        let child = spawn(bin, &dir, run.path())?;
        let mut daemon = Daemon {
            bin: bin.to_owned(),
            dir,
            run,
            child,
        };
        daemon.ready()?;
        Ok(daemon)
    }

    /// Its socket.
    pub fn socket(&self) -> PathBuf {
        self.dir.join("sock")
    }

    /// A new connection.
    ///
    /// # Errors
    /// It does not listen.
    pub fn client(&self) -> anyhow::Result<Client> {
        Client::connect(&self.socket())
    }

    /// `lbctl` with this daemon's socket, as words.
    pub fn lbctl(&self, words: &[&str]) -> Vec<String> {
        let mut command = vec![
            self.bin.join("lbctl").to_string_lossy().into_owned(),
            "--socket".to_owned(),
            self.socket().to_string_lossy().into_owned(),
        ];
        command.extend(words.iter().map(|w| (*w).to_owned()));
        command
    }

    /// `(RSS, PSS)` of the daemon, KiB.
    ///
    /// # Errors
    /// It is gone.
    pub fn memory(&self) -> anyhow::Result<(f64, f64)> {
        memory_of(u64::from(self.child.id()))
    }

    /// `kill -9`, a new one, and the time until it answers that it is healthy.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub fn crash_and_restart(&mut self) -> anyhow::Result<Duration> {
        self.child.kill()?;
        self.child.wait()?;
        let start = Instant::now();
        self.child = spawn(&self.bin, &self.dir, self.run.path())?;
        self.ready()?;
        Ok(start.elapsed())
    }

    fn ready(&mut self) -> anyhow::Result<()> {
        let deadline = Instant::now() + Duration::from_secs(30);
        while Instant::now() < deadline {
            if let Some(status) = self.child.try_wait()? {
                let log = std::fs::read_to_string(self.dir.join("log")).unwrap_or_default();
                bail!("littleboxd ended: {status}\n{log}");
            }
            if self.client().and_then(|mut c| c.get("/v1/health")).is_ok() {
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        bail!("littleboxd does not answer")
    }

    /// Removes every container.
    ///
    /// # Errors
    /// A removal that is refused.
    pub fn clear(&self) -> anyhow::Result<()> {
        let mut client = self.client()?;
        loop {
            let page = client.get("/v1/containers?limit=1000&fields=id")?;
            let ids: Vec<&str> = items(&page).filter_map(|c| c["id"].as_str()).collect();
            if ids.is_empty() {
                return Ok(());
            }
            for id in ids {
                let gone = client.send(
                    "DELETE",
                    &format!("/v1/containers/{id}?force=true&wait=30s"),
                    "*/*",
                    None,
                )?;
                if gone.status != 404 {
                    gone.ok()?;
                }
            }
        }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if let Err(error) = self.clear() {
            eprintln!(
                "containers may be left below {}: {error:#}",
                self.dir.display()
            );
        }
        if let Some(pid) = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw) {
            let _ = kill_process(pid, Signal::TERM);
        }
        let _ = self.child.wait();
    }
}

/// Where a run directory belongs: exit records are synced, which costs nothing on a tmpfs.
fn tmpfs() -> &'static str {
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    ["/run", "/dev/shm"]
        .into_iter()
        .find(|dir| mounts.contains(&format!(" {dir} tmpfs ")))
        .unwrap_or("/tmp")
}

fn spawn(bin: &Path, dir: &Path, run: &Path) -> anyhow::Result<Child> {
    let log = std::fs::File::options()
        .create(true)
        .append(true)
        .open(dir.join("log"))?;
    Command::new(bin.join("littleboxd"))
        .arg("--socket")
        .arg(dir.join("sock"))
        .arg("--state-dir")
        .arg(dir.join("state"))
        .arg("--run-dir")
        .arg(run)
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .spawn()
        .context("littleboxd")
}

/// `(RSS, PSS)` of a process, KiB.
///
/// # Errors
/// It is gone.
pub fn memory_of(pid: u64) -> anyhow::Result<(f64, f64)> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))?;
    let field = |name: &str| {
        text.lines()
            .find_map(|l| {
                l.strip_prefix(name)?
                    .trim()
                    .strip_suffix(" kB")?
                    .parse::<f64>()
                    .ok()
            })
            .with_context(|| format!("no {name} in smaps_rollup"))
    };
    Ok((field("Rss:")?, field("Pss:")?))
}

/// The items of a page.
pub fn items(page: &Value) -> impl Iterator<Item = &Value> {
    page["items"].as_array().into_iter().flatten()
}

/// A container of the busybox root that does nothing for a long time.
pub fn idle(root: &Path, network: bool) -> Value {
    with_network(
        json!({"rootfs": format!("dir:{}", root.display()), "command": ["/bin/sleep", "86400"]}),
        network,
    )
}

/// A container of the busybox root that ends at once and removes itself.
pub fn short(root: &Path, network: bool) -> Value {
    with_network(
        json!({"rootfs": format!("dir:{}", root.display()), "command": ["/bin/true"],
               "auto_remove": true}),
        network,
    )
}

fn with_network(mut config: Value, own: bool) -> Value {
    if !own {
        config["namespaces"] = json!({"net": "host"});
    }
    config
}
