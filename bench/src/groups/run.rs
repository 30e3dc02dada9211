//! A whole `run --rm ROOT true`, from the start of the client's process to its end.

use crate::Bench;
use crate::daemon::Daemon;
use crate::peers;
use crate::report::{Report, Table};
use crate::turns::{Contender, take_turns};

/// Measures.
///
/// # Errors
/// A run that fails.
pub fn measure(bench: &Bench, report: &mut Report) -> anyhow::Result<()> {
    let daemon = Daemon::start(&bench.bin, bench.work.path().join("run"))?;
    let root = &bench.root.path;
    let source = format!("dir:{}", root.display());
    let run = daemon.lbctl(&["run", "--rm", &source, "/bin/true"]);
    let run_host = daemon.lbctl(&["run", "--rm", "--ns", "net=host", &source, "/bin/true"]);
    let program = vec![root.join("bin/true").to_string_lossy().into_owned()];
    let (peers, mut notes) = peers::peers(bench.work.path(), &bench.root);
    notes.push("podman and docker bring no network here, littlebox does".to_owned());

    let floor = &bench.floor;
    let mut contenders = vec![
        Contender::new("true alone", || floor.spawns(&[], 3, &program)),
        Contender::new("floor, full", || {
            let lives = floor.lives(root, 3, &["full"])?;
            Ok(lives.into_iter().map(|(_, whole)| whole).collect())
        }),
        Contender::new("lbctl run --rm", || floor.spawns(&[], 3, &run)),
        Contender::new("lbctl run --rm, host network", || {
            floor.spawns(&[], 3, &run_host)
        }),
    ];
    for peer in &peers {
        contenders.push(Contender::new(peer.name, || {
            floor.spawns(&peer.wrap, 3, &peer.run)
        }));
    }
    let samples = take_turns(&mut contenders, bench.scaled(50))?;
    report.add(
        Table::new(
            "a whole run --rm of true",
            "ms",
            Some("lbctl run --rm"),
            samples,
        )
        .goal("not slower than bubblewrap, <= 0.6 x crun, 40 x faster than Docker")
        .notes(notes),
    );
    Ok(())
}
