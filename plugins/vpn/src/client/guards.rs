//! The guards that stand, one a channel; and the task that sees to it that they do.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use privatix_plugin_api::message::ClientKey;
use tokio::sync::Mutex;
use tokio::time::{MissedTickBehavior, interval};

use super::guard::Guard;
use crate::full;
use crate::journal::{Entry, Journal, JournalError};
use crate::routing::{self, BadAddress, Routing};
use crate::run::{self, RunError};
use crate::watch::{Restored, Watch};

/// How often the guards are looked at when nothing was heard of a change.
const LOOK: Duration = Duration::from_secs(10);

/// Why a tunnel's device is not used.
#[derive(Debug, thiserror::Error)]
pub(super) enum LinkError {
    #[error(transparent)]
    Address(#[from] BadAddress),
    #[error("the tunnel's device cannot be set up")]
    Run(#[from] RunError),
    #[error("the channel has no guard")]
    NoGuard,
}

struct Standing {
    guard: Guard,
    /// Whether the device is set up.
    linked: bool,
    /// The kill switch's table as the kernel shows it.
    shown: Option<String>,
}

/// All guards.
pub(super) struct Guards {
    journal: Arc<Journal>,
    standing: Mutex<HashMap<ClientKey, Standing>>,
    restored: std::sync::Mutex<Restored>,
    trouble: std::sync::Mutex<Option<String>>,
    /// Without a machine, for tests: nothing is set up.
    in_words: bool,
}

impl Guards {
    pub(super) fn new(journal: Arc<Journal>) -> Arc<Self> {
        Arc::new(Self::with(journal, false))
    }

    fn with(journal: Arc<Journal>, in_words: bool) -> Self {
        let (standing, restored, trouble) = <_>::default();
        Self { journal, standing, restored, trouble, in_words }
    }

    #[cfg(test)]
    pub(super) fn in_words(journal: Arc<Journal>) -> Arc<Self> {
        Arc::new(Self::with(journal, true))
    }

    /// Raises a guard, in place of an earlier one of the channel; there is no moment without one.
    pub(super) async fn up(&self, channel: ClientKey, guard: Guard) -> Result<(), JournalError> {
        let mut standing = self.standing.lock().await;
        let before = self.routing_of(guard.routing.table);
        let kill_switch = guard.rules.is_some().then_some(channel);
        if guard.rules.is_some() {
            let (name, agent) = (guard.table.clone(), guard.agent.clone());
            self.journal.note(Entry::Table { name, kill_switch, agent })?;
        }
        self.journal.note(Entry::Routing { routing: guard.routing.clone(), kill_switch })?;
        let mut shown = None;
        if let Some(rules) = &guard.rules {
            run::nft(rules).await?;
            shown = show(&guard.table).await?;
        }
        guard.routing.raise(before.as_ref()).await?;
        // A device of before is set up anew when the tunnel is.
        standing.insert(channel, Standing { guard, linked: false, shown });
        Ok(())
    }

    /// The routing that is noted with a table, perhaps by an earlier run.
    fn routing_of(&self, table: u32) -> Option<Routing> {
        self.journal.all().into_iter().find_map(|entry| match entry {
            Entry::Routing { routing, .. } if routing.table == table => Some(routing),
            _ => None,
        })
    }

    /// Sets up the device of a tunnel that is up.
    pub(super) async fn link(
        &self,
        channel: ClientKey,
        address: Ipv4Addr,
    ) -> Result<(), LinkError> {
        if self.in_words {
            return Ok(routing::check_address(address, &[], &[], &[])?);
        }
        let mut standing = self.standing.lock().await;
        let standing = standing.get_mut(&channel).ok_or(LinkError::NoGuard)?;
        let Guard { agent, allowed, taken, routing, .. } = &standing.guard;
        let server_is_here = agent.iter().all(IpAddr::is_loopback);
        let local = routing::local_networks(server_is_here).await?;
        routing::check_address(address, allowed, taken, &local)?;
        routing.link(address).await?;
        standing.linked = true;
        Ok(())
    }

    /// Nothing is to pass the device any more, if it is still there.
    pub(super) async fn unlink(&self, channel: ClientKey) {
        let mut standing = self.standing.lock().await;
        let Some(standing) = standing.get_mut(&channel) else { return };
        if std::mem::take(&mut standing.linked) {
            // With its process it may be gone already.
            let device = &standing.guard.routing.device;
            let _ = run::run("ip", &["link", "set", "dev", device, "down"]).await;
        }
    }

    /// Takes guards away, those of an earlier run among them.
    pub(super) async fn lift(&self, of: impl Fn(ClientKey) -> bool) -> Result<(), JournalError> {
        let mut standing = self.standing.lock().await;
        let gone: Vec<_> = standing
            .iter()
            .filter(|(channel, _)| of(**channel))
            .map(|(channel, standing)| (*channel, standing.guard.routing.table))
            .collect();
        for entry in self.journal.all() {
            let lifted = match &entry {
                Entry::Table { kill_switch: Some(channel), .. }
                | Entry::Routing { kill_switch: Some(channel), .. } => of(*channel),
                Entry::Routing { routing, kill_switch: None } => {
                    gone.iter().any(|(_, table)| *table == routing.table)
                }
                _ => false,
            };
            if lifted {
                self.journal.undo(&entry).await?;
            }
        }
        for (channel, _) in gone {
            standing.remove(&channel);
        }
        Ok(())
    }

    /// Those that stand are not looked after any more.
    pub(super) async fn leave(&self) {
        self.standing.lock().await.clear();
    }

    /// What is to be told of the guards.
    pub(super) fn trouble(&self) -> Option<String> {
        let trouble = self.trouble.lock().unwrap_or_else(PoisonError::into_inner);
        let restored = self.restored.lock().unwrap_or_else(PoisonError::into_inner);
        trouble.clone().or_else(|| restored.lately().map(str::to_owned))
    }

    /// Looks after the guards until nobody else holds them.
    pub(super) async fn watch(guards: std::sync::Weak<Self>) {
        let watch = Watch::firewall_and_routing()
            .inspect_err(|error| tracing::warn!(%error, "the firewall is looked at, not watched"))
            .ok();
        let mut look = interval(if watch.is_some() { LOOK } else { Duration::from_secs(1) });
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            match &watch {
                Some(watch) => tokio::select! {
                    () = watch.changed() => {}
                    _ = look.tick() => {}
                },
                None => {
                    look.tick().await;
                }
            }
            let Some(guards) = guards.upgrade() else { return };
            guards.verify().await;
        }
    }

    async fn verify(&self) {
        let mut standing = self.standing.lock().await;
        let mut trouble = None;
        for (channel, standing) in &mut *standing {
            match standing.restore().await {
                Ok(None) => {}
                Ok(Some(what)) => {
                    let what = format!("{channel}: another program has removed {what}; restored");
                    tracing::warn!("{what}");
                    let mut restored = self.restored.lock().unwrap_or_else(PoisonError::into_inner);
                    restored.note(&what);
                }
                Err(error) => {
                    let why = full(&error);
                    tracing::error!(%channel, error = why, "the guard does not stand");
                    trouble = Some(format!("{channel}: the guard does not stand: {why}"));
                }
            }
        }
        *self.trouble.lock().unwrap_or_else(PoisonError::into_inner) = trouble;
    }
}

impl Standing {
    /// Puts back what is missing; what it was.
    async fn restore(&mut self) -> Result<Option<&'static str>, RunError> {
        let mut missing = None;
        if let Some(rules) = &self.guard.rules
            && show(&self.guard.table).await? != self.shown
        {
            run::nft(rules).await?;
            self.shown = show(&self.guard.table).await?;
            missing = Some("the kill switch's rules from the firewall");
        }
        let routing = &self.guard.routing;
        // A device that has just gone took its routes along, and the tunnel will say so.
        let device = Path::new("/proc/sys/net/ipv4/conf").join(&routing.device);
        let linked = self.linked && device.exists();
        if !routing.stands(linked).await? {
            routing.raise(None).await?;
            if linked {
                routing.lead_in().await?;
            }
            missing = missing.or(Some("rules or routes of the tunnel"));
        }
        Ok(missing)
    }
}

/// A table as the kernel has it; `None` if there is none.
async fn show(table: &str) -> Result<Option<String>, RunError> {
    match run::run("nft", &["-s", "list", "table", "inet", table]).await {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.to_string().contains("No such file") => Ok(None),
        Err(error) => Err(error),
    }
}
