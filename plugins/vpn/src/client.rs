//! The side that buys: for each channel an OpenVPN client, made from the access message alone.
//!
//! A tunnel is kept up from `start` to `stop`, whatever becomes of the agent. With a kill switch,
//! what belongs into the tunnel does not leave otherwise in all that time, nor after the host was
//! killed. Only one channel can carry everything at a time.

mod agreement;
mod diagnosis;
mod dns;
mod guard;
mod guards;
mod statistics;
mod tunnel;

use std::collections::HashSet;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, Weak};
use std::time::Duration;

use privatix_plugin_api::prelude::*;
use tokio::net::lookup_host;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::sleep;

use self::agreement::{Agreements, Judgement};
use self::guard::Guard;
use self::guards::Guards;
use self::statistics::Statistics;
use self::tunnel::{Board, Order, Tunnel};
use crate::full;
use crate::journal::{Entry, Journal};
use crate::openvpn::Place;
use crate::profile::{Profile, Routes, is_host_address};
use crate::settings::Settings;
use crate::{DEVICES, needs};

/// How often the core is asked whether a held channel is over.
const ANSWER: Duration = Duration::from_secs(5);

/// Why a channel is not started.
#[derive(Debug, thiserror::Error)]
enum StartError {
    #[error("the module is shutting down")]
    Ending,
    #[error(
        "channel {0} carries everything already; stop it first, or set `routes` in [modules.vpn]"
    )]
    Occupied(ClientKey),
    #[error("the agent's host {host} has the address {address}, which is no other machine's")]
    BadAddress { host: String, address: IpAddr },
    #[error("the agent's host {host} has no address")]
    NoAddress {
        host: String,
        #[source]
        source: Option<std::io::Error>,
    },
}

/// The client's module.
pub(crate) struct Client {
    core: Core,
    settings: Settings,
    directory: PathBuf,
    journal: Arc<Journal>,
    guards: Arc<Guards>,
    agreements: Agreements,
    tunnels: Mutex<Option<HashMap<ClientKey, Handle>>>,
    /// Channels that were started and not stopped, whether or not that went well.
    wanted: std::sync::Mutex<HashSet<ClientKey>>,
    /// Whether kill switches of an earlier run have been looked through.
    adopted: AtomicBool,
    /// Whether another generation is to find them.
    handed_over: AtomicBool,
}

/// The module's end of a tunnel.
struct Handle {
    nonce: String,
    everything: bool,
    orders: mpsc::UnboundedSender<Order>,
    task: JoinHandle<()>,
    board: Board,
}

impl Client {
    /// Looks at what is needed and puts back what an earlier run left, but for kill switches:
    /// those hold until their channels are started again, or are found not to be.
    pub(crate) async fn start_up(
        core: Core,
        data_dir: &Path,
        settings: Settings,
    ) -> Result<Self, Error> {
        needs::check(false).await?;
        let journal = Arc::new(Journal::open(data_dir)?);
        let (done, problem) = journal.recover(is_kill_switch).await;
        for what in done {
            tracing::info!(what, "put back what an earlier run had left");
        }
        if let Some(problem) = problem {
            return Err(problem.into());
        }
        let guards = Guards::new(Arc::clone(&journal));
        tokio::spawn(Guards::watch(Arc::downgrade(&guards)));
        Ok(Self {
            core,
            settings,
            agreements: Agreements::open(data_dir)?,
            directory: data_dir.to_owned(),
            journal,
            guards,
            tunnels: Mutex::new(Some(HashMap::new())),
            wanted: std::sync::Mutex::default(),
            adopted: AtomicBool::new(false),
            handed_over: AtomicBool::new(false),
        })
    }

