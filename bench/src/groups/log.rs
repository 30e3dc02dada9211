//! A container that writes as fast as it can: until everything is in its log, and out again.

use std::time::Instant;

use anyhow::{Context, bail};
use serde_json::json;

use crate::Bench;
use crate::daemon::Daemon;
use crate::report::{Report, Table};
use crate::turns::{Contender, take_turns};

/// A line as logs have them; with its newline 100 bytes.
const LINE: &str = "2026-01-01T00:00:00Z INFO request served method=GET path=/v1/things status=200 bytes=1234 ms=17 ok!";
const MIB: f64 = 1024.0 * 1024.0;

/// Measures.
///
/// # Errors
/// A byte that is lost.
pub fn measure(bench: &Bench, report: &mut Report) -> anyhow::Result<()> {
    let daemon = Daemon::start(&bench.bin, bench.work.path().join("log"))?;
    let bytes = bench.scaled(200) * 1024 * 1024;
    let script = format!("/bin/yes '{LINE}' | /bin/head -c {bytes}");
    let file = bench.work.path().join("floor.log");
    let shell = bench
        .root
        .path
        .join("bin/busybox")
        .to_string_lossy()
        .into_owned();
    // The same programs, from the same root, in no container.
    let outside = script.replace("/bin/", &format!("{shell} "));
    let (mut reads, mut raw_reads) = (Vec::new(), Vec::new());
    let mut contenders = [
        Contender::new("floor: pipe, stamp per line, file", || {
            let (written, _, seconds) = bench.floor.log(&file, &[&shell, "sh", "-c", &outside])?;
            Ok(vec![written / MIB / seconds])
        }),
        Contender::new("littlebox", || {
            let mut client = daemon.client()?;
            let config = json!({
                "rootfs": format!("dir:{}", bench.root.path.display()),
                "command": ["/bin/sh", "-c", script],
                "log": {"max_size": 0},
            });
            let start = Instant::now();
            let done = client.post("/v1/containers?start=true&wait=120s", &config)?;
            let seconds = start.elapsed().as_secs_f64();
            let id = done["id"].as_str().context("no id")?;
            if done["exit"]["code"] != 0 {
                bail!("{done}");
            }
            let logs = format!("/v1/containers/{id}/logs");
            for (accept, into) in [
                ("text/plain", &mut raw_reads),
                ("application/x-ndjson", &mut reads),
            ] {
                let start = Instant::now();
                let body = client.send("GET", &logs, accept, None)?;
                into.push(bytes as f64 / MIB / start.elapsed().as_secs_f64());
                if accept == "text/plain" && body.body.len() != bytes {
                    bail!("{} of {bytes} bytes came back", body.body.len());
                }
            }
            client.delete(&format!("/v1/containers/{id}?wait=10s"))?;
            Ok(vec![bytes as f64 / MIB / seconds])
        }),
    ];
    let mut samples = take_turns(&mut contenders, bench.scaled(5))?;
    drop(contenders);
    samples.push(("littlebox, read again as text".to_owned(), raw_reads));
    samples.push(("littlebox, read again as NDJSON".to_owned(), reads));
    report.add(
        Table::new(
            "log",
            "MiB per second",
            Some("floor: pipe, stamp per line, file"),
            samples,
        )
        .goal(">= 0.5 x the floor, zero loss"),
    );
    Ok(())
}
