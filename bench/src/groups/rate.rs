//! Whole containers per second: create, start, run `true`, tell its exit, remove.

use std::time::{Duration, Instant};

use anyhow::Context;

use crate::Bench;
use crate::daemon::{Daemon, short};
use crate::report::{Report, Table};
use crate::turns::{Contender, take_turns};

/// Measures.
///
/// # Errors
/// A container that fails.
pub fn measure(bench: &Bench, report: &mut Report) -> anyhow::Result<()> {
    let daemon = Daemon::start(&bench.bin, bench.work.path().join("rate"))?;
    let seconds = if bench.quick { 1.0 } else { 3.0 };
    let root = &bench.root.path;
    for clients in [1, 2, 4, 8] {
        let floor = |flags: &'static [&'static str]| {
            move || Ok(vec![bench.floor.rate(root, seconds, clients, flags)?])
        };
        let mut contenders = [
            Contender::new("floor, full", floor(&["full"])),
            Contender::new("littlebox", || {
                Ok(vec![rate(&daemon, bench, seconds, clients, true)?])
            }),
            Contender::new("floor, full, host network", floor(&["full", "nonet"])),
            Contender::new("littlebox, host network", || {
                Ok(vec![rate(&daemon, bench, seconds, clients, false)?])
            }),
        ];
        let samples = take_turns(&mut contenders, bench.scaled(3))?;
        report.add(
            Table::new(
                format!("whole containers, {clients} clients"),
                "per second",
                Some("floor, full"),
                samples,
            )
            .goal("4 clients: >= 0.7 x the floor at four workers"),
        );
    }
    Ok(())
}

/// Until everything that was made is gone again.
fn rate(
    daemon: &Daemon,
    bench: &Bench,
    seconds: f64,
    clients: usize,
    network: bool,
) -> anyhow::Result<f64> {
    let config = short(&bench.root.path, network);
    let start = Instant::now();
    let end = start + Duration::from_secs_f64(seconds);
    let work = || -> anyhow::Result<u32> {
        let mut client = daemon.client()?;
        let mut done = 0;
        while Instant::now() < end {
            client.post("/v1/containers?start=true&wait=30s", &config)?;
            done += 1;
        }
        Ok(done)
    };
    let total = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..clients).map(|_| scope.spawn(work)).collect();
        let mut total = 0;
        for worker in workers {
            total += worker.join().ok().context("a client panicked")??;
        }
        anyhow::Ok(total)
    })?;
    let mut client = daemon.client()?;
    while client.get("/v1/containers?limit=1&fields=id")?["items"]
        .as_array()
        .is_some_and(|left| !left.is_empty())
    {
        std::thread::sleep(Duration::from_millis(1));
    }
    Ok(f64::from(total) / start.elapsed().as_secs_f64())
}
