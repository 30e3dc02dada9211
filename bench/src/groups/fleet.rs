//! Many idle containers: memory, and a daemon that is killed under them.

use std::time::Instant;

use anyhow::{Context, bail};

use crate::Bench;
use crate::daemon::{Daemon, idle, items, memory_of};
use crate::report::{Report, Table};

/// Measures.
///
/// # Errors
/// A start that fails, or a container that was lost over a restart.
pub fn measure(bench: &Bench, report: &mut Report) -> anyhow::Result<()> {
    let mut daemon = Daemon::start(&bench.bin, bench.work.path().join("fleet"))?;
    let (some, many) = (bench.scaled(100), bench.scaled(1000));
    let mut memory = vec![row("daemon, 0 containers, RSS", daemon.memory()?.0)];
    let mut helpers = Vec::new();
    let mut running = 0;
    for target in [some, many] {
        start(bench, &daemon, target - running)?;
        running = target;
        let (rss, pss) = daemon.memory()?;
        memory.push(row(&format!("daemon, {target} containers, RSS"), rss));
        memory.push(row(&format!("daemon, {target} containers, PSS"), pss));
        helpers.push((
            format!("helper, {target} containers, PSS"),
            helper_pss(&daemon)?,
        ));
    }
    report.add(
        Table::new("memory of the daemon", "KiB", None, memory)
            .goal("<= 20,480 idle, <= 40,960 with 1000 containers"),
    );
    report.add(
        Table::new(
            "memory per idle container: its helper",
            "KiB",
            None,
            helpers,
        )
        .goal("PSS <= 300"),
    );
    report.add(restarts(&mut daemon, many, bench.scaled(10))?);
    Ok(())
}

fn row(name: &str, value: f64) -> (String, Vec<f64>) {
    (name.to_owned(), vec![value])
}

fn start(bench: &Bench, daemon: &Daemon, count: usize) -> anyhow::Result<()> {
    let mut client = daemon.client()?;
    let config = idle(&bench.root.path, true);
    for _ in 0..count {
        client.post("/v1/containers?start=true", &config)?;
    }
    Ok(())
}

fn helper_pss(daemon: &Daemon) -> anyhow::Result<Vec<f64>> {
    let mut client = daemon.client()?;
    let page = client.get("/v1/containers?limit=1000&fields=id")?;
    items(&page)
        .map(|container| {
            let id = container["id"].as_str().context("no id")?;
            let whole = client.get(&format!("/v1/containers/{id}"))?;
            Ok(memory_of(whole["helper_pid"].as_u64().context("no helper")?)?.1)
        })
        .collect()
}

/// `kill -9`, start, until healthy and every container known as running.
fn restarts(daemon: &mut Daemon, count: usize, rounds: usize) -> anyhow::Result<Table> {
    let mut ready = Vec::new();
    let mut listed = Vec::new();
    for _ in 0..rounds {
        let took = daemon.crash_and_restart()?;
        let start = Instant::now();
        let page = daemon
            .client()?
            .get("/v1/containers?limit=1000&filter=state%3Drunning")?;
        let known = items(&page).count();
        if known != count {
            bail!("{known} of {count} containers run after a restart");
        }
        ready.push(took.as_secs_f64() * 1e3);
        listed.push((took + start.elapsed()).as_secs_f64() * 1e3);
    }
    Ok(Table::new(
        format!("a killed daemon starts again under {count} containers"),
        "ms",
        None,
        vec![
            ("healthy".to_owned(), ready),
            ("all listed as running".to_owned(), listed),
        ],
    )
    .goal("<= 500"))
}
