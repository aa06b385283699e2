//! The agent's endpoint.
//!
//! A caller is unknown until a signature says otherwise, so connections, bodies, rates and times
//! are limited before anything is looked at.

use std::future::Future;
use std::net::{IpAddr, SocketAddr};
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::body::Bytes;
use axum::extract::rejection::{BytesRejection, QueryRejection};
use axum::extract::{ConnectInfo, DefaultBodyLimit, Path, Query, Request, State};
use axum::http::StatusCode;
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service as _, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use privatix_plugin_api::json;
use privatix_plugin_api::message::ClientKey;
use serde::Deserialize;
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use uuid::Uuid;

use super::places::{Places, Requests};
use super::rate::Rate;
use privatix_core::{AgentApi, OfferingPage, OrderAnswer, Refused};
use privatix_domain::code::Code;
use privatix_domain::order::MAX_BYTES;
use privatix_domain::signed::Kind;
use privatix_tls::{Certificate, Handshake};

/// How long a request's headers may take, also after another request of the connection.
const HEADERS: Duration = Duration::from_secs(5);

/// How long the request may take, from its headers to its answer.
const DEADLINE: Duration = Duration::from_secs(10);

/// How long a connection may ask anew.
const LIFETIME: Duration = Duration::from_secs(60);

/// Connections at a time; beyond it, those that do nothing give way. Each holds a file descriptor, of which
/// the database and the modules need some too.
const CONNECTIONS: usize = 512;

/// What the endpoint is told before it starts.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Requests that a client address may make in a minute.
    pub requests_per_minute: u32,
    /// Connections that a client address may have at a time.
    pub connections_per_address: u32,
}

#[derive(Clone)]
struct Endpoint {
    agent: AgentApi,
    rate: Arc<Rate>,
    places: Places,
}

/// Answers clients until told to stop; with TLS where there is a certificate.
pub async fn serve(
    listener: TcpListener,
    agent: AgentApi,
    limits: Limits,
    tls: Option<Arc<Certificate>>,
    stop: impl Future<Output = ()>,
) {
    let rate = Arc::new(Rate::new(limits.requests_per_minute));
    let places = Places::new(CONNECTIONS, limits.connections_per_address);
    let endpoint = Endpoint { agent, rate, places: places.clone() };
    let ways = Ways {
        routes: TowerToHyperService::new(routes(endpoint)),
        without_tls: TowerToHyperService::new(Router::new().fallback(without_tls)),
        tls,
    };
    let mut stop = pin!(stop);
    loop {
        let (stream, address, place) = tokio::select! {
            accepted = places.next(&listener) => accepted,
            () = &mut stop => return,
        };
        let ways = ways.clone();
        tokio::spawn(async move {
            tokio::select! {
                () = ways.connection(stream, address, place.requests()) => {}
                () = place.ended() => tracing::debug!(%address, "closed: others need its place"),
            }
        });
    }
}

/// What a connection may lead to.
#[derive(Clone)]
struct Ways {
    routes: TowerToHyperService<Router>,
    /// For who does not speak TLS where it is spoken.
    without_tls: TowerToHyperService<Router>,
    tls: Option<Arc<Certificate>>,
}

impl Ways {
    async fn connection(self, stream: TcpStream, address: SocketAddr, requests: Requests) {
        let Some(tls) = self.tls else { return http(stream, address, requests, self.routes).await };
        match tls.accept(stream).await {
            Ok(Handshake::Tls(stream)) => http(*stream, address, requests, self.routes).await,
            Ok(Handshake::Plain(stream)) => http(stream, address, requests, self.without_tls).await,
            Err(error) => {
                tracing::debug!(%address, error = privatix_plugin_api::chain(&error), "no connection")
            }
        }
    }
}

async fn without_tls() -> Failure {
    let text = "this agent speaks TLS here: its URL begins with https://";
    Refused::new(Code::TlsRequired, text).into()
}

/// Serves a connection for its lifetime; then it may end what it has begun.
async fn http(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    address: SocketAddr,
    requests: Requests,
    routes: TowerToHyperService<Router>,
) {
    let service = service_fn(move |mut request: hyper::Request<Incoming>| {
        request.extensions_mut().insert(ConnectInfo(address));
        requests.begin(Instant::now());
        let (requests, answer) = (requests.clone(), routes.call(request));
        async move {
            let answer = answer.await;
            requests.end();
            answer
        }
    });
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(HEADERS);
    let mut served = pin!(http.serve_connection(TokioIo::new(stream), service));
    // However a connection ends, it is the client's affair.
    if timeout(LIFETIME, served.as_mut()).await.is_err() {
        served.as_mut().graceful_shutdown();
        let _ = timeout(2 * DEADLINE, served).await;
    }
}

fn routes(endpoint: Endpoint) -> Router {
    Router::new()
        .route("/v1/offerings", get(offerings))
        .route("/v1/orders", post(order))
        .route("/v1/orders/cancel", post(order_cancel))
        .route("/v1/channels/{id}/access", post(access))
        .route("/v1/channels/{id}/account", post(account))
        .route("/v1/channels/{id}/terminate", post(terminate))
        .route("/v1/payments", post(payment))
        .fallback(async || Failure(StatusCode::NOT_FOUND, Refused::not_found("no such request")))
        .layer(DefaultBodyLimit::max(MAX_BYTES))
        .layer(middleware::from_fn_with_state(endpoint.clone(), limits))
        .with_state(endpoint)
}

