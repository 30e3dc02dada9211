//! What a worker does: one request after the other, without any hurry.

use std::fs::File;
use std::io::{self, BufWriter, Read, Write, stdin};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::mpsc;

use littlebox_protocol::channel::{self, Received, Wait};
use littlebox_types::Changes;
use rustix::process::{DumpableBehavior, set_dumpable_behavior};

use super::probe;
use super::protocol::{Answer, Request};
use super::pump::pump;
use crate::faults;
use crate::files::{self, Bounds, FileError};
use crate::procfs::{ProcDir, ProcessId};

/// The argument that makes a worker of the daemon's program. No user gives it.
pub const ARGUMENT: &str = "worker";

/// Serves until the daemon closes the socket, which is standard input.
pub fn main() -> ExitCode {
    if let Err(error) = confine() {
        eprintln!("littleboxd worker: cannot confine itself: {error}");
        return ExitCode::FAILURE;
    }
    let (tell, requests) = mpsc::channel();
    let work = move || {
        let _watched = EndsWithAPanic;
        requests.into_iter().for_each(|(request, descriptors)| {
            let answer = answer(request, descriptors).unwrap_or_else(Answer::Failed);
            say(&answer);
        });
    };
    if let Err(error) = std::thread::Builder::new().name("work".into()).spawn(work) {
        eprintln!("littleboxd worker: cannot make a thread: {error}");
        return ExitCode::FAILURE;
    }
    // This thread sees the end of a daemon while the other one waits in the kernel. A signal at the
    // parent's death would not do: it is forgotten when the effective user changes (prctl(2),
    // PR_SET_PDEATHSIG), as it does while an archive is unpacked.
    loop {
        match channel::receive::<Request>(stdin().as_fd(), Wait::Block) {
            Ok(Received::Message(request, descriptors)) => {
                if tell.send((request, descriptors)).is_err() {
                    return ExitCode::FAILURE;
                }
            }
            Ok(Received::Closed | Received::NothingYet) => return ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("littleboxd worker: {error} (only the daemon starts workers)");
                return ExitCode::FAILURE;
            }
        }
    }
}

/// Ends the process when the thread that has it panics. The other thread waits for the daemon, and the
/// daemon for an answer: it sees the end of the process at once.
struct EndsWithAPanic;

impl Drop for EndsWithAPanic {
    fn drop(&mut self) {
        if std::thread::panicking() {
            std::process::exit(1);
        }
    }
}

/// It reads what containers have written: it leaves no core dumps, nobody looks into it, and it never
/// has more rights than now. What it does as a container's root it does in no group of the host.
fn confine() -> rustix::io::Result<()> {
    rustix::thread::set_thread_groups(&[])?;
    set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
    rustix::thread::set_no_new_privs(true)?;
    // Only for whoever lists processes.
    rustix::thread::set_name(c"littlebox-work")
}

/// Tells the daemon. One that is gone is seen by the other thread.
fn say(answer: &Answer) {
    let _gone = channel::send(stdin().as_fd(), answer, Vec::new());
}

fn answer(request: Request, descriptors: Vec<OwnedFd>) -> Result<Answer, FileError> {
    faults::point("worker.answer");
    let mut descriptors = descriptors.into_iter();
    let mut next = || descriptors.next().ok_or_else(missing);
    match request {
        Request::Stat { path, ids } => Ok(Answer::Stat(files::stat(next()?.as_fd(), &path, &ids)?)),
        Request::Pack { path, ids } => {
            let (root, pipe) = (next()?, next()?);
            let packing = match path {
                Some(path) => files::pack(root.as_fd(), &path, &ids)?,
                None => files::pack_all(root.as_fd(), &ids)?,
            };
            say(&Answer::Ready);
            packing.write(File::from(pipe))?;
            Ok(Answer::Done)
        }
        Request::Unpack { path, ids, of } => {
            let root = next()?;
            let input = Input {
                pipe: next()?.into(),
                begun: false,
            };
            files::unpack((root.as_fd(), of), &path, &ids, input, &Bounds::default())?;
            Ok(Answer::Done)
        }
        Request::Changes {
            upper,
            lower,
            hidden,
        } => {
            let changes = changes(&upper, &lower, &hidden)?;
            say(&Answer::Ready);
            let mut out = BufWriter::new(File::from(next()?));
            serde_json::to_writer(&mut out, &changes)
                .map_err(io::Error::from)
                .and_then(|()| out.flush())
                .map_err(FileError::Stream)?;
            Ok(Answer::Done)
        }
        Request::Probe(paths) => {
            paths.iter().for_each(probe::look);
            Ok(Answer::Done)
        }
        Request::Feed => {
            let (from, to) = (next()?, next()?);
            say(&Answer::Ready);
            // An error means that the program or the daemon has gone.
            let _gone = pump(from, to, || say(&Answer::Ready));
            Ok(Answer::Done)
        }
        Request::IsMissing(file) => Ok(Answer::IsMissing(matches!(file.try_exists(), Ok(false)))),
        Request::CommandLines(processes) => {
            say(&Answer::Ready);
            for process in &processes {
                say(&Answer::CommandLine(
                    command_line(process).unwrap_or_default(),
                ));
            }
            Ok(Answer::Done)
        }
    }
}

/// The daemon has sent it; this process had no room for one more.
fn missing() -> FileError {
    FileError::Io {
        op: "recvmsg".into(),
        path: "a descriptor".into(),
        source: rustix::io::Errno::MFILE.into(),
    }
}

/// An archive that comes. What is wrong with the directory is told before it is read.
struct Input {
    pipe: File,
    begun: bool,
}

impl Read for Input {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if !self.begun {
            self.begun = true;
            say(&Answer::Ready);
        }
        self.pipe.read(buffer)
    }
}

fn command_line(process: &ProcessId) -> io::Result<String> {
    let directory = ProcDir::open(process.pid)?;
    match directory.stat()?.start_time == process.start_time {
        true => directory.command_line(),
        false => Ok(String::new()),
    }
}

fn changes(upper: &Path, lower: &[PathBuf], hidden: &[PathBuf]) -> Result<Changes, FileError> {
    let unseen = |root: &PathBuf| files::below(root, hidden);
    let unseen: Vec<_> = lower.iter().flat_map(unseen).collect();
    let mut items = files::changes(upper, lower)?;
    items.retain(|change| {
        let path = Path::new(&change.path);
        !unseen.iter().any(|hidden| path.starts_with(hidden))
    });
    Ok(Changes { items })
}
