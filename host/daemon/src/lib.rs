//! A running host, from its configuration to its last log line.

#![forbid(unsafe_code)]

pub mod billing;
pub mod home;
mod manager;

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, IsTerminal};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use sd_notify::NotifyState;
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;

use privatix_plugin_api::manifest::Role;

use crate::manager::tell;
use privatix_base::config::Config;
use privatix_base::{config, logging};
use privatix_core::{AgentSettings, ClientSettings, Party, PartySettings, Service, Settings};
use privatix_domain::billing::Tolerance;
use privatix_domain::identity::PublicKey;
use privatix_domain::offering;
use privatix_exchange::peer::Peer;
use privatix_exchange::{identity, server, sync};
use privatix_modules::probe::Prober;
use privatix_modules::{Facades, Modules, load};
use privatix_operator::Api;
use privatix_standalone::Desk;
use privatix_store::Store;
use privatix_tls::Certificate;

/// Runs the host of a home directory until it is told to stop.
///
/// # Errors
/// Whatever keeps it from running, in one chain.
pub async fn run(home: &Path) -> anyhow::Result<()> {
    home::check(home)?;
    let config = Config::load(home, config::environment()?)?;
    logging::init(&config.log, io::stderr().is_terminal())?;
    let _lock = lock(home).await?;
    raise_descriptors();
    let mut signals = Signals::new().context("listening for signals")?;
    let identity = identity::read(&home.join(identity::FILE_NAME))?;
    let store = home::open_database(&config.database).await?;
    let key = identity.public().signing;
    home::claim_database(&store, &config.database, &key, config.role).await?;
    let endpoint = endpoint(&config).await?;
    let programs = standalone_endpoint(&config).await?;
    check_allowlist(&config)?;
    let (settings, own) = settings(&config, endpoint.as_ref().map(|endpoint| endpoint.url.clone()));
    let service = Service::new(store.clone(), identity, settings, own);
    let (upkeep, party) = (service.upkeep(), service.party());
    upkeep.clock_followed().await.context("following the clock")?;
    if let Party::Agent(agent) = &party {
        agent.settings_noted().await.context("noting the agent's addresses")?;
    }
    upkeep.sessions_recovered().await.context("ending sessions of the last run")?;
    let peer = peer(&config)?;
    // Nothing fails any more once modules have been started.
    let listener = privatix_operator::listen(&config.socket)?;
    let words = config.home.join(LAST_WORDS);
    // What cannot be read says nothing.
    let last = std::fs::read_to_string(&words).unwrap_or_default();
    let watching = load::watch(&words).with_context(|| format!("opening {}", words.display()))?;
    upkeep.run_begun(&boot(), &last).await.context("judging how the last run ended")?;
    let core =
        Facades { calls: service.modules(), outbox: service.outbox(), upkeep: upkeep.clone() };
    let modules = match Modules::start(&config, core, Prober::this_binary()) {
        Ok(modules) => modules,
        Err(error) => {
            upkeep.run_ended().await.context("noting the end of the run")?;
            return Err(error.into());
        }
    };
    let api = Api {
        registry: modules.registry.clone(),
        router: modules.router.clone(),
        operator: service.operator(),
        peer: peer.clone(),
    };
    let desk = Desk::new(service.modules(), modules.router.clone());
    let (stop, stopped) = watch::channel(false);
    let registry = modules.registry.clone();
    let operator = tokio::spawn(privatix_operator::serve(listener, api, until(stopped.clone())));
    let billing = tokio::spawn(billing_run(party.clone(), peer.clone(), stopped.clone()));
    let standalone = tokio::spawn(standalone_run(programs, desk, stopped.clone()));
    let exchange = tokio::spawn(exchange_run(endpoint, party, peer, config.clone(), stopped));
    tell(&[NotifyState::Ready]);
    let (role, home) = (config.role.as_str(), config.home.display().to_string());
    tracing::info!(role, home, version = env!("CARGO_PKG_VERSION"), "running");
    let watchdog = tokio::spawn(manager::watchdog(store.clone()));
    let database = tokio::spawn(manager::watch_database(store.clone()));

    let name = signals.next().await;
    tracing::info!(signal = name, "stopping");
    tell(&[NotifyState::Stopping]);
    watchdog.abort();
    database.abort();
    let failures = store.failures();
    let graceful = tokio::select! {
        ended = tokio::time::timeout(config.shutdown_timeout, modules.stop()) => ended.is_ok(),
        again = signals.next() => {
            tracing::warn!(signal = again, "told to stop again; not waiting any longer");
            false
        }
    };
    // No request is answered from here on; what was under way was for modules that are gone.
    stop.send_replace(true);
    operator.abort();
    standalone.abort();
    exchange.abort();
    billing.abort();
    // The socket may have been replaced by hand; then there is nothing to remove.
    let _ = std::fs::remove_file(&config.socket);
    let saved = saved(&store, failures).await;
    match tokio::time::timeout(CLOSING, upkeep.run_ended()).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => {
            tracing::warn!(
                error = privatix_plugin_api::chain(&error),
                "the end of the run was not noted"
            );
        }
        Err(_) => tracing::warn!("the end of the run was not noted in time"),
    }
    // From here on the process ends by itself.
    drop(watching);
    // A write that waits for another program must not keep this process alive.
    if tokio::time::timeout(CLOSING, store.close()).await.is_err() {
        tracing::warn!("the database was still in use; its log is folded in at the next start");
    }
    if !graceful {
        bail!("modules were still running after {:?}", config.shutdown_timeout);
    }
    saved?;
    match registry.unreported() {
        0 => {}
        lost => bail!(
            "{lost} units of usage were not saved, because modules could not report them; the log \
             names the channels. They will not be paid for"
        ),
    }
    tracing::info!("stopped");
    Ok(())
}

