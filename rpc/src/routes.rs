//! What is served where, and how requests are refused.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, HttpBody};
use axum::extract::{Extension, Request, State};
use axum::http::header::{ALLOW, CONTENT_TYPE, EXPECT, RETRY_AFTER};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout, timeout_at};
use tower_http::cors::{AllowOrigin, CorsLayer};

use crate::api::NodeHealth;
use crate::budget::Budget;
use crate::connections::Place;
use crate::error::{Code, Error};
use crate::host::Hosts;
use crate::http::{Options, StartError};
use crate::limits::{
    BODY_BYTES_DRAINED_MAX, BODY_BYTES_SMALL, BODY_SPARE_ONE_IN, BODY_TIMEOUT, CHUNK_BYTES,
    HEALTH_TIMEOUT, HTTP_BODY_MAX,
};
use crate::port::Ports;
use crate::request;
use crate::shares::Held;
use crate::work::{self, Work};

const JSON: HeaderValue = HeaderValue::from_static("application/json");

#[derive(Clone)]
struct Front {
    ports: Ports,
    budget: Arc<Budget>,
    request_timeout: Duration,
}

pub(crate) fn router(
    ports: Ports,
    budget: Arc<Budget>,
    options: &Options,
) -> Result<Router, StartError> {
    let front = Front {
        ports,
        budget,
        request_timeout: options.request_timeout,
    };
    let mut router = Router::new()
        .route("/rpc", post(rpc).fallback(not_post))
        .route("/livez", get(livez))
        .route("/readyz", get(readyz))
        .fallback(no_route)
        .with_state(front);
    if !options.allowed_origins.is_empty() {
        let cors = CorsLayer::new()
            .allow_methods([Method::POST, Method::GET])
            .allow_headers([CONTENT_TYPE]);
        router = router.layer(cors.allow_origin(origins(&options.allowed_origins)?));
    }
    // Before everything else: a request for another host is not even a preflight.
    let hosts = Arc::new(Hosts::new(&options.allowed_hosts));
    Ok(router.layer(middleware::from_fn_with_state(hosts, check_host)))
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

async fn check_host(State(hosts): State<Arc<Hosts>>, request: Request, next: Next) -> Response {
    match hosts.check(&request) {
        Ok(()) => next.run(request).await,
        Err(error) if error.code() == Code::HostNotAllowed => {
            refusal(StatusCode::FORBIDDEN, &error)
        }
        Err(error) => refusal(StatusCode::BAD_REQUEST, &error),
    }
}

async fn livez(State(front): State<Front>) -> Response {
    health(&front, |health| health.live).await
}

async fn readyz(State(front): State<Front>) -> Response {
    health(&front, |health| health.live && health.ready).await
}

async fn health(front: &Front, good: fn(&NodeHealth) -> bool) -> Response {
    match timeout(HEALTH_TIMEOUT, front.ports.query.node_health()).await {
        Ok(Ok(health)) => {
            let status = if good(&health) {
                StatusCode::OK
            } else {
                StatusCode::SERVICE_UNAVAILABLE
            };
            (status, Json(health)).into_response()
        }
        Ok(Err(error)) => refusal(StatusCode::SERVICE_UNAVAILABLE, &error),
        Err(_) => refusal(
            StatusCode::SERVICE_UNAVAILABLE,
            &Error::new(
                Code::Timeout,
                format!(
                    "the node's health is unknown after {} ms",
                    HEALTH_TIMEOUT.as_millis()
                ),
            ),
        ),
    }
}

async fn rpc(
    State(front): State<Front>,
    Extension(place): Extension<Arc<Place>>,
    request: Request,
) -> Response {
    if !is_json(request.headers()) {
        let error = Error::new(
            Code::InvalidRequest,
            "the header content-type must be application/json",
        );
        return refusal(StatusCode::UNSUPPORTED_MEDIA_TYPE, &error);
    }
    let body = match receive(&front, &place, request).await {
        Ok(body) => body,
        Err(response) => return response,
    };
    let deadline = Instant::now() + front.request_timeout;
    let slot = match front.budget.slot(&place, deadline).await {
        Ok(slot) => slot,
        Err(error) => return busy(&error),
    };
    let work = Work {
        ports: front.ports,
        budget: front.budget,
        limit: front.request_timeout,
        deadline,
    };
    // Not this connection's task: what is at work counts until it ends, client or not.
    let (done, answered) = oneshot::channel();
    let Received { bytes, counted } = body;
    tokio::spawn(async move {
        work::perform(work, &bytes, slot, done).await;
        drop((bytes, counted));
    });
    let Ok(done) = answered.await else {
        let error = Error::internal("a request died");
        return refusal(StatusCode::INTERNAL_SERVER_ERROR, &error);
    };
    if done.answers.len() == 0 {
        return StatusCode::NO_CONTENT.into_response();
    }
    let overloaded = done.overloaded;
    let mut response = ([(CONTENT_TYPE, JSON)], done.answers.into_body()).into_response();
    if overloaded {
        *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
        later(&mut response);
    }
    response
}

/// A body that was received, counted as long as it is needed.
struct Received {
    bytes: Vec<u8>,
    counted: Option<Held>,
}

enum Unread {
    TooLong,
    Broken,
    NoRoom(Error),
}

async fn receive(front: &Front, place: &Place, request: Request) -> Result<Received, Response> {
    // A client that asks first is told before it sends.
    let drained_max = match request.headers().contains_key(EXPECT) {
        true => 0,
        false => BODY_BYTES_DRAINED_MAX,
    };
    let body = request.into_body();
    let announced_too_long = body.size_hint().lower() > HTTP_BODY_MAX as u64;
    let limit = BODY_TIMEOUT.min(front.request_timeout);
    let collected = collect(body, drained_max, &front.budget, place);
    let collected = timeout_at(Instant::now() + limit, collected).await;
    place.received();
    match collected {
        Ok(Ok(body)) => Ok(body),
        Ok(Err(Unread::TooLong)) => Err(too_long()),
        // A body that was announced as too long is refused for that, whether it came or not.
        Err(_) if announced_too_long => Err(too_long()),
        Ok(Err(Unread::Broken)) => {
            let error = Error::new(Code::InvalidRequest, "the body broke off");
            Err(refusal(StatusCode::BAD_REQUEST, &error))
        }
        Ok(Err(Unread::NoRoom(error))) => Err(busy(&error)),
        Err(_) => {
            let ms = u64::try_from(limit.as_millis()).unwrap_or(u64::MAX);
            let error = Error::new(
                Code::RequestTimeout,
                format!("the body was not complete within {ms} ms"),
            );
            Err(refusal(
                StatusCode::REQUEST_TIMEOUT,
                &error.with("limit_ms", ms),
            ))
        }
    }
}

/// The whole body, of which no more than [`HTTP_BODY_MAX`] bytes are ever held. One that is refused
/// is read and thrown away: its sender looks for an answer only then.
async fn collect(
    mut body: Body,
    drained_max: usize,
    budget: &Budget,
    place: &Place,
) -> Result<Received, Unread> {
    let announced = body.size_hint().lower();
    let mut received = Ok(Received {
        bytes: Vec::new(),
        counted: None,
    });
    if announced > HTTP_BODY_MAX as u64 {
        received = Err(Unread::TooLong);
    }
    let (mut seen, mut in_part) = (0_usize, 0_usize);
    while received.is_ok() || (seen < drained_max && announced <= drained_max as u64) {
        let next = std::future::poll_fn(|context| Pin::new(&mut body).poll_frame(context)).await;
        let data = match next {
            None => break,
            Some(Err(_)) => return Err(Unread::Broken),
            Some(Ok(frame)) => frame.into_data().unwrap_or_default(),
        };
        seen += data.len();
        in_part += data.len();
        if let Ok(body) = received {
            if in_part >= CHUNK_BYTES {
                in_part = 0;
                place.receiving();
            }
            received = body.extended(&data, budget, place).await;
        }
    }
    received
}

impl Received {
    async fn extended(
        mut self,
        data: &[u8],
        budget: &Budget,
        place: &Place,
    ) -> Result<Self, Unread> {
        if self.bytes.len() + data.len() > HTTP_BODY_MAX {
            return Err(Unread::TooLong);
        }
        let room = self.make_room(data.len(), budget, place).await;
        room.map_err(Unread::NoRoom)?;
        self.bytes.extend_from_slice(data);
        Ok(self)
    }

    /// Makes room for `more` bytes; all room beyond [`BODY_BYTES_SMALL`] is counted.
    async fn make_room(
        &mut self,
        more: usize,
        budget: &Budget,
        place: &Place,
    ) -> Result<(), Error> {
        let (length, room) = (self.bytes.len(), self.bytes.capacity());
        let needed = length + more;
        if needed <= room {
            return Ok(());
        }
        let room = match needed <= BODY_BYTES_SMALL {
            true => (2 * room).clamp(needed, BODY_BYTES_SMALL),
            false => (needed + needed / BODY_SPARE_ONE_IN).min(HTTP_BODY_MAX),
        };
        let counted = self.counted.as_ref().map_or(0, Held::units);
        let uncounted = room.saturating_sub(BODY_BYTES_SMALL + counted);
        if uncounted > 0 {
            let more = budget.body(place, uncounted).await?;
            match &mut self.counted {
                Some(held) => held.merge(more),
                None => self.counted = Some(more),
            }
        }
        self.bytes.reserve_exact(room - length);
        Ok(())
    }
}

fn is_json(headers: &HeaderMap) -> bool {
    headers
        .get(CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.split(';').next())
        .is_some_and(|kind| kind.trim().eq_ignore_ascii_case("application/json"))
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
    let text = request::refusal(error);
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

fn busy(error: &Error) -> Response {
    let mut response = refusal(StatusCode::SERVICE_UNAVAILABLE, error);
    later(&mut response);
    response
}

fn later(response: &mut Response) {
    let headers = response.headers_mut();
    headers.insert(RETRY_AFTER, HeaderValue::from_static("1"));
}
