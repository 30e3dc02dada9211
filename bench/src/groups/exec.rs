//! `true` in a container that runs, to its exit status.

use std::time::Instant;

use anyhow::{Context, bail};
use serde_json::json;

use crate::Bench;
use crate::daemon::{Daemon, idle};
use crate::http::Client;
use crate::peers;
use crate::report::{Report, Table};
use crate::turns::{Contender, take_turns};

/// Execs per turn.
const TURN: usize = 5;

/// Measures.
///
/// # Errors
/// An exec that fails.
pub fn measure(bench: &Bench, report: &mut Report) -> anyhow::Result<()> {
    let daemon = Daemon::start(&bench.bin, bench.work.path().join("exec"))?;
    let mut client = daemon.client()?;
    let container = client.post("/v1/containers?start=true", &idle(&bench.root.path, true))?;
    let id = container["id"].as_str().context("no id")?.to_owned();
    let pid = container["pid"].as_u64().context("no pid")?;
    let lbctl = daemon.lbctl(&["exec", &id, "/bin/true"]);
    let nsenter: Vec<String> = [
        "/usr/bin/nsenter",
        "-t",
        &pid.to_string(),
        "-a",
        "/bin/true",
    ]
    .map(str::to_owned)
    .to_vec();
    let (peers, mut notes) = peers::peers(bench.work.path(), &bench.root);
    let mut standing = Vec::new();
    for peer in &peers {
        let Some(exec) = &peer.exec else { continue };
        match exec.start(&peer.wrap) {
            Ok(()) => standing.push((peer, exec)),
            Err(error) => notes.push(format!("left out: {error:#}")),
        }
    }

    let floor = &bench.floor;
    let mut contenders = vec![
        Contender::new("floor", || floor.execs(pid, TURN, &["/bin/true"])),
        Contender::new("littlebox over HTTP", || turn(&mut client, &id)),
        Contender::new("lbctl exec", || floor.spawns(&[], TURN, &lbctl)),
        Contender::new("nsenter", || floor.spawns(&[], TURN, &nsenter)),
    ];
    for (peer, exec) in &standing {
        let name = format!("{} exec", peer.name);
        contenders.push(Contender::new(name, || {
            floor.spawns(&peer.wrap, TURN, &exec.exec)
        }));
    }
    let samples = take_turns(&mut contenders, bench.scaled(50));
    drop(contenders);
    for (peer, exec) in standing {
        exec.stop(&peer.wrap);
    }
    report.add(
        Table::new("exec of true", "ms", Some("floor"), samples?)
            .goal("<= 2 x the floor of setns, fork, exec; below crun exec")
            .notes(notes),
    );
    Ok(())
}

fn turn(client: &mut Client, id: &str) -> anyhow::Result<Vec<f64>> {
    let path = format!("/v1/containers/{id}/execs?wait=10s");
    let body = json!({"command": ["/bin/true"]});
    let mut samples = Vec::new();
    for _ in 0..TURN {
        let start = Instant::now();
        let exec = client.post(&path, &body)?;
        samples.push(start.elapsed().as_secs_f64() * 1e3);
        if exec["exit"]["code"] != 0 {
            bail!("{exec}");
        }
    }
    Ok(samples)
}
