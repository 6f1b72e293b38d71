//! The HTTP server: `POST /rpc`, `GET /livez`, `GET /readyz`.
//!
//! Everything from outside is bounded: connections, requests at work, bytes of a body, calls of a
//! batch, nesting, and the time a request may take. A refusal on the level of HTTP carries a
//! JSON-RPC error too, so that a client needs one way of reading answers.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes, HttpBody};
use axum::extract::{Request, State};
use axum::http::header::{ALLOW, CONTENT_TYPE, EXPECT, RETRY_AFTER};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use serde_json::value::RawValue;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout, timeout_at};
use tower_http::cors::{AllowOrigin, CorsLayer};

use crate::connection::Bounded;
use crate::error::{Code, Error};
use crate::methods::{self, Answer};
use crate::port::Ports;
use crate::request;

pub use crate::request::{BATCH_MAX, DEPTH_MAX};

/// Largest body of a request, in bytes.
pub const HTTP_BODY_MAX: usize = 4 << 20;
/// A larger body is read up to here and thrown away, so that its sender sees why it was refused.
const HTTP_BODY_DRAINED_MAX: usize = 16 << 20;
/// Most connections open at a time, unless told.
pub const CONNECTIONS_MAX: usize = 1024;
/// Most requests at work at a time, unless told.
pub const REQUESTS_MAX: usize = 64;
/// Longest time from a request's head to its answer, unless told.
pub const REQUEST_TIMEOUT: Duration = Duration::from_secs(15);
/// A connection on which no byte moves for so long is closed. Longer than any request may take.
pub const CONNECTION_IDLE: Duration = Duration::from_secs(60);
/// How long requests at work may go on after the signal to shut down.
pub const SHUTDOWN_GRACE: Duration = Duration::from_secs(5);

const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// What an operator may choose.
#[derive(Clone, Debug)]
pub struct Options {
    /// Web origins whose pages may call, as `https://example.org`; `*` for any. None by default.
    pub allowed_origins: Vec<String>,
    /// Most connections open at a time.
    pub connections_max: usize,
    /// Most requests at work at a time.
    pub requests_max: usize,
    /// Longest time from a request's head to its answer.
    pub request_timeout: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            allowed_origins: Vec::new(),
            connections_max: CONNECTIONS_MAX,
            requests_max: REQUESTS_MAX,
            request_timeout: REQUEST_TIMEOUT,
        }
    }
}

/// Why the server does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Another process has the port.
    #[error("cannot listen on {address}: the port is in use; stop what uses it or choose another")]
    InUse {
        /// The address asked for.
        address: SocketAddr,
    },
    /// The address cannot be listened on.
    #[error("cannot listen on {address}: {reason}")]
    Listen {
        /// The address asked for.
        address: SocketAddr,
        /// What the system says.
        reason: io::Error,
    },
    /// An allowed origin is not one.
    #[error(
        "`{origin}` is not a web origin: `https://host`, `http://host:port` or `*` is expected"
    )]
    Origin {
        /// What was given.
        origin: String,
    },
}

/// A server that has its port and waits to serve.
pub struct Server {
    listener: TcpListener,
    address: SocketAddr,
    router: Router,
    connections_max: usize,
}

impl Server {
    /// Takes the port; port 0 is a free one, named by [`Server::address`].
    ///
    /// # Errors
    /// When the port cannot be had or an option is wrong; see [`StartError`].
    pub async fn bind(
        address: SocketAddr,
        ports: Ports,
        options: Options,
    ) -> Result<Self, StartError> {
        let connections_max = options.connections_max;
        let router = router(ports, &options)?;
        let failed = |reason: io::Error| match reason.kind() {
            io::ErrorKind::AddrInUse => StartError::InUse { address },
            _ => StartError::Listen { address, reason },
        };
        let listener = TcpListener::bind(address).await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        Ok(Self {
            listener,
            address,
            router,
            connections_max,
        })
    }

    /// The address it listens on.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves until `shutdown` resolves; then takes no new connections and gives requests at work
    /// [`SHUTDOWN_GRACE`] to end.
    ///
    /// # Errors
    /// When the system takes the listener away.
    pub async fn serve(
        self,
        shutdown: impl Future<Output = ()> + Send + 'static,
    ) -> io::Result<()> {
        let listener = Bounded::new(self.listener, self.connections_max, CONNECTION_IDLE);
        let (tell, mut told) = watch::channel(false);
        let signal = async move {
            shutdown.await;
            tell.send_replace(true);
        };
        let serving = axum::serve(listener, self.router).with_graceful_shutdown(signal);
        let mut serving = Box::pin(serving.into_future());
        tokio::select! {
            served = &mut serving => return served,
            // An error means that the signal's future is gone, and the server with it.
            _ = told.wait_for(|told| *told) => {}
        }
        timeout(SHUTDOWN_GRACE, serving).await.unwrap_or(Ok(()))
    }
}

