//! The author's side of the ABI: a trait to implement, a handle to call the core with.
//!
//! The author's code runs on a runtime that the module owns, never on a thread of the host, and
//! its panics are caught here. A module is an object without process-wide state, so that one
//! library can be created again after `shutdown`.

mod announced;
mod core;
#[cfg(test)]
mod fake;
mod instance;
mod lines;
mod log;
mod login;
mod meter;

use std::collections::BTreeMap;
use std::future::Future;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;

pub use self::announced::{NoAddress, announced};
pub use self::core::Core;
#[doc(hidden)]
pub use self::instance::create;
pub use self::lines::{Errand, Guest, Line, Lines, Over, ShuttingDown};
pub use self::meter::{Ended, Meter, MeterOptions, Metered, Unreported};
use crate::message::{ClientKey, Health, HostInfo, Started, StopReason};

/// Whatever goes wrong in a module; its chain of sources is what the operator reads.
pub type Error = Box<dyn std::error::Error + Send + Sync>;

/// A service module.
///
/// Commands of one channel come in order; commands of different channels may run at once. A start
/// that is still running when its channel is stopped or started again is dropped at its next await.
/// `start` and `stop` may come again for what is already started or stopped, and have to answer as the
/// first time.
pub trait ServiceModule: Sized + Send + Sync + 'static {
    /// Makes the module. Nothing outside the process should happen before `configure`.
    ///
    /// # Errors
    /// The module is shown as failed, with this error.
    fn create(core: Core, host: HostInfo) -> impl Future<Output = Result<Self, Error>> + Send;

    /// Takes the settings of `[modules.<name>]`, which are valid by the manifest's schema; once,
    /// before any other command.
    ///
    /// # Errors
    /// The module is shown as failed, with this error.
    fn configure(&self, _config: Value) -> impl Future<Output = Result<(), Error>> + Send {
        async { Ok(()) }
    }

    /// Serves a channel. Called again when its access message has changed.
    ///
    /// # Errors
    /// The channel gets a `fault` and is retried with back-off.
    fn start(&self, channel: ClientKey) -> impl Future<Output = Result<Started, Error>> + Send;

    /// Ends the service of a channel; returns once its client is really gone.
    ///
    /// # Errors
    /// The command is sent again.
    fn stop(
        &self,
        channel: ClientKey,
        reason: StopReason,
    ) -> impl Future<Output = Result<(), Error>> + Send;

    /// The channels being served now.
    ///
    /// # Errors
    /// The module is shown as unhealthy.
    fn sessions(&self) -> impl Future<Output = Result<Vec<ClientKey>, Error>> + Send;

    /// What the user of a channel should know, by name: a local port, say. Shown by
    /// `privatix channel show`.
    ///
    /// # Errors
    /// Nothing is shown.
    fn describe(
        &self,
        _channel: ClientKey,
    ) -> impl Future<Output = Result<BTreeMap<String, String>, Error>> + Send {
        async { Ok(BTreeMap::new()) }
    }

    /// For tests alone: has the service itself carry about `amount` smallest units through a started
    /// channel, by the way that a user's would take, and returns how many it has carried. A kit
    /// asks the client's side first, then the agent's. A host never asks.
    ///
    /// # Errors
    /// [`Unsupported`] where a side cannot; anything else where the channel did not carry it.
    fn exercise(
        &self,
        _channel: ClientKey,
        _amount: u64,
    ) -> impl Future<Output = Result<u64, Error>> + Send {
        async { Err(Unsupported.into()) }
    }

    /// How the module is.
    fn health(&self) -> impl Future<Output = Health> + Send {
        async { Health::Healthy }
    }

    /// Undoes whatever an earlier run has left behind on this machine, such as processes, rules
    /// and routes of a host that was killed. Called after `create` instead of `configure` and of
    /// everything else; the core answers nothing. What was undone is said in a sentence each.
    /// `None`: this module leaves nothing behind.
    ///
    /// # Errors
    /// Shown to the operator, who has to help.
    fn cleanup(&self) -> impl Future<Output = Result<Option<Vec<String>>, Error>> + Send {
        async { Ok(None) }
    }

    /// Another generation of this module is to take over after the `shutdown` that follows: what
    /// protects users meanwhile, such as a kill switch, is left in place then, for the next one to
    /// adopt. Not told where the module ends for good, or with its host.
    ///
    /// # Errors
    /// Logged.
    fn hand_over(&self) -> impl Future<Output = Result<(), Error>> + Send {
        async { Ok(()) }
    }

    /// Ends everything: reports the last usage, stops all sessions, lets go of ports, processes
    /// and files. What is still running at the deadline is abandoned.
    ///
    /// # Errors
    /// Logged.
    fn shutdown(&self, _deadline: Duration) -> impl Future<Output = Result<(), Error>> + Send {
        async { Ok(()) }
    }
}

/// The module does not do this; answered as a command that it does not know.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("this module does not do that")]
pub struct Unsupported;

/// How a module ended.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct ShutdownReport {
    /// What `shutdown` of the author's code said, if it failed or was late.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// Threads that were still running at the deadline and were abandoned.
    pub abandoned_threads: usize,
    /// Usage that meters have counted and the core has not acknowledged, by channel.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unreported: Vec<Unreported>,
}

/// Makes a type the module of this library and puts the manifest of its build script into it.
#[macro_export]
macro_rules! export_module {
    ($module:ty) => {
        #[allow(unsafe_code)]
        const _: () = {
            const MANIFEST: &[u8] = include!(concat!(env!("OUT_DIR"), "/privatix_manifest.rs"));

            // SAFETY: the section is this project's own and nothing else is placed in it.
            #[used]
            #[unsafe(link_section = ".privatix.module")]
            static SECTION: [u8; MANIFEST.len()] = {
                let mut bytes = [0; MANIFEST.len()];
                bytes.copy_from_slice(MANIFEST);
                bytes
            };

            // SAFETY: the name is the one abi_stable looks for, and the static has the type that
            // belongs to it. A library has one module.
            #[unsafe(export_name = "_1as_0lib_1header_0root_bmodule_bloader")]
            static HEADER: $crate::abi::LibHeader = $crate::abi::header::<$module>();
        };
    };
}
