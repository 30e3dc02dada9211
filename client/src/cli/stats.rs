//! `stats`.

use std::io::IsTerminal;
use std::time::Duration;

use clap::Args;
use futures_util::StreamExt;
use futures_util::stream::SelectAll;
use lbctl::client::{ClientError, JsonLines, ListOptions};
use littlebox_types::Stats;

use super::error::Failure;
use super::table::{Column, Table};
use super::time::parse_duration;
use super::{Context, output};

// `lbctl stats`.
#[derive(Debug, Args)]
pub struct StatsArgs {
    /// Print one measurement and exit
    #[arg(long)]
    no_stream: bool,
    /// Time between measurements
    #[arg(long, value_name = "DURATION", default_value = "1s", value_parser = parse_duration)]
    interval: Duration,
    /// Containers (default: all that run)
    #[arg(value_name = "CONTAINER")]
    containers: Vec<String>,
}

const COLUMNS: &[Column] = &[
    Column::text("NAME"),
    Column::number("CPU"),
    Column::number("THROTTLED"),
    Column::number("MEMORY"),
    Column::number("LIMIT"),
    Column::number("CACHE"),
    Column::number("OOM"),
    Column::number("PIDS"),
    Column::number("NET IN"),
    Column::number("NET OUT"),
    Column::number("DISK READ"),
    Column::number("DISK WRITE"),
];

/// Between the two measurements that a CPU percentage needs.
const ONCE_INTERVAL: Duration = Duration::from_millis(200);

/// Prints what containers use.
pub async fn stats(ctx: &Context, args: StatsArgs) -> Result<i32, Failure> {
    let names = if args.containers.is_empty() {
        running(ctx).await?
    } else {
        args.containers
    };
    if ctx.json && args.no_stream {
        for name in &names {
            tell_json(name, &ctx.client.stats(name).await?)?;
        }
        return Ok(0);
    }
    let interval = if args.no_stream {
        ONCE_INTERVAL
    } else {
        args.interval
    };
    let mut latest: Vec<(String, Option<Stats>)> = Vec::new();
    let mut streams = SelectAll::new();
    for (i, name) in names.iter().enumerate() {
        let lines: JsonLines<Stats> = ctx.client.stats_stream(name, Some(interval)).await?;
        let item = move |result| (i, Some(result));
        let end = futures_util::stream::iter([(i, None)]);
        streams.push(Box::pin(lines.into_stream().map(item).chain(end)));
        latest.push((name.clone(), None));
    }
    if args.no_stream {
        return once(&mut streams, latest).await;
    }
    follow(ctx, &mut streams, latest).await
}

type Item = (usize, Option<Result<Stats, ClientError>>);

/// The second measurement of each, in one table.
async fn once(
    streams: &mut (impl futures_util::Stream<Item = Item> + Unpin),
    mut latest: Vec<(String, Option<Stats>)>,
) -> Result<i32, Failure> {
    let mut left = latest.len();
    while left > 0
        && let Some((i, result)) = streams.next().await
    {
        let had = latest[i]
            .1
            .as_ref()
            .is_some_and(|s| s.cpu_percent.is_some());
        let ended = result.is_none();
        if let Some(result) = result {
            latest[i].1 = Some(result?);
        }
        let has = latest[i]
            .1
            .as_ref()
            .is_some_and(|s| s.cpu_percent.is_some());
        left -= usize::from(!had && (has || ended));
    }
    output::table(&table(&latest)).map(|()| 0)
}

async fn follow(
    ctx: &Context,
    streams: &mut (impl futures_util::Stream<Item = Item> + Unpin),
    mut latest: Vec<(String, Option<Stats>)>,
) -> Result<i32, Failure> {
    let redraw = std::io::stdout().is_terminal();
    let mut drawn = 0;
    while let Some((i, result)) = streams.next().await {
        latest[i].1 = result.transpose()?;
        if ctx.json {
            if let (name, Some(stats)) = &latest[i] {
                tell_json(name, stats)?;
            }
            continue;
        }
        let text = table(&latest).render(output::width());
        // Up to the table's first line, and everything below it away.
        let home = if redraw && drawn > 0 {
            format!("\x1b[{drawn}A\x1b[J")
        } else {
            String::new()
        };
        drawn = text.lines().count();
        // Into a pipe, a table per round rather than one per container.
        if redraw || i + 1 == latest.len() {
            output::print(&format!("{home}{text}"))?;
        }
    }
    Ok(0)
}

async fn running(ctx: &Context) -> Result<Vec<String>, Failure> {
    let filters = vec!["state=running".to_owned()];
    let options = ListOptions {
        filters,
        ..ListOptions::default()
    };
    let items = ctx.client.all_containers(&options).await?;
    Ok(items.into_iter().map(|c| c.name.to_string()).collect())
}

/// The API's record with the container's name before it.
fn tell_json(name: &str, stats: &Stats) -> Result<(), Failure> {
    #[derive(serde::Serialize)]
    struct Named<'a> {
        container: &'a str,
        #[serde(flatten)]
        stats: &'a Stats,
    }
    output::json_line(&Named {
        container: name,
        stats,
    })
}

fn table(latest: &[(String, Option<Stats>)]) -> Table {
    let mut table = Table::new(COLUMNS);
    for (name, stats) in latest {
        let Some(s) = stats else {
            let mut cells = vec!["-".to_owned(); COLUMNS.len()];
            cells[0].clone_from(name);
            table.row(cells);
            continue;
        };
        let net = |f: fn(&littlebox_types::NetworkStats) -> u64| {
            let others = s.networks.iter().filter(|(name, _)| *name != "lo");
            output::size(others.map(|(_, n)| f(n)).sum())
        };
        let optional = |n: Option<u64>| n.map_or("-".to_owned(), output::size);
        table.row([
            name.clone(),
            s.cpu_percent
                .map_or("-".to_owned(), |p| format!("{p:.1} %")),
            throttled(s),
            output::size(s.memory),
            optional(s.memory_limit),
            optional(s.memory_cache),
            s.oom_kills.to_string(),
            s.pids_limit
                .map_or(s.pids.to_string(), |limit| format!("{}/{limit}", s.pids)),
            net(|n| n.rx_bytes),
            net(|n| n.tx_bytes),
            optional(s.io_read),
            optional(s.io_write),
        ]);
    }
    table
}

/// Of the periods with a limit of CPU time, in how many it was reached.
fn throttled(stats: &Stats) -> String {
    match (stats.cpu_throttled_periods, stats.cpu_periods) {
        (Some(throttled), Some(periods)) if periods > 0 => {
            // Rounded down: 100 % is all of them.
            format!("{} %", throttled.saturating_mul(100) / periods)
        }
        _ => "-".to_owned(),
    }
}
