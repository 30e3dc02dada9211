//! `inspect top diff export plan`.

use std::io::{IsTerminal, Write};
use std::path::PathBuf;

use clap::Args;
use lbctl::client::BodyStream;
use littlebox_types::{ChangeKind, Container};

use super::error::Failure;
use super::table::{Column, Table};
use super::{Context, many, output, plan, sanitize, time};

// `lbctl inspect`.
#[derive(Debug, Args)]
pub struct InspectArgs {
    /// Containers
    #[arg(required = true, value_name = "CONTAINER")]
    containers: Vec<String>,
}

/// Prints a JSON document per container.
pub async fn inspect(ctx: &Context, args: InspectArgs) -> Result<i32, Failure> {
    let inspect = async |name: &str| ctx.client.container(name).await;
    let tell = |_: &str, container: Container| output::json(&container);
    many::each_with(ctx, &args.containers, inspect, tell).await
}

// One container.
#[derive(Debug, Args)]
pub struct OneContainer {
    /// Container
    container: String,
}

const TOP: &[Column] = &[
    Column::number("PID"),
    Column::number("INSIDE"),
    Column::number("PPID"),
    Column::number("UID"),
    Column::whole("STATE"),
    Column::number("THREADS"),
    Column::number("CPU"),
    Column::number("MEMORY"),
    Column::whole("STARTED"),
    Column::text("COMMAND"),
];

/// Prints the processes of a container.
pub async fn top(ctx: &Context, args: OneContainer) -> Result<i32, Failure> {
    let top = ctx.client.top(&args.container).await?;
    if ctx.json {
        return output::json(&top).map(|()| 0);
    }
    let mut table = Table::new(TOP);
    for p in top.processes {
        let age = time::since(Some(&p.started_at));
        table.row([
            p.pid.to_string(),
            p.container_pid.to_string(),
            p.ppid.to_string(),
            p.container_uid.to_string(),
            p.state,
            p.threads.to_string(),
            format!("{}.{:02} s", p.cpu_ms / 1000, p.cpu_ms % 1000 / 10),
            output::size(p.rss),
            if age.is_empty() {
                age
            } else {
                format!("{age} ago")
            },
            p.command,
        ]);
    }
    output::table(&table).map(|()| 0)
}

/// Prints what a container changed: A added, C changed, D deleted.
pub async fn diff(ctx: &Context, args: OneContainer) -> Result<i32, Failure> {
    let changes = ctx.client.changes(&args.container).await?;
    if ctx.json {
        return output::json(&changes).map(|()| 0);
    }
    let mut text = String::new();
    for change in &changes.items {
        let letter = match change.kind {
            ChangeKind::Added => 'A',
            ChangeKind::Modified => 'C',
            ChangeKind::Deleted => 'D',
        };
        text.push_str(&format!("{letter} {}\n", sanitize::text(&change.path)));
    }
    output::print(&text).map(|()| 0)
}

// `lbctl export`.
#[derive(Debug, Args)]
pub struct ExportArgs {
    /// Write to this file instead of stdout
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Container
    container: String,
}

/// Writes a container's root as a tar archive.
pub async fn export(ctx: &Context, args: ExportArgs) -> Result<i32, Failure> {
    let Some(path) = args.output else {
        refuse_terminal()?;
        let stream = ctx.client.export(&args.container).await?;
        return to_stdout(stream).await.map(|()| 0);
    };
    let mut stream = ctx.client.export(&args.container).await?;
    let what = format!("cannot write {}", path.display());
    let mut file = std::fs::File::create(&path).map_err(Failure::io(&what))?;
    while let Some(data) = stream.next().await? {
        file.write_all(&data).map_err(Failure::io(&what))?;
    }
    Ok(0)
}

/// An archive on a terminal helps nobody.
pub fn refuse_terminal() -> Result<(), Failure> {
    if std::io::stdout().is_terminal() {
        let hint = "redirect standard output to a file or a pipe";
        return Err(Failure::usage(
            "an archive will not be written to a terminal",
            hint,
        ));
    }
    Ok(())
}

/// Writes a stream of bytes to stdout.
pub async fn to_stdout(mut stream: BodyStream) -> Result<(), Failure> {
    while let Some(data) = stream.next().await? {
        output::bytes(&data)?;
    }
    Ok(())
}

/// Prints how a container was built.
pub async fn plan(ctx: &Context, args: OneContainer) -> Result<i32, Failure> {
    let plan = ctx.client.plan(&args.container).await?;
    plan::print(ctx, &plan).map(|()| 0)
}
