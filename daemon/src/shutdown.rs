//! Whether the machine goes down, or only this daemon.
//!
//! systemd sends the same SIGTERM for `systemctl stop` and for a reboot, but the difference is one
//! for containers: with the daemon they go on, with the machine they end, and there is nobody left to
//! record how.

use std::io::{self, Read};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use sd_notify::NotifyState;

use crate::engine::Engine;

/// How long systemd may take for the answer.
const PATIENCE: Duration = Duration::from_secs(20);
/// How often systemd is told that the stop goes on.
const BEAT: Duration = Duration::from_secs(5);
/// What it is asked for each time.
const MORE_TIME_US: u32 = 30_000_000;

/// Asks systemd, when it has started this daemon: `systemctl is-system-running` says `stopping` as
/// soon as shutdown.target is to be reached (systemctl(1)).
pub async fn machine_goes_down() -> bool {
    if std::env::var_os("NOTIFY_SOCKET").is_none() {
        return false;
    }
    match system_state().await {
        Ok(state) => state.trim() == "stopping",
        Err(error) => {
            tracing::warn!(%error, "cannot ask systemd whether the machine shuts down: containers go on");
            false
        }
    }
}

async fn system_state() -> io::Result<String> {
    let mut child = Command::new("systemctl")
        .arg("is-system-running")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()?;
    let asked = Instant::now();
    while child.try_wait()?.is_none() {
        if asked.elapsed() > PATIENCE {
            child.kill()?;
            child.wait()?;
            return Err(io::Error::from(io::ErrorKind::TimedOut));
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let mut state = String::new();
    if let Some(mut stdout) = child.stdout.take() {
        // One word: it is in the pipe as a whole.
        stdout.read_to_string(&mut state)?;
    }
    Ok(state)
}

/// Stops every container, and has systemd wait for it however long their graces are.
pub async fn end_containers(engine: &Arc<Engine>) {
    let beats = tokio::spawn(async {
        let mut ticks = tokio::time::interval(BEAT);
        loop {
            ticks.tick().await;
            let _ = sd_notify::notify(&[NotifyState::ExtendTimeoutUsec(MORE_TIME_US)]);
        }
    });
    let left = engine.end_with_machine().await;
    beats.abort();
    tracing::info!(left, "containers have ended with the machine");
}
