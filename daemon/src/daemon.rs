//! The daemon's life: start-up in order, serving, shutdown.

use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use sd_notify::NotifyState;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::api::{self, App};
use crate::config::Config;
use crate::engine::Engine;
use crate::idpool::{self, IdPool};
use crate::paths::{self, Paths};
use crate::peers::Peers;
use crate::store::{NewEvent, Store, Write};
use crate::supervisor::{HelperBinary, Supervisor};
use crate::worker::Workers;
use crate::{procfs, reconcile, server, shutdown, supervisor, time, vital};

/// What systemd handed over, taken from the environment before there are threads.
#[derive(Debug, Default)]
pub struct Inherited {
    /// The listening socket of `littleboxd.socket`.
    pub listener: Option<std::os::unix::net::UnixListener>,
}

/// Runs until SIGTERM or SIGINT.
pub async fn run(config: Config, inherited: Inherited) -> anyhow::Result<()> {
    let began = Instant::now();
    // From here on a signal asks for an orderly end, also one that comes before we are ready.
    let mut signals = Signals::listen()?;
    let _lock = lock(&config)?;
    let engine = start(&config).await?;
    let found = reconcile::run(&engine).await?;
    tracing::info!(
        containers = found.containers,
        adopted = found.adopted,
        ended = found.ended,
        unclear = found.unclear,
        strangers = found.strangers,
        ms = began.elapsed().as_millis(),
        "reconciled"
    );
    let activated = inherited.listener.is_some();
    let listener = match inherited.listener {
        Some(listener) => listener,
        None => server::bind(&config)?,
    };
    listener.set_nonblocking(true).context("the socket")?;
    let listener = tokio::net::UnixListener::from_std(listener).context("the socket")?;
    let closing = CancellationToken::new();
    let app = Arc::new(App {
        engine: engine.clone(),
        closing: closing.clone(),
        config: config.clone(),
        started_at: time::now_ns(),
    });
    tell(&engine, "daemon.started");
    let drain = Duration::from_secs(config.drain_timeout_s);
    let server = server::serve(
        listener,
        api::router(app),
        Peers::new(config.id_pool.clone(), config.max_connections),
        config.max_connections,
        closing.clone(),
        drain,
    );
    let serving = vital::spawn("server", server);
    ready(&config, began);
    signals.wait().await;
    let with_machine = shutdown::machine_goes_down().await;
    tracing::info!(
        "shutting down; containers {}",
        if with_machine {
            "end with the machine"
        } else {
            "go on"
        }
    );
    let _ = sd_notify::notify(&[NotifyState::Stopping]);
    tell(&engine, "daemon.stopping");
    closing.cancel();
    serving.await.context("the server")?;
    let _ = tokio::time::timeout(drain, engine.close()).await;
    if with_machine {
        shutdown::end_containers(&engine).await;
        let _ = tokio::time::timeout(drain, engine.close()).await;
    }
    reconcile::remove_empty_instance(&engine).await;
    engine.ids.close().await;
    // A last write that waits for everything before it.
    if let Err(error) = engine.store.close().await {
        tracing::warn!(%error, "the last commit failed");
    }
    if !activated {
        let _ = std::fs::remove_file(&config.socket);
    }
    Ok(())
}

/// One daemon per state directory.
fn lock(config: &Config) -> anyhow::Result<std::fs::File> {
    use rustix::fs::{FlockOperation, flock};
    let state = paths::make_dir(&config.state_dir).with_context(|| {
        format!(
            "cannot use the state directory {}",
            config.state_dir.display()
        )
    })?;
    let path = state.join("lock");
    let file = std::fs::File::options()
        .create(true)
        .append(true)
        .open(&path)
        .with_context(|| format!("cannot open {}", path.display()))?;
    let operation = FlockOperation::NonBlockingLockExclusive;
    let locked = rustix::io::retry_on_intr(|| flock(file.as_fd(), operation));
    let context = match locked {
        Err(rustix::io::Errno::WOULDBLOCK) => "another daemon uses",
        _ => "cannot lock",
    };
    locked.with_context(|| format!("{context} the state directory {}", state.display()))?;
    Ok(file)
}

