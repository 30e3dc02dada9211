//! What else is installed, and how each is asked for the same container.

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, bail};
use serde_json::{Value, json};

/// A root filesystem with a static busybox and nothing else.
pub struct BusyboxRoot {
    /// Where it is.
    pub path: PathBuf,
}

impl BusyboxRoot {
    /// Makes it at `path`.
    ///
    /// # Errors
    /// busybox-static is not installed.
    pub fn make(path: &Path) -> anyhow::Result<Self> {
        for dir in ["bin", "dev", "etc", "proc", "sys", "tmp"] {
            std::fs::create_dir_all(path.join(dir))?;
        }
        let busybox = find("busybox").context("busybox is missing: install busybox-static")?;
        std::fs::copy(busybox, path.join("bin/busybox"))?;
        for applet in ["true", "sh", "sleep", "yes", "head", "cat"] {
            symlink("busybox", path.join("bin").join(applet))?;
        }
        Ok(BusyboxRoot {
            path: path.to_owned(),
        })
    }
}

/// The path of a program.
pub fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var("PATH").unwrap_or_default();
    path.split(':')
        .chain(["/usr/sbin", "/sbin"])
        .map(|dir| Path::new(dir).join(program))
        .find(|p| p.is_file())
}

/// Another engine.
pub struct Peer {
    /// As the table shows it.
    pub name: &'static str,
    /// In front of the measuring program: what the engine needs around it.
    pub wrap: Vec<String>,
    /// Runs `/bin/true` in a new container and removes it.
    pub run: Vec<String>,
    /// Runs `/bin/true` in the container that `up` has started.
    pub exec: Option<Standing>,
}

/// A container of a peer that stays, for execs.
pub struct Standing {
    /// Starts it.
    up: Vec<String>,
    /// Runs something in it.
    pub exec: Vec<String>,
    /// Ends it.
    down: Vec<String>,
}

impl Standing {
    /// Starts it.
    ///
    /// # Errors
    /// The engine refuses.
    pub fn start(&self, wrap: &[String]) -> anyhow::Result<()> {
        quiet(&[wrap, &self.up].concat())
    }

    /// Ends it.
    pub fn stop(&self, wrap: &[String]) {
        if let Err(error) = quiet(&[wrap, &self.down].concat()) {
            eprintln!("{error:#}");
        }
    }
}

/// Runs a command to its end with nothing on the terminal.
fn quiet(words: &[String]) -> anyhow::Result<()> {
    let (program, args) = words.split_first().context("an empty command")?;
    let status = Command::new(program)
        .args(args)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .with_context(|| program.clone())?;
    if !status.success() {
        bail!("{}: {status}", words.join(" "));
    }
    Ok(())
}

fn words(text: &str) -> Vec<String> {
    text.split(' ').map(str::to_owned).collect()
}

/// The engines that are installed and work here, and why the others are not among them.
pub fn peers(work: &Path, root: &BusyboxRoot) -> (Vec<Peer>, Vec<String>) {
    let (mut found, mut notes) = (Vec::new(), Vec::new());
    let candidates = [unshare(root), bubblewrap(root)]
        .into_iter()
        .chain(crun(work, root))
        .chain([
            runc(work, root),
            littlebox_runtime(work, root),
            podman(root),
            docker(work, root),
        ]);
    for candidate in candidates {
        match candidate.and_then(tried) {
            Ok(peer) => found.push(peer),
            Err(reason) => notes.push(format!("left out: {reason:#}")),
        }
    }
    (found, notes)
}

/// A peer is measured only when it can do the job once.
fn tried(peer: Peer) -> anyhow::Result<Peer> {
    quiet(&[&peer.wrap[..], &peer.run[..]].concat())
        .with_context(|| format!("{} does not work here", peer.name))?;
    Ok(peer)
}

fn installed(program: &str) -> anyhow::Result<String> {
    let path = find(program).with_context(|| format!("{program} is not installed"))?;
    Ok(path.to_string_lossy().into_owned())
}

fn unshare(root: &BusyboxRoot) -> anyhow::Result<Peer> {
    let root = root.path.display();
    let program = installed("unshare")?;
    Ok(Peer {
        name: "unshare (no root of its own: chroot)",
        wrap: Vec::new(),
        run: words(&format!(
            "{program} --mount --uts --ipc --net --pid --cgroup --fork --root={root} /bin/true"
        )),
        exec: None,
    })
}

fn bubblewrap(root: &BusyboxRoot) -> anyhow::Result<Peer> {
    let root = root.path.display();
    let program = installed("bwrap")?;
    Ok(Peer {
        name: "bubblewrap",
        wrap: Vec::new(),
        run: words(&format!(
            "{program} --unshare-all --bind {root} / --proc /proc --dev /dev /bin/true"
        )),
        exec: None,
    })
}

/// crun refuses a hybrid host whose v2 tree has a controller: it is shown such a tree as empty, in
/// a mount namespace of its own.
fn crun_wrap() -> Vec<String> {
    let unified = Path::new("/sys/fs/cgroup/unified");
    if !unified.exists() {
        return Vec::new();
    }
    ["unshare", "-m", "--propagation", "private", "sh", "-c"]
        .into_iter()
        .chain([
            "mount -t tmpfs none /sys/fs/cgroup/unified && exec \"$@\"",
            "sh",
        ])
        .map(str::to_owned)
        .collect()
}

