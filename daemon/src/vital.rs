//! Tasks without which the daemon is only half alive. When one of them panics the daemon ends, for
//! systemd to start it again: containers go on, and the next daemon takes them back.

use tokio::task::JoinHandle;

/// Starts a task that the daemon cannot go on without.
pub fn spawn<T: Send + 'static>(
    name: &'static str,
    task: impl Future<Output = T> + Send + 'static,
) -> JoinHandle<T> {
    tokio::spawn(async move {
        let _guard = Guard(name);
        task.await
    })
}

/// Ends the daemon because a part of it is broken.
pub fn broken(name: &str) -> ! {
    tracing::error!(
        part = name,
        "a part of the daemon is broken, so it ends; containers go on and the next daemon takes them back"
    );
    std::process::abort();
}

struct Guard(&'static str);

impl Drop for Guard {
    fn drop(&mut self) {
        if std::thread::panicking() {
            broken(self.0);
        }
    }
}