async fn limits(
    State(endpoint): State<Endpoint>,
    ConnectInfo(address): ConnectInfo<SocketAddr>,
    request: Request,
    next: Next,
) -> Response {
    let address: IpAddr = address.ip();
    if !endpoint.rate.allows(address, Instant::now()) {
        let refused = Refused::new(Code::TooManyRequests, "too many requests in a minute");
        return Failure::from(refused).into_response();
    }
    // Only its client's word about a channel is answered with 200 there, and only once.
    let of_channel = request.uri().path().starts_with("/v1/channels/");
    match timeout(DEADLINE, next.run(request)).await {
        Ok(response) => {
            if of_channel && response.status() == StatusCode::OK {
                endpoint.places.know(address, Instant::now());
            }
            response
        }
        Err(_) => {
            let refused = Refused::new(Code::TooSlow, "the request took too long");
            Failure::from(refused).into_response()
        }
    }
}

/// Which offerings are asked for; without anything, the first ones.
#[derive(Debug, Deserialize)]
struct Pages {
    /// Those behind this hash.
    #[serde(default)]
    after: String,
    /// So many at most.
    #[serde(default = "all")]
    limit: u32,
    /// With what the agent's time is asked for.
    nonce: Option<Uuid>,
}

fn all() -> u32 {
    u32::MAX
}

async fn offerings(
    State(endpoint): State<Endpoint>,
    pages: Result<Query<Pages>, QueryRejection>,
) -> Result<Json<OfferingPage>, Failure> {
    let Query(Pages { after, limit, nonce }) =
        pages.map_err(|error| Refused::new(Code::BadRequest, error.body_text()))?;
    let mut page = endpoint.agent.offerings_published(&after, limit).await?;
    page.time = nonce.map(|nonce| endpoint.agent.time_signed(nonce)).transpose()?;
    Ok(Json(page))
}

async fn order(State(endpoint): State<Endpoint>, body: Body) -> Result<Response, Failure> {
    let message = read(body)?;
    let refused = match endpoint.agent.order_received(&message).await {
        Ok(OrderAnswer::Accepted(reply)) => return Ok(Json(reply).into_response()),
        Ok(OrderAnswer::Waiting) => return Ok(StatusCode::ACCEPTED.into_response()),
        Err(refused) => refused,
    };
    let signed = endpoint.agent.order_refusal(&message, &refused);
    let failure = Failure::from(refused);
    Ok(match signed {
        Some(signed) => (failure.0, Json(signed)).into_response(),
        None => failure.into_response(),
    })
}

async fn order_cancel(
    State(endpoint): State<Endpoint>,
    body: Body,
) -> Result<Json<Value>, Failure> {
    Ok(Json(endpoint.agent.cancel_received(&read(body)?).await?))
}

async fn access(
    State(endpoint): State<Endpoint>,
    Path(id): Path<String>,
    body: Body,
) -> Result<Json<Value>, Failure> {
    let channel = endpoint.authentic(Kind::AccessRequest, &id, body).await?;
    Ok(Json(endpoint.agent.access_envelope(channel).await?))
}

async fn account(
    State(endpoint): State<Endpoint>,
    Path(id): Path<String>,
    body: Body,
) -> Result<Json<Value>, Failure> {
    let channel = endpoint.authentic(Kind::AccountRequest, &id, body).await?;
    Ok(Json(endpoint.agent.account(channel).await?))
}

async fn terminate(
    State(endpoint): State<Endpoint>,
    Path(id): Path<String>,
    body: Body,
) -> Result<Json<Value>, Failure> {
    let channel = endpoint.authentic(Kind::TerminateRequest, &id, body).await?;
    endpoint.agent.channel_ended(channel).await?;
    Ok(Json(endpoint.agent.account(channel).await?))
}

async fn payment(State(endpoint): State<Endpoint>, body: Body) -> Result<Json<Value>, Failure> {
    Ok(Json(endpoint.agent.cheque_received(&read(body)?).await?))
}

impl Endpoint {
    /// The channel of a request, if its client made it.
    async fn authentic(&self, kind: Kind, id: &str, body: Body) -> Result<ClientKey, Failure> {
        let unknown = || Refused::new(Code::ChannelNotFound, "there is no such channel");
        let channel: ClientKey = id.parse().map_err(|_| unknown())?;
        self.agent.request_received(kind, channel, &read(body)?).await?;
        Ok(channel)
    }
}

/// A body that may have been too large, or broken off.
type Body = Result<Bytes, BytesRejection>;

fn read(body: Body) -> Result<Value, Refused> {
    let body = body.map_err(|error| match error.status() {
        StatusCode::PAYLOAD_TOO_LARGE => {
            Refused::new(Code::MessageTooLarge, format!("a message has at most {MAX_BYTES} bytes"))
        }
        _ => Refused::new(Code::BadRequest, error.body_text()),
    })?;
    json::parse(&body).map_err(|error| Refused::new(Code::from(&error), error))
}

struct Failure(StatusCode, Refused);

impl From<Refused> for Failure {
    fn from(refused: Refused) -> Self {
        let status = StatusCode::from_u16(refused.code.http_status())
            .unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        Self(status, refused)
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        (self.0, Json(self.1)).into_response()
    }
}
