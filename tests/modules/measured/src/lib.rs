//! The library that the benchmarks load: two modules, of which the host's name for it picks one.
//!
//! `ready` is made by hand and has its answer at once, so that a call of it costs the ABI and
//! nothing else. Under any other name it is a module of the SDK which times its own calls to the
//! core. Loaded without a package, so it has no manifest.

// Raised by the code that abi_stable's macros generate.
#![allow(missing_docs)]

mod caller;
mod ready;

use abi_stable::export_root_module;
use abi_stable::prefix_type::PrefixTypeTrait;
use privatix_plugin_api::abi::{Bytes, CoreObject, Created, ModuleRoot, ModuleRootRef};
use privatix_plugin_api::message::{HostInfo, decode};
use privatix_plugin_api::sdk;

use crate::caller::Caller;
use crate::ready::Ready;

/// Makes the root module.
#[export_root_module]
pub fn root() -> ModuleRootRef {
    ModuleRoot { create }.leak_into_prefix()
}

extern "C" fn create(core: CoreObject, host: Bytes<u8>) -> Created {
    match decode::<HostInfo>(&host) {
        Ok(info) if info.name == "ready" => Ready::object(),
        _ => sdk::create::<Caller>(core, host),
    }
}
