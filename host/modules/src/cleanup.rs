//! Has a module undo what a killed host has left of it, without running it.
//!
//! The package passes the same checks as for running, and its library is loaded elsewhere first.
//! Then it is created, told to clean up and ended; it is not configured, and the core answers
//! nothing. The caller sees to it that no host runs.

use std::time::Duration;

use abi_stable::erased_types::TD_Opaque;
use privatix_plugin_api::FaultKind;
use privatix_plugin_api::abi::{
    Bytes, CoreInterface, CoreInterface_TO, CoreObject, Future, FutureExt,
};
use privatix_plugin_api::message::{
    ApiError, Cleaned, CoreRequest, Done, ErrorName, ModuleRequest, Reply, decode, encode,
};

use super::copy::Quiet;
use super::door::Gate;
use super::examine::{self, Checked, Terms};
use super::generation::{CommandError, CreateError, Generation};
use super::lifecycle::private_dir;
use super::package;
use super::probe::Prober;
use super::problem::Problem;
use super::{ModulesError, prepare_all};
use privatix_base::config::Config;

/// How long a module may take to clean up.
const DEADLINE: Duration = Duration::from_secs(60);

/// Why nothing, or not all, was cleaned up.
#[derive(Debug, thiserror::Error)]
pub enum CleanupError {
    /// Directories that modules cannot be run from.
    #[error(transparent)]
    Modules(#[from] ModulesError),
    /// The plugins directory or the module's own cannot be used.
    #[error("the directory {path}")]
    Directory {
        /// Which.
        path: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// No package has this name.
    #[error("there is no module {0:?} in the plugins directory")]
    Unknown(String),
    /// The package is not one that may run.
    #[error("{code}: {found}; required is {required}; {mend}", code = .0.code, found = .0.found, required = .0.required, mend = .0.mend)]
    Refused(Problem),
    /// The module could not be made.
    #[error("the module was not created: {0}")]
    NotCreated(String),
    /// It is of a kind that leaves nothing behind.
    #[error("the module {0:?} has nothing that could be cleaned up")]
    Unsupported(String),
    /// The module failed at it.
    #[error("the module did not clean up")]
    Failed(#[source] CommandError),
}

/// What was undone, a sentence each.
///
/// # Errors
/// [`CleanupError`].
pub async fn run(
    config: &Config,
    name: &str,
    prober: &Prober,
) -> Result<Vec<String>, CleanupError> {
    prepare_all(config)?;
    let checked = find(config, name)?;
    let library = checked.library().ok_or_else(|| CleanupError::Unsupported(name.to_owned()))?;
    prober.probe(library).await.map_err(CleanupError::Refused)?;
    let data_dir = private_dir(&config.data_dir, name).map_err(at(&config.data_dir))?;
    let log_level = privatix_base::logging::module_level(&config.log);
    let host = checked.host_info(name, config.role, data_dir, log_level);
    let (library, gate) = (library.to_owned(), Gate::default());
    let created = Generation::create(library, nobody(), &host, gate, &config.module).await;
    let generation = created.map_err(|error| CleanupError::NotCreated(told(&error)))?;
    let outcome = generation.call::<Cleaned>(&ModuleRequest::Cleanup, DEADLINE).await;
    generation.retire().await;
    match outcome {
        Ok(Cleaned(done)) => Ok(done),
        Err(CommandError::Fault(fault)) if fault.kind == FaultKind::Unsupported => {
            Err(CleanupError::Unsupported(name.to_owned()))
        }
        Err(error) => Err(CleanupError::Failed(error)),
    }
}

fn find(config: &Config, name: &str) -> Result<Checked, CleanupError> {
    let mut packages = package::scan(&config.plugins_dir).map_err(at(&config.plugins_dir))?;
    let files = packages.remove(name).ok_or_else(|| CleanupError::Unknown(name.to_owned()))?;
    let settings = config.modules.get(name).cloned();
    let terms = Terms {
        role: config.role,
        cache: config.cache_dir.clone(),
        settings: settings.unwrap_or_else(|| serde_json::json!({})),
        standalone: true,
    };
    examine::examine(name, &files, &terms, &mut Quiet::default()).map_err(CleanupError::Refused)
}

fn at(path: &std::path::Path) -> impl FnOnce(std::io::Error) -> CleanupError {
    let path = path.display().to_string();
    move |source| CleanupError::Directory { path, source }
}

fn told(error: &CreateError) -> String {
    match error {
        CreateError::Load(problem) => problem.to_string(),
        CreateError::Command(error) => privatix_plugin_api::chain(error),
        CreateError::Thread(error) => error.to_string(),
    }
}

/// A core that takes what is logged and answers nothing else.
struct Nobody;

fn nobody() -> CoreObject {
    CoreInterface_TO::from_value(Nobody, TD_Opaque)
}

impl CoreInterface for Nobody {
    fn call(&self, request: Bytes<u8>) -> Future<Bytes<u8>> {
        let reply = match decode::<CoreRequest>(&request) {
            Ok(CoreRequest::Log(_)) => encode(&Reply::<_, ApiError>::Ok(Done {})),
            _ => encode(&Reply::<(), _>::Error(ApiError::from(ErrorName::AccessDenied))),
        };
        std::future::ready(Bytes::from(reply)).into_ffi()
    }
}
