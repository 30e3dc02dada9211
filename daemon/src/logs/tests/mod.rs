//! Logs written as a helper writes them, read back.
#![allow(clippy::unwrap_used, reason = "tests")]

mod follow;
mod read;
mod render;

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use bytes::Bytes;
use littlebox_protocol::{
    FILE_HEADER_LEN, FILE_MAGIC, LOG_PAYLOAD_LIMIT, LogStream, RECORD_HEADER_LEN, record_header,
    seal_header,
};
use proptest::prelude::*;
use tokio::sync::watch;

use super::*;

/// Writes records and rotates as the protocol says.
struct Writer {
    path: PathBuf,
    file: File,
    base: u64,
    len: u64,
    max_files: u32,
}

impl Writer {
    fn new(path: &Path) -> Self {
        Self {
            path: path.to_owned(),
            file: begin(path, 0),
            base: 0,
            len: 0,
            max_files: 1000,
        }
    }

    fn write(&mut self, stream: LogStream, partial: bool, payload: &[u8]) -> u64 {
        self.write_raw(&record(1_000_000_000, stream, partial, payload))
    }

    fn write_raw(&mut self, bytes: &[u8]) -> u64 {
        self.file.write_all(bytes).unwrap();
        self.len += bytes.len() as u64;
        self.base + self.len
    }

    fn line(&mut self, text: &str) -> u64 {
        self.write(LogStream::Stdout, false, text.as_bytes())
    }

    fn rotate(&mut self) {
        let name = |number: u32| PathBuf::from(format!("{}.{number}", self.path.display()));
        for number in (1..self.max_files).rev() {
            if name(number).exists() {
                std::fs::rename(name(number), name(number + 1)).unwrap();
            }
        }
        std::fs::rename(&self.path, name(1)).unwrap();
        self.base += self.len;
        self.len = 0;
        self.file = begin(&self.path, self.base);
    }
}

fn begin(path: &Path, base: u64) -> File {
    let mut file = OpenOptions::new()
        .create(true)
        .append(true)
        .open(path)
        .unwrap();
    let mut header = FILE_MAGIC.to_vec();
    header.extend_from_slice(&base.to_le_bytes());
    file.write_all(&header).unwrap();
    file
}

fn record(time_ns: u64, stream: LogStream, partial: bool, payload: &[u8]) -> Vec<u8> {
    let len = u32::try_from(payload.len()).unwrap();
    let mut header = record_header(time_ns, stream, partial, len);
    let mut crc = crc32fast::Hasher::new();
    crc.update(&header[8..]);
    crc.update(payload);
    seal_header(&mut header, crc.finalize());
    [&header[..], payload].concat()
}

fn log_path() -> (tempfile::TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("container.log");
    (directory, path)
}

async fn open(path: &Path, from: From) -> Follower {
    let watcher = Watcher::new();
    Follower::open(&watcher, path.to_owned(), from)
        .await
        .unwrap()
}

/// Everything until the end; the bytes lost come second.
async fn collect(follower: &mut Follower, mode: Mode<'_>) -> (Vec<Record>, u64) {
    let (mut records, mut lost) = (Vec::new(), 0);
    loop {
        match follower.next(mode).await.unwrap() {
            Chunk::Records(more) => records.extend(more),
            Chunk::Lagged(bytes) => lost += bytes,
            Chunk::End => return (records, lost),
        }
    }
}

async fn snapshot(path: &Path, from: From) -> (Vec<String>, u64) {
    let mut follower = open(path, from).await;
    let (records, lost) = collect(&mut follower, Mode::Snapshot).await;
    (texts(&records), lost)
}

fn texts(records: &[Record]) -> Vec<String> {
    records
        .iter()
        .map(|record| String::from_utf8_lossy(&record.payload).into_owned())
        .collect()
}
