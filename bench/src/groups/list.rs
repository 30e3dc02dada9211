//! Lists of containers that were created and never started.

use std::time::Instant;

use anyhow::{Context, bail};

use crate::Bench;
use crate::daemon::{Daemon, idle, items};
use crate::http::Client;
use crate::report::{Report, Table};

/// Measures.
///
/// # Errors
/// A list that is not complete.
pub fn measure(bench: &Bench, report: &mut Report) -> anyhow::Result<()> {
    let daemon = Daemon::start(&bench.bin, bench.work.path().join("list"))?;
    let mut made = 0;
    let mut creates = Vec::new();
    let mut lists = Vec::new();
    for count in [bench.scaled(1000), bench.scaled(10_000)] {
        let rate = create(bench, &daemon, count - made)?;
        creates.push((format!("creates, up to {count}, 8 clients"), vec![rate]));
        made = count;
        let mut client = daemon.client()?;
        let mut timed = |name: &str, query: &str| -> anyhow::Result<()> {
            let mut samples = Vec::new();
            for _ in 0..bench.scaled(100) {
                let start = Instant::now();
                let listed = walk(&mut client, query)?;
                samples.push(start.elapsed().as_secs_f64() * 1e3);
                if listed != count {
                    bail!("{listed} of {count} containers listed");
                }
            }
            lists.push((format!("{name} of {count}"), samples));
            Ok(())
        };
        timed("whole list, pages of 1000,", "")?;
        timed("names and states,", "&fields=id,name,state")?;
        let mut samples = Vec::new();
        for _ in 0..bench.scaled(100) {
            let start = Instant::now();
            client.get("/v1/containers?limit=100&filter=state%3Drunning")?;
            samples.push(start.elapsed().as_secs_f64() * 1e3);
        }
        lists.push((format!("those that run (none), of {count}"), samples));
    }
    report.add(Table::new(
        "creates without start",
        "per second",
        None,
        creates,
    ));
    report.add(
        Table::new("lists of stopped containers", "ms", None, lists)
            .goal("p99 <= 10 for 1000, <= 50 for 10,000"),
    );
    Ok(())
}

fn create(bench: &Bench, daemon: &Daemon, count: usize) -> anyhow::Result<f64> {
    const CLIENTS: usize = 8;
    let config = idle(&bench.root.path, true);
    let start = Instant::now();
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..CLIENTS)
            .map(|worker| {
                let config = &config;
                scope.spawn(move || -> anyhow::Result<()> {
                    let mut client = daemon.client()?;
                    for _ in (worker..count).step_by(CLIENTS) {
                        client.post("/v1/containers", config)?;
                    }
                    Ok(())
                })
            })
            .collect();
        for worker in workers {
            worker.join().ok().context("a client panicked")??;
        }
        anyhow::Ok(())
    })?;
    Ok(count as f64 / start.elapsed().as_secs_f64())
}

/// Every page; how many items they had.
fn walk(client: &mut Client, query: &str) -> anyhow::Result<usize> {
    let (mut count, mut cursor) = (0, String::new());
    loop {
        let page = client.get(&format!("/v1/containers?limit=1000{query}{cursor}"))?;
        count += items(&page).count();
        match page["next"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => return Ok(count),
        }
    }
}
