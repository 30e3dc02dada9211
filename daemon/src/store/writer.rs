//! The writer: one connection, one task, grouped commits.

use std::time::Duration;

use lbctl::types::{ContainerId, ExecId};
use sqlx::{Connection, SqliteConnection};
use tokio::sync::{mpsc, oneshot, watch};

use super::StoreError;

/// The most units in one transaction: bounds how long a batch can hold back its first client.
const BATCH: usize = 256;
/// How long a removed container and an idempotency key are remembered.
const MEMORY: Duration = Duration::from_secs(24 * 3600);

/// One write.
#[derive(Debug, Clone)]
pub enum Write {
    /// Insert or update a container. `config` and `launched` are written when present.
    Container {
        /// Id.
        id: ContainerId,
        /// Name.
        name: String,
        /// State's wire name.
        state: &'static str,
        /// JSON, only on insert.
        config: Option<String>,
        /// JSON.
        detail: String,
        /// JSON.
        launched: Option<String>,
        /// Counts changes.
        generation: u64,
    },
    /// What a container is to be, changed.
    Config {
        /// Id.
        id: ContainerId,
        /// JSON.
        config: String,
    },
    /// Forget a container and its execs; leave a tombstone.
    RemoveContainer {
        /// Id.
        id: ContainerId,
        /// Its last name.
        name: String,
        /// JSON of the tombstone.
        result: String,
    },
    /// Insert or update an exec.
    Exec {
        /// Id.
        id: ExecId,
        /// Its container.
        container: ContainerId,
        /// State's wire name.
        state: &'static str,
        /// JSON.
        detail: String,
    },
    /// Forget an exec.
    RemoveExec(ExecId),
    /// Remember what a key was used for.
    Idempotency {
        /// The client's key.
        key: String,
        /// Digest of the request.
        request: String,
        /// Id of what was made.
        subject: String,
    },
    /// Append an event.
    Event(NewEvent),
}

/// An event that has no number yet.
#[derive(Debug, Clone)]
pub struct NewEvent {
    /// `container.started`, ...
    pub kind: &'static str,
    /// Id of what it happened to.
    pub subject: String,
    /// Container concerned.
    pub container: Option<ContainerId>,
    /// Its name.
    pub name: Option<String>,
    /// JSON object.
    pub data: serde_json::Value,
}

/// A unit: all of its writes or none.
#[derive(Debug)]
pub(super) struct Job {
    pub writes: Vec<Write>,
    pub durable: bool,
    pub tell: oneshot::Sender<Result<(), StoreError>>,
}

struct Writer {
    connection: SqliteConnection,
    next_seq: u64,
    full_sync: bool,
    retention: u64,
    commits: u64,
}

/// Runs until every sender is gone.
pub(super) async fn run(
    connection: SqliteConnection,
    mut jobs: mpsc::UnboundedReceiver<Job>,
    newest: watch::Sender<u64>,
    retention: u64,
) {
    let next_seq = *newest.borrow() + 1;
    let mut writer = Writer {
        connection,
        next_seq,
        full_sync: true,
        retention,
        commits: 0,
    };
    let mut batch = Vec::new();
    while jobs.recv_many(&mut batch, BATCH).await > 0 {
        let results = writer.commit(&batch).await;
        newest.send_if_modified(|seq| {
            let changed = *seq != writer.next_seq - 1;
            *seq = writer.next_seq - 1;
            changed
        });
        for (job, result) in batch.drain(..).zip(results) {
            // A caller that does not wait has dropped its receiver.
            let _ = job.tell.send(result);
        }
    }
    let _ = writer.connection.close().await;
}

impl Writer {
    /// Commits a batch. When it fails as a whole, each unit is tried by itself, so that one
    /// client's clash does not undo another's work.
    async fn commit(&mut self, batch: &[Job]) -> Vec<Result<(), StoreError>> {
        let durable = batch.iter().any(|j| j.durable);
        match self.transaction(batch, durable).await {
            Ok(()) => batch.iter().map(|_| Ok(())).collect(),
            Err(e) if batch.len() == 1 => vec![Err(e)],
            Err(_) => {
                let mut results = Vec::with_capacity(batch.len());
                for job in batch {
                    results.push(
                        self.transaction(std::slice::from_ref(job), job.durable)
                            .await,
                    );
                }
                results
            }
        }
    }

    async fn transaction(&mut self, jobs: &[Job], durable: bool) -> Result<(), StoreError> {
        self.sync_mode(durable).await?;
        let first_seq = self.next_seq;
        let result = self.try_transaction(jobs).await;
        if result.is_err() {
            self.next_seq = first_seq;
        }
        result
    }

    /// Not by sqlx's own transactions: those count their depth, and a rollback that SQLite has
    /// already made by itself (on a full disk, for one) leaves the count wrong for good.
    async fn try_transaction(&mut self, jobs: &[Job]) -> Result<(), StoreError> {
        self.execute("BEGIN IMMEDIATE").await?;
        match self.write_and_commit(jobs).await {
            Ok(next_seq) => {
                self.next_seq = next_seq;
                Ok(())
            }
            Err(error) => {
                // Refused where SQLite has rolled back already: then there is nothing to undo.
                let _ = self.execute("ROLLBACK").await;
                Err(error)
            }
        }
    }

