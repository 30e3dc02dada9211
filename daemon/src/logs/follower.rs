//! A reader of one log, by position, over rotations.

use std::io;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use littlebox_protocol::{LOG_START, LogStream};
use tokio::sync::futures::OwnedNotified;
use tokio::sync::watch;

use super::files::{self, CHUNK, LogFile};
use super::watcher::Watch;
use super::{Record, Watcher, tail};

/// How long a reader sleeps at most before it looks again by itself: inotify(7) is told of every
/// write, but a queue may overflow and a directory may not be there yet.
const POLL_WATCHED: Duration = Duration::from_secs(1);
const POLL_UNWATCHED: Duration = Duration::from_millis(200);

/// Becomes `true` when the writer is done (the exit was told, the log is complete). A dropped
/// sender counts as done.
pub type Finished = watch::Receiver<bool>;

/// Where a reader starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum From {
    /// The oldest record there is.
    Start,
    /// Only what comes.
    End,
    /// A position that a record told; what was rotated away since is reported as
    /// [`Chunk::Lagged`], a position past the end is the end.
    Position(u64),
    /// The last so many lines.
    Tail(usize),
    /// The last so many lines of one stream (records of the other still come between them).
    TailOf(usize, LogStream),
}

/// How far [`Follower::next`] reads.
#[derive(Debug, Clone, Copy)]
pub enum Mode<'a> {
    /// To the end as it was at the first call, then [`Chunk::End`].
    Snapshot,
    /// Waits for more until the writer is done and its last byte was delivered.
    Follow(&'a Finished),
}

/// What [`Follower::next`] gives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Chunk {
    /// Records, in order; never empty.
    Records(Vec<Record>),
    /// So many bytes of the log (record headers included) are gone or unreadable.
    Lagged(u64),
    /// The end; every further call says so too (in follow mode, once the writer is done).
    End,
}

/// A reader of one log. Dropping a future of [`Follower::next`] loses nothing.
#[derive(Debug)]
pub struct Follower {
    path: PathBuf,
    watch: Watch,
    at: At,
    /// Bytes that were lost and not told yet.
    lagged: u64,
    /// Where a snapshot ends.
    snapshot_end: Option<u64>,
    /// The end of the file when the bytes at our position were first seen to be no record.
    corrupt_since: Option<u64>,
}

/// A place in a log.
#[derive(Debug)]
struct At {
    /// The file it lies in; `None` while the log is empty.
    file: Option<LogFile>,
    position: u64,
    /// Whether the position is known to be a record's beginning: clients may name any number, and
    /// the end of a file may lie inside a record that is just being written.
    verified: bool,
}

/// What one look at the file gave.
enum Step {
    Records(Vec<Record>),
    /// Look again: something changed.
    Again,
    /// Nothing more for now.
    AtEnd,
}

/// What is known of the writer.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Writer {
    /// It may write more.
    Live,
    /// We do not care what it writes after the snapshot's end.
    Snapshot,
    /// It is done.
    Done,
}

impl Follower {
    /// Opens the log at `path` (rotated files are `path.1`, `path.2`...). A missing file is an
    /// empty log that may yet come.
    ///
    /// # Errors
    /// Whatever opening and reading say, except `ENOENT`.
    pub async fn open(watcher: &Arc<Watcher>, path: PathBuf, from: From) -> io::Result<Self> {
        let watch = watcher.watch(&path);
        let log = path.clone();
        let (at, lagged) = blocking(move || locate(&log, from)).await?;
        Ok(Self {
            path,
            watch,
            at,
            lagged,
            snapshot_end: None,
            corrupt_since: None,
        })
    }

