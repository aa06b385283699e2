//! Where programs come: connections, TLS, and the two ways in.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::extract::ws::WebSocketUpgrade;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{any, post};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service as _, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use privatix_plugin_api::message::ErrorName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::{Duration, sleep};

use super::budget::max_message;
use super::desk::Desk;
use super::http;
use super::places::{Place, Places};
use super::rpc::Failure;
use super::socket::Connection;
use super::stop::stopped;
use super::stream::{Intake, Tap};
use privatix_base::condition::Seldom;
use privatix_tls::{Certificate, Handshake};

/// How long a request's headers may take, and how long a connection may be kept between requests.
const IDLE: Duration = Duration::from_secs(60);

/// The most bytes of a request's head.
const MAX_HEAD: usize = 16 * 1024;

/// How long to wait where the system has no descriptor left.
const RETRY: Duration = Duration::from_secs(1);

/// Where the host listens for standalone modules.
pub struct Endpoint {
    /// The socket.
    pub listener: TcpListener,
    /// What is shown, beyond loopback.
    pub tls: Option<Arc<Certificate>>,
    /// Connections at a time.
    pub connections: u32,
}

#[derive(Clone)]
struct Doors {
    desk: Desk,
    stop: watch::Receiver<bool>,
}

/// Answers programs until told to stop.
pub async fn serve(endpoint: Endpoint, desk: Desk, mut stop: watch::Receiver<bool>) {
    let Endpoint { listener, tls, connections } = endpoint;
    let doors = Doors { desk, stop: stop.clone() };
    let ways = Ways {
        routes: TowerToHyperService::new(routes(doors)),
        without_tls: TowerToHyperService::new(Router::new().fallback(without_tls)),
        tls,
    };
    let places = Places::new(usize::try_from(connections).unwrap_or(usize::MAX));
    loop {
        let (stream, address, place) = tokio::select! {
            accepted = accept(&listener, &places) => accepted,
            () = stopped(&mut stop) => return,
        };
        let ways = ways.clone();
        tokio::spawn(async move { ways.connection(stream, address, place).await });
    }
}

/// The next connection; while every place is taken, the others wait in the system's queue.
async fn accept(listener: &TcpListener, places: &Places) -> (TcpStream, SocketAddr, Place) {
    loop {
        match listener.accept().await {
            Ok((stream, address)) => {
                places.some().await;
                // Answers are small, and somebody waits for each.
                let _ = stream.set_nodelay(true);
                return (stream, address, places.enter());
            }
            Err(error) => {
                static UNABLE: Seldom =
                    Seldom::new("connections of standalone modules are not accepted");
                UNABLE.happened(&error);
                sleep(RETRY).await;
            }
        }
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
    async fn connection(self, stream: TcpStream, address: SocketAddr, place: Place) {
        // Whatever it does meanwhile, a handshake included.
        tokio::select! {
            () = self.serve(stream, address, &place) => {}
            () = place.forfeited() => {}
        }
    }

    async fn serve(self, stream: TcpStream, address: SocketAddr, place: &Place) {
        let Some(tls) = self.tls else { return serve_http(stream, place, self.routes).await };
        match tls.accept(stream).await {
            Ok(Handshake::Tls(stream)) => serve_http(*stream, place, self.routes).await,
            Ok(Handshake::Plain(stream)) => serve_http(stream, place, self.without_tls).await,
            Err(error) => {
                tracing::debug!(%address, error = privatix_plugin_api::chain(&error), "no connection")
            }
        }
    }
}

async fn serve_http(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    place: &Place,
    routes: TowerToHyperService<Router>,
) {
    let (shared, intake) = (place.clone(), Intake::default());
    let stream = Tap::new(stream, intake.clone());
    let service = service_fn(move |mut request: hyper::Request<Incoming>| {
        request.extensions_mut().insert(shared.clone());
        request.extensions_mut().insert(intake.clone());
        routes.call(request)
    });
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(IDLE).max_buf_size(MAX_HEAD);
    // However a connection ends, it is the program's affair. One that has become a WebSocket is
    // served elsewhere from then on.
    let _ = http.serve_connection(TokioIo::new(stream), service).with_upgrades().await;
}

fn routes(doors: Doors) -> Router {
    let desk = doors.desk.clone();
    Router::new()
        .route("/http", post(http::answer).with_state(desk))
        .route("/ws", any(socket).with_state(doors))
        .method_not_allowed_fallback(async || {
            http::refusal(StatusCode::METHOD_NOT_ALLOWED, Failure::request("calls are POSTed"))
        })
        .fallback(async || {
            let why = "calls are POSTed to /http, or sent over a WebSocket at /ws";
            http::refusal(StatusCode::NOT_FOUND, Failure::request(why))
        })
}

async fn without_tls() -> Response {
    http::refusal(StatusCode::BAD_REQUEST, Failure::request("TLS is spoken here: https or wss"))
}

async fn socket(
    State(doors): State<Doors>,
    upgrade: Result<WebSocketUpgrade, axum::extract::ws::rejection::WebSocketUpgradeRejection>,
    request: Request,
) -> Response {
    let upgrade = match upgrade {
        Ok(upgrade) => upgrade,
        Err(rejection) => return rejection.into_response(),
    };
    let bearer = match http::bearer(&doors.desk, request.headers()).await {
        Ok(bearer) => bearer,
        Err(response) => return response,
    };
    let (Some(place), Some(intake)) = (
        request.extensions().get::<Place>().cloned(),
        request.extensions().get::<Intake>().cloned(),
    ) else {
        return http::refusal(StatusCode::INTERNAL_SERVER_ERROR, ErrorName::Internal.into());
    };
    if let Some(proof) = &bearer
        && let Err(failure) = doors.desk.place(&place, proof.product()).await
    {
        return http::refusal(StatusCode::SERVICE_UNAVAILABLE, failure);
    }
    let most = max_message(bearer.is_some());
    upgrade
        .max_message_size(most)
        .max_frame_size(most)
        .read_buffer_size(4096)
        .write_buffer_size(0)
        .on_upgrade(move |socket| async move {
            let connection = Connection::new(socket, doors.desk, bearer, place.clone(), intake);
            tokio::select! {
                () = connection.serve(doors.stop) => {}
                () = place.forfeited() => {}
            }
        })
}
