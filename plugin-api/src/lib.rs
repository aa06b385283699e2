//! What the author of a privatix service module needs, and nothing else.
//!
//! A module is a `cdylib` that sells or consumes one service. The host gives it channels to
//! serve; the module asks the host who may use them and reports what was used. This is a complete
//! one, which counts five bytes for each use of a channel:
//!
//! ```
//! use privatix_plugin_api::prelude::*;
//!
//! struct Hello { core: Core, serving: Mutex<HashMap<ClientKey, SessionId>> }
//!
//! impl ServiceModule for Hello {
//!     async fn create(core: Core, _host: HostInfo) -> Result<Self, Error> {
//!         Ok(Self { core, serving: Mutex::default() })
//!     }
//!
//!     async fn start(&self, channel: ClientKey) -> Result<Started, Error> {
//!         let session = self.core.start_session(channel, None).await?.session;
//!         self.serving.lock().await.insert(channel, session);
//!         Ok(Started::Ready)
//!     }
//!
//!     async fn stop(&self, channel: ClientKey, _reason: StopReason) -> Result<(), Error> {
//!         if let Some(session) = self.serving.lock().await.remove(&channel) {
//!             self.core.update_session(channel, session, Usage::Total(5)).await?;
//!             self.core.stop_session(channel, session).await?;
//!         }
//!         Ok(())
//!     }
//!
//!     async fn sessions(&self) -> Result<Vec<ClientKey>, Error> {
//!         Ok(self.serving.lock().await.keys().copied().collect())
//!     }
//! }
//!
//! export_module!(Hello);
//! ```
//!
//! Its build script puts the manifest where `export_module!` finds it:
#![cfg_attr(feature = "build", doc = "```no_run")]
#![cfg_attr(not(feature = "build"), doc = "```ignore")]
//! use privatix_plugin_api::build::Package;
//!
//! fn main() {
//!     Package::new("hello", "8c9d2a64-0a51-4b0c-9d0e-6a1f5b7c3e21")
//!         .access_template("hello.access.json")
//!         .offering_template("hello.offering.json")
//!         .emit();
//! }
//! ```
//!
//! and its `Cargo.toml` says
//!
//! ```toml
//! [lib]
//! crate-type = ["cdylib"]
//!
//! [dependencies]
//! privatix-plugin-api = "0.1"
//! tracing = "0.1"
//!
//! [build-dependencies]
//! privatix-plugin-api = { version = "0.1", default-features = false, features = ["build"] }
//! ```

#[cfg(feature = "sdk")]
#[allow(unsafe_code)]
pub mod abi;
#[cfg(feature = "build")]
pub mod build;
mod error;
#[cfg(feature = "sdk")]
pub mod files;
pub mod json;
pub mod manifest;
pub mod message;
#[cfg(feature = "sdk")]
pub mod sdk;

pub use error::{ApiError, ErrorName, Fault, FaultKind, chain};

/// What a module's source begins with.
#[cfg(feature = "sdk")]
pub mod prelude {
    pub use std::collections::{BTreeMap, HashMap};

    pub use tokio::sync::Mutex;

    pub use crate::export_module;
    pub use crate::manifest::Role;
    pub use crate::message::{
        AccessMessage, ApiError, ClientKey, ErrorName, Health, HostInfo, Password, SessionId,
        SessionStarted, Started, Status, StopReason, Usage,
    };
    pub use crate::sdk::{
        Core, Ended, Errand, Error, Guest, Line, Lines, Meter, MeterOptions, Over, ServiceModule,
        Unsupported, announced,
    };
}
