//! A module between its program's beginning and end: created, configured, told, and shut down.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use abi_stable::erased_types::TD_Opaque;
use privatix_plugin_api::abi::{
    Bytes, CoreInterface, CoreInterface_TO, CoreObject, Future, FutureExt,
};
use privatix_plugin_api::manifest::Role;
use privatix_plugin_api::message::{
    ApiError, ClientKey, ErrorName, HostInfo, LogLevel, Reply, Started, StopReason, decode, encode,
};
use privatix_plugin_api::prelude::{Core, ServiceModule, Unsupported};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::wire::{Command, Event, Wire};

/// How soon a host is asked again that does not know its module yet.
const RETRY: Duration = Duration::from_secs(1);

/// What a program is told when it is started.
#[derive(Clone)]
pub struct Options {
    /// The host: `ws://HOST:PORT/ws`.
    pub url: String,
    /// The module's token.
    pub token: String,
    /// Where the module keeps its data; made if it is not there.
    pub data_dir: PathBuf,
    /// How long the module may take to end.
    pub shutdown: Duration,
}

/// Why a program ended.
#[derive(Debug, thiserror::Error)]
pub enum ProgramError {
    /// The module would not be created or configured.
    #[error("the module did not come up")]
    Module(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// No place for its data.
    #[error("the directory for the module's data")]
    Data(#[source] io::Error),
    /// It could not be told to stop.
    #[error("listening for signals")]
    Signals(#[source] io::Error),
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Card {
    name: String,
    role: Role,
    api_version: u32,
    host_version: String,
    config: Value,
}

/// Runs a module until told to stop.
///
/// # Errors
/// [`ProgramError`]; that the host is away is none.
pub async fn run<M: ServiceModule>(
    options: Options,
    stop: impl std::future::Future<Output = ()>,
) -> Result<(), ProgramError> {
    let Options { url, token, data_dir, shutdown } = options;
    std::fs::create_dir_all(&data_dir).map_err(ProgramError::Data)?;
    let data_dir = std::path::absolute(data_dir).map_err(ProgramError::Data)?;
    let (wire, mut events) = Wire::open(url, token);
    let mut stop = std::pin::pin!(stop);
    let card = tokio::select! {
        card = introduced(&wire) => card,
        () = &mut stop => return Ok(()),
    };
    let Card { name, role, api_version, host_version, config } = card;
    tracing::info!(name, %role, "the host knows this module");
    let log_level = LogLevel::Trace;
    let host = HostInfo { api_version, host_version, name, role, data_dir, log_level };
    let module =
        M::create(Core::from_object(core(&wire)), host).await.map_err(ProgramError::Module)?;
    module.configure(config).await.map_err(ProgramError::Module)?;
    let module = Arc::new(module);
    tokio::select! {
        () = obey(&module, &wire, &mut events) => {}
        () = stop => {}
    }
    match tokio::time::timeout(shutdown, module.shutdown(shutdown)).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::warn!(%error, "the module did not shut down cleanly"),
        Err(_) => tracing::warn!("the module did not shut down in time"),
    }
    Ok(())
}

/// What the host says of the module, as soon as it is there.
async fn introduced(wire: &Wire) -> Card {
    loop {
        match wire.call("service_configuration", &json!({})).await {
            Ok(card) => return card,
            Err(error) => tracing::warn!(%error, "the host does not know this module"),
        }
        tokio::time::sleep(RETRY).await;
    }
}

/// Carries out commands for as long as there is a host to give them.
async fn obey<M: ServiceModule>(module: &Arc<M>, wire: &Wire, events: &mut mpsc::Receiver<Event>) {
    let mut running: HashMap<ClientKey, Running> = HashMap::new();
    while let Some(event) = events.recv().await {
        let command = match event {
            Event::Connected => {
                let (module, wire) = (Arc::clone(module), wire.clone());
                // Beside the events, which go on meanwhile.
                tokio::spawn(async move { subscribe(&*module, &wire).await });
                continue;
            }
            Event::Command(command) => command,
        };
        running.retain(|_, running| !running.task.is_finished());
        let commanded = matches!(command.command.as_str(), "start" | "stop");
        let Some(key) = command.client_key.filter(|_| commanded) else {
            // Beside everything else, as a user's use is.
            let (module, wire) = (Arc::clone(module), wire.clone());
            tokio::spawn(async move { carry_out(&*module, &wire, command).await });
            continue;
        };
        let before = running.remove(&key);
        let start = command.command == "start";
        let (module, wire) = (Arc::clone(module), wire.clone());
        let task = tokio::spawn(async move {
            if let Some(before) = before {
                before.over().await;
            }
            carry_out(&*module, &wire, command).await;
        });
        running.insert(key, Running { start, task });
    }
}

/// A command under way.
struct Running {
    start: bool,
    task: JoinHandle<()>,
}

impl Running {
    /// Commands of one channel come in order; a start is dropped when there is a newer one.
    async fn over(self) {
        if self.start {
            self.task.abort();
        }
        // Aborted, done or panicked: it is over.
        let _ = self.task.await;
    }
}

async fn subscribe<M: ServiceModule>(module: &M, wire: &Wire) {
    loop {
        let serving = match module.sessions().await {
            Ok(serving) => Some(serving),
            Err(error) => {
                tracing::warn!(%error, "the module does not say what it serves");
                None
            }
        };
        match wire.call::<Value>("service_subscribe", &json!({ "serving": serving })).await {
            Ok(_) => return tracing::info!("subscribed"),
            Err(error) => tracing::warn!(%error, "not subscribed"),
        }
        tokio::time::sleep(RETRY).await;
    }
}

async fn carry_out<M: ServiceModule>(module: &M, wire: &Wire, command: Command) {
    let Command { subscription, id, command, client_key, reason, amount } = command;
    let mut params = json!({ "subscription": subscription, "id": id });
    let outcome = match (command.as_str(), client_key) {
        ("start", Some(channel)) => module.start(channel).await.map(|started| match started {
            Started::Ready => "ready",
            Started::Later => "later",
        }),
        ("stop", Some(channel)) => {
            let reason = reason.unwrap_or(StopReason::Unknown);
            module.stop(channel, reason).await.map(|()| "stopped")
        }
        ("sessions", None) => module.sessions().await.map(|serving| {
            params["serving"] = json!(serving);
            "serving"
        }),
        ("exercise", Some(channel)) => {
            module.exercise(channel, amount.unwrap_or_default()).await.map(|moved| {
                params["moved"] = moved.into();
                "exercised"
            })
        }
        _ => Err(Unsupported.into()),
    };
    match outcome {
        Ok(answer) => {
            params["answer"] = answer.into();
            if answer == "ready"
                && let Some(channel) = client_key
                && let Ok(service) = module.describe(channel).await
            {
                params["service"] = json!(service);
            }
        }
        Err(error) => {
            let word = if error.is::<Unsupported>() { "unsupported" } else { "failed" };
            params["answer"] = word.into();
            params["text"] = error.to_string().into();
        }
    }
    // A subscription that is over has been told of by another one.
    if let Err(error) = wire.call::<Value>("service_acknowledge", &params).await {
        tracing::debug!(%error, "an answer was not taken");
    }
}

/// The core as the module sees it: every call goes by the wire.
struct Remote {
    wire: Wire,
    runtime: Handle,
}

/// A core whose calls go by a wire, for a program that only makes calls; has to be made on a
/// runtime.
pub fn core(wire: &Wire) -> CoreObject {
    let remote = Remote { wire: wire.clone(), runtime: Handle::current() };
    CoreInterface_TO::from_value(remote, TD_Opaque)
}

impl CoreInterface for Remote {
    fn call(&self, request: Bytes<u8>) -> Future<Bytes<u8>> {
        let wire = self.wire.clone();
        let task = self.runtime.spawn(async move {
            let outcome = match split(&request) {
                Ok((method, params)) => wire.call::<Value>(&method, &params).await,
                Err(error) => Err(error),
            };
            encode(&Reply::from(outcome))
        });
        async move {
            let broken = |error| {
                let error = ApiError::with(ErrorName::Internal, error);
                encode(&Reply::<(), _>::Error(error))
            };
            Bytes::from(task.await.unwrap_or_else(broken))
        }
        .into_ffi()
    }
}

/// A message of the Service API as a call: its name, and the rest of it.
fn split(request: &[u8]) -> Result<(String, Value), ApiError> {
    let bad = |why: &str| ApiError::with(ErrorName::BadRequest, why);
    let mut request: Map<String, Value> =
        decode(request).map_err(|_| bad("the call cannot be read"))?;
    let Some(Value::String(call)) = request.remove("call") else {
        return Err(bad("the call has no name"));
    };
    let rest: BTreeMap<String, Value> = request.into_iter().collect();
    Ok((format!("service_{call}"), json!(rest)))
}
