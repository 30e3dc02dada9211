//! Commands on several containers: all at once, told in order, going on after errors.

use futures_util::StreamExt;
use lbctl::client::ClientError;
use littlebox_types::Container;

use super::error::Failure;
use super::{Context, output, sanitize};

/// So many requests are under way at once.
const AT_ONCE: usize = 32;

/// Does `action` to each container; prints the names of those that it was done to.
pub async fn each(
    ctx: &Context,
    names: &[String],
    action: impl AsyncFn(&str) -> Result<(), ClientError>,
) -> Result<i32, Failure> {
    let tell = |name: &str, ()| if ctx.json { Ok(()) } else { tell_name(name) };
    each_with(ctx, names, action, tell).await
}

/// As [`each`]; with `--json` prints the containers that came back.
pub async fn each_container(
    ctx: &Context,
    names: &[String],
    action: impl AsyncFn(&str) -> Result<Container, ClientError>,
) -> Result<i32, Failure> {
    let tell = |name: &str, container: Container| {
        if ctx.json {
            output::json(&container)
        } else {
            tell_name(name)
        }
    };
    each_with(ctx, names, action, tell).await
}

fn tell_name(name: &str) -> Result<(), Failure> {
    output::line(&sanitize::text(name))
}

/// Does `action` to each container and `tell`s each answer, in the order of the names. The exit
/// code is 1 when any failed.
pub async fn each_with<T>(
    ctx: &Context,
    names: &[String],
    action: impl AsyncFn(&str) -> Result<T, ClientError>,
    mut tell: impl FnMut(&str, T) -> Result<(), Failure>,
) -> Result<i32, Failure> {
    let action = &action;
    let attempts = names
        .iter()
        .map(|name| async move { (name, action(name).await) });
    let mut results = std::pin::pin!(futures_util::stream::iter(attempts).buffered(AT_ONCE));
    let mut code = 0;
    while let Some((name, result)) = results.next().await {
        match result {
            Ok(value) => tell(name, value)?,
            // Without a daemon every one fails alike.
            Err(e @ ClientError::Connect { .. }) => return Err(e.into()),
            Err(e) => {
                Failure::Client(e).tell(ctx.json);
                code = 1;
            }
        }
    }
    Ok(code)
}