    /// Begins to keep a tunnel, or hands another access message to the one there is.
    pub(crate) async fn start(&self, channel: ClientKey) -> Result<Started, Error> {
        self.want(|wanted| wanted.insert(channel));
        let access = self.core.get_access(channel).await?;
        let profile = Profile::read(&access, &self.settings)?;
        if !self.agreed(channel, &profile.routes).await? {
            // It will be told to stop.
            return Ok(Started::Later);
        }
        let mut tunnels = self.tunnels.lock().await;
        let tunnels = tunnels.as_mut().ok_or(StartError::Ending)?;
        let everything = profile.routes == Routes::Everything;
        let other = tunnels
            .iter()
            .find(|(key, other)| **key != channel && (everything || other.everything));
        if let Some((other, _)) = other {
            return Err(StartError::Occupied(*other).into());
        }
        let known = tunnels.get(&channel).filter(|handle| !handle.task.is_finished());
        if let Some(handle) = known.filter(|handle| handle.nonce == profile.nonce) {
            if handle.board.is_up() {
                return Ok(Started::Ready);
            }
            // It is told to try at once.
            let _ = handle.orders.send(Order::Wake);
            return Ok(Started::Later);
        }
        let addresses = resolve(&profile.host, profile.port, self.known(channel)).await?;
        let device = device(channel);
        let exchange = match &profile.exchange {
            Some((host, port)) if *host == profile.host => Some((addresses.clone(), *port)),
            // Without it, it is reached through the tunnel.
            Some((host, port)) => resolve(host, *port, Vec::new()).await.ok().map(|a| (a, *port)),
            None => None,
        };
        // What the user has named may be reached as it is, also where it is this machine.
        let named = |address: &IpAddr| {
            self.settings.allow_networks.iter().any(|network| network.contains(address))
        };
        let strange = |address: &&IpAddr| !is_host_address(**address) && !named(address);
        if let Some(address) = addresses.iter().find(strange) {
            let (host, address) = (profile.host.clone(), *address);
            return Err(StartError::BadAddress { host, address }.into());
        }
        let guard = Guard::new(channel, &device, &profile, &addresses, exchange, &self.settings);
        self.guards.up(channel, guard).await?;
        let (nonce, place) = (profile.nonce.clone(), Place::new(&self.directory, &device));
        if let Some(handle) = tunnels.get_mut(&channel).filter(|handle| !handle.task.is_finished())
        {
            (handle.nonce, handle.everything) = (nonce, everything);
            // The task is not finished, or will be stopped with its channel.
            let _ = handle.orders.send(Order::Apply(Box::new((profile, addresses))));
            return Ok(Started::Later);
        }
        let (orders, inbox) = mpsc::unbounded_channel();
        let board = Board::default();
        let tunnel = Tunnel {
            core: self.core.clone(),
            channel,
            profile,
            addresses,
            device,
            place,
            set_dns: self.settings.set_dns,
            journal: Arc::clone(&self.journal),
            guards: Arc::clone(&self.guards),
            statistics: Statistics::default(),
            board: board.clone(),
        };
        let task = tokio::spawn(tunnel.run(inbox));
        tunnels.insert(channel, Handle { nonce, everything, orders, task, board });
        Ok(Started::Later)
    }

    /// Whether the user has agreed to what goes through the tunnel. One who has not is asked: the
    /// channel gets the hold `user`, and what protects it stays as it is.
    async fn agreed(&self, channel: ClientKey, routes: &Routes) -> Result<bool, Error> {
        if self.settings.routes.is_some() {
            // The user has said it, and no agent changes that.
            self.agreements.settle(channel, routes)?;
            return Ok(true);
        }
        let Judgement::Ask(question) = self.agreements.judge(channel, routes)? else {
            return Ok(true);
        };
        tracing::warn!(%channel, question, "the user has to agree");
        self.core.hold_channel(channel, &question).await?;
        self.agreements.asked(channel, routes)?;
        Ok(false)
    }

    /// The agent's addresses that a channel's kill switch lets through, perhaps of an earlier run.
    fn known(&self, channel: ClientKey) -> Vec<IpAddr> {
        let addresses = self.journal.all().into_iter().find_map(|entry| match entry {
            Entry::Table { kill_switch: Some(owner), agent, .. } if owner == channel => Some(agent),
            _ => None,
        });
        addresses.unwrap_or_default()
    }

    /// Takes the tunnel down; returns when it is and its session is closed.
    pub(crate) async fn stop(&self, channel: ClientKey, reason: StopReason) -> Result<(), Error> {
        self.want(|wanted| wanted.remove(&channel));
        let handle = self.tunnels.lock().await.as_mut().and_then(|all| all.remove(&channel));
        let lift = reason == StopReason::Terminated || self.agreements.question(channel).is_none();
        if let Some(handle) = handle {
            handle.end(lift).await;
        }
        if reason == StopReason::Terminated {
            self.agreements.forget(channel)?;
        } else if !lift {
            // It was stopped because of what the agent wants, not by its user: what protects it
            // stays, until its user has answered.
            tokio::spawn(await_answer(self.core.clone(), Arc::downgrade(&self.guards), channel));
            return Ok(());
        }
        Ok(self.guards.lift(|owner| owner == channel).await?)
    }

    pub(crate) async fn sessions(&self) -> Result<Vec<ClientKey>, Error> {
        let tunnels = self.tunnels.lock().await;
        let up = tunnels.iter().flatten().filter(|(_, handle)| handle.board.has_session());
        let up = up.map(|(channel, _)| *channel).collect();
        // Asked after the starts of a new run: a channel that was not among them is over.
        if !self.adopted.swap(true, Ordering::SeqCst) {
            let wanted = self.want(|wanted| wanted.clone());
            let open = |owner| self.agreements.question(owner).is_some();
            self.guards.lift(|owner| !wanted.contains(&owner) && !open(owner)).await?;
            for entry in self.journal.all() {
                if let Entry::Table { kill_switch: Some(owner), .. } = entry
                    && !wanted.contains(&owner)
                {
                    let guards = Arc::downgrade(&self.guards);
                    tokio::spawn(await_answer(self.core.clone(), guards, owner));
                }
            }
        }
        Ok(up)
    }

