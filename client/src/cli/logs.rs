//! `logs`.

use std::io::{self, IsTerminal, Write};

use base64::Engine as _;
use clap::Args;
use lbctl::client::LogOptions;
use littlebox_types::{LogLine, OutputEncoding};

use super::error::Failure;
use super::retry::Patience;
use super::{Context, output, sanitize};

// `lbctl logs`.
#[derive(Debug, Args)]
pub struct LogsArgs {
    /// Follow the output until the container exits
    #[arg(short, long)]
    follow: bool,
    /// Show the last N lines, or "all"
    #[arg(short = 'n', long, value_name = "N", value_parser = tail)]
    tail: Option<Tail>,
    /// Show output since this time: RFC 3339, unix seconds, or a duration ago like 10m
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// Show output up to this time
    #[arg(long, value_name = "TIME")]
    until: Option<String>,
    /// Prefix each line with its time
    #[arg(short, long)]
    timestamps: bool,
    /// Print control characters to a terminal unescaped
    #[arg(long)]
    raw: bool,
    /// Omit standard output
    #[arg(long)]
    no_stdout: bool,
    /// Omit standard error
    #[arg(long)]
    no_stderr: bool,
    /// Container
    container: String,
}

#[derive(Debug, Clone, Copy)]
struct Tail(Option<u64>);

fn tail(text: &str) -> Result<Tail, String> {
    match text {
        "all" => Ok(Tail(None)),
        n => n
            .parse()
            .map(|n| Tail(Some(n)))
            .map_err(|_| format!("not a number: '{n}'")),
    }
}

/// Prints a container's output: its stdout to ours, its stderr to ours.
pub async fn logs(ctx: &Context, args: LogsArgs) -> Result<i32, Failure> {
    let mut options = LogOptions {
        tail: args.tail.and_then(|t| t.0),
        since: args.since,
        until: args.until,
        follow: args.follow,
        no_stdout: args.no_stdout,
        no_stderr: args.no_stderr,
        from: None,
    };
    let mut printer = Printer::new(args.timestamps, args.raw);
    let mut patience = Patience::new();
    loop {
        let result = follow(
            ctx,
            &args.container,
            &mut options,
            &mut printer,
            &mut patience,
        )
        .await;
        match result {
            Ok(()) => return printer.flush().map(|()| 0),
            Err(Failure::Client(e)) if args.follow && patience.again(&e).await => {}
            Err(e) => return Err(e),
        }
    }
}

/// Reads one stream to its end; `options` say where to go on if it breaks.
async fn follow(
    ctx: &Context,
    container: &str,
    options: &mut LogOptions,
    printer: &mut Printer,
    patience: &mut Patience,
) -> Result<(), Failure> {
    let mut lines = ctx.client.logs(container, options).await?;
    patience.worked();
    loop {
        // While more is there already, it is written together.
        let raw = tokio::select! {
            biased;
            raw = lines.next_line() => raw?,
            () = std::future::ready(()) => {
                printer.flush()?;
                lines.next_line().await?
            }
        };
        let Some(raw) = raw else { return Ok(()) };
        let line: LogLine = serde_json::from_slice(&raw).map_err(|source| {
            let request = "the log".to_owned();
            lbctl::client::ClientError::Decode { request, source }
        })?;
        options.from = Some(line.position);
        options.tail = None;
        if ctx.json {
            printer.json(&raw);
        } else {
            printer.line(&line);
        }
        printer.flush_if_large()?;
    }
}

/// Writes lines to the stream that they came from.
#[derive(Debug)]
struct Printer {
    timestamps: bool,
    streams: [Stream; 2],
}

#[derive(Debug, Default)]
struct Stream {
    buffer: Vec<u8>,
    sanitize: bool,
    /// The last record of this stream did not end its line.
    inside_line: bool,
}

const LARGE: usize = 64 * 1024;

impl Printer {
    fn new(timestamps: bool, raw: bool) -> Self {
        let stream = |terminal: bool| Stream {
            sanitize: terminal && !raw,
            ..Stream::default()
        };
        let streams = [
            stream(io::stdout().is_terminal()),
            stream(io::stderr().is_terminal()),
        ];
        Self {
            timestamps,
            streams,
        }
    }

    fn json(&mut self, line: &[u8]) {
        self.streams[0].buffer.extend_from_slice(line);
        self.streams[0].buffer.push(b'\n');
    }

    fn line(&mut self, line: &LogLine) {
        let stream = &mut self.streams[usize::from(line.stream == "stderr")];
        if self.timestamps && !stream.inside_line {
            stream
                .buffer
                .extend_from_slice(sanitize::text(&line.at).as_bytes());
            stream.buffer.push(b' ');
        }
        let mut data = decode(line);
        if !line.partial {
            data.push(b'\n');
        }
        stream.inside_line = line.partial;
        if stream.sanitize {
            stream
                .buffer
                .extend_from_slice(sanitize::log(&data).as_bytes());
        } else {
            stream.buffer.extend_from_slice(&data);
        }
    }

    fn flush_if_large(&mut self) -> Result<(), Failure> {
        if self.streams.iter().any(|s| s.buffer.len() >= LARGE) {
            return self.flush();
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<(), Failure> {
        let [out, err] = &mut self.streams;
        if !out.buffer.is_empty() {
            output::bytes(&out.buffer)?;
            out.buffer.clear();
        }
        if !err.buffer.is_empty() {
            io::stderr()
                .write_all(&err.buffer)
                .map_err(Failure::stdout)?;
            err.buffer.clear();
        }
        Ok(())
    }
}

fn decode(line: &LogLine) -> Vec<u8> {
    match line.encoding {
        Some(OutputEncoding::Base64) => base64::engine::general_purpose::STANDARD
            .decode(&line.data)
            .unwrap_or_else(|_| line.data.clone().into_bytes()),
        _ => line.data.clone().into_bytes(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(stream: &str, data: &str, partial: bool) -> LogLine {
        LogLine {
            at: "2026-01-01T00:00:00Z".into(),
            stream: stream.into(),
            data: data.into(),
            encoding: None,
            partial,
            position: 0,
        }
    }

    fn printer(timestamps: bool, sanitize: bool) -> Printer {
        let stream = || Stream {
            sanitize,
            ..Stream::default()
        };
        Printer {
            timestamps,
            streams: [stream(), stream()],
        }
    }

    #[test]
    fn parts_of_a_line_are_joined_per_stream() {
        let mut p = printer(true, false);
        for l in [
            line("stdout", "a", true),
            line("stderr", "e", false),
            line("stdout", "b", false),
        ] {
            p.line(&l);
        }
        assert_eq!(p.streams[0].buffer, b"2026-01-01T00:00:00Z ab\n");
        assert_eq!(p.streams[1].buffer, b"2026-01-01T00:00:00Z e\n");
    }

    #[test]
    fn bytes_come_back_and_escapes_stay_away_from_terminals() {
        let mut encoded = line("stdout", "/xtd", false);
        encoded.encoding = Some(OutputEncoding::Base64);
        let mut p = printer(false, false);
        p.line(&encoded);
        assert_eq!(p.streams[0].buffer, b"\xff\x1b]\n");
        let mut p = printer(false, true);
        p.line(&encoded);
        assert_eq!(p.streams[0].buffer, "\u{fffd}\\x1b]\n".as_bytes());
    }
}