#[derive(Clone)]
struct Front {
    ports: Ports,
    at_work: Arc<Semaphore>,
    request_timeout: Duration,
}

fn router(ports: Ports, options: &Options) -> Result<Router, StartError> {
    let front = Front {
        ports,
        at_work: Arc::new(Semaphore::new(options.requests_max)),
        request_timeout: options.request_timeout,
    };
    let router = Router::new()
        .route("/rpc", post(rpc).fallback(not_post))
        .route("/livez", get(livez))
        .route("/readyz", get(readyz))
        .fallback(no_route)
        .with_state(front);
    if options.allowed_origins.is_empty() {
        return Ok(router);
    }
    let cors = CorsLayer::new()
        .allow_methods([Method::POST, Method::GET])
        .allow_headers([CONTENT_TYPE]);
    Ok(router.layer(cors.allow_origin(origins(&options.allowed_origins)?)))
}

fn origins(allowed: &[String]) -> Result<AllowOrigin, StartError> {
    if allowed.iter().any(|origin| origin == "*") {
        return Ok(AllowOrigin::any());
    }
    let parse = |origin: &String| {
        let host = origin
            .strip_prefix("https://")
            .or_else(|| origin.strip_prefix("http://"));
        host.filter(|host| !host.is_empty() && !host.contains('/'))
            .and_then(|_| HeaderValue::from_str(origin).ok())
            .ok_or_else(|| StartError::Origin {
                origin: origin.clone(),
            })
    };
    let list = allowed.iter().map(parse).collect::<Result<Vec<_>, _>>()?;
    Ok(AllowOrigin::list(list))
}

async fn livez(State(front): State<Front>) -> Response {
    health(&front, |health| health.live).await
}

async fn readyz(State(front): State<Front>) -> Response {
    health(&front, |health| health.live && health.ready).await
}

async fn health(front: &Front, good: fn(&crate::api::NodeHealth) -> bool) -> Response {
    match timeout(front.request_timeout, front.ports.query.node_health()).await {
        Ok(Ok(health)) => {
            let status = if good(&health) {
                StatusCode::OK
            } else {
                StatusCode::SERVICE_UNAVAILABLE
            };
            (status, axum::Json(health)).into_response()
        }
        Ok(Err(error)) => refusal(StatusCode::SERVICE_UNAVAILABLE, &error),
        Err(_) => refusal(
            StatusCode::SERVICE_UNAVAILABLE,
            &late(front.request_timeout),
        ),
    }
}

async fn rpc(State(front): State<Front>, request: Request) -> Response {
    let deadline = Instant::now() + front.request_timeout;
    let Ok(_at_work) = front.at_work.try_acquire() else {
        let error = Error::new(
            Code::Overloaded,
            "the node serves as many requests as it may; try again",
        );
        let mut response = refusal(StatusCode::SERVICE_UNAVAILABLE, &error);
        let headers = response.headers_mut();
        headers.insert(RETRY_AFTER, HeaderValue::from_static("1"));
        return response;
    };
    if !is_json(request.headers()) {
        let error = Error::new(
            Code::InvalidRequest,
            "the header content-type must be application/json",
        );
        return refusal(StatusCode::UNSUPPORTED_MEDIA_TYPE, &error);
    }
    // A client that asks first is told before it sends.
    let drained_max = match request.headers().contains_key(EXPECT) {
        true => 0,
        false => HTTP_BODY_DRAINED_MAX,
    };
    let body = request.into_body();
    let announced_too_long = body.size_hint().lower() > HTTP_BODY_MAX as u64;
    let body = match timeout_at(deadline, collect(body, drained_max)).await {
        Ok(Ok(body)) => body,
        Ok(Err(Unread::TooLong)) => return too_long(),
        // A body that was announced as too long is refused for that, whether it came or not.
        Err(_) if announced_too_long => return too_long(),
        Ok(Err(Unread::Broken)) => {
            let error = Error::new(Code::InvalidRequest, "the body broke off");
            return refusal(StatusCode::BAD_REQUEST, &error);
        }
        Err(_) => {
            let error = Error::new(Code::Timeout, "the body did not come in time");
            return refusal(StatusCode::REQUEST_TIMEOUT, &error);
        }
    };
    let answered = match request::parse(&body) {
        Err(error) => Some(request::answer(RawValue::NULL, &Err(error))),
        Ok(request::Body::One(raw)) => answer_one(&front, raw, deadline).await,
        Ok(request::Body::Batch(calls)) => answer_batch(&front, &calls, deadline).await,
    };
    match answered {
        Some(text) => ([(CONTENT_TYPE, JSON)], text).into_response(),
        None => StatusCode::NO_CONTENT.into_response(),
    }
}

