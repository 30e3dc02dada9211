//! The only SQL. The store keeps rows and knows no rules.
//!
//! One writer task owns the one writing connection and takes whatever is queued as one
//! transaction ("grouped commit"), so many clients share one fsync. A batch with anything
//! *durable* in it is committed with `synchronous=FULL`; a batch of running state alone with
//! `NORMAL`, which in WAL mode survives the death of the daemon but needs no fsync.

mod reserve;
mod writer;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use littlebox_types::{ContainerId, Event, ExecId, WaitResult};
use sqlx::migrate::{Migration, MigrationType, Migrator};
use sqlx::sqlite::{
    SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteSynchronous,
};
use sqlx::{ConnectOptions, Row, SqlSafeStr};
use tokio::sync::{mpsc, oneshot, watch};

pub use writer::{NewEvent, Write};

/// The files of `migrations/`: number, description, text. Named here and not by `sqlx::migrate!`,
/// for which SQLite and sqlx would be compiled a second time, for the compiler: a fifth of a clean
/// build.
const MIGRATIONS: [(i64, &str, &str); 2] = [
    (
        1,
        "initial",
        include_str!("../../../migrations/0001_initial.sql"),
    ),
    (
        2,
        "event_numbers",
        include_str!("../../../migrations/0002_event_numbers.sql"),
    ),
];

/// The pauses between tries to take the room for removals back.
const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

fn migrator() -> Migrator {
    let migration = |(version, description, sql): (i64, &'static str, &'static str)| {
        let (kind, sql) = (MigrationType::Simple, sql.into_sql_str());
        Migration::new(version, description.into(), kind, sql, false)
    };
    Migrator::with_migrations(MIGRATIONS.map(migration).into())
}

/// Writes on their way to the database, which are committed whether or not anybody waits.
#[derive(Debug)]
pub struct Queued(oneshot::Receiver<Result<(), StoreError>>);

impl Queued {
    /// Waits for the commit.
    ///
    /// # Errors
    /// The transaction's; [`StoreError::Closed`] when the writer has ended.
    pub async fn committed(self) -> Result<(), StoreError> {
        self.0.await.unwrap_or(Err(StoreError::Closed))
    }
}

/// Why the store could not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The disk is full.
    #[error("the disk that holds the database is full")]
    Full,
    /// A unique name is taken.
    #[error("the name is taken")]
    NameTaken,
    /// A file of the database could not be read, written or synced.
    #[error("database: {0}")]
    Io(String),
    /// The thread of a connection has died, and the connection with it.
    #[error("database: its thread has died")]
    Dead,
    /// Anything else of SQLite's.
    #[error("database: {0}")]
    Sql(String),
    /// The migrations could not be applied.
    #[error("the database cannot be brought to this version's schema: {0}")]
    Migrate(String),
    /// The writer has ended: the daemon is shutting down.
    #[error("the store is closed")]
    Closed,
}

impl From<sqlx::Error> for StoreError {
    fn from(e: sqlx::Error) -> Self {
        if matches!(e, sqlx::Error::WorkerCrashed) {
            return StoreError::Dead;
        }
        if let sqlx::Error::Database(db) = &e {
            // Primary result codes of SQLite: https://www.sqlite.org/rescode.html
            let code = db.code().and_then(|c| c.parse::<u32>().ok()).unwrap_or(0);
            match (code, code & 0xff) {
                (2067, _) => return StoreError::NameTaken,
                (_, 13) => return StoreError::Full,
                (_, 10) => return StoreError::Io(e.to_string()),
                _ => {}
            }
        }
        StoreError::Sql(e.to_string())
    }
}

/// A stored container: columns as they are, JSON as text.
#[derive(Debug, Clone)]
pub struct ContainerRow {
    /// Id.
    pub id: ContainerId,
    /// Name.
    pub name: String,
    /// State's wire name.
    pub state: String,
    /// JSON of the rest.
    pub detail: String,
    /// Counts changes.
    pub generation: u64,
}

/// A stored exec.
#[derive(Debug, Clone)]
pub struct ExecRow {
    /// Id.
    pub id: ExecId,
    /// JSON.
    pub detail: String,
}

