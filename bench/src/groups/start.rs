//! `POST /v1/containers?start=true`: from the request to the answer, when the program runs and the
//! record is durable. Beside it the floor, from nothing to the program's `execve`.

use std::time::Instant;

use serde_json::Value;

use crate::Bench;
use crate::daemon::{Daemon, idle};
use crate::http::Client;
use crate::report::{Report, Table};
use crate::turns::{Contender, take_turns};

/// Containers per turn.
const TURN: usize = 5;

/// Measures.
///
/// # Errors
/// A start that fails.
pub fn measure(bench: &Bench, report: &mut Report) -> anyhow::Result<()> {
    let daemon = Daemon::start(&bench.bin, bench.work.path().join("start"))?;
    let (mut with, mut without) = (daemon.client()?, daemon.client()?);
    let root = &bench.root.path;
    let floor = |flags: &'static [&'static str]| {
        move || {
            let lives = bench.floor.lives(root, TURN, flags)?;
            Ok(lives.into_iter().map(|(running, _)| running).collect())
        }
    };
    let mut contenders = [
        Contender::new("floor", floor(&[])),
        Contender::new("floor, full", floor(&["full"])),
        Contender::new("littlebox", || turn(&mut with, &idle(root, true))),
        Contender::new("floor, host network", floor(&["nonet"])),
        Contender::new("floor, full, host network", floor(&["full", "nonet"])),
        Contender::new("littlebox, host network", || {
            turn(&mut without, &idle(root, false))
        }),
    ];
    let mut samples = take_turns(&mut contenders, bench.scaled(60))?;
    drop(contenders);
    let host = samples.split_off(3);
    report.add(
        Table::new(
            "create and start over HTTP, to running",
            "ms",
            Some("floor, full"),
            samples,
        )
        .goal("p50 <= 1.5 x the floor of the same variant, p99 <= 4 x"),
    );
    report.add(
        Table::new(
            "create and start over HTTP, to running, with the host's network",
            "ms",
            Some("floor, full, host network"),
            host,
        )
        .goal("p50 <= 1.5 x the floor of the same variant, p99 <= 4 x"),
    );
    report.add(steps(
        &mut daemon.client()?,
        &idle(root, true),
        bench.scaled(50),
    )?);
    Ok(())
}

fn turn(client: &mut Client, config: &Value) -> anyhow::Result<Vec<f64>> {
    let mut samples = Vec::new();
    for _ in 0..TURN {
        let start = Instant::now();
        let container = client.post("/v1/containers?start=true", config)?;
        samples.push(start.elapsed().as_secs_f64() * 1e3);
        remove(client, &container)?;
    }
    Ok(samples)
}

fn remove(client: &mut Client, container: &Value) -> anyhow::Result<()> {
    let id = container["id"].as_str().unwrap_or_default();
    client.delete(&format!("/v1/containers/{id}?force=true&wait=10s"))
}

/// Where the helper's time goes: its own timings, step by step.
fn steps(client: &mut Client, config: &Value, count: usize) -> anyhow::Result<Table> {
    let mut samples: Vec<(String, Vec<f64>)> = Vec::new();
    for _ in 0..count {
        let container = client.post("/v1/containers?start=true", config)?;
        let id = container["id"].as_str().unwrap_or_default();
        let plan = client.get(&format!("/v1/containers/{id}/plan"))?;
        let mut once: Vec<(String, f64)> = Vec::new();
        for step in plan["steps"].as_array().into_iter().flatten() {
            let (Some(name), Some(ns)) = (step["step"].as_str(), step["duration_ns"].as_f64())
            else {
                continue;
            };
            // A step that is done for several subjects (each mount) counts once, as their sum.
            match once.iter_mut().find(|(n, _)| n == name) {
                Some((_, sum)) => *sum += ns / 1e6,
                None => once.push((name.to_owned(), ns / 1e6)),
            }
        }
        once.push((
            "whole plan".to_owned(),
            plan["total_ns"].as_f64().unwrap_or_default() / 1e6,
        ));
        for (name, ms) in once {
            match samples.iter_mut().find(|(n, _)| *n == name) {
                Some((_, all)) => all.push(ms),
                None => samples.push((name, vec![ms])),
            }
        }
        remove(client, &container)?;
    }
    Ok(Table::new(
        "the helper's steps of such a start",
        "ms",
        Some("whole plan"),
        samples,
    ))
}
