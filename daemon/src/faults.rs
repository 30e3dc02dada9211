//! Failures and weaknesses that tests ask for. Without `LITTLEBOX_TEST_FAULTS=1` in the daemon's
//! environment nothing here does anything.

use std::ffi::OsString;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use littlebox_protocol::TEST_FAULTS;

static ENABLED: LazyLock<bool> =
    LazyLock::new(|| std::env::var_os(TEST_FAULTS).is_some_and(|v| v == "1"));

/// `LITTLEBOX_TEST_WEAKEN=NAME`: the daemon's own defence that is off. Those of the helper are
/// turned off by container, with a label.
static WEAKENED: LazyLock<Option<String>> =
    LazyLock::new(|| std::env::var("LITTLEBOX_TEST_WEAKEN").ok());

/// The name of a point and how many passes are left.
type Pass = Option<(String, AtomicI64)>;

/// `LITTLEBOX_TEST_CRASH=POINT[:N]`: where the daemon aborts.
static CRASH: LazyLock<Pass> = LazyLock::new(|| pass("LITTLEBOX_TEST_CRASH"));

/// `LITTLEBOX_TEST_PANIC=POINT[:N]`: where a task of the daemon panics.
static PANIC: LazyLock<Pass> = LazyLock::new(|| pass("LITTLEBOX_TEST_PANIC"));

fn pass(variable: &str) -> Pass {
    let value = std::env::var(variable).ok()?;
    let (point, n) = value.split_once(':').unwrap_or((&value, "1"));
    Some((point.to_owned(), AtomicI64::new(n.parse().ok()?)))
}

fn is_due(pass: &Pass, name: &str) -> bool {
    pass.as_ref()
        .is_some_and(|(wanted, left)| wanted == name && left.fetch_sub(1, Ordering::Relaxed) == 1)
}

/// Whether test faults are on at all.
pub fn enabled() -> bool {
    *ENABLED
}

/// `LITTLEBOX_TEST_IDLE_S=N`: how long an archive may not move, instead of the daemon's limit.
pub fn idle() -> Option<Duration> {
    let asked = std::env::var("LITTLEBOX_TEST_IDLE_S").ok();
    let seconds = asked.filter(|_| enabled())?.parse().ok()?;
    Some(Duration::from_secs(seconds))
}

/// What the daemon's own processes must know of it, as environment.
pub fn environment() -> impl Iterator<Item = (OsString, OsString)> {
    std::env::vars_os()
        .filter(|(name, _)| enabled() && name.as_encoded_bytes().starts_with(b"LITTLEBOX_TEST_"))
}

/// A defence of the daemon that a test may turn off, to see that the attack it stops is real.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Defence {
    /// Helpers run from a sealed copy in memory (CVE-2019-5736).
    SealedHelper,
    /// Paths of copies are resolved inside the container's root (CVE-2018-15664).
    FilesInRoot,
    /// Requests from inside of containers are refused.
    OutsidePeers,
}

impl Defence {
    fn name(self) -> &'static str {
        match self {
            Defence::SealedHelper => "sealed_helper",
            Defence::FilesInRoot => "files_in_root",
            Defence::OutsidePeers => "outside_peers",
        }
    }

    /// Whether it stands. Always, outside of tests.
    pub fn stands(self) -> bool {
        !enabled() || WEAKENED.as_deref() != Some(self.name())
    }
}

/// A place between two steps at which the power may go.
pub fn point(name: &str) {
    if !enabled() {
        return;
    }
    assert!(!is_due(&PANIC, name), "test: a panic at {name}");
    if is_due(&CRASH, name) {
        tracing::error!(point = name, "test: the daemon aborts here");
        std::process::abort();
    }
}
