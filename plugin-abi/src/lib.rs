//! The stable ABI between host and module, version 1: frozen for good.
//!
//! It is this small because `abi_stable` refuses every older module as soon as the host's trait
//! or root module has one more method. It carries one Service API message a call, as JSON, so
//! that the API grows by messages and optional fields. Should the ABI itself ever change, a new
//! root module with a new name comes beside this one, and hosts go on loading this one.
//!
//! It is a crate of its own because `abi_stable` also compares the version of the crate that the
//! types are in: that is this one's, which stays `1`, while `privatix-plugin-api` goes its way.
//! What the messages are is said there.
//!
//! What must hold on both sides: `call` and `shutdown` return at once, and the future they hand
//! out needs no async runtime of its caller.

// Raised by the code that abi_stable's macros generate.
#![allow(non_local_definitions, non_camel_case_types, missing_docs, clippy::expect_used)]

use abi_stable::StableAbi;
use abi_stable::library::RootModule;
use abi_stable::sabi_trait;
use abi_stable::sabi_types::VersionStrings;
use abi_stable::std_types::{RBox, RResult, RStr, RVec};
use async_ffi::FfiFuture;

/// What the core offers a module.
#[sabi_trait]
pub trait CoreInterface: Send + Sync + 'static {
    /// One `CoreRequest` in, one reply out.
    #[sabi(last_prefix_field)]
    fn call(&self, request: RVec<u8>) -> FfiFuture<RVec<u8>>;
}

/// What a module offers the core.
#[sabi_trait]
pub trait ModuleInterface: Send + Sync + 'static {
    /// One `ModuleRequest` in, one reply out.
    fn call(&self, request: RVec<u8>) -> FfiFuture<RVec<u8>>;

    /// Ends everything within so many milliseconds. Answer: a `ShutdownReport`. Later calls are
    /// answered `stopped`.
    #[sabi(last_prefix_field)]
    fn shutdown(&self, deadline_ms: u64) -> FfiFuture<RVec<u8>>;
}

/// The core, as a module holds it.
pub type CoreObject = CoreInterface_TO<RBox<()>>;
/// A module, as the host holds it.
pub type ModuleObject = ModuleInterface_TO<RBox<()>>;
/// A module, or the `Fault` that kept it from coming into being, as JSON.
pub type Created = RResult<ModuleObject, RVec<u8>>;

/// What a library exports.
#[repr(C)]
#[derive(StableAbi)]
#[sabi(kind(Prefix(prefix_ref = ModuleRootRef)))]
#[sabi(missing_field(panic))]
pub struct ModuleRoot {
    /// Makes a module from the core and a `HostInfo` as JSON. May be called again after
    /// `shutdown`, and while another object of the library lives.
    #[sabi(last_prefix_field)]
    pub create: extern "C" fn(core: CoreObject, host: RVec<u8>) -> Created,
}

impl RootModule for ModuleRootRef {
    abi_stable::declare_root_module_statics! {ModuleRootRef}
    const BASE_NAME: &'static str = "privatix_module";
    const NAME: &'static str = "privatix_module";
    const VERSION_STRINGS: VersionStrings = ABI_VERSION;
}

/// The version `abi_stable` compares: constant, since [`ModuleRoot`] is. Ranges of the Service
/// API are compared by the host, from the manifest.
const ABI_VERSION: VersionStrings = VersionStrings { version: RStr::from_str("1.0.0") };

#[cfg(test)]
mod tests {
    #[test]
    fn every_version_of_this_crate_is_compatible_with_every_other() {
        assert!(env!("CARGO_PKG_VERSION").starts_with("1."), "see the crate's documentation");
    }
}
