//! The stable ABI of [`privatix_plugin_abi`], and the way from an author's type to what a library
//! exports: all of this crate's unsafe code.

use abi_stable::library::{__call_root_module_loader, CheckTypeLayout, RootModuleResult};
use abi_stable::prefix_type::PrefixTypeTrait;

pub use abi_stable::library::{AbiHeaderRef, LibHeader, ROOT_MODULE_LOADER_NAME_WITH_NUL};
pub use abi_stable::std_types::{RBox as Boxed, RResult as FfiResult, RVec as Bytes};
pub use async_ffi::{FfiFuture as Future, FutureExt};
pub use privatix_plugin_abi::*;

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
