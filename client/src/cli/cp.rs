//! `cp`: files between here and a container, with the rules of cp(1) as Docker has them.
//!
//! | source | destination | result |
//! |---|---|---|
//! | file | is a directory | in it, by its own name |
//! | file | is a file | replaced |
//! | file | is not there, its parent is | made under that name |
//! | directory | is a directory | in it, by its own name; with `SRC/.` its contents |
//! | directory | is not there | made, with the contents |
//! | directory | is a file | refused |
//!
//! A destination that is a symbolic link is followed, as cp(1) does.

use std::ffi::OsString;
use std::io::{self, Read, Write};
use std::path::{Component, Path, PathBuf};

use bytes::Bytes;
use clap::Args;
use lbctl::client::{BodyStream, ClientError};
use rustix::fs::{FileType, Mode, OFlags};
use tokio::sync::mpsc;

use super::archive::{self, Packing, Unpacking};
use super::error::Failure;
use super::{Context, show};

// `lbctl cp`.
#[derive(Debug, Args)]
pub struct CpArgs {
    /// Preserve owners, setuid and setgid bits, and extended attributes
    #[arg(short, long)]
    archive: bool,
    /// CONTAINER:PATH, PATH, or - for a tar archive on stdin
    source: String,
    /// CONTAINER:PATH, PATH, or - for a tar archive on stdout
    destination: String,
}

/// One side of a copy.
#[derive(Debug, PartialEq, Eq)]
enum Side {
    /// A tar stream.
    Stream,
    /// A path here.
    Local(String),
    /// A path in a container.
    Container { name: String, path: String },
}

impl Side {
    /// A path that has a colon and is meant from here begins with `/` or `.`.
    fn parse(text: &str) -> Self {
        match text.split_once(':') {
            _ if text == "-" => Side::Stream,
            Some((name, path))
                if !name.is_empty() && !name.starts_with('.') && !name.contains('/') =>
            {
                // As in the field: a relative path is meant from the container's root.
                let path = if path.starts_with('/') {
                    path.to_owned()
                } else {
                    format!("/{path}")
                };
                Side::Container {
                    name: name.to_owned(),
                    path,
                }
            }
            _ => Side::Local(text.to_owned()),
        }
    }
}

/// Copies.
pub async fn cp(ctx: &Context, args: CpArgs) -> Result<i32, Failure> {
    match (Side::parse(&args.source), Side::parse(&args.destination)) {
        (Side::Container { name, path }, Side::Stream) => {
            show::refuse_terminal()?;
            let stream = ctx.client.get_files(&name, &path).await?;
            show::to_stdout(stream).await?;
        }
        (Side::Stream, Side::Container { name, path }) => {
            let archive = from_thread(|out| io::copy(&mut io::stdin().lock(), out).map(drop));
            ctx.client.put_files(&name, &path, archive).await?;
        }
        (Side::Container { name, path }, Side::Local(to)) => {
            download(ctx, &name, &path, &to, args.archive).await?;
        }
        (Side::Local(from), Side::Container { name, path }) => {
            upload(ctx, &from, &name, &path, args.archive).await?;
        }
        _ => {
            return Err(Failure::usage(
                "exactly one of source and destination is in a container",
                "write CONTAINER:PATH; between two containers use a pipe: \
                 lbctl cp A:PATH - | lbctl cp - B:DIR",
            ));
        }
    }
    Ok(0)
}

/// Whether a path asks for a directory's contents rather than the directory.
fn wants_contents(path: &str) -> bool {
    path.ends_with("/.") || path == "." || path == "/"
}

/// Where something goes: into a directory, under another name unless it keeps its own.
#[derive(Debug, PartialEq, Eq)]
struct Place {
    directory: String,
    rename: Option<String>,
}

/// What is known of a destination.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum There {
    Nothing,
    Directory,
    File,
    /// A device, a FIFO or a socket, which a copy would take the place of.
    Special,
}

