//! Service modules: from files in a directory to something that can be called.
//!
//! Data flows one way: `watch` finds files, [`package`] sorts them, each module's
//! `supervisor` has them examined ([`examine`], [`copy`], [`inspect`]), proven in another process
//! ([`probe`]), loaded ([`load`]) and brought up ([`lifecycle`], [`generation`]); the [`registry`]
//! shows it, the [`router`] finds it and [`delivery`] tells it what stands in the outbox. Each generation's calls come in
//! through its [`door`], in front of which the [`gateway`] reads the bytes of the ABI.
//! A standalone module has no library: it skips what is about one, and its generation is the [`mod@line`]
//! to its program, which calls through `privatix-standalone`.

pub mod cleanup;
pub mod copy;
pub mod delivery;
pub mod door;
pub mod examine;
pub mod gateway;
pub mod generation;
pub mod inspect;
pub mod lifecycle;
pub mod line;
pub mod linkage;
#[allow(unsafe_code)]
pub mod load;
pub mod manifest_file;
pub mod package;
pub mod probe;
pub mod problem;
mod record;
pub mod registry;
pub mod router;
mod supervisor;
mod trial;
mod watch;

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::sync::Arc;

use tokio::sync::watch as signal;
use tokio::task::JoinHandle;

use self::door::Doors;
use self::lifecycle::Context;
use self::probe::Prober;
use self::problem::Problem;
use self::registry::Registry;
use self::router::Router;
use self::trial::Trials;
use privatix_base::config::Config;
use privatix_core::{ModuleApi, Outbox, Upkeep};

/// All modules of a host.
pub struct Modules {
    /// What is known of them.
    pub registry: Arc<Registry>,
    /// Who serves which product.
    pub router: Arc<Router>,
    /// By which their calls come, and what was counted of these.
    pub doors: Arc<Doors>,
    down: signal::Sender<bool>,
    task: JoinHandle<((), ())>,
}

/// What of the core modules are hosted with.
pub struct Facades {
    /// What they call.
    pub calls: ModuleApi,
    /// What they are told.
    pub outbox: Outbox,
    /// Where they are registered.
    pub upkeep: Upkeep,
}

/// Why modules cannot be hosted.
#[derive(Debug, thiserror::Error)]
pub enum ModulesError {
    /// Others can write what only the host may.
    #[error("{}", .0.refusal())]
    NotOurs(Problem),
    /// A directory cannot be made or cleared.
    #[error("preparing the directory {path}")]
    Directory {
        /// Which.
        path: String,
        /// Why.
        #[source]
        source: io::Error,
    },
}

impl Modules {
    /// Begins to watch the plugins directory. Private copies of an earlier process are removed:
    /// nothing of them is mapped any more.
    ///
    /// # Errors
    /// [`ModulesError`].
    pub fn start(config: &Config, core: Facades, prober: Prober) -> Result<Self, ModulesError> {
        prepare_all(config)?;
        let Facades { calls, outbox, upkeep } = core;
        let (registry, router) = (Arc::new(Registry::default()), Arc::new(Router::default()));
        let doors = Arc::new(Doors::new(Arc::new(calls)));
        let context = Context {
            role: config.role,
            timeouts: config.module.clone(),
            removal_grace: config.removal_grace,
            health_interval: config.health_interval,
            data_dir: config.data_dir.clone(),
            cache_dir: config.cache_dir.clone(),
            settings: config.modules.clone(),
            standalone: config.standalone.enabled,
            log_level: privatix_base::logging::module_level(&config.log),
            prober,
            outbox: outbox.clone(),
            upkeep,
            registry: Arc::clone(&registry),
            router: Arc::clone(&router),
            doors: Arc::clone(&doors),
            trials: Trials::default(),
        };
        let (down, shutdown) = signal::channel(false);
        let delivering = delivery::run(outbox, Arc::clone(&router), shutdown.clone());
        let directory = config.plugins_dir.clone();
        let watching = watch::run(directory, config.rescan, Arc::new(context), shutdown);
        let task = tokio::spawn(async move { tokio::join!(watching, delivering) });
        Ok(Self { registry, router, doors, down, task })
    }

    /// Takes all modules down and returns when the last one is.
    pub async fn stop(self) {
        self.down.send_replace(true);
        if let Err(error) = self.task.await {
            tracing::error!(%error, "the modules were not taken down in order");
        }
    }
}

/// Returns when the host goes down; also if it does so without having said it.
async fn going_down(down: &mut signal::Receiver<bool>) {
    let _ = down.wait_for(|down| *down).await;
}

/// Makes the directories, sees that nobody else can write to them, and empties the cache.
fn prepare_all(config: &Config) -> Result<(), ModulesError> {
    for path in [&config.plugins_dir, &config.cache_dir, &config.data_dir] {
        prepare(path).map_err(|source| directory(path, source))?;
    }
    // Packages in it are refused one by one, and say so. Where there is none, nobody else would.
    let plugins = &config.plugins_dir;
    let packages = package::scan(plugins).map_err(|source| directory(plugins, source))?;
    let problem =
        package::directory_problem(plugins).map_err(|source| directory(plugins, source))?;
    if let Some(problem) = problem.filter(|_| packages.is_empty()) {
        return Err(ModulesError::NotOurs(problem));
    }
    // Who can write there can change what is loaded.
    for path in [&config.cache_dir, &config.data_dir] {
        let meta = fs::metadata(path).map_err(|source| directory(path, source))?;
        if let Some(problem) = package::ownership(&meta, path) {
            return Err(ModulesError::NotOurs(problem));
        }
    }
    clear(&config.cache_dir).map_err(|source| directory(&config.cache_dir, source))
}

fn prepare(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)
}

fn clear(cache: &Path) -> io::Result<()> {
    for entry in fs::read_dir(cache)? {
        let path = entry?.path();
        let stem = path.file_stem().unwrap_or_default().as_encoded_bytes();
        let is_hash = stem.len() == 64 && stem.iter().all(u8::is_ascii_hexdigit);
        if is_hash && path.extension().is_some_and(|end| end == "so" || end == "part") {
            fs::remove_file(path)?;
        }
    }
    Ok(())
}

fn directory(path: &Path, source: io::Error) -> ModulesError {
    ModulesError::Directory { path: path.display().to_string(), source }
}