/// How long the database may take at the end, for a last write and for being closed.
const CLOSING: Duration = Duration::from_secs(5);

/// Whether what modules reported while they were stopped is on disk.
async fn saved(store: &Store, failures_before: u64) -> anyhow::Result<()> {
    const LOST: &str = "usage that modules reported at the end may be lost";
    match tokio::time::timeout(CLOSING, store.probe()).await {
        Err(_) => bail!("the database could not be written while the host stopped; {LOST}"),
        Ok(Err(error)) => Err(error).with_context(|| {
            format!("the database could not be written while the host stopped; {LOST}")
        }),
        Ok(Ok(())) => match store.failures() - failures_before {
            0 => Ok(()),
            failed => {
                bail!("{failed} writes to the database failed while the host stopped; {LOST}")
            }
        },
    }
}

/// The file in the home that says how the process ended, if a module ended it.
const LAST_WORDS: &str = "last-words";

/// Names this run of the machine.
fn boot() -> String {
    // Where the kernel does not say, every end counts as one within the same run.
    let id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    id.trim().to_owned()
}

/// Where an agent's clients come.
struct Endpoint {
    listener: TcpListener,
    /// Under which they reach it.
    url: String,
    tls: Option<Arc<Certificate>>,
}

async fn endpoint(config: &Config) -> anyhow::Result<Option<Endpoint>> {
    if config.role != Role::Agent {
        return Ok(None);
    }
    let files = (&config.exchange.tls_cert, &config.exchange.tls_key);
    let tls = certificate("exchange", files)?;
    let address = config.exchange.listen;
    let listener = TcpListener::bind(address).await;
    let listener = listener.with_context(|| format!("listening for clients on {address}"))?;
    let scheme = if tls.is_some() { "https" } else { "http" };
    let url = match config.exchange.url.trim_end_matches('/') {
        "" if address.ip().is_unspecified() => {
            bail!(
                "exchange.url is needed beside exchange.listen = \"{address}\": it tells clients \
                   where to find this agent"
            )
        }
        "" => format!("{scheme}://{}", listener.local_addr()?),
        url if tls.is_some() && !url.starts_with("https://") => {
            bail!(
                "exchange.url = {url:?} has to begin with https:// where exchange.tls_cert is set"
            )
        }
        url => url.to_owned(),
    };
    let parsed = offering::check_exchange(&url);
    let parsed = parsed.with_context(|| format!("exchange.url = {url:?}"))?;
    if let Some(host) = parsed.host_str()
        && tls.as_ref().is_some_and(|tls| !tls.covers(host))
    {
        tracing::warn!(url, "exchange.tls_cert is not for this name; clients will refuse it");
    }
    tracing::info!(url, listen = %listener.local_addr()?, "listening for clients");
    Ok(Some(Endpoint { listener, url, tls }))
}