/// The answers to a batch, its calls done one after the other; `None` when nobody asked for any.
async fn answer_batch(front: &Front, calls: &[&RawValue], deadline: Instant) -> Option<String> {
    let mut text = String::new();
    for raw in calls {
        if let Some(answer) = answer_one(front, raw, deadline).await {
            text.push(if text.is_empty() { '[' } else { ',' });
            text.push_str(&answer);
        }
    }
    if text.is_empty() {
        return None;
    }
    text.push(']');
    Some(text)
}

/// The answer to a call; `None` for a notification.
async fn answer_one(front: &Front, raw: &RawValue, deadline: Instant) -> Option<String> {
    let call = match request::call(raw) {
        Ok(call) => call,
        Err(not) => return Some(request::answer(not.id, &Err(not.error))),
    };
    let answer = perform(front, &call, deadline).await;
    call.id.map(|id| request::answer(id, &answer))
}

/// Performs a call in a task of its own: a panic there costs one answer, not the server.
async fn perform(front: &Front, call: &request::Call<'_>, deadline: Instant) -> Answer {
    let method = methods::find(&call.method)?;
    let answering = method.begin(&front.ports, call.params)?;
    let mut task = JoinSet::new();
    task.spawn(answering);
    match timeout_at(deadline, task.join_next()).await {
        Ok(Some(Ok(answer))) => answer,
        Ok(Some(Err(error))) => Err(Error::internal(format!("{}: {error}", method.name))),
        Ok(None) => Err(Error::internal(format!("{}: no task", method.name))),
        Err(_) => Err(late(front.request_timeout)),
    }
}

fn late(limit: Duration) -> Error {
    let limit_ms = u64::try_from(limit.as_millis()).unwrap_or(u64::MAX);
    Error::new(Code::Timeout, format!("no answer within {limit_ms} ms")).with("limit_ms", limit_ms)
}

async fn not_post() -> Response {
    let error = Error::new(Code::InvalidRequest, "calls are sent with POST");
    let mut response = refusal(StatusCode::METHOD_NOT_ALLOWED, &error);
    let headers = response.headers_mut();
    headers.insert(ALLOW, HeaderValue::from_static("POST"));
    response
}

async fn no_route() -> Response {
    let error = Error::new(
        Code::InvalidRequest,
        "nothing is here: POST /rpc, GET /livez and GET /readyz are served",
    );
    refusal(StatusCode::NOT_FOUND, &error)
}

fn refusal(status: StatusCode, error: &Error) -> Response {
    let text = request::answer(RawValue::NULL, &Err(error.clone()));
    (status, [(CONTENT_TYPE, JSON)], text).into_response()
}

fn too_long() -> Response {
    let error = Error::new(
        Code::InvalidRequest,
        format!("the body has more than {HTTP_BODY_MAX} bytes"),
    );
    refusal(
        StatusCode::PAYLOAD_TOO_LARGE,
        &error.with("expected", HTTP_BODY_MAX),
    )
}

fn is_json(headers: &HeaderMap) -> bool {
    headers
        .get(CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.split(';').next())
        .is_some_and(|kind| kind.trim().eq_ignore_ascii_case("application/json"))
}

enum Unread {
    TooLong,
    Broken,
}

/// The whole body, of which no more than [`HTTP_BODY_MAX`] bytes are ever held.
async fn collect(mut body: Body, drained_max: usize) -> Result<Bytes, Unread> {
    let announced = body.size_hint().lower();
    let mut too_long = announced > HTTP_BODY_MAX as u64;
    let mut bytes = Vec::new();
    let mut seen = 0_usize;
    while !(too_long && (seen >= drained_max || announced > drained_max as u64)) {
        let next = std::future::poll_fn(|context| Pin::new(&mut body).poll_frame(context)).await;
        let data = match next {
            None => break,
            Some(Err(_)) => return Err(Unread::Broken),
            Some(Ok(frame)) => frame.into_data().unwrap_or_default(),
        };
        seen += data.len();
        if too_long || seen > HTTP_BODY_MAX {
            too_long = true;
            bytes = Vec::new();
        } else {
            bytes.extend_from_slice(&data);
        }
    }
    if too_long {
        return Err(Unread::TooLong);
    }
    Ok(bytes.into())
}