/// The table at the head of this file. `Err` says what is wrong.
fn place(
    destination: &str,
    there: There,
    source_is_directory: bool,
    contents: bool,
) -> Result<Place, String> {
    if there == There::Directory {
        // Contents have `.` for their name.
        let rename = contents.then(|| ".".to_owned());
        return Ok(Place {
            directory: destination.to_owned(),
            rename,
        });
    }
    if there == There::Special {
        return Err(not_copied(destination));
    }
    if source_is_directory && there == There::File {
        return Err(format!(
            "cannot copy a directory onto the file '{destination}'"
        ));
    }
    if !source_is_directory && destination.ends_with('/') {
        return Err(format!("not a directory: '{destination}'"));
    }
    let trimmed = destination.trim_end_matches("/.").trim_end_matches('/');
    let (directory, name) = match trimmed.rsplit_once('/') {
        Some(("", name)) => ("/", name),
        Some((directory, name)) => (directory, name),
        None => (".", trimmed),
    };
    if name.is_empty() || name == "." || name == ".." {
        return Err(format!("not a directory: '{destination}'"));
    }
    Ok(Place {
        directory: directory.to_owned(),
        rename: Some(name.to_owned()),
    })
}

/// A source that no copy is made of; below a directory it is left out, and that is told.
fn special(path: &str) -> Failure {
    Failure::usage(not_copied(path), "")
}

fn not_copied(path: &str) -> String {
    format!("'{path}' is a device, a FIFO or a socket; give a file or a directory")
}

async fn download(
    ctx: &Context,
    container: &str,
    from: &str,
    to: &str,
    keep: bool,
) -> Result<(), Failure> {
    let stat = ctx.client.stat_file(container, from).await?;
    if !matches!(stat.kind.as_str(), "file" | "directory" | "symlink") {
        return Err(special(from));
    }
    let contents = wants_contents(from);
    let followed = follow(to).map_err(Failure::io(format!("cannot copy to '{to}'")))?;
    let to = followed.as_str();
    let there = match std::fs::metadata(to) {
        Ok(metadata) if metadata.is_dir() => There::Directory,
        Ok(metadata) if metadata.is_file() => There::File,
        Ok(_) => There::Special,
        Err(_) => There::Nothing,
    };
    let place =
        place(to, there, stat.kind == "directory", contents).map_err(|e| Failure::usage(e, ""))?;
    let stream = ctx.client.get_files(container, from).await?;
    let unpacking = Unpacking {
        directory: PathBuf::from(place.directory),
        rename: place.rename.map(OsString::from),
        keep_owners: keep,
    };
    // The stream's own failure says more than the archive that ends too early because of it.
    let (sender, reader) = channel_reader();
    let unpacked = tokio::task::spawn_blocking(move || archive::unpack(reader, &unpacking));
    let sent = send_all(stream, sender).await;
    let unpacked = unpacked
        .await
        .map_err(|e| Failure::io("unpacking")(io::Error::other(e)))?;
    sent?;
    for skipped in unpacked.map_err(Failure::io(format!("cannot copy to '{to}'")))? {
        eprintln!("lbctl: left out: {}", super::sanitize::text(&skipped));
    }
    Ok(())
}

/// The most links that are followed, as the kernel does (path_resolution(7)).
const LINKS: usize = 40;

/// Where a path leads when its last part is a link, also to what is not there yet.
fn follow(path: &str) -> io::Result<String> {
    let mut path = PathBuf::from(path);
    for _ in 0..LINKS {
        match path.read_link() {
            Ok(target) => path = path.parent().unwrap_or(Path::new("/")).join(target),
            // No link, or nothing there.
            Err(_) => {
                let text = path.into_os_string().into_string();
                return text.map_err(|_| io::Error::other("the link leads to a name of bytes"));
            }
        }
    }
    Err(io::Error::other("too many links"))
}

/// Sends a stream to a reader on another thread, which may stop reading.
async fn send_all(mut stream: BodyStream, sender: mpsc::Sender<Bytes>) -> Result<(), Failure> {
    while let Some(data) = stream.next().await? {
        if sender.send(data).await.is_err() {
            break;
        }
    }
    Ok(())
}

