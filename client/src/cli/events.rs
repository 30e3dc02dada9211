//! `events`.

use std::fmt::Write as _;
use std::time::Duration;

use clap::Args;
use lbctl::client::EventOptions;
use littlebox_types::Event;

use super::error::Failure;
use super::retry::Patience;
use super::{Context, output, sanitize};

// `lbctl events`.
#[derive(Debug, Args)]
pub struct EventsArgs {
    /// Start after this sequence number; 0 for all
    #[arg(long, alias = "since", value_name = "SEQ")]
    since_seq: Option<u64>,
    /// Filter: kind=container.started, container=NAME
    #[arg(short, long, value_name = "K=V")]
    filter: Vec<String>,
    /// Exit after the newest event instead of waiting for more
    #[arg(long)]
    no_follow: bool,
}

/// Prints events as they happen; goes on over a restart of the daemon without a gap.
pub async fn events(ctx: &Context, args: EventsArgs) -> Result<i32, Failure> {
    let follow = !args.no_follow;
    let mut options = EventOptions {
        since_seq: args.since_seq,
        no_follow: args.no_follow,
        filters: args.filter,
    };
    if follow && options.since_seq.is_none() {
        // Known before the first event comes, so that none is missed when the daemon restarts.
        options.since_seq = Some(ctx.client.system().await?.last_event_seq);
    }
    let mut patience = Patience::new();
    loop {
        match read(ctx, &mut options, &mut patience).await {
            // A daemon that ends may end its streams in peace. When none comes back, connecting
            // fails.
            Ok(()) if follow => tokio::time::sleep(Duration::from_millis(100)).await,
            Ok(()) => return Ok(0),
            Err(Failure::Client(e)) if follow && patience.again(&e).await => {}
            Err(e) => return Err(e),
        }
    }
}

async fn read(
    ctx: &Context,
    options: &mut EventOptions,
    patience: &mut Patience,
) -> Result<(), Failure> {
    let mut lines = ctx.client.events(options).await?;
    patience.worked();
    while let Some(raw) = lines.next_line().await? {
        let event: Event = serde_json::from_slice(&raw).map_err(|source| {
            let request = "the events".to_owned();
            lbctl::client::ClientError::Decode { request, source }
        })?;
        options.since_seq = Some(event.seq);
        if ctx.json {
            output::bytes(&[&raw[..], b"\n"].concat())?;
        } else {
            output::line(&render(&event))?;
        }
    }
    Ok(())
}

/// `TIME KIND NAME key=value ...`.
fn render(event: &Event) -> String {
    let subject = event.name.as_deref().unwrap_or(&event.id);
    let mut text = format!("{} {} {subject}", event.at, event.kind);
    for (key, value) in &event.data {
        let _ = match value {
            serde_json::Value::Null => Ok(()),
            serde_json::Value::String(s) => write!(text, " {key}={s}"),
            other => write!(text, " {key}={other}"),
        };
    }
    sanitize::text(&text).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_one_harmless_line() {
        let event = Event {
            seq: 1,
            at: "T".into(),
            kind: "container.exited".into(),
            id: "i".into(),
            container_id: None,
            name: Some("web".into()),
            data: serde_json::from_str(r#"{"exit_code":3,"signal":null,"x":"a\nb"}"#).unwrap(),
        };
        assert_eq!(render(&event), "T container.exited web exit_code=3 x=a\\nb");
    }
}
