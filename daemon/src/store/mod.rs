//! The only SQL. The store keeps rows and knows no rules.
//!
//! One writer task owns the one writing connection and takes whatever is queued as one
//! transaction ("grouped commit"), so many clients share one fsync. A batch with anything
//! *durable* in it is committed with `synchronous=FULL`; a batch of running state alone with
//! `NORMAL`, which in WAL mode survives the death of the daemon but needs no fsync.

mod writer;

use std::path::Path;
use std::time::Duration;

use lbctl::types::{ContainerId, Event, ExecId, WaitResult};
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
const MIGRATIONS: [(i64, &str, &str); 1] = [(
    1,
    "initial",
    include_str!("../../../migrations/0001_initial.sql"),
)];

fn migrator() -> Migrator {
    let migration = |(version, description, sql): (i64, &'static str, &'static str)| {
        let (kind, sql) = (MigrationType::Simple, sql.into_sql_str());
        Migration::new(version, description.into(), kind, sql, false)
    };
    Migrator::with_migrations(MIGRATIONS.map(migration).into())
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
        if let sqlx::Error::Database(db) = &e {
            // Primary result codes of SQLite: https://www.sqlite.org/rescode.html
            match db.code().as_deref() {
                Some("13") => return StoreError::Full,
                Some("2067") => return StoreError::NameTaken,
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
    /// `event_retention` is how many events are kept.
    pub async fn open(path: &Path, event_retention: u64) -> Result<Self, StoreError> {
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
        let readers = SqlitePoolOptions::new()
            .min_connections(0)
            .max_connections(4)
            .idle_timeout(Duration::from_secs(30))
            .connect_lazy_with(options(path).read_only(true).create_if_missing(false));
        let (queue, jobs) = mpsc::unbounded_channel();
        let (tell, last_seq) = watch::channel(newest);
        tokio::spawn(writer::run(connection, jobs, tell, event_retention));
        Ok(Self {
            readers,
            queue,
            last_seq,
        })
    }

    /// Queues writes as one unit of a transaction; the receiver tells when they are committed.
    /// Units are committed in the order of the calls. Does not wait.
    pub fn submit(
        &self,
        writes: Vec<Write>,
        durable: bool,
    ) -> oneshot::Receiver<Result<(), StoreError>> {
        let (tell, done) = oneshot::channel();
        // A closed queue drops `tell`, which the receiver sees as Closed.
        let _ = self.queue.send(writer::Job {
            writes,
            durable,
            tell,
        });
        done
    }

    /// Queues writes and waits for the commit.
    pub async fn commit(&self, writes: Vec<Write>, durable: bool) -> Result<(), StoreError> {
        self.submit(writes, durable)
            .await
            .unwrap_or(Err(StoreError::Closed))
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

    /// Whether the database answers.
    pub async fn ping(&self) -> Result<(), StoreError> {
        sqlx::query("SELECT 1").execute(&self.readers).await?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::MIGRATIONS;

    #[test]
    fn every_migration_of_the_directory_is_known() {
        let mut files: Vec<_> =
            std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/../migrations"))
                .unwrap()
                .map(|entry| entry.unwrap().file_name().into_string().unwrap())
                .collect();
        files.sort();
        let known = MIGRATIONS.map(|(version, name, _)| format!("{version:04}_{name}.sql"));
        assert_eq!(files, known);
    }
}