async fn upload(
    ctx: &Context,
    from: &str,
    container: &str,
    to: &str,
    keep: bool,
) -> Result<(), Failure> {
    let contents = wants_contents(from);
    let cannot = || format!("cannot copy '{from}'");
    // With a slash at its end a link is followed: that is how paths work.
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let source = rustix::fs::open(from, flags, Mode::empty())
        .map_err(|e| Failure::io(cannot())(e.into()))?;
    let stat = rustix::fs::fstat(&source).map_err(|e| Failure::io(cannot())(e.into()))?;
    let kind = FileType::from_raw_mode(stat.st_mode);
    if !(kind.is_file() || kind.is_dir() || kind.is_symlink()) {
        return Err(special(from));
    }
    let is_directory = kind.is_dir();
    let (to, there) = destination(ctx, container, to).await?;
    let place = place(&to, there, is_directory, contents).map_err(|e| Failure::usage(e, ""))?;
    let name = match place.rename {
        Some(name) => OsString::from(name),
        None => own_name(Path::new(from))?,
    };
    let packing = Packing {
        source,
        name,
        keep_owners: keep,
    };
    let body = from_thread(move |out| {
        for left_out in archive::pack(packing, out)? {
            eprintln!("lbctl: left out: {}", super::sanitize::text(&left_out));
        }
        Ok(())
    });
    Ok(ctx
        .client
        .put_files(container, &place.directory, body)
        .await?)
}

/// Where a container path leads, and what lies there. A link to a directory stays as it is:
/// the daemon follows it inside the container.
async fn destination(
    ctx: &Context,
    container: &str,
    path: &str,
) -> Result<(String, There), Failure> {
    let mut path = path.to_owned();
    for _ in 0..LINKS {
        let stat = match ctx.client.stat_file(container, &path).await {
            Ok(stat) => stat,
            Err(ClientError::Problem(p)) if p.code == "path_not_found" => {
                return Ok((path, There::Nothing));
            }
            Err(e) => return Err(e.into()),
        };
        let target = match (stat.kind.as_str(), stat.link_target) {
            ("directory", _) => return Ok((path, There::Directory)),
            ("symlink", Some(target)) => target,
            ("file", _) => return Ok((path, There::File)),
            _ => return Ok((path, There::Special)),
        };
        let inside = format!("{}/.", path.trim_end_matches('/'));
        let behind = ctx.client.stat_file(container, &inside).await;
        if behind.is_ok_and(|stat| stat.kind == "directory") {
            return Ok((path, There::Directory));
        }
        path = beside(&path, &target);
    }
    Err(Failure::usage(format!("'{path}': too many links"), ""))
}

/// What a link in a directory leads to, for the container to resolve.
fn beside(link: &str, target: &str) -> String {
    match link.trim_end_matches('/').rsplit_once('/') {
        Some((directory, _)) if !target.starts_with('/') => format!("{directory}/{target}"),
        _ => target.to_owned(),
    }
}

/// The last name of a path; that of the directory it means when it ends in `.` or `..`.
fn own_name(path: &Path) -> Result<OsString, Failure> {
    if let Some(Component::Normal(name)) = path.components().next_back() {
        return Ok(name.to_owned());
    }
    let real = path
        .canonicalize()
        .map_err(Failure::io(format!("cannot copy '{}'", path.display())))?;
    Ok(real
        .file_name()
        .map_or_else(|| OsString::from("."), ToOwned::to_owned))
}

/// Pieces on their way between the event loop and a thread.
const PIECES: usize = 4;
const PIECE: usize = 128 * 1024;