/// The store.
#[derive(Debug, Clone)]
pub struct Store {
    readers: SqlitePool,
    queue: mpsc::UnboundedSender<writer::Job>,
    last_seq: watch::Receiver<u64>,
    reserve: Arc<reserve::Reserve>,
}

fn options(path: &Path) -> SqliteConnectOptions {
    SqliteConnectOptions::new()
        .filename(path)
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full)
        .foreign_keys(true)
        .busy_timeout(Duration::from_secs(5))
        .log_statements(tracing::log::LevelFilter::Trace)
}

impl Store {
    /// Opens the database, brings its schema up to date, checks it and starts the writer.
    /// `event_retention` is how many events are kept, `boot_id` this boot of the machine.
    ///
    /// # Errors
    /// Also a database that cannot be written: without descriptors SQLite opens it read-only.
    pub async fn open(
        path: &Path,
        event_retention: u64,
        boot_id: &str,
    ) -> Result<Self, StoreError> {
        let mut connection = options(path).connect().await?;
        migrator()
            .run(&mut connection)
            .await
            .map_err(|e| StoreError::Migrate(e.to_string()))?;
        let check: String = sqlx::query_scalar("PRAGMA quick_check(1)")
            .fetch_one(&mut connection)
            .await?;
        if check != "ok" {
            return Err(StoreError::Sql(format!("integrity check: {check}")));
        }
        let newest: i64 = sqlx::query_scalar("SELECT COALESCE(MAX(seq), 0) FROM events")
            .fetch_one(&mut connection)
            .await?;
        let newest = u64::try_from(newest).unwrap_or(0);
        let numbers = writer::Numbers::begin(&mut connection, newest, boot_id).await?;
        let reserve = reserve::Reserve::new(path.with_file_name("reserve"));
        if let Err(error) = reserve.take() {
            tracing::warn!(%error, "no room can be kept on the disk for removals");
        }
        let readers = SqlitePoolOptions::new()
            .min_connections(0)
            .max_connections(4)
            .idle_timeout(Duration::from_secs(30))
            .connect_lazy_with(options(path).read_only(true).create_if_missing(false));
        let (queue, jobs) = mpsc::unbounded_channel();
        let (tell, last_seq) = watch::channel(numbers.last());
        let files = writer::Files::of(path);
        let writing = writer::run(connection, jobs, tell, numbers, event_retention, files);
        crate::vital::spawn("database writer", writing);
        let store = Self {
            readers,
            queue,
            last_seq,
            reserve: Arc::new(reserve),
        };
        store.restore_reserve();
        Ok(store)
    }

    /// Queues writes as one unit of a transaction. Units are committed in the order of the calls.
    /// Does not wait.
    pub fn submit(&self, writes: Vec<Write>, durable: bool) -> Queued {
        let (tell, done) = oneshot::channel();
        // A closed queue drops `tell`, which the receiver sees as Closed.
        let _ = self.queue.send(writer::Job {
            writes,
            durable,
            tell,
        });
        Queued(done)
    }

    /// Queues writes and waits for the commit.
    pub async fn commit(&self, writes: Vec<Write>, durable: bool) -> Result<(), StoreError> {
        self.submit(writes, durable).committed().await
    }

    /// Follows the newest committed event's number.
    pub fn newest_event(&self) -> watch::Receiver<u64> {
        self.last_seq.clone()
    }

    /// All containers, oldest first.
    pub async fn containers(&self) -> Result<Vec<ContainerRow>, StoreError> {
        let rows =
            sqlx::query("SELECT id, name, state, detail, generation FROM containers ORDER BY id")
                .fetch_all(&self.readers)
                .await?;
        let mut out = Vec::with_capacity(rows.len());
        for row in rows {
            let id: String = row.try_get("id")?;
            out.push(ContainerRow {
                id: id
                    .parse()
                    .map_err(|e| StoreError::Sql(format!("row {id}: {e}")))?,
                name: row.try_get("name")?,
                state: row.try_get("state")?,
                detail: row.try_get("detail")?,
                generation: u64::try_from(row.try_get::<i64, _>("generation")?).unwrap_or(0),
            });
        }
        Ok(out)
    }

    /// The config a container was created with, as JSON.
    pub async fn config(&self, id: ContainerId) -> Result<Option<String>, StoreError> {
        Ok(
            sqlx::query_scalar("SELECT config FROM containers WHERE id = ?")
                .bind(id.to_string())
                .fetch_optional(&self.readers)
                .await?,
        )
    }

