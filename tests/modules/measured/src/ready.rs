//! The least a module can be: every call is answered with its request, without a runtime.

use abi_stable::erased_types::TD_Opaque;
use privatix_plugin_api::abi::{
    Bytes, Created, FfiResult, Future, FutureExt, ModuleInterface, ModuleInterface_TO,
};

pub(crate) struct Ready;

impl Ready {
    pub(crate) fn object() -> Created {
        FfiResult::ROk(ModuleInterface_TO::from_value(Self, TD_Opaque))
    }
}

impl ModuleInterface for Ready {
    fn call(&self, request: Bytes<u8>) -> Future<Bytes<u8>> {
        std::future::ready(request).into_ffi()
    }

    fn shutdown(&self, _deadline_ms: u64) -> Future<Bytes<u8>> {
        std::future::ready(Bytes::new()).into_ffi()
    }
}
