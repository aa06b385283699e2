//! What serves a product: one created module object, from `create` to the closing of its gate, or the
//! line to a program elsewhere.
//!
//! Every command has a deadline. A command that is late goes on inside the module; only the host
//! stops waiting. Code that blocks a thread keeps that thread: it is counted, not killed.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use privatix_plugin_api::abi::{
    Bytes, CoreObject, FfiResult, Future, FutureExt, ModuleObject, ModuleRootRef,
};
use privatix_plugin_api::message::{
    ClientKey, Description, Done, Health, HostInfo, ModuleRequest, Reply, Sessions, Started,
    StopReason, decode, encode,
};
use privatix_plugin_api::sdk::{ShutdownReport, Unreported};
use privatix_plugin_api::{Fault, FaultKind};
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::sync::oneshot;

use super::door::Gate;
use super::line::Line;
use super::load;
use super::problem::Problem;
use super::record::Record;
use privatix_base::config::ModuleTimeouts;

/// Why a command was not carried out.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    /// The module said so, or panicked.
    #[error("the module answered with a fault")]
    Fault(#[source] Fault),
    /// No answer within the deadline.
    #[error("no answer within {0:?}")]
    TimedOut(Duration),
    /// An answer that is none.
    #[error("the answer cannot be read: {0}")]
    Unreadable(String),
}

impl CommandError {
    /// The module was shut down before it came to it.
    pub fn is_stopped(&self) -> bool {
        matches!(self, Self::Fault(fault) if fault.kind == FaultKind::Stopped)
    }

    /// The module was built without this command.
    pub fn is_unsupported(&self) -> bool {
        matches!(self, Self::Fault(fault) if fault.kind == FaultKind::Unsupported)
    }

    /// For a sentence about a channel: whether these are the module's own words, or what the host
    /// saw.
    pub fn told(&self) -> String {
        match self {
            Self::Fault(fault) if fault.kind == FaultKind::Panicked => {
                format!("the module panicked: {}", fault.text)
            }
            Self::Fault(fault) => format!("the module says: {fault}"),
            Self::TimedOut(limit) => format!("the module did not answer within {limit:?}"),
            Self::Unreadable(why) => format!("the module's answer cannot be read: {why}"),
        }
    }

    /// The module broke, rather than refused.
    pub fn is_breakdown(&self) -> bool {
        match self {
            Self::Fault(fault) => fault.kind == FaultKind::Panicked,
            Self::TimedOut(_) | Self::Unreadable(_) => true,
        }
    }
}

/// Why there is no object.
#[derive(Debug)]
pub enum CreateError {
    /// The library was refused.
    Load(Problem),
    /// `create` was.
    Command(CommandError),
    /// No thread to do it on.
    Thread(std::io::Error),
}

/// See the module's documentation.
pub struct Generation {
    body: Body,
    timeouts: ModuleTimeouts,
    record: Record,
}

/// Where the module is.
enum Body {
    /// In this process.
    Object { object: ModuleObject, gate: Gate },
    /// Wherever its program is.
    Line(Arc<Line>),
}

impl Generation {
    /// Loads the library and creates its module, on a thread of its own that is left behind if
    /// `create` never returns.
    ///
    /// # Errors
    /// [`CreateError`].
    pub async fn create(
        library: PathBuf,
        core: CoreObject,
        host: &HostInfo,
        gate: Gate,
        timeouts: &ModuleTimeouts,
    ) -> Result<Self, CreateError> {
        match Self::make(library, core, host, timeouts).await {
            Ok(object) => Ok(Self::of(Body::Object { object, gate }, timeouts)),
            Err(error) => {
                // Threads it has left behind may still hold the core.
                gate.close();
                Err(error)
            }
        }
    }

    /// A module whose program is elsewhere.
    pub fn standalone(line: Arc<Line>, timeouts: &ModuleTimeouts) -> Self {
        Self::of(Body::Line(line), timeouts)
    }

    fn of(body: Body, timeouts: &ModuleTimeouts) -> Self {
        Self { body, timeouts: timeouts.clone(), record: Record::default() }
    }

