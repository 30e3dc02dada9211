//! The writer: one connection, one task, grouped commits.

use std::path::{Path, PathBuf};
use std::time::Duration;

use littlebox_types::{ContainerId, ExecId};
use rustix::io::Errno;
use sqlx::{Connection, SqliteConnection};
use tokio::sync::{mpsc, oneshot, watch};

use super::StoreError;
use crate::faults;

/// The most units in one transaction: bounds how long a batch can hold back its first client.
const BATCH: usize = 256;
/// How long a removed container and an idempotency key are remembered.
const MEMORY: Duration = Duration::from_secs(24 * 3600);
/// How many event numbers are reserved at once.
const BLOCK: u64 = 4096;

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
    /// Write, to see whether that is possible.
    Probe,
    /// Reserve no numbers beyond those that were given out: an orderly end.
    GiveBackNumbers,
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

/// The numbers of events: which is next, and up to which they are reserved durably.
#[derive(Debug, Clone, Copy)]
pub(super) struct Numbers {
    next: u64,
    reserved: u64,
}

impl Numbers {
    /// Goes on behind every number that may have been given out. In the same boot the write-ahead
    /// log has them all; after another one, events may be missing that were told already.
    pub async fn begin(
        connection: &mut SqliteConnection,
        newest: u64,
        boot_id: &str,
    ) -> Result<Self, StoreError> {
        let before: Option<(String, i64)> =
            sqlx::query_as("SELECT boot_id, reserved FROM event_numbers")
                .fetch_optional(&mut *connection)
                .await?;
        let last = match before {
            Some((boot, reserved)) if boot != boot_id => {
                newest.max(u64::try_from(reserved).unwrap_or(0))
            }
            _ => newest,
        };
        let numbers = Self {
            next: last + 1,
            reserved: last + BLOCK,
        };
        sqlx::query(
            "INSERT OR REPLACE INTO event_numbers (one, boot_id, reserved) VALUES (1, ?, ?)",
        )
        .bind(boot_id)
        .bind(signed(numbers.reserved))
        .execute(connection)
        .await?;
        Ok(numbers)
    }

    /// The last one given out.
    pub fn last(&self) -> u64 {
        self.next - 1
    }

    /// Whether so many more are reserved.
    fn cover(&self, count: u64) -> bool {
        self.last() + count <= self.reserved
    }
}

/// The database's files, to tell why they could not be written.
#[derive(Debug)]
pub(super) struct Files([PathBuf; 2]);

impl Files {
    pub fn of(database: &Path) -> Self {
        let mut log = database.as_os_str().to_owned();
        log.push("-wal");
        Self([database.to_owned(), log.into()])
    }

    /// SQLite calls it an I/O error when a sync finds no room (`SQLITE_IOERR_FSYNC`), and keeps the
    /// errno to itself.
    fn disk_is_full(&self) -> bool {
        let full = |path: &PathBuf| {
            let synced = std::fs::File::options().write(true).open(path);
            let synced = synced.and_then(|file| file.sync_all());
            let errno = synced.err().and_then(|e| Errno::from_io_error(&e));
            matches!(errno, Some(Errno::NOSPC | Errno::DQUOT))
        };
        let none_free = rustix::fs::statvfs(&self.0[0]).is_ok_and(|fs| fs.f_bfree == 0);
        none_free || self.0.iter().any(full)
    }
}

struct Writer {
    connection: SqliteConnection,
    numbers: Numbers,
    files: Files,
    full_sync: bool,
    retention: u64,
    commits: u64,
}