async fn start(config: &Config) -> anyhow::Result<Arc<Engine>> {
    let seccomp = config.seccomp_compiler()?;
    let paths = Paths::create(config).context("cannot make the state and run directories")?;
    let binary = HelperBinary::load(&config.helper)
        .with_context(|| format!("cannot load the helper {}", config.helper.display()))?
        .at_home_in(helpers_home(config)?);
    let start_limit = Duration::from_secs(config.start_timeout_s);
    let supervisor = Supervisor::start(binary, start_limit)
        .await
        .with_context(|| format!("cannot start the helper {}", config.helper.display()))?;
    let boot_id = procfs::boot_id().context("cannot read the boot id")?;
    let store = Store::open(&paths.database(), config.event_retention, &boot_id)
        .await
        .with_context(|| format!("cannot open the database {}", paths.database().display()))?;
    let workers = Workers::new(supervisor.home());
    let ids = id_pool(config, &paths, workers.clone())?;
    let announced = ids.announce(&paths.run).await;
    announced.context("cannot write to the registry of id ranges")?;
    let engine = Engine::new(store, supervisor, paths, ids, boot_id, seccomp, workers);
    let standing_by = engine.stand_by();
    standing_by.context("cannot start a worker, or read the mounts of this machine")?;
    Ok(engine)
}

fn id_pool(config: &Config, paths: &Paths, workers: Arc<Workers>) -> anyhow::Result<IdPool> {
    for file in ["/etc/subuid", "/etc/subgid"] {
        let text = std::fs::read_to_string(file).unwrap_or_default();
        for line in idpool::delegated(&config.id_pool, &text) {
            tracing::warn!(
                file,
                line,
                "ids of the pool for containers are given to a user as well: see id_pool in the configuration"
            );
        }
    }
    IdPool::open(config.id_pool.clone(), &paths.state, workers).with_context(|| {
        format!(
            "cannot use the registry of id ranges {}",
            config.id_pool.registry.display()
        )
    })
}

/// Under systemd: the helpers' cgroup.
fn helpers_home(config: &Config) -> anyhow::Result<Option<std::path::PathBuf>> {
    if !config.delegated {
        return Ok(None);
    }
    let parent = &config.cgroup_parent;
    supervisor::home::make(parent)
        .with_context(|| format!("cannot make the helpers' cgroup below {}", parent.display()))
}

fn tell(engine: &Engine, kind: &'static str) {
    let event = NewEvent {
        kind,
        subject: "daemon".into(),
        container: None,
        name: None,
        data: serde_json::json!({ "version": env!("CARGO_PKG_VERSION") }),
    };
    drop(engine.store.submit(vec![Write::Event(event)], false));
}

/// The socket answers: say so to systemd, and keep saying that we live when it wants to know.
fn ready(config: &Config, began: Instant) {
    tracing::info!(
        socket = %config.socket.display(),
        ms = began.elapsed().as_millis(),
        version = env!("CARGO_PKG_VERSION"),
        "ready"
    );
    let _ = sd_notify::notify(&[NotifyState::Ready]);
    if let Some(interval) = sd_notify::watchdog_enabled() {
        tokio::spawn(async move {
            let mut ticks = tokio::time::interval(interval / 2);
            loop {
                ticks.tick().await;
                let _ = sd_notify::notify(&[NotifyState::Watchdog]);
            }
        });
    }
}

/// What asks the daemon to end.
struct Signals {
    term: Signal,
    int: Signal,
    /// Ends a program that does not handle it (signal(7)): an administrator who sends it to have the
    /// configuration read again must not end the daemon.
    hangup: Signal,
}

impl Signals {
    fn listen() -> anyhow::Result<Self> {
        Ok(Self {
            term: signal(SignalKind::terminate()).context("SIGTERM")?,
            int: signal(SignalKind::interrupt()).context("SIGINT")?,
            hangup: signal(SignalKind::hangup()).context("SIGHUP")?,
        })
    }

    async fn wait(&mut self) {
        loop {
            tokio::select! {
                _ = self.term.recv() => return,
                _ = self.int.recv() => return,
                _ = self.hangup.recv() => tracing::warn!(
                    "SIGHUP is ignored: the configuration is read at the start, so restart the \
                     daemon to change it; containers go on"
                ),
            }
        }
    }
}