    /// How its commands have ended lately.
    pub(super) fn record(&self) -> &Record {
        &self.record
    }

    /// The way to its program, if it is elsewhere.
    pub fn line(&self) -> Option<&Arc<Line>> {
        match &self.body {
            Body::Object { .. } => None,
            Body::Line(line) => Some(line),
        }
    }

    /// Whether there is somebody to be told: always, but for a program that is not connected.
    pub fn is_there(&self) -> bool {
        self.line().is_none_or(|line| line.is_connected())
    }

    /// Whether it is a program that can be told, and cannot answer.
    pub fn is_only_told(&self) -> bool {
        self.line().is_some_and(|line| line.is_only_told())
    }

    async fn make(
        library: PathBuf,
        core: CoreObject,
        host: &HostInfo,
        timeouts: &ModuleTimeouts,
    ) -> Result<ModuleObject, CreateError> {
        let info = Bytes::from(encode(host));
        let (send, made) = oneshot::channel();
        std::thread::Builder::new()
            .name(format!("load-{}", host.name))
            .spawn(move || {
                let made =
                    load::load(&library).map(|root: ModuleRootRef| root.create()(core, info));
                // If nobody waits any more, what was made is dropped here.
                drop(send.send(made));
            })
            .map_err(CreateError::Thread)?;
        let late = CreateError::Command(CommandError::TimedOut(timeouts.create));
        let made = match tokio::time::timeout(timeouts.create, made).await {
            Err(_) => return Err(late),
            // The thread ended without an answer: it panicked on the host's side.
            Ok(Err(_)) => return Err(CreateError::Command(unreadable("the load thread ended"))),
            Ok(Ok(made)) => made.map_err(CreateError::Load)?,
        };
        match made {
            FfiResult::ROk(object) => Ok(object),
            FfiResult::RErr(fault) => Err(CreateError::Command(match decode::<Fault>(&fault) {
                Ok(fault) => CommandError::Fault(fault),
                Err(error) => unreadable(&privatix_plugin_api::chain(&error)),
            })),
        }
    }

    /// Hands the settings over.
    ///
    /// # Errors
    /// [`CommandError`].
    pub async fn configure(&self, config: Value) -> Result<(), CommandError> {
        let Done {} =
            self.call(&ModuleRequest::Configure { config }, self.timeouts.configure).await?;
        Ok(())
    }

    /// Has a channel served.
    ///
    /// # Errors
    /// [`CommandError`].
    pub async fn start(&self, client_key: ClientKey) -> Result<Started, CommandError> {
        self.call(&ModuleRequest::Start { client_key }, self.timeouts.start).await
    }

    /// Has a channel served no longer.
    ///
    /// # Errors
    /// [`CommandError`].
    pub async fn stop(
        &self,
        client_key: ClientKey,
        reason: StopReason,
    ) -> Result<(), CommandError> {
        let request = ModuleRequest::Stop { client_key, reason };
        let Done {} = self.call(&request, self.timeouts.stop).await?;
        Ok(())
    }

    /// The channels being served.
    ///
    /// # Errors
    /// [`CommandError`].
    pub async fn sessions(&self) -> Result<Vec<ClientKey>, CommandError> {
        let sessions: Sessions = self.call(&ModuleRequest::Sessions, self.timeouts.call).await?;
        Ok(sessions.client_keys)
    }

    /// How the module says it is.
    ///
    /// # Errors
    /// [`CommandError`].
    pub async fn health(&self) -> Result<Health, CommandError> {
        self.call(&ModuleRequest::Health, self.timeouts.call).await
    }

    /// What the user of a channel should know; nothing where the module was built without it.
    ///
    /// # Errors
    /// [`CommandError`].
    pub async fn describe(&self, client_key: ClientKey) -> Result<Description, CommandError> {
        match self.call(&ModuleRequest::Describe { client_key }, self.timeouts.call).await {
            Err(CommandError::Fault(fault)) if fault.kind == FaultKind::Unsupported => {
                Ok(Description::default())
            }
            outcome => outcome,
        }
    }