    /// The next records. Cancel safe.
    ///
    /// # Errors
    /// read(2).
    pub async fn next(&mut self, mode: Mode<'_>) -> io::Result<Chunk> {
        if matches!(mode, Mode::Snapshot) && self.snapshot_end.is_none() {
            let log = self.path.clone();
            self.snapshot_end = Some(blocking(move || end_of(&log)).await?);
        }
        loop {
            // Both are taken before the look, so that no change between it and the wait is lost.
            let changed = self.watch.changed();
            let writer = writer_of(mode);
            let step = if self.lagged == 0 {
                self.look(writer).await?
            } else {
                Step::AtEnd
            };
            if self.lagged > 0 {
                return Ok(Chunk::Lagged(std::mem::take(&mut self.lagged)));
            }
            match (step, mode) {
                (Step::Records(records), _) => return Ok(Chunk::Records(records)),
                (Step::Again, _) => {}
                (Step::AtEnd, Mode::Snapshot) => return Ok(Chunk::End),
                (Step::AtEnd, Mode::Follow(_)) if writer == Writer::Done => return Ok(Chunk::End),
                (Step::AtEnd, Mode::Follow(finished)) => self.wait(changed, finished).await,
            }
        }
    }

    /// The position after what was delivered last.
    pub fn position(&self) -> u64 {
        self.at.position
    }

    async fn wait(&self, changed: OwnedNotified, finished: &Finished) {
        let poll = if self.watch.is_live() {
            POLL_WATCHED
        } else {
            POLL_UNWATCHED
        };
        let mut finished = finished.clone();
        tokio::select! {
            () = changed => {}
            _ = finished.wait_for(|done| *done) => {}
            () = tokio::time::sleep(poll) => {}
        }
    }

    /// Reads once at the present position. State changes only after the last await.
    async fn look(&mut self, writer: Writer) -> io::Result<Step> {
        let position = self.at.position;
        let Some(file) = &self.at.file else {
            return self.appear().await;
        };
        let end = file.end()?;
        if end < position {
            // The writer cut a torn tail that we had passed over.
            self.at.position = end;
            self.at.verified = false;
            return Ok(Step::Again);
        }
        let limit = match (writer, self.snapshot_end) {
            (Writer::Snapshot, Some(limit)) => limit,
            _ => u64::MAX,
        };
        if position >= limit {
            return Ok(Step::AtEnd);
        }
        let available = usize::try_from(end.min(limit) - position)
            .unwrap_or(CHUNK)
            .min(CHUNK);
        if available == 0 {
            return self.leave(end).await;
        }
        let chunk = file.read(position, available).await?;
        let batch = files::decode(&chunk, position);
        if batch.records.is_empty() {
            return self.stuck(writer, end.min(limit), batch.corrupt).await;
        }
        self.at.position += batch.consumed as u64;
        self.at.verified = true;
        self.corrupt_since = None;
        Ok(Step::Records(batch.records))
    }

    /// The log was empty; is it still?
    async fn appear(&mut self) -> io::Result<Step> {
        let (log, from) = (self.path.clone(), From::Position(self.at.position));
        let (at, lagged) = blocking(move || locate(&log, from)).await?;
        if at.file.is_none() {
            return Ok(Step::AtEnd);
        }
        self.at = at;
        self.lagged += lagged;
        Ok(Step::Again)
    }

    /// All of this file was read up to `end`: goes on to the next one if it was rotated away.
    async fn leave(&mut self, end: u64) -> io::Result<Step> {
        let Some(file) = &self.at.file else {
            return Ok(Step::AtEnd);
        };
        if file.is_at(&self.path)? {
            return Ok(Step::AtEnd);
        }
        // Only now is its size final: the writer may have written between our look and the rename.
        if file.end()? != end {
            return Ok(Step::Again);
        }
        let next = match LogFile::open(&self.path)? {
            Some(newest) if newest.base == end => Some(newest),
            _ => {
                let log = self.path.clone();
                let files = blocking(move || files::files_of(&log)).await?;
                // An empty file of the same base would be this one.
                files
                    .into_iter()
                    .find(|file| file.base >= end && !self.is_current(file))
            }
        };
        let Some(next) = next else {
            return Ok(Step::AtEnd);
        };
        self.lagged += next.base - end;
        self.at = At {
            position: next.base,
            file: Some(next),
            verified: true,
        };
        self.corrupt_since = None;
        Ok(Step::Again)
    }

    fn is_current(&self, file: &LogFile) -> bool {
        self.at
            .file
            .as_ref()
            .is_some_and(|current| current.same(file))
    }