    /// What the helper told of the last start, as JSON.
    pub async fn launched(&self, id: ContainerId) -> Result<Option<String>, StoreError> {
        let value: Option<Option<String>> =
            sqlx::query_scalar("SELECT launched FROM containers WHERE id = ?")
                .bind(id.to_string())
                .fetch_optional(&self.readers)
                .await?;
        Ok(value.flatten())
    }

    /// All execs, oldest first.
    pub async fn execs(&self) -> Result<Vec<ExecRow>, StoreError> {
        let rows = sqlx::query("SELECT id, detail FROM execs ORDER BY id")
            .fetch_all(&self.readers)
            .await?;
        let mut out = Vec::with_capacity(rows.len());
        for row in rows {
            let id: String = row.try_get("id")?;
            out.push(ExecRow {
                id: id
                    .parse()
                    .map_err(|e| StoreError::Sql(format!("row {id}: {e}")))?,
                detail: row.try_get("detail")?,
            });
        }
        Ok(out)
    }

    /// Events after `since`, oldest first, at most `limit`.
    pub async fn events(&self, since: u64, limit: u32) -> Result<Vec<Event>, StoreError> {
        let rows = sqlx::query(
            "SELECT seq, at_ns, kind, subject, container_id, name, data FROM events
             WHERE seq > ? ORDER BY seq LIMIT ?",
        )
        .bind(i64::try_from(since).unwrap_or(i64::MAX))
        .bind(limit)
        .fetch_all(&self.readers)
        .await?;
        let mut out = Vec::with_capacity(rows.len());
        for row in rows {
            let data: String = row.try_get("data")?;
            out.push(Event {
                seq: u64::try_from(row.try_get::<i64, _>("seq")?).unwrap_or(0),
                at: crate::time::rfc3339(row.try_get::<i64, _>("at_ns")?),
                kind: row.try_get("kind")?,
                id: row.try_get("subject")?,
                container_id: row.try_get("container_id")?,
                name: row.try_get("name")?,
                data: serde_json::from_str(&data).unwrap_or_default(),
            });
        }
        Ok(out)
    }

    /// What is left of a removed container, by id or by name (the newest of that name).
    pub async fn tombstone(&self, reference: &str) -> Result<Option<WaitResult>, StoreError> {
        let text: Option<String> = sqlx::query_scalar(
            "SELECT result FROM tombstones WHERE id = ?1 OR name = ?1
             ORDER BY removed_ns DESC LIMIT 1",
        )
        .bind(reference)
        .fetch_optional(&self.readers)
        .await?;
        Ok(text.and_then(|t| serde_json::from_str(&t).ok()))
    }

    /// What an idempotency key was used for: the request's digest and the subject's id.
    pub async fn idempotent(&self, key: &str) -> Result<Option<(String, String)>, StoreError> {
        let row = sqlx::query("SELECT request, subject FROM idempotency WHERE key = ?")
            .bind(key)
            .fetch_optional(&self.readers)
            .await?;
        row.map(|r| Ok((r.try_get("request")?, r.try_get("subject")?)))
            .transpose()
    }

    /// Whether the database can be read and written.
    pub async fn ping(&self) -> Result<(), StoreError> {
        sqlx::query("SELECT 1").execute(&self.readers).await?;
        self.commit(vec![Write::Probe], false).await
    }

    /// The last commit: waits for everything before it.
    pub async fn close(&self) -> Result<(), StoreError> {
        self.commit(vec![Write::GiveBackNumbers], true).await
    }

    /// Gives the room that is kept for removals up. `false`: there was none.
    pub fn give_up_reserve(&self) -> bool {
        self.reserve.give_up()
    }

    /// Whether room for removals is kept.
    pub fn has_reserve(&self) -> bool {
        self.reserve.is_there()
    }

    /// Takes the room for removals back as soon as the disk has it. Does not wait.
    pub fn restore_reserve(&self) {
        if !self.reserve.begin_restoring() {
            return;
        }
        let reserve = self.reserve.clone();
        tokio::spawn(async move {
            let mut pause = FIRST_PAUSE;
            while reserve.take().is_err() {
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
            reserve.end_restoring();
        });
    }
}

#[cfg(test)]
mod tests;
