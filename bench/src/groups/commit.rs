//! How a commit becomes durable, on this file system: SQLite in its journal modes, one row per
//! commit, alone and with eight clients whose commits are or are not grouped.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Context;
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection, SqliteJournalMode, SqliteSynchronous};
use sqlx::{ConnectOptions, Connection};
use tokio::sync::{mpsc, oneshot};

use crate::Bench;
use crate::report::{Report, Table};

/// One way.
#[derive(Clone, Copy)]
struct Way {
    name: &'static str,
    journal: SqliteJournalMode,
    synchronous: SqliteSynchronous,
    /// What waits is committed together.
    grouped: bool,
    clients: usize,
}

const WAYS: [Way; 6] = [
    Way {
        name: "WAL, FULL, 1 client",
        clients: 1,
        ..FULL
    },
    Way {
        name: "WAL, FULL, 8 clients, one by one",
        ..FULL
    },
    Way {
        name: "WAL, FULL, 8 clients, grouped",
        grouped: true,
        ..FULL
    },
    Way {
        name: "WAL, NORMAL, 1 client (a power cut loses rows)",
        clients: 1,
        ..NORMAL
    },
    Way {
        name: "WAL, NORMAL, 8 clients, grouped (a power cut loses rows)",
        ..NORMAL
    },
    Way {
        name: "rollback journal, FULL, 1 client",
        journal: SqliteJournalMode::Delete,
        clients: 1,
        ..FULL
    },
];
const FULL: Way = Way {
    name: "",
    journal: SqliteJournalMode::Wal,
    synchronous: SqliteSynchronous::Full,
    grouped: false,
    clients: 8,
};
const NORMAL: Way = Way {
    synchronous: SqliteSynchronous::Normal,
    grouped: true,
    ..FULL
};

/// Measures.
///
/// # Errors
/// What SQLite says.
pub fn measure(bench: &Bench, report: &mut Report) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let duration = Duration::from_millis(if bench.quick { 200 } else { 1000 });
    let mut latencies: Vec<(String, Vec<f64>)> = Vec::new();
    let mut rates: Vec<(String, Vec<f64>)> = Vec::new();
    for _ in 0..bench.scaled(5) {
        for (index, way) in WAYS.iter().enumerate() {
            let file = bench.work.path().join("commit.db");
            let taken = runtime.block_on(run(*way, &file, duration))?;
            for suffix in ["", "-wal", "-shm"] {
                let _ = std::fs::remove_file(format!("{}{suffix}", file.display()));
            }
            if latencies.len() == index {
                latencies.push((way.name.to_owned(), Vec::new()));
                rates.push((way.name.to_owned(), Vec::new()));
            }
            rates[index]
                .1
                .push(taken.len() as f64 / duration.as_secs_f64());
            latencies[index].1.extend(taken);
        }
    }
    let base = Some(WAYS[0].name);
    report.add(Table::new(
        "until a row is committed",
        "ms",
        base,
        latencies,
    ));
    report.add(Table::new("rows committed", "per second", base, rates));
    Ok(())
}

type Waiting = oneshot::Sender<()>;

/// Every client writes one row after the other, through one writer; each row's latency, ms.
async fn run(way: Way, file: &Path, duration: Duration) -> anyhow::Result<Vec<f64>> {
    let mut connection = SqliteConnectOptions::new()
        .filename(file)
        .create_if_missing(true)
        .journal_mode(way.journal)
        .synchronous(way.synchronous)
        .connect()
        .await?;
    // As large as a container's row.
    sqlx::query("CREATE TABLE t (id INTEGER PRIMARY KEY, config TEXT NOT NULL)")
        .execute(&mut connection)
        .await?;
    let (sender, receiver) = mpsc::channel::<Waiting>(64);
    let end = Instant::now() + duration;
    let clients: Vec<_> = (0..way.clients)
        .map(|_| tokio::spawn(client(sender.clone(), end)))
        .collect();
    drop(sender);
    write(&mut connection, receiver, way.grouped).await?;
    connection.close().await?;
    let mut all = Vec::new();
    for one in clients {
        all.extend(one.await?);
    }
    Ok(all)
}

async fn client(sender: mpsc::Sender<Waiting>, end: Instant) -> Vec<f64> {
    let mut samples = Vec::new();
    while Instant::now() < end {
        let start = Instant::now();
        let (done, committed) = oneshot::channel();
        if sender.send(done).await.is_err() || committed.await.is_err() {
            break;
        }
        samples.push(start.elapsed().as_secs_f64() * 1e3);
    }
    samples
}

async fn write(
    connection: &mut SqliteConnection,
    mut receiver: mpsc::Receiver<Waiting>,
    grouped: bool,
) -> anyhow::Result<()> {
    let config = "x".repeat(1024);
    let most = if grouped { 64 } else { 1 };
    let mut waiting = Vec::new();
    while receiver.recv_many(&mut waiting, most).await > 0 {
        sqlx::query("BEGIN IMMEDIATE")
            .execute(&mut *connection)
            .await?;
        for _ in &waiting {
            sqlx::query("INSERT INTO t (config) VALUES (?)")
                .bind(&config)
                .execute(&mut *connection)
                .await?;
        }
        sqlx::query("COMMIT")
            .execute(&mut *connection)
            .await
            .context("commit")?;
        for done in waiting.drain(..) {
            let _ = done.send(());
        }
    }
    Ok(())
}
