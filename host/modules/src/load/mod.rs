//! Brings a library into the process, asks the kernel about writers, and notes how a module ends the
//! process: all of the host's unsafe.
//!
//! Only private copies that passed inspection come here, each under a path made of its content: a
//! second library under one path would silently be the first one again. Nothing is ever unloaded,
//! because thread-local destructors of a module would run code that is gone.

mod last_words;
mod lease;

use std::path::Path;

use abi_stable::library::{LibraryError, ROOT_MODULE_LOADER_NAME_WITH_NUL};
use libloading::os::unix::{Library, RTLD_LOCAL, RTLD_NOW};
use privatix_plugin_api::abi::{AbiHeaderRef, ModuleRootRef};

pub use self::last_words::{LastWords, watch};
pub use self::lease::{Lease, NoLease};
use super::problem::{Code, Problem};

const REBUILD: &str = "build the module with a released privatix-plugin-api for this host";

/// Loads a private copy and returns its root module. Runs the library's constructors.
///
/// # Errors
/// `LoadFailed`, `NoRootModule`, `AbiIncompatible`, `LayoutMismatch`.
pub fn load(copy: &Path) -> Result<ModuleRootRef, Problem> {
    // SAFETY: loading runs the library's constructors. The operator chose to run this module,
    // the file is a private copy that nobody else writes, its ELF structure was checked, and a
    // process of its own has already loaded it once without harm.
    let library = unsafe { Library::open(Some(copy), RTLD_NOW | RTLD_LOCAL | libc::RTLD_NODELETE) }
        .map_err(|error| {
            Problem::new(
                Code::LoadFailed,
                privatix_plugin_api::chain(&error),
                "a library that the dynamic linker of this machine can load",
                "install the shared libraries it names, or build the module for this system",
            )
        })?;
    // SAFETY: the symbol, where it exists, is the static `LibHeader` of abi_stable, whose first
    // part is the `AbiHeader` that this reference stands for; the library is never unloaded.
    let header: AbiHeaderRef = unsafe {
        *library.get::<AbiHeaderRef>(ROOT_MODULE_LOADER_NAME_WITH_NUL).map_err(|error| {
            Problem::new(
                Code::NoRootModule,
                privatix_plugin_api::chain(&error),
                "a library that calls export_module!",
                "call privatix_plugin_api::export_module! once in the module",
            )
        })?
    };
    // Mapped for as long as the process lives.
    std::mem::forget(library);
    let root = header.upgrade().and_then(|header| header.init_root_module::<ModuleRootRef>());
    root.map_err(|error| incompatible(&error))
}

fn incompatible(error: &LibraryError) -> Problem {
    let required = "the root module of privatix-plugin-api's ABI version 1";
    if let LibraryError::AbiInstability(_) = error {
        // abi_stable's account of it runs over pages, for the library's author.
        tracing::debug!(%error, "the layout of the root module differs");
        let found = "a root module whose types differ from the host's";
        return Problem::new(Code::LayoutMismatch, found, required, REBUILD);
    }
    let found: String = error.to_string().split_whitespace().collect::<Vec<_>>().join(" ");
    Problem::new(Code::AbiIncompatible, found, required, REBUILD)
}
