//! How a helper is started: forked by a small process that waits for it, or executed anew.

use crate::Bench;
use crate::report::{Report, Table};
use crate::turns::{Contender, take_turns};

/// Measures.
///
/// # Errors
/// No helper in the directory of programs.
pub fn measure(bench: &Bench, report: &mut Report) -> anyhow::Result<()> {
    let helper = vec![
        bench
            .bin
            .join("littlebox-helper")
            .to_string_lossy()
            .into_owned(),
        "--version".to_owned(),
    ];
    let daemon = vec![
        bench.bin.join("littleboxd").to_string_lossy().into_owned(),
        "--version".to_owned(),
    ];
    let smallest = vec![
        bench
            .root
            .path
            .join("bin/true")
            .to_string_lossy()
            .into_owned(),
    ];
    let floor = &bench.floor;
    let mut contenders = [
        Contender::new("fork by a small process", || floor.clones(20)),
        Contender::new("exec of the static helper", || {
            floor.spawns(&[], 20, &helper)
        }),
        Contender::new("exec of a static busybox", || {
            floor.spawns(&[], 20, &smallest)
        }),
        Contender::new("exec of the daemon's own binary", || {
            floor.spawns(&[], 20, &daemon)
        }),
    ];
    let samples = take_turns(&mut contenders, bench.scaled(50))?;
    report.add(Table::new(
        "start and end of a helper process",
        "ms",
        Some("fork by a small process"),
        samples,
    ));
    Ok(())
}