/// Runs until every sender is gone.
pub(super) async fn run(
    connection: SqliteConnection,
    mut jobs: mpsc::UnboundedReceiver<Job>,
    newest: watch::Sender<u64>,
    numbers: Numbers,
    retention: u64,
    files: Files,
) {
    let mut writer = Writer {
        connection,
        numbers,
        files,
        full_sync: true,
        retention,
        commits: 0,
    };
    let mut batch = Vec::new();
    while jobs.recv_many(&mut batch, BATCH).await > 0 {
        let results = writer.commit(&batch).await;
        if results.iter().any(|r| matches!(r, Err(StoreError::Dead))) {
            crate::vital::broken("database connection");
        }
        newest.send_if_modified(|seq| {
            let last = writer.numbers.last();
            std::mem::replace(seq, last) != last
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
        faults::point("store.commit");
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

    /// Numbers are told when the commit is done, so the reservation that covers them is synced with
    /// it. An I/O error may have been of the moment (a sync that was interrupted): the whole is
    /// written once more then.
    async fn transaction(&mut self, jobs: &[Job], durable: bool) -> Result<(), StoreError> {
        let events = jobs.iter().flat_map(|j| &j.writes);
        let events = events.filter(|w| matches!(w, Write::Event(_))).count();
        let events = u64::try_from(events).unwrap_or(u64::MAX);
        let durable = durable || !self.numbers.cover(events);
        // Where a sync is due anyway, more are reserved for nothing.
        let reserve = durable && !self.numbers.cover(events + BLOCK / 2);
        let reserved = if reserve {
            self.numbers.last() + events + BLOCK
        } else {
            self.numbers.reserved
        };
        self.sync_mode(durable).await?;
        let mut result = self.try_transaction(jobs, reserved).await;
        if matches!(result, Err(StoreError::Io(_))) {
            result = self.try_transaction(jobs, reserved).await;
        }
        match result {
            Err(StoreError::Io(_)) if self.files.disk_is_full() => Err(StoreError::Full),
            result => result,
        }
    }

    /// Not by sqlx's own transactions: those count their depth, and a rollback that SQLite has
    /// already made by itself (on a full disk, for one) leaves the count wrong for good.
    async fn try_transaction(&mut self, jobs: &[Job], reserved: u64) -> Result<(), StoreError> {
        self.execute("BEGIN IMMEDIATE").await?;
        match self.write_and_commit(jobs, reserved).await {
            Ok(numbers) => {
                self.numbers = numbers;
                Ok(())
            }
            Err(error) => {
                // Refused where SQLite has rolled back already: then there is nothing to undo.
                let _ = self.execute("ROLLBACK").await;
                Err(error)
            }
        }
    }

    async fn write_and_commit(
        &mut self,
        jobs: &[Job],
        reserved: u64,
    ) -> Result<Numbers, StoreError> {
        let mut numbers = self.numbers;
        for write in jobs.iter().flat_map(|j| &j.writes) {
            apply(&mut self.connection, write, &mut numbers.next).await?;
        }
        let mut writes = jobs.iter().flat_map(|j| &j.writes);
        let is_last = writes.any(|w| matches!(w, Write::GiveBackNumbers));
        let reserved = if is_last { numbers.last() } else { reserved };
        if numbers.reserved != reserved {
            numbers.reserved = reserved;
            reserve(&mut self.connection, reserved).await?;
        }
        self.commits += 1;
        if self.commits.is_multiple_of(1024) {
            prune(&mut self.connection, self.retention).await?;
        }
        self.execute("COMMIT").await?;
        Ok(numbers)
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
            .bind(signed(*next_seq))
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
        Write::Probe => {
            sqlx::query("UPDATE event_numbers SET one = 1")
                .execute(tx)
                .await?;
        }
        Write::GiveBackNumbers => {}
    }
    Ok(())
}

/// SQLite has no unsigned numbers.
fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

async fn reserve(tx: &mut SqliteConnection, reserved: u64) -> Result<(), StoreError> {
    sqlx::query("UPDATE event_numbers SET reserved = ?")
        .bind(signed(reserved))
        .execute(tx)
        .await?;
    Ok(())
}

/// Forgets what is too much or too old: events over the retention, tombstones and keys over
/// [`MEMORY`].
async fn prune(tx: &mut SqliteConnection, retention: u64) -> Result<(), StoreError> {
    prune_events(tx, retention).await?;
    let memory = i64::try_from(MEMORY.as_nanos()).unwrap_or(i64::MAX);
    let before = crate::time::now_ns() - memory;
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

/// Whoever has more events than its share loses its own oldest ones, and then all lose theirs.
async fn prune_events(tx: &mut SqliteConnection, retention: u64) -> Result<(), StoreError> {
    let counts: Vec<i64> = sqlx::query_scalar("SELECT COUNT(*) FROM events GROUP BY container_id")
        .fetch_all(&mut *tx)
        .await?;
    let counts = counts.into_iter().map(|n| u64::try_from(n).unwrap_or(0));
    let Some(share) = share(counts.collect(), retention) else {
        return Ok(());
    };
    sqlx::query(
        "DELETE FROM events WHERE seq IN (SELECT seq FROM (SELECT seq, row_number() OVER
         (PARTITION BY container_id ORDER BY seq DESC) AS n FROM events) WHERE n > ?)",
    )
    .bind(signed(share))
    .execute(&mut *tx)
    .await?;
    sqlx::query(
        "DELETE FROM events WHERE seq IN
         (SELECT seq FROM events ORDER BY seq DESC LIMIT -1 OFFSET ?)",
    )
    .bind(signed(retention))
    .execute(tx)
    .await?;
    Ok(())
}

/// How many events one container may keep when there are too many, so that a flood of its own pushes
/// nobody else's out: what is left when all those with fewer have theirs. A sixteenth at least,
/// because of many small histories the oldest go. `None`: there are not too many.
fn share(mut counts: Vec<u64>, retention: u64) -> Option<u64> {
    counts.sort_unstable();
    let mut room = retention;
    let mut left = u64::try_from(counts.len()).unwrap_or(u64::MAX);
    for count in counts {
        let equal = room / left;
        if count > equal {
            return Some(equal.max(retention / 16).max(1));
        }
        room -= count;
        left -= 1;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::share;

    #[test]
    fn a_share_is_what_the_small_ones_leave() {
        assert_eq!(share(vec![], 100), None);
        assert_eq!(share(vec![60, 40], 100), None);
        assert_eq!(share(vec![1000], 100), Some(100));
        assert_eq!(share(vec![10, 1000], 100), Some(90));
        assert_eq!(share(vec![1000, 10, 500], 100), Some(45));
        assert_eq!(share(vec![2; 100], 100), Some(6));
    }
}