    /// No whole record stands at our position although the file has bytes there.
    async fn stuck(&mut self, writer: Writer, end: u64, corrupt: bool) -> io::Result<Step> {
        if !self.at.verified {
            return self.align().await;
        }
        let Some(file) = &self.at.file else {
            return Ok(Step::AtEnd);
        };
        let rotated = !file.is_at(&self.path)?;
        if rotated && file.end()? > end && writer != Writer::Snapshot {
            return Ok(Step::Again);
        }
        let skip_to = match (writer, corrupt) {
            // The snapshot's end cuts a record that was just being written.
            (Writer::Snapshot, false) => return Ok(Step::AtEnd),
            // It stays as it is: a torn tail that nobody cut, or bytes that the disk lost.
            (Writer::Done, _) | (Writer::Snapshot, true) => end,
            (Writer::Live, _) if rotated => end,
            (Writer::Live, false) => return Ok(Step::AtEnd),
            // A torn tail is cut by the next writer. Only when records were added behind it
            // instead is it lost; the end at the first look was then such a record's beginning.
            (Writer::Live, true) => match self.corrupt_since {
                Some(since) if end > since => since,
                _ => {
                    self.corrupt_since.get_or_insert(end);
                    return Ok(Step::AtEnd);
                }
            },
        };
        self.skip(skip_to);
        Ok(Step::Again)
    }

    fn skip(&mut self, to: u64) {
        self.lagged += to.saturating_sub(self.at.position);
        self.at.position = to;
        self.at.verified = false;
        self.corrupt_since = None;
    }

    /// Moves an unverified position to the next record's beginning, by reading the file from its
    /// start: searching for one forward from here could be led astray by what a program printed.
    async fn align(&mut self) -> io::Result<Step> {
        let Some(file) = self.at.file.take() else {
            return Ok(Step::AtEnd);
        };
        let position = self.at.position;
        // If this future is dropped here, the next call finds the file again by the position.
        let (file, visited) = blocking(move || {
            let visited = file.visit(|after, _| match after >= position {
                true => ControlFlow::Break(()),
                false => ControlFlow::Continue(()),
            })?;
            Ok((file, visited))
        })
        .await?;
        let end = file.end()?;
        self.at.file = Some(file);
        self.at.verified = true;
        if visited.corrupt {
            // The region began before us and was told then.
            self.skip(end.max(position));
        } else {
            self.at.position = visited.position;
        }
        Ok(Step::Again)
    }
}

fn writer_of(mode: Mode<'_>) -> Writer {
    match mode {
        Mode::Snapshot => Writer::Snapshot,
        Mode::Follow(finished) if *finished.borrow() || finished.has_changed().is_err() => {
            Writer::Done
        }
        Mode::Follow(_) => Writer::Live,
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(io::Error::other)?
}

fn end_of(path: &Path) -> io::Result<u64> {
    files::files_of(path)?
        .last()
        .map_or(Ok(LOG_START), LogFile::end)
}

/// Finds a place, and how many bytes before it are gone.
fn locate(path: &Path, from: From) -> io::Result<(At, u64)> {
    let mut files = files::files_of(path)?;
    let (Some(oldest), Some(newest)) = (files.first(), files.last()) else {
        return Ok((
            At {
                file: None,
                position: LOG_START,
                verified: true,
            },
            0,
        ));
    };
    let (start, end) = (oldest.base, newest.end()?);
    let (position, verified) = match from {
        From::Start => (start, true),
        From::End => (end, false),
        From::Position(position) => (position.min(end), false),
        From::Tail(lines) => (tail::start(&files, lines, None)?, true),
        From::TailOf(lines, stream) => (tail::start(&files, lines, Some(stream))?, true),
    };
    let lagged = start.saturating_sub(position);
    let position = position.max(start);
    let index = files
        .iter()
        .rposition(|file| file.base <= position)
        .unwrap_or(0);
    let file = files.swap_remove(index);
    let verified = verified || position == file.base;
    Ok((
        At {
            file: Some(file),
            position,
            verified,
        },
        lagged,
    ))
}
