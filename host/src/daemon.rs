//! A running host, from its configuration to its last log line.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, IsTerminal};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, bail};
use sd_notify::NotifyState;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::oneshot;

use crate::config::Config;
use crate::modules::Modules;
use crate::modules::probe::Prober;
use crate::operator::{self, Api};
use crate::service::Service;
use crate::store::Store;
use crate::{config, logging};

/// Runs the host of a home directory until it is told to stop.
///
/// # Errors
/// Whatever keeps it from running, in one chain.
pub(crate) async fn run(home: &Path) -> anyhow::Result<()> {
    let config = Config::load(home, config::environment()?)?;
    logging::init(&config.log, io::stderr().is_terminal())?;
    let _lock = lock(home)?;
    let mut signals = Signals::new().context("listening for signals")?;
    let store = Store::open(&config.database)
        .await
        .with_context(|| format!("the database {}", config.database.display()))?;
    let service = Service::new(store.clone(), config.role);
    let modules = Modules::start(&config, service, Prober::this_binary())?;
    let api = Api { registry: modules.registry.clone(), store: store.clone() };
    let listener = operator::listen(&config.socket)?;
    let (stop, stopped) = oneshot::channel::<()>();
    let operator = tokio::spawn(operator::serve(listener, api, async {
        // Dropped is as good as sent.
        let _ = stopped.await;
    }));
    tell(&[NotifyState::Ready]);
    let (role, home) = (config.role.as_str(), config.home.display().to_string());
    tracing::info!(role, home, version = env!("CARGO_PKG_VERSION"), "running");
    let watchdog = tokio::spawn(watchdog());

    let name = signals.next().await;
    tracing::info!(signal = name, "stopping");
    tell(&[NotifyState::Stopping]);
    watchdog.abort();
    let graceful = tokio::select! {
        ended = tokio::time::timeout(config.shutdown_timeout, modules.stop()) => ended.is_ok(),
        again = signals.next() => {
            tracing::warn!(signal = again, "told to stop again; not waiting any longer");
            false
        }
    };
    drop(stop);
    operator.abort();
    // The socket may have been replaced by hand; then there is nothing to remove.
    let _ = std::fs::remove_file(&config.socket);
    store.close().await;
    if !graceful {
        bail!("modules were still running after {:?}", config.shutdown_timeout);
    }
    tracing::info!("stopped");
    Ok(())
}

/// One host a home directory.
fn lock(home: &Path) -> anyhow::Result<File> {
    let path = home.join("privatix.lock");
    let file = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(&path);
    let file = file.with_context(|| format!("opening {}", path.display()))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => bail!("a host is already running in {}", home.display()),
        Err(TryLockError::Error(error)) => {
            Err(error).with_context(|| format!("locking {}", path.display()))
        }
    }
}

struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}

/// Tells the service manager, if there is one.
fn tell(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::warn!(%error, "the service manager could not be told");
    }
}

/// Shows the service manager, at half its time-out, that this runtime still moves.
async fn watchdog() {
    let Some(limit) = sd_notify::watchdog_enabled() else { return };
    let mut beats = tokio::time::interval((limit / 2).max(Duration::from_millis(100)));
    loop {
        beats.tick().await;
        tell(&[NotifyState::Watchdog]);
    }
}
