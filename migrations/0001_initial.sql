-- What users asked for and what happened. Running state can be re-read from the kernel and the
-- run directory; everything a client was told is here.

CREATE TABLE containers (
    id         TEXT    PRIMARY KEY NOT NULL,   -- UUIDv7
    name       TEXT    NOT NULL UNIQUE,
    state      TEXT    NOT NULL,               -- daemon/src/lifecycle.rs
    config     TEXT    NOT NULL,               -- JSON, as the client asked for it
    detail     TEXT    NOT NULL,               -- JSON, engine::Record without id, name, state
    launched   TEXT,                           -- JSON, step timings and namespaces of the last start
    generation INTEGER NOT NULL
) STRICT;

CREATE TABLE execs (
    id           TEXT PRIMARY KEY NOT NULL,    -- UUIDv7
    container_id TEXT NOT NULL REFERENCES containers (id) ON DELETE CASCADE,
    state        TEXT NOT NULL,
    detail       TEXT NOT NULL                 -- JSON, engine::ExecRecord
) STRICT;
CREATE INDEX execs_by_container ON execs (container_id, id);

-- Contiguous from 1; the oldest are pruned.
CREATE TABLE events (
    seq          INTEGER PRIMARY KEY NOT NULL,
    at_ns        INTEGER NOT NULL,             -- nanoseconds since the epoch
    kind         TEXT    NOT NULL,
    subject      TEXT    NOT NULL,
    container_id TEXT,
    name         TEXT,
    data         TEXT    NOT NULL              -- JSON object
) STRICT;

-- A wait may be asked after its container was removed.
CREATE TABLE tombstones (
    id         TEXT    PRIMARY KEY NOT NULL,
    name       TEXT    NOT NULL,
    removed_ns INTEGER NOT NULL,
    result     TEXT    NOT NULL                -- JSON, types::WaitResult
) STRICT;
CREATE INDEX tombstones_by_time ON tombstones (removed_ns);

-- Idempotency-Key: what the first request with this key made.
CREATE TABLE idempotency (
    key        TEXT    PRIMARY KEY NOT NULL,
    request    TEXT    NOT NULL,               -- digest of method, path and body
    subject    TEXT    NOT NULL,               -- id of what was made
    at_ns      INTEGER NOT NULL
) STRICT;