fn crun(work: &Path, root: &BusyboxRoot) -> [anyhow::Result<Peer>; 2] {
    let bundles = || {
        let program = installed("crun")?;
        let (once, idle) = oci_bundles(&program, &work.join("crun"), root)?;
        anyhow::Ok((
            program,
            once.display().to_string(),
            idle.display().to_string(),
        ))
    };
    match bundles() {
        Err(error) => [
            Err(error),
            Err(anyhow::anyhow!("crun without cgroups, too")),
        ],
        Ok((program, once, idle)) => [
            Ok(Peer {
                name: "crun",
                wrap: crun_wrap(),
                run: words(&format!(
                    "{program} run --bundle {once} littlebox-bench-crun"
                )),
                exec: Some(oci_standing(&program, &idle, "littlebox-bench-crun-idle")),
            }),
            Ok(Peer {
                name: "crun, no cgroup",
                wrap: crun_wrap(),
                run: words(&format!(
                    "{program} --cgroup-manager=disabled run --bundle {once} littlebox-bench-crun"
                )),
                exec: None,
            }),
        ],
    }
}

fn runc(work: &Path, root: &BusyboxRoot) -> anyhow::Result<Peer> {
    let program = installed("runc")?;
    let (once, idle) = oci_bundles(&program, &work.join("runc"), root)?;
    Ok(Peer {
        name: "runc",
        wrap: Vec::new(),
        run: words(&format!(
            "{program} run --bundle {} littlebox-bench-runc",
            once.display()
        )),
        exec: Some(oci_standing(
            &program,
            &idle.display().to_string(),
            "littlebox-bench-runc-idle",
        )),
    })
}

/// Ours beside them, with runc's default configuration: it has no `spec` command.
fn littlebox_runtime(work: &Path, root: &BusyboxRoot) -> anyhow::Result<Peer> {
    let directory = std::env::var("LITTLEBOX_BIN_DIR").context("LITTLEBOX_BIN_DIR is not set")?;
    let program = Path::new(&directory).join("littlebox-runtime");
    let program = program.display().to_string();
    let (once, idle) = oci_bundles(&installed("runc")?, &work.join("littlebox-runtime"), root)?;
    Ok(Peer {
        name: "littlebox-runtime",
        wrap: Vec::new(),
        run: words(&format!(
            "{program} run --bundle {} littlebox-bench-runtime",
            once.display()
        )),
        exec: Some(oci_standing(
            &program,
            &idle.display().to_string(),
            "littlebox-bench-runtime-idle",
        )),
    })
}

fn oci_standing(program: &str, bundle: &str, id: &str) -> Standing {
    Standing {
        up: words(&format!("{program} run --detach --bundle {bundle} {id}")),
        exec: words(&format!("{program} exec {id} /bin/true")),
        down: words(&format!("{program} delete --force {id}")),
    }
}

/// Two bundles of the engine's own default configuration: one runs `true`, one sleeps.
fn oci_bundles(
    program: &str,
    dir: &Path,
    root: &BusyboxRoot,
) -> anyhow::Result<(PathBuf, PathBuf)> {
    let mut made = Vec::new();
    for (name, args) in [
        ("once", json!(["/bin/true"])),
        ("idle", json!(["/bin/sleep", "86400"])),
    ] {
        let bundle = dir.join(name);
        std::fs::create_dir_all(&bundle)?;
        let file = bundle.join("config.json");
        if !file.exists() {
            let status = Command::new(program)
                .arg("spec")
                .current_dir(&bundle)
                .status()?;
            if !status.success() {
                bail!("{program} spec: {status}");
            }
        }
        let mut config: Value = serde_json::from_slice(&std::fs::read(&file)?)?;
        config["process"]["terminal"] = json!(false);
        config["process"]["args"] = args;
        config["root"]["path"] = json!(root.path);
        std::fs::write(&file, config.to_string())?;
        made.push(bundle);
    }
    let [once, idle] = <[PathBuf; 2]>::try_from(made).ok().context("two bundles")?;
    Ok((once, idle))
}

fn podman(root: &BusyboxRoot) -> anyhow::Result<Peer> {
    let root = root.path.display();
    let program = installed("podman")?;
    let name = "littlebox-bench-podman";
    Ok(Peer {
        name: "podman, no network",
        wrap: Vec::new(),
        run: words(&format!(
            "{program} run --rm --network=none --rootfs {root}:O /bin/true"
        )),
        exec: Some(Standing {
            up: words(&format!(
                "{program} run -d --name {name} --network=none --rootfs {root}:O /bin/sleep 86400"
            )),
            exec: words(&format!("{program} exec {name} /bin/true")),
            down: words(&format!("{program} rm -f -t 0 {name}")),
        }),
    })
}

/// The image is imported once and stays: its name says whose it is.
fn docker(work: &Path, root: &BusyboxRoot) -> anyhow::Result<Peer> {
    let program = installed("docker")?;
    quiet(&words(&format!(
        "{program} info --format {{{{.ServerVersion}}}}"
    )))
    .context("docker has no daemon that answers")?;
    let tar = work.join("root.tar");
    quiet(&words(&format!(
        "tar -cf {} -C {} .",
        tar.display(),
        root.path.display()
    )))?;
    quiet(&words(&format!(
        "{program} import {} littlebox-bench:busybox",
        tar.display()
    )))?;
    let name = "littlebox-bench-docker";
    let image = "littlebox-bench:busybox";
    Ok(Peer {
        name: "docker, no network",
        wrap: Vec::new(),
        run: words(&format!(
            "{program} run --rm --network=none {image} /bin/true"
        )),
        exec: Some(Standing {
            up: words(&format!(
                "{program} run -d --name {name} --network=none {image} /bin/sleep 86400"
            )),
            exec: words(&format!("{program} exec {name} /bin/true")),
            down: words(&format!("{program} rm -f {name}")),
        }),
    })
}
