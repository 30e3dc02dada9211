//! Failures that tests ask for. Without `LITTLEBOX_TEST_FAULTS=1` in the daemon's environment
//! nothing here does anything.

use std::sync::LazyLock;
use std::sync::atomic::{AtomicI64, Ordering};

static ENABLED: LazyLock<bool> =
    LazyLock::new(|| std::env::var_os("LITTLEBOX_TEST_FAULTS").is_some_and(|v| v == "1"));

/// `LITTLEBOX_TEST_CRASH=POINT[:N]`: the name and how many passes are left.
static CRASH: LazyLock<Option<(String, AtomicI64)>> = LazyLock::new(|| {
    let value = std::env::var("LITTLEBOX_TEST_CRASH").ok()?;
    let (point, n) = value.split_once(':').unwrap_or((&value, "1"));
    Some((point.to_owned(), AtomicI64::new(n.parse().ok()?)))
});

/// Whether test faults are on at all.
pub fn enabled() -> bool {
    *ENABLED
}

/// A place between two steps at which the power may go.
pub fn point(name: &str) {
    if !enabled() {
        return;
    }
    if let Some((wanted, left)) = CRASH.as_ref()
        && wanted == name
        && left.fetch_sub(1, Ordering::Relaxed) == 1
    {
        tracing::error!(point = name, "test: the daemon aborts here");
        std::process::abort();
    }
}
