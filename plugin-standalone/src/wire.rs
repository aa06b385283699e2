//! The way to the host: one WebSocket, made again whenever it breaks.
//!
//! A call is answered on whichever connection: those that were under way when one broke are made again
//! on the next, which the Service API allows.

use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use privatix_plugin_api::message::{ApiError, ClientKey, ErrorName, StopReason};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, oneshot};
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{self, Message};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream};

/// How soon a connection that broke is made again.
const RETRY: Duration = Duration::from_secs(1);

/// The host asks every 20 s whether the other end is there; without that, the connection is dead.
const SILENCE: Duration = Duration::from_secs(70);

/// What is read at a time; most messages are shorter.
const READ_BUFFER: usize = 4096;

/// Calls that wait to be sent, and events that wait to be looked at.
const WAITING: usize = 1024;

type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

/// See the module's documentation. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Wire {
    calls: mpsc::Sender<Call>,
}

#[derive(Debug)]
struct Call {
    text: String,
    id: u64,
    answer: oneshot::Sender<Result<Value, ApiError>>,
}

/// What happens on the host's side.
#[derive(Debug)]
pub enum Event {
    /// There is a connection; a program that wants commands has to subscribe again.
    Connected,
    /// A command of a subscription.
    Command(Command),
}

/// What a subscriber is told.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Command {
    /// By which subscription.
    pub subscription: String,
    /// What it is acknowledged by.
    pub id: u64,
    /// `start`, `stop` or `sessions`; of tests, `exercise`.
    pub command: String,
    /// The channel, where it is about one.
    pub client_key: Option<ClientKey>,
    /// Why it is stopped.
    pub reason: Option<StopReason>,
    /// How much is to be carried, for tests.
    pub amount: Option<u64>,
}

impl Wire {
    /// Connects, again and again, until the last handle is gone.
    pub fn open(url: String, token: String) -> (Self, mpsc::Receiver<Event>) {
        let (calls, waiting) = mpsc::channel(WAITING);
        let (events, happened) = mpsc::channel(WAITING);
        tokio::spawn(keep(url, token, waiting, events));
        (Self { calls }, happened)
    }

    /// Makes a call of our spelling, named with its prefix; answered when the host is there.
    ///
    /// # Errors
    /// The host's refusal; `Internal` if the answer cannot be read.
    pub async fn call<T: DeserializeOwned>(
        &self,
        method: &str,
        params: &Value,
    ) -> Result<T, ApiError> {
        let id = next_id();
        let call = json!({ "jsonrpc": "2.0", "id": id, "method": method, "params": params });
        let (answer, answered) = oneshot::channel();
        let gone = || ApiError::with(ErrorName::Internal, "the connection to the host is given up");
        let call = Call { text: call.to_string(), id, answer };
        self.calls.send(call).await.map_err(|_| gone())?;
        let result = answered.await.map_err(|_| gone())??;
        serde_json::from_value(result).map_err(|error| ApiError::with(ErrorName::Internal, error))
    }
}

fn next_id() -> u64 {
    use std::sync::atomic::{AtomicU64, Ordering};
    static LAST: AtomicU64 = AtomicU64::new(0);
    LAST.fetch_add(1, Ordering::Relaxed) + 1
}

async fn keep(
    url: String,
    token: String,
    mut waiting: mpsc::Receiver<Call>,
    events: mpsc::Sender<Event>,
) {
    let mut open = BTreeMap::new();
    let mut last_error = None;
    loop {
        let ended = match connect(&url, &token).await {
            Ok(socket) => {
                last_error = None;
                if events.send(Event::Connected).await.is_err() {
                    return;
                }
                converse(socket, &mut waiting, &mut open, &events).await
            }
            Err(error) => Err(error),
        };
        let Err(error) = ended else { return };
        let text = error.to_string();
        if last_error.as_ref() != Some(&text) {
            tracing::warn!(error = text, "no connection to the host; trying again");
            last_error = Some(text);
        }
        tokio::time::sleep(RETRY).await;
    }
}

async fn connect(url: &str, token: &str) -> Result<Socket, tungstenite::Error> {
    let mut request = url.into_client_request()?;
    let value = format!("Bearer {token}").try_into();
    let value = value.map_err(|_| tungstenite::Error::Utf8("the token".into()))?;
    request.headers_mut().insert("authorization", value);
    // The library fills as much with zeros before each reading.
    let config = WebSocketConfig::default().read_buffer_size(READ_BUFFER);
    let connecting = tokio_tungstenite::connect_async_with_config(request, Some(config), true);
    let (socket, _) = connecting.await?;
    Ok(socket)
}

/// Sends and receives until the connection breaks; ends well when nobody is left on this side.
async fn converse(
    mut socket: Socket,
    waiting: &mut mpsc::Receiver<Call>,
    open: &mut BTreeMap<u64, Call>,
    events: &mpsc::Sender<Event>,
) -> Result<(), tungstenite::Error> {
    for call in open.values() {
        socket.send(Message::text(call.text.clone())).await?;
    }
    loop {
        tokio::select! {
            call = waiting.recv() => match call {
                None => return socket.close(None).await,
                Some(call) => {
                    let text = call.text.clone();
                    open.insert(call.id, call);
                    socket.send(Message::text(text)).await?;
                }
            },
            message = tokio::time::timeout(SILENCE, socket.next()) => match message {
                Err(_) | Ok(None) => return Err(tungstenite::Error::ConnectionClosed),
                Ok(Some(message)) => {
                    if let Message::Text(text) = message?
                        && let Some(event) = heard(&text, open)
                        && events.send(event).await.is_err()
                    {
                        return Ok(());
                    }
                }
            },
        }
    }
}

/// An answer, which is passed on, or an event.
fn heard(text: &str, open: &mut BTreeMap<u64, Call>) -> Option<Event> {
    let mut message: Value = serde_json::from_str(text).ok()?;
    if message["method"] == "service_command" {
        return serde_json::from_value(message["params"].take()).ok().map(Event::Command);
    }
    let call = open.remove(&message["id"].as_u64()?)?;
    let outcome = match message.get_mut("error") {
        None => Ok(message["result"].take()),
        Some(error) => Err(refusal(error)),
    };
    // The caller may have given up.
    let _ = call.answer.send(outcome);
    None
}

fn refusal(error: &mut Value) -> ApiError {
    let name = serde_json::from_value(error["data"]["name"].take()).unwrap_or(ErrorName::Unknown);
    let text = error["message"].as_str().unwrap_or_default().to_owned();
    let number = error["code"].as_u64().and_then(|code| u32::try_from(code).ok());
    ApiError { name, number: number.unwrap_or_default(), text }
}