fn certificate(
    section: &str,
    files: (&Option<PathBuf>, &Option<PathBuf>),
) -> anyhow::Result<Option<Arc<Certificate>>> {
    let (cert, key) = match files {
        (None, None) => return Ok(None),
        (Some(cert), Some(key)) => (cert.clone(), key.clone()),
        (Some(_), None) => bail!("{section}.tls_key is needed beside {section}.tls_cert"),
        (None, Some(_)) => bail!("{section}.tls_cert is needed beside {section}.tls_key"),
    };
    let loaded = Certificate::load(privatix_tls::Files { cert, key });
    let loaded = loaded.with_context(|| format!("{section}.tls_cert and {section}.tls_key"))?;
    Ok(Some(Arc::new(loaded)))
}

/// Where standalone modules come. What they show is a password, so beyond loopback nobody may listen.
async fn standalone_endpoint(
    config: &Config,
) -> anyhow::Result<Option<privatix_standalone::Endpoint>> {
    let config = &config.standalone;
    if !config.enabled {
        return Ok(None);
    }
    let tls = certificate("standalone", (&config.tls_cert, &config.tls_key))?;
    let address = config.listen;
    if tls.is_none() && !address.ip().is_loopback() {
        bail!(
            "standalone.listen = \"{address}\" is not loopback: it needs standalone.tls_cert and \
             standalone.tls_key"
        );
    }
    let listener = TcpListener::bind(address).await;
    let listener =
        listener.with_context(|| format!("listening for standalone modules on {address}"))?;
    let scheme = if tls.is_some() { "https" } else { "http" };
    let url = format!("{scheme}://{}", listener.local_addr()?);
    tracing::info!(url, "listening for standalone modules");
    Ok(Some(privatix_standalone::Endpoint { listener, tls, connections: config.connections }))
}

async fn standalone_run(
    endpoint: Option<privatix_standalone::Endpoint>,
    desk: Desk,
    stopped: watch::Receiver<bool>,
) {
    let Some(endpoint) = endpoint else { return };
    let renewed = follow(endpoint.tls.clone());
    tokio::select! {
        () = privatix_standalone::serve(endpoint, desk, stopped) => {}
        () = renewed => {}
    }
}

/// Uses new certificates as they come; for ever.
async fn follow(tls: Option<Arc<Certificate>>) {
    match tls {
        Some(tls) => tls.follow().await,
        None => std::future::pending().await,
    }
}

/// The way to agents; an agent has none to go to.
fn peer(config: &Config) -> anyhow::Result<Peer> {
    let trust = match config.role {
        Role::Agent => privatix_tls::nobody(),
        Role::Client => privatix_tls::system(config.client.ca_file.as_deref()),
    };
    Peer::new(trust.context("client.ca_file")?).context("preparing the way to agents")
}

/// A key with a typing error would otherwise be a client whose orders are refused at night.
fn check_allowlist(config: &Config) -> anyhow::Result<()> {
    for key in &config.agent.allowlist {
        key.parse::<PublicKey>().with_context(|| format!("agent.allowlist: {key:?} is no key"))?;
    }
    Ok(())
}

