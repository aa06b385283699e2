//! The stable ABI, version 1: frozen for good, and all of this crate's unsafe code.
//!
//! It is this small because `abi_stable` refuses every older module as soon as the host's trait
//! or root module has one more method. It carries one Service API message a call, as JSON, so
//! that the API grows by messages and optional fields. Should the ABI itself ever change, a new
//! root module with a new name comes beside this one, and hosts go on loading this one.
//!
//! What must hold on both sides: `call` and `shutdown` return at once, and the future they hand
//! out needs no async runtime of whoever polls it.

// Raised by the code that abi_stable's macros generate.
#![allow(non_local_definitions, non_camel_case_types, missing_docs, clippy::expect_used)]

use abi_stable::StableAbi;
use abi_stable::library::{
    __call_root_module_loader, CheckTypeLayout, RootModule, RootModuleResult,
};
use abi_stable::prefix_type::PrefixTypeTrait;
use abi_stable::sabi_trait;
use abi_stable::sabi_types::VersionStrings;
use abi_stable::std_types::{RBox, RResult, RStr, RVec};
use async_ffi::FfiFuture;

pub use abi_stable::library::{AbiHeaderRef, LibHeader, ROOT_MODULE_LOADER_NAME_WITH_NUL};
pub use abi_stable::std_types::{RBox as Boxed, RResult as FfiResult, RVec as Bytes};
pub use async_ffi::{FfiFuture as Future, FutureExt};

/// What the core offers a module.
#[sabi_trait]
pub trait CoreInterface: Send + Sync + 'static {
    /// One [`CoreRequest`](crate::message::CoreRequest) in, one reply out.
    #[sabi(last_prefix_field)]
    fn call(&self, request: RVec<u8>) -> FfiFuture<RVec<u8>>;
}

/// What a module offers the core.
#[sabi_trait]
pub trait ModuleInterface: Send + Sync + 'static {
    /// One [`ModuleRequest`](crate::message::ModuleRequest) in, one reply out.
    fn call(&self, request: RVec<u8>) -> FfiFuture<RVec<u8>>;

    /// Ends everything within so many milliseconds. Answer: a
    /// [`ShutdownReport`](crate::sdk::ShutdownReport). Later calls are answered `stopped`.
    #[sabi(last_prefix_field)]
    fn shutdown(&self, deadline_ms: u64) -> FfiFuture<RVec<u8>>;
}

/// The core, as a module holds it.
pub type CoreObject = CoreInterface_TO<RBox<()>>;
/// A module, as the host holds it.
pub type ModuleObject = ModuleInterface_TO<RBox<()>>;
/// A module, or the [`Fault`](crate::error::Fault) that kept it from coming into being, as JSON.
pub type Created = RResult<ModuleObject, RVec<u8>>;

/// What a library exports.
#[repr(C)]
#[derive(StableAbi)]
#[sabi(kind(Prefix(prefix_ref = ModuleRootRef)))]
#[sabi(missing_field(panic))]
pub struct ModuleRoot {
    /// Makes a module from the core and a [`HostInfo`](crate::message::HostInfo) as JSON. May be
    /// called again after `shutdown`, and while another object of the library lives.
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

/// The header a library of module type `M` exports; used by [`export_module!`](crate::export_module).
#[doc(hidden)]
pub const fn header<M: crate::sdk::ServiceModule>() -> LibHeader {
    // SAFETY: `construct::<M>` returns what `__call_root_module_loader` makes of a
    // `ModuleRootRef`, which is the root module named here.
    unsafe { LibHeader::from_constructor::<ModuleRootRef>(construct::<M>, CheckTypeLayout::Yes) }
}

extern "C" fn construct<M: crate::sdk::ServiceModule>() -> RootModuleResult {
    __call_root_module_loader(root::<M>)
}

fn root<M: crate::sdk::ServiceModule>() -> ModuleRootRef {
    ModuleRoot { create: crate::sdk::create::<M> }.leak_into_prefix()
}

/// The name under which `export_module!` exports the header.
#[doc(hidden)]
pub const EXPORTED_AS: &str = "_1as_0lib_1header_0root_bmodule_bloader";

#[cfg(test)]
mod tests {
    #[test]
    fn the_header_is_exported_under_the_name_that_abi_stable_looks_for() {
        assert_eq!(super::EXPORTED_AS, abi_stable::library::ROOT_MODULE_LOADER_NAME);
    }
}
