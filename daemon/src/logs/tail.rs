//! Where the last N lines begin.

use std::collections::VecDeque;
use std::io;
use std::ops::ControlFlow;

use littlebox_protocol::LogStream;

use super::files::LogFile;

/// How many line ends are remembered during a scan; more are found by a second one.
const REMEMBERED: usize = 64 * 1024;

/// The position after which the last `lines` lines (of one stream, or of both) stand, in the files
/// of a log, oldest first. Blocks; memory stays bounded whatever is asked for.
///
/// Framed records can only be read forwards, so each file is read from its start, the newest file
/// first, and no further than needed.
pub(super) fn start(files: &[LogFile], lines: usize, stream: Option<LogStream>) -> io::Result<u64> {
    let (Some(oldest), Some(newest)) = (files.first(), files.last()) else {
        return Ok(0);
    };
    if lines == 0 {
        return newest.end();
    }
    // The lines start after the line end that stands before them: the wanted one, counted from
    // the end. A last line without its newline has no end of its own.
    let mut wanted = lines.saturating_add(1);
    let mut last_seen = false;
    for file in files.iter().rev() {
        let scan = Scan::of(file, stream)?;
        if let (false, Some(partial)) = (last_seen, scan.last_partial) {
            last_seen = true;
            wanted -= usize::from(partial);
        }
        if scan.count >= wanted {
            return scan.end_from_last(file, stream, wanted);
        }
        wanted -= scan.count;
    }
    Ok(oldest.base)
}

/// The line ends of one file.
struct Scan {
    count: usize,
    /// The last of them, at most [`REMEMBERED`].
    last: VecDeque<u64>,
    /// Whether the last record is partial; `None` without records.
    last_partial: Option<bool>,
}

impl Scan {
    fn of(file: &LogFile, stream: Option<LogStream>) -> io::Result<Self> {
        let mut scan = Scan {
            count: 0,
            last: VecDeque::new(),
            last_partial: None,
        };
        file.visit(|after, record| {
            if stream.is_none_or(|stream| stream == record.stream) {
                scan.last_partial = Some(record.partial);
                if !record.partial {
                    scan.count += 1;
                    if scan.last.len() == REMEMBERED {
                        scan.last.pop_front();
                    }
                    scan.last.push_back(after);
                }
            }
            ControlFlow::Continue(())
        })?;
        Ok(scan)
    }

    /// The `wanted`-th line end from the last; `wanted` is at most `count` and not 0.
    fn end_from_last(
        &self,
        file: &LogFile,
        stream: Option<LogStream>,
        wanted: usize,
    ) -> io::Result<u64> {
        if let Some(index) = self.last.len().checked_sub(wanted) {
            return Ok(self.last.get(index).copied().unwrap_or(file.base));
        }
        let mut skip = self.count - wanted;
        let mut found = file.base;
        file.visit(|after, record| {
            if record.partial || stream.is_some_and(|stream| stream != record.stream) {
                return ControlFlow::Continue(());
            }
            found = after;
            match skip.checked_sub(1) {
                Some(rest) => {
                    skip = rest;
                    ControlFlow::Continue(())
                }
                None => ControlFlow::Break(()),
            }
        })?;
        Ok(found)
    }
}
