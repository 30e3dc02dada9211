//! The HTTP layer: parse, call the engine, render. No policy lives here.

mod attach;
mod containers;
mod error;
mod events;
mod execs;
mod extract;
mod file_error;
mod files;
mod guard;
mod logs;
mod namespaces;
mod rest_of_body;
mod stats;
mod stream;
mod strict;
mod system;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::response::Response;
use axum::routing::{MethodFilter, on};
use tokio_util::sync::CancellationToken;
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::request_id::{MakeRequestUuid, PropagateRequestIdLayer, SetRequestIdLayer};
use tower_http::timeout::RequestBodyTimeoutLayer;

pub use error::{ApiError, CODES, PROBLEMS};

use crate::engine::Engine;

/// What every handler reaches.
#[derive(Debug)]
pub struct App {
    /// The engine.
    pub engine: Arc<Engine>,
    /// Cancelled when the daemon goes down: streams end then.
    pub closing: CancellationToken,
    /// Paths shown by the system page.
    pub config: crate::config::Config,
    /// Nanoseconds since the epoch.
    pub started_at: i64,
}

/// The shared state as handlers take it.
pub(crate) type AppState = axum::extract::State<Arc<App>>;

macro_rules! routes {
    ($( $method:ident $path:literal => $handler:path, )*) => {
        /// Every route: method and path, as in `api.yaml`.
        pub const ROUTES: &[(&str, &str)] = &[$((stringify!($method), $path)),*];

        fn table() -> Router<Arc<App>> {
            Router::new()$(.route($path, on(MethodFilter::$method, $handler)))*
        }
    };
}

routes! {
    GET    "/v1" => system::version,
    GET    "/v1/health" => system::health,
    GET    "/v1/system" => system::info,
    GET    "/v1/openapi.yaml" => system::openapi,
    GET    "/metrics" => system::metrics,
    GET    "/v1/containers" => containers::list,
    POST   "/v1/containers" => containers::create,
    GET    "/v1/containers/{c}" => containers::inspect,
    PATCH  "/v1/containers/{c}" => containers::patch,
    DELETE "/v1/containers/{c}" => containers::remove,
    POST   "/v1/containers/{c}/start" => containers::start,
    POST   "/v1/containers/{c}/stop" => containers::stop,
    POST   "/v1/containers/{c}/restart" => containers::restart,
    POST   "/v1/containers/{c}/kill" => containers::kill,
    POST   "/v1/containers/{c}/pause" => containers::pause,
    POST   "/v1/containers/{c}/resume" => containers::resume,
    POST   "/v1/containers/{c}/resize" => containers::resize,
    GET    "/v1/containers/{c}/wait" => containers::wait,
    GET    "/v1/containers/{c}/plan" => containers::plan,
    GET    "/v1/containers/{c}/attach" => attach::container,
    GET    "/v1/containers/{c}/logs" => logs::container,
    GET    "/v1/containers/{c}/stats" => stats::stats,
    GET    "/v1/containers/{c}/top" => stats::top,
    GET    "/v1/containers/{c}/changes" => files::changes,
    GET    "/v1/containers/{c}/export" => files::export,
    GET    "/v1/containers/{c}/files" => files::read,
    PUT    "/v1/containers/{c}/files" => files::write,
    GET    "/v1/containers/{c}/namespaces" => namespaces::of_container,
    GET    "/v1/containers/{c}/execs" => execs::list,
    POST   "/v1/containers/{c}/execs" => execs::create,
    GET    "/v1/execs/{e}" => execs::inspect,
    POST   "/v1/execs/{e}/signal" => execs::signal,
    POST   "/v1/execs/{e}/resize" => execs::resize,
    GET    "/v1/execs/{e}/attach" => attach::exec,
    GET    "/v1/execs/{e}/output" => logs::exec,
    GET    "/v1/namespaces" => namespaces::list,
    GET    "/v1/namespaces/tree" => namespaces::tree,
    GET    "/v1/namespaces/diff" => namespaces::diff,
    GET    "/v1/namespaces/{type}/{inode}" => namespaces::one,
    GET    "/v1/events" => events::list,
}

/// How long a client may pause in the middle of a body.
const BODY_PATIENCE: Duration = Duration::from_secs(60);

/// The whole service.
pub fn router(app: Arc<App>) -> Router {
    table()
        .fallback(|| async { ApiError::new("not_found", "there is nothing at this path") })
        .method_not_allowed_fallback(|| async {
            ApiError::new(
                "method_not_allowed",
                "this resource does not have that method",
            )
        })
        .layer(axum::middleware::from_fn_with_state(
            app.clone(),
            guard::check,
        ))
        .layer(CatchPanicLayer::custom(
            |_: Box<dyn std::any::Any + Send>| -> Response {
                use axum::response::IntoResponse;
                ApiError::new("internal", "the request met a fault of littlebox").into_response()
            },
        ))
        .layer(RequestBodyTimeoutLayer::new(BODY_PATIENCE))
        .layer(axum::middleware::from_fn(rest_of_body::read))
        .layer(axum::middleware::from_fn(guard::finish))
        .layer(PropagateRequestIdLayer::x_request_id())
        .layer(SetRequestIdLayer::x_request_id(MakeRequestUuid))
        .with_state(app)
}