/// What the core is told of a configuration, and of an agent's URL.
pub fn settings(config: &Config, exchange: Option<String>) -> (Settings, PartySettings) {
    let (agent, client) = (&config.agent, &config.client);
    let endpoint = agent.service_endpoint_address.clone();
    let settings = Settings {
        activation_timeout: config.channels.activation_timeout,
        max_unreported: config.channels.max_unreported,
    };
    let own = match config.role {
        Role::Agent => PartySettings::Agent(AgentSettings {
            first_payment_timeout: config.channels.first_payment_timeout,
            exchange: exchange.unwrap_or_default(),
            orders: agent.orders,
            allowlist: agent.allowlist.clone(),
            max_channels_per_client: agent.max_channels_per_client,
            max_orders_per_hour: agent.max_orders_per_hour,
            max_waiting_orders_per_client: agent.max_waiting_orders_per_client,
            max_waiting_orders: agent.max_waiting_orders,
            service_endpoint_address: (!endpoint.is_empty()).then_some(endpoint),
        }),
        Role::Client => PartySettings::Client(ClientSettings {
            allow_foreign_payment_receiver: client.allow_foreign_payment_receiver,
            tolerance: Tolerance {
                percent: client.tolerance,
                bytes: client.tolerance_bytes,
                seconds: client.tolerance_seconds,
            },
        }),
    };
    (settings, own)
}

/// An agent answers its clients; a client keeps up with its agents.
async fn exchange_run(
    endpoint: Option<Endpoint>,
    party: Party,
    peer: Peer,
    config: Config,
    stopped: watch::Receiver<bool>,
) {
    let agent = match party {
        Party::Agent(agent) => agent,
        Party::Client(client) => {
            return sync::run(client, peer, config.client.poll_interval, stopped).await;
        }
    };
    let Some(Endpoint { listener, tls, .. }) = endpoint else { return };
    let limits = server::Limits {
        requests_per_minute: config.exchange.requests_per_minute,
        connections_per_address: config.exchange.connections_per_address,
    };
    let renewed = follow(tls.clone());
    tokio::select! {
        () = server::serve(listener, agent, limits, tls.clone(), until(stopped)) => {}
        () = renewed => {}
    }
}

async fn billing_run(party: Party, peer: Peer, stopped: watch::Receiver<bool>) {
    match party {
        Party::Agent(agent) => billing::agent::run(agent, stopped).await,
        Party::Client(client) => billing::client::run(client, peer, stopped).await,
    }
}

async fn until(mut stopped: watch::Receiver<bool>) {
    // Dropped is as good as said.
    let _ = stopped.wait_for(|stopped| *stopped).await;
}

/// Each connection takes descriptors, and the limit that processes usually start with is there for
/// programs that do not know what to do with more.
fn raise_descriptors() {
    let raised = getrlimit(Resource::RLIMIT_NOFILE).and_then(|(soft, hard)| {
        if soft < hard { setrlimit(Resource::RLIMIT_NOFILE, hard, hard) } else { Ok(()) }
    });
    if let Err(error) = raised {
        tracing::warn!(%error, "the limit of file descriptors could not be raised");
    }
}

/// How long a lock is waited for.
const LOCK_GRACE: Duration = Duration::from_secs(3);

/// One host a home directory. The lock of a host that was killed may live a moment longer than it:
/// in a child that was just being started and has not let go of it yet.
pub async fn lock(home: &Path) -> anyhow::Result<File> {
    let path = home.join("privatix.lock");
    let file = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(&path);
    let file = file.with_context(|| format!("opening {}", path.display()))?;
    let until = Instant::now() + LOCK_GRACE;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::WouldBlock) if Instant::now() < until => {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            Err(TryLockError::WouldBlock) => {
                bail!("a host is already running in {}", home.display())
            }
            Err(TryLockError::Error(error)) => {
                return Err(error).with_context(|| format!("locking {}", path.display()));
            }
        }
    }
}

struct Signals {
    terminate: Signal,
    interrupt: Signal,
    /// Never waited for: that it is listened to makes a file that may not grow any more an error of
    /// the write instead of the process's end.
    _file_size: Signal,
}

impl Signals {
    fn new() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            _file_size: signal(SignalKind::from_raw(libc::SIGXFSZ))?,
        })
    }

    async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}
