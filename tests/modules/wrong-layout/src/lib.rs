//! A library with a valid manifest whose root module has another layout than the ABI's.
//!
//! It bears the ABI's names and version, so that nothing but abi_stable's layout check can refuse
//! it. Its `create` must never be called.

// Raised by the code that abi_stable's macros generate.
#![allow(non_local_definitions, non_camel_case_types, missing_docs, unreachable_pub)]

use abi_stable::StableAbi;
use abi_stable::export_root_module;
use abi_stable::library::RootModule;
use abi_stable::prefix_type::PrefixTypeTrait;
use abi_stable::sabi_types::VersionStrings;
use abi_stable::std_types::RStr;

/// A root module whose only field has another type.
#[repr(C)]
#[derive(StableAbi)]
#[sabi(kind(Prefix(prefix_ref = ModuleRootRef)))]
#[sabi(missing_field(panic))]
pub struct ModuleRoot {
    /// The ABI's `create` takes a core and a text.
    #[sabi(last_prefix_field)]
    pub create: extern "C" fn(number: u64) -> u64,
}

impl RootModule for ModuleRootRef {
    abi_stable::declare_root_module_statics! {ModuleRootRef}
    const BASE_NAME: &'static str = "privatix_module";
    const NAME: &'static str = "privatix_module";
    const VERSION_STRINGS: VersionStrings = VersionStrings { version: RStr::from_str("1.0.0") };
}

/// Makes the root module.
#[export_root_module]
pub fn root() -> ModuleRootRef {
    ModuleRoot { create }.leak_into_prefix()
}

extern "C" fn create(number: u64) -> u64 {
    number
}

const MANIFEST: &[u8] = include!(concat!(env!("OUT_DIR"), "/privatix_manifest.rs"));

// SAFETY: the section is this project's own and nothing else is placed in it.
#[used]
#[unsafe(link_section = ".privatix.module")]
static SECTION: [u8; MANIFEST.len()] = {
    let mut bytes = [0; MANIFEST.len()];
    bytes.copy_from_slice(MANIFEST);
    bytes
};