    pub(crate) async fn describe(&self, channel: ClientKey) -> BTreeMap<String, String> {
        let tunnels = self.tunnels.lock().await;
        let handle = tunnels.as_ref().and_then(|tunnels| tunnels.get(&channel));
        let Some(handle) = handle else {
            let question = self.agreements.question(channel);
            return question.map(|text| ("question".to_owned(), text)).into_iter().collect();
        };
        let mut known = handle.board.describe(&device(channel));
        // The tunnel carries IPv4 alone, and its user should see that.
        let held = handle.everything && self.settings.kill_switch;
        let ipv6 = if held { "blocked" } else { "outside the tunnel" };
        known.insert("ipv6".to_owned(), ipv6.to_owned());
        if let Some(trouble) = handle.board.trouble() {
            known.insert("problem".to_owned(), trouble);
        }
        known
    }

    pub(crate) async fn health(&self) -> Health {
        let tunnels = self.tunnels.lock().await;
        let troubles = tunnels.iter().flatten().filter_map(|(channel, handle)| {
            Some(format!("{channel}: {}", handle.board.trouble()?))
        });
        let mut troubles: Vec<_> = troubles.chain(self.guards.trouble()).collect();
        troubles.sort();
        if troubles.is_empty() { Health::Healthy } else { Health::Degraded(troubles.join("; ")) }
    }

    fn want<T>(&self, change: impl FnOnce(&mut HashSet<ClientKey>) -> T) -> T {
        change(&mut self.wanted.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Kill switches are left standing by the `shutdown` that follows.
    pub(crate) fn hand_over(&self) {
        self.handed_over.store(true, Ordering::SeqCst);
    }

    pub(crate) async fn shutdown(&self) -> Result<(), Error> {
        let handles = self.tunnels.lock().await.take().into_iter().flatten();
        let ends: Vec<_> = handles.map(|(_, handle)| tokio::spawn(handle.end(false))).collect();
        for end in ends {
            // A panic has been logged.
            let _ = end.await;
        }
        self.guards.leave().await;
        let handed_over = self.handed_over.load(Ordering::SeqCst);
        let keep = |entry: &Entry| handed_over && is_kill_switch(entry);
        let (_, problem) = self.journal.recover(keep).await;
        problem.map_or(Ok(()), |problem| Err(problem.into()))
    }
}

/// Lifts the guard of a held channel once the channel is over: a channel that is terminated while
/// it is suspended is no affair of its module any more, so the core does not tell it.
async fn await_answer(core: Core, guards: Weak<Guards>, channel: ClientKey) {
    loop {
        sleep(ANSWER).await;
        let Some(guards) = guards.upgrade() else { return };
        match core.service_ready(channel).await {
            // Another generation will ask, or has asked.
            Err(error) if error.name == ErrorName::AccessDenied => return,
            Ok(Status::Terminating | Status::Terminated) => {
                tracing::info!(%channel, "the channel is over: its guard is lifted");
                match guards.lift(|owner| owner == channel).await {
                    Ok(()) => return,
                    Err(error) => {
                        tracing::error!(%channel, error = full(&error), "the guard was not lifted");
                    }
                }
            }
            // It was started, or will be: from now on it is as any other.
            Ok(status) if status.allows_use() => return,
            Ok(_) | Err(_) => {}
        }
    }
}

impl Handle {
    async fn end(self, lift: bool) {
        let (done, gone) = oneshot::channel();
        if self.orders.send(Order::Stop { done, lift }).is_ok() {
            let _ = gone.await;
        }
        // A panic has been logged.
        let _ = self.task.await;
    }
}

fn is_kill_switch(entry: &Entry) -> bool {
    matches!(
        entry,
        Entry::Table { kill_switch: Some(_), .. } | Entry::Routing { kill_switch: Some(_), .. }
    )
}

/// The name of a channel's network device.
fn device(channel: ClientKey) -> String {
    let id = channel.0.simple().to_string();
    format!("{DEVICES}{}", &id[..10])
}

/// The addresses of a host; those known before where a kill switch keeps names from being resolved.
async fn resolve(host: &str, port: u16, before: Vec<IpAddr>) -> Result<Vec<IpAddr>, StartError> {
    if let Ok(address) = host.parse() {
        return Ok(vec![address]);
    }
    let no_address = |source| StartError::NoAddress { host: host.to_owned(), source };
    let found: Result<Vec<IpAddr>, _> =
        lookup_host((host, port)).await.map(|found| found.map(|address| address.ip()).collect());
    match found {
        Ok(mut addresses) if !addresses.is_empty() => {
            addresses.dedup();
            Ok(addresses)
        }
        _ if !before.is_empty() => Ok(before),
        Ok(_) => Err(no_address(None)),
        Err(source) => Err(no_address(Some(source))),
    }
}