    async fn write_and_commit(&mut self, jobs: &[Job]) -> Result<u64, StoreError> {
        let mut next_seq = self.next_seq;
        for write in jobs.iter().flat_map(|j| &j.writes) {
            apply(&mut self.connection, write, &mut next_seq).await?;
        }
        self.commits += 1;
        if self.commits.is_multiple_of(1024) {
            prune(&mut self.connection, next_seq, self.retention).await?;
        }
        self.execute("COMMIT").await?;
        Ok(next_seq)
    }

    async fn execute(&mut self, statement: &'static str) -> Result<(), StoreError> {
        sqlx::query(statement).execute(&mut self.connection).await?;
        Ok(())
    }

    /// `PRAGMA synchronous` may only change between transactions.
    async fn sync_mode(&mut self, durable: bool) -> Result<(), StoreError> {
        if self.full_sync != durable {
            let pragma = if durable {
                "PRAGMA synchronous=FULL"
            } else {
                "PRAGMA synchronous=NORMAL"
            };
            self.execute(pragma).await?;
            self.full_sync = durable;
        }
        Ok(())
    }
}

async fn apply(
    tx: &mut SqliteConnection,
    write: &Write,
    next_seq: &mut u64,
) -> Result<(), StoreError> {
    match write {
        Write::Container {
            id,
            name,
            state,
            config,
            detail,
            launched,
            generation,
        } => {
            let generation = i64::try_from(*generation).unwrap_or(i64::MAX);
            let query = if config.is_some() {
                sqlx::query(
                    "INSERT INTO containers (name, state, detail, launched, generation, config, id)
                     VALUES (?, ?, ?, ?, ?, ?, ?)",
                )
            } else {
                sqlx::query(
                    "UPDATE containers SET name = ?, state = ?, detail = ?,
                     launched = COALESCE(?, launched), generation = ? WHERE ? IS NULL AND id = ?",
                )
            };
            query
                .bind(name)
                .bind(*state)
                .bind(detail)
                .bind(launched)
                .bind(generation)
                .bind(config)
                .bind(id.to_string())
                .execute(tx)
                .await?;
        }
        Write::Config { id, config } => {
            sqlx::query("UPDATE containers SET config = ? WHERE id = ?")
                .bind(config)
                .bind(id.to_string())
                .execute(tx)
                .await?;
        }
        Write::RemoveContainer { id, name, result } => {
            let id = id.to_string();
            sqlx::query("DELETE FROM containers WHERE id = ?")
                .bind(&id)
                .execute(&mut *tx)
                .await?;
            sqlx::query(
                "INSERT OR REPLACE INTO tombstones (id, name, removed_ns, result)
                 VALUES (?, ?, ?, ?)",
            )
            .bind(&id)
            .bind(name)
            .bind(crate::time::now_ns())
            .bind(result)
            .execute(tx)
            .await?;
        }
        Write::Exec {
            id,
            container,
            state,
            detail,
        } => {
            // The container may have been removed in the same moment.
            sqlx::query(
                "INSERT INTO execs (id, container_id, state, detail)
                 SELECT ?1, ?2, ?3, ?4 WHERE EXISTS (SELECT 1 FROM containers WHERE id = ?2)
                 ON CONFLICT (id) DO UPDATE SET state = excluded.state, detail = excluded.detail",
            )
            .bind(id.to_string())
            .bind(container.to_string())
            .bind(*state)
            .bind(detail)
            .execute(tx)
            .await?;
        }
        Write::RemoveExec(id) => {
            sqlx::query("DELETE FROM execs WHERE id = ?")
                .bind(id.to_string())
                .execute(tx)
                .await?;
        }
        Write::Idempotency {
            key,
            request,
            subject,
        } => {
            sqlx::query(
                "INSERT OR REPLACE INTO idempotency (key, request, subject, at_ns)
                 VALUES (?, ?, ?, ?)",
            )
            .bind(key)
            .bind(request)
            .bind(subject)
            .bind(crate::time::now_ns())
            .execute(tx)
            .await?;
        }
        Write::Event(event) => {
            sqlx::query(
                "INSERT INTO events (seq, at_ns, kind, subject, container_id, name, data)
                 VALUES (?, ?, ?, ?, ?, ?, ?)",
            )
            .bind(i64::try_from(*next_seq).unwrap_or(i64::MAX))
            .bind(crate::time::now_ns())
            .bind(event.kind)
            .bind(&event.subject)
            .bind(event.container.map(|c| c.to_string()))
            .bind(&event.name)
            .bind(event.data.to_string())
            .execute(tx)
            .await?;
            *next_seq += 1;
        }
    }
    Ok(())
}

/// Forgets what is too old: events over the retention, tombstones and keys over [`MEMORY`].
async fn prune(tx: &mut SqliteConnection, next_seq: u64, retention: u64) -> Result<(), StoreError> {
    let oldest = i64::try_from(next_seq.saturating_sub(retention)).unwrap_or(i64::MAX);
    let memory = i64::try_from(MEMORY.as_nanos()).unwrap_or(i64::MAX);
    let before = crate::time::now_ns() - memory;
    sqlx::query("DELETE FROM events WHERE seq < ?")
        .bind(oldest)
        .execute(&mut *tx)
        .await?;
    sqlx::query("DELETE FROM tombstones WHERE removed_ns < ?")
        .bind(before)
        .execute(&mut *tx)
        .await?;
    sqlx::query("DELETE FROM idempotency WHERE at_ns < ?")
        .bind(before)
        .execute(tx)
        .await?;
    Ok(())
}