/// What a function writes on a thread of its own, as a stream. Its error ends the stream.
fn from_thread(
    write: impl FnOnce(&mut ChannelWriter) -> io::Result<()> + Send + 'static,
) -> impl futures_util::Stream<Item = io::Result<Bytes>> + Send + 'static {
    let (sender, receiver) = mpsc::channel(PIECES);
    std::thread::spawn(move || {
        let mut writer = ChannelWriter {
            sender,
            buffer: Vec::with_capacity(PIECE),
        };
        let result = write(&mut writer).and_then(|()| writer.flush());
        if let Err(e) = result {
            // When nobody listens any more, nobody wants to know.
            let _ = writer.sender.blocking_send(Err(e));
        }
    });
    futures_util::stream::unfold(receiver, |mut receiver| async move {
        receiver.recv().await.map(|piece| (piece, receiver))
    })
}

/// The thread's end of [`from_thread`].
struct ChannelWriter {
    sender: mpsc::Sender<io::Result<Bytes>>,
    buffer: Vec<u8>,
}

impl Write for ChannelWriter {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        self.buffer.extend_from_slice(data);
        if self.buffer.len() >= PIECE {
            self.flush()?;
        }
        Ok(data.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        let piece = std::mem::replace(&mut self.buffer, Vec::with_capacity(PIECE));
        self.sender
            .blocking_send(Ok(piece.into()))
            .map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe))
    }
}

/// A reader for a thread, of pieces that the event loop sends.
fn channel_reader() -> (mpsc::Sender<Bytes>, impl Read + Send + 'static) {
    struct Reader {
        receiver: mpsc::Receiver<Bytes>,
        piece: Bytes,
    }
    impl Read for Reader {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            while self.piece.is_empty() {
                match self.receiver.blocking_recv() {
                    Some(piece) => self.piece = piece,
                    None => return Ok(0),
                }
            }
            let n = buffer.len().min(self.piece.len());
            buffer[..n].copy_from_slice(&self.piece.split_to(n));
            Ok(n)
        }
    }
    let (sender, receiver) = mpsc::channel(PIECES);
    (
        sender,
        Reader {
            receiver,
            piece: Bytes::new(),
        },
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sides_are_told_apart() {
        let inside = |name: &str, path: &str| Side::Container {
            name: name.to_owned(),
            path: path.to_owned(),
        };
        assert_eq!(Side::parse("web:/etc/a:b"), inside("web", "/etc/a:b"));
        assert_eq!(Side::parse("web:etc"), inside("web", "/etc"));
        assert_eq!(Side::parse("web:"), inside("web", "/"));
        for local in ["a", "/a:b", "./a:b", "../a:b", "a/b:c", ":a", ".:a"] {
            assert_eq!(Side::parse(local), Side::Local(local.to_owned()), "{local}");
        }
        assert_eq!(Side::parse("-"), Side::Stream);
    }

    #[test]
    fn destinations_follow_the_table() {
        let to = |directory: &str, rename: Option<&str>| {
            Ok(Place {
                directory: directory.into(),
                rename: rename.map(str::to_owned),
            })
        };
        use There::{Directory, File, Nothing, Special};
        assert_eq!(place("/d", Directory, false, false), to("/d", None));
        assert_eq!(place("/d/f", File, false, false), to("/d", Some("f")));
        assert_eq!(place("f", Nothing, false, false), to(".", Some("f")));
        assert_eq!(place("/f", Nothing, false, false), to("/", Some("f")));
        assert_eq!(place("/d", Directory, true, false), to("/d", None));
        assert_eq!(place("/d", Directory, true, true), to("/d", Some(".")));
        assert_eq!(place("/x/new/", Nothing, true, true), to("/x", Some("new")));
        assert!(place("/d/f", File, true, false).is_err());
        assert!(place("/dev/null", Special, false, false).is_err());
        assert!(place("/no/", Nothing, false, false).is_err());
        assert!(place("..", Nothing, true, false).is_err());
    }

    #[test]
    fn contents_are_asked_for_by_a_dot() {
        assert!(wants_contents("/a/.") && wants_contents(".") && wants_contents("/"));
        assert!(!wants_contents("/a/") && !wants_contents("/a.") && !wants_contents("a"));
    }
}