    /// Says that another generation is to take over once this one has been retired.
    ///
    /// # Errors
    /// [`CommandError`]; none where the module was built without it.
    pub async fn hand_over(&self) -> Result<(), CommandError> {
        match self.call::<Done>(&ModuleRequest::HandOver, self.timeouts.call).await {
            Err(CommandError::Fault(fault)) if fault.kind == FaultKind::Unsupported => Ok(()),
            outcome => outcome.map(drop),
        }
    }

    /// One command, by hand; what the methods above are made of.
    ///
    /// # Errors
    /// [`CommandError`].
    pub async fn call<T: DeserializeOwned>(
        &self,
        request: &ModuleRequest,
        deadline: Duration,
    ) -> Result<T, CommandError> {
        let outcome = self.ask(request, deadline).await;
        self.record.note(request, outcome.as_ref().err());
        outcome
    }

    async fn ask<T: DeserializeOwned>(
        &self,
        request: &ModuleRequest,
        deadline: Duration,
    ) -> Result<T, CommandError> {
        let late = |_| CommandError::TimedOut(deadline);
        match &self.body {
            Body::Object { object, .. } => {
                let answer = object.call(Bytes::from(encode(request)));
                let reply = tokio::time::timeout(deadline, answer).await.map_err(late)?;
                let reply: Reply<T, Fault> = decode(&reply)
                    .map_err(|error| unreadable(&privatix_plugin_api::chain(&error)))?;
                Result::from(reply).map_err(CommandError::Fault)
            }
            Body::Line(line) => {
                let answer = tokio::time::timeout(deadline, line.call(request)).await;
                let answer = answer.map_err(late)?.map_err(CommandError::Fault)?;
                serde_json::from_value(answer).map_err(|error| unreadable(&error.to_string()))
            }
        }
    }

    /// Any bytes in the place of a command, and whatever the module makes of them; for a test
    /// that. A program elsewhere is never sent such.
    pub fn raw(&self, request: &[u8]) -> Future<Bytes<u8>> {
        match &self.body {
            Body::Object { object, .. } => object.call(Bytes::from(request.to_vec())),
            Body::Line(_) => {
                let fault = Fault::new(FaultKind::Unsupported, "no command");
                let reply = encode(&Reply::<(), _>::Error(fault));
                std::future::ready(Bytes::from(reply)).into_ffi()
            }
        }
    }

    /// Ends the module: it reports its last usage and lets go of everything; then its gate is
    /// closed. A program elsewhere goes on, and comes back when the module does. Returns how many
    /// threads it left behind.
    pub async fn retire(&self) -> Retired {
        let (object, gate) = match &self.body {
            Body::Object { object, gate } => (object, gate),
            Body::Line(line) => {
                line.end();
                return Retired::default();
            }
        };
        let deadline = self.timeouts.shutdown;
        let deadline_ms = u64::try_from(deadline.as_millis()).unwrap_or(u64::MAX);
        let answer = object.shutdown(deadline_ms);
        // The module keeps the deadline itself; this one is for a module that does not.
        let reply = tokio::time::timeout(deadline + Duration::from_secs(2), answer).await;
        gate.close();
        let report = match reply {
            Err(_) => return Retired::with("no answer to shutdown".into()),
            Ok(reply) => decode::<ShutdownReport>(&reply),
        };
        match report {
            Ok(report) => Retired {
                problem: report.error,
                threads: report.abandoned_threads,
                unreported: report.unreported,
            },
            Err(error) => Retired::with(privatix_plugin_api::chain(&error)),
        }
    }
}

impl Drop for Generation {
    fn drop(&mut self) {
        match &self.body {
            Body::Object { gate, .. } => gate.close(),
            Body::Line(line) => line.end(),
        }
    }
}

/// How a generation ended.
#[derive(Debug, Default)]
pub struct Retired {
    /// What was not in order.
    pub problem: Option<String>,
    /// Threads that the module left running.
    pub threads: usize,
    /// Usage that the module could not report.
    pub unreported: Vec<Unreported>,
}

impl Retired {
    fn with(problem: String) -> Self {
        Self { problem: Some(problem), ..Self::default() }
    }
}

fn unreadable(why: &str) -> CommandError {
    CommandError::Unreadable(why.to_owned())
}
