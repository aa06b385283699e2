//! The client's reconciler: sends orders that have no answer, asks about live channels, fetches
//! access messages, and tells agents of channels that were ended here.
//!
//! It takes no input: what is to be done follows from the database, so a client that was offline
//! catches up. Woken by changes and by a timer.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use privatix_plugin_api::message::ClientKey;
use serde_json::Value;
use tokio::sync::watch;
use tokio::time::Instant;

use super::peer::{Peer, PeerError};
use crate::domain::signed::Kind;
use crate::service::{Followed, Obstacle, Refused, Service};

/// An agent that does not answer is asked less and less often, up to this.
const RARELY: Duration = Duration::from_secs(60);

/// Keeps a client's channels up to date until shutdown.
pub async fn run(
    service: Service,
    peer: Peer,
    interval: Duration,
    mut shutdown: watch::Receiver<bool>,
) {
    let mut changes = service.outbox();
    let mut sync = Sync { service, peer, interval, pauses: HashMap::new(), away: HashSet::new() };
    loop {
        changes.borrow_and_update();
        sync.round().await;
        tokio::select! {
            _ = changes.changed() => {}
            () = tokio::time::sleep(interval) => {}
            _ = async { shutdown.wait_for(|down| *down).await.is_ok() } => return,
        }
    }
}

struct Sync {
    service: Service,
    peer: Peer,
    interval: Duration,
    /// When to ask next, by order or channel.
    pauses: HashMap<String, Pause>,
    /// Agents that were not reached in this round, by URL: one that is away holds up the others
    /// once, not once a channel.
    away: HashSet<String>,
}

/// Why a channel is not up to date.
enum Trouble {
    /// Its agent was not reached.
    Away(String),
    /// Anything else.
    Other(String),
}

struct Pause {
    until: Instant,
    failures: u32,
}

impl Sync {
    async fn round(&mut self) {
        self.away.clear();
        match self.service.orders_waiting().await {
            Ok(orders) => {
                for (hash, message, exchange) in orders {
                    self.order(&hash, &message, &exchange).await;
                }
            }
            Err(error) => tracing::error!(%error, "orders were not sent"),
        }
        match self.service.channels_followed().await {
            Ok(channels) => {
                for channel in channels {
                    self.channel(&channel).await;
                }
            }
            Err(error) => tracing::error!(%error, "channels were not followed"),
        }
    }

    async fn order(&mut self, hash: &str, message: &Value, exchange: &str) {
        if self.pauses(hash) || self.away.contains(exchange) {
            return;
        }
        match self.peer.order(exchange, message).await {
            Ok(Some(reply)) => {
                self.settle(hash);
                if let Err(error) = self.service.order_replied(hash, &reply).await {
                    tracing::error!(order = hash, %error, "the agent's reply was refused");
                    self.service.progress_note(hash, Obstacle::NotNow, error.to_string());
                    self.fail(hash);
                }
            }
            Ok(None) => {
                let text = "the agent's operator has to decide".to_owned();
                self.service.progress_note(hash, Obstacle::Deciding, text);
                self.settle(hash);
            }
            Err(error) => {
                if let PeerError::Refused(_, message) = &error {
                    match self.service.order_refused(hash, message).await {
                        Ok(()) => return self.settle(hash),
                        // Not the agent's word, or not its last one.
                        Err(why) => tracing::debug!(order = hash, %why, "not refused for good"),
                    }
                }
                if error.is_unreached() {
                    self.away.insert(exchange.to_owned());
                }
                self.note(hash, &error);
                tracing::debug!(order = hash, error = crate::chain(&error), "order not answered");
                self.fail(hash);
            }
        }
    }

    /// What keeps an order, for whoever looks.
    fn note(&self, hash: &str, error: &PeerError) {
        let obstacle = if error.is_unreached() { Obstacle::Unreached } else { Obstacle::NotNow };
        self.service.progress_note(hash, obstacle, crate::chain(error));
    }

    async fn channel(&mut self, followed: &Followed) {
        let name = followed.channel.to_string();
        // A channel without its access message, or ended here, does not wait for its turn.
        let urgent = followed.serial == 0 || followed.ended;
        if self.away.contains(&followed.exchange) {
            return;
        }
        if self.pauses(&name) && !(urgent && self.is_well(&name)) {
            return;
        }
        match self.follow(followed).await {
            Ok(()) => {
                self.service.progress_clear(&name);
                self.settle(&name);
            }
            Err(trouble) => {
                let (obstacle, error) = match trouble {
                    Trouble::Away(error) => {
                        self.away.insert(followed.exchange.clone());
                        (Obstacle::Unreached, error)
                    }
                    Trouble::Other(error) => (Obstacle::NotNow, error),
                };
                self.service.progress_note(&name, obstacle, error.clone());
                tracing::debug!(channel = name, error, "channel not followed");
                self.fail(&name);
            }
        }
    }

    async fn follow(&self, followed: &Followed) -> Result<(), Trouble> {
        let Followed { channel, exchange, .. } = followed;
        let (what, kind) = if followed.ended {
            ("terminate", Kind::TerminateRequest)
        } else {
            ("account", Kind::AccountRequest)
        };
        let account = self.ask(exchange, *channel, what, kind).await?;
        let newer = self.service.account_received(*channel, &account).await.map_err(say)?;
        if newer || (followed.serial == 0 && !followed.ended) {
            let envelope = self.ask(exchange, *channel, "access", Kind::AccessRequest).await?;
            self.service.access_received(*channel, &envelope).await.map_err(|error| {
                tracing::error!(%channel, %error, "an access message was refused");
                say(error)
            })?;
        }
        Ok(())
    }

    async fn ask(
        &self,
        exchange: &str,
        channel: ClientKey,
        what: &str,
        kind: Kind,
    ) -> Result<Value, Trouble> {
        let request = self.service.request_make(kind, channel).map_err(say)?;
        let answer = self.peer.channel(exchange, channel, what, &request).await;
        answer.map_err(|error| match error.is_unreached() {
            true => Trouble::Away(crate::chain(&error)),
            false => Trouble::Other(crate::chain(&error)),
        })
    }

    fn pauses(&self, name: &str) -> bool {
        self.pauses.get(name).is_some_and(|pause| Instant::now() < pause.until)
    }

    fn is_well(&self, name: &str) -> bool {
        self.pauses.get(name).is_none_or(|pause| pause.failures == 0)
    }

    fn settle(&mut self, name: &str) {
        let until = Instant::now() + self.interval;
        self.pauses.insert(name.to_owned(), Pause { until, failures: 0 });
    }

    fn fail(&mut self, name: &str) {
        let failures = self.pauses.get(name).map_or(0, |pause| pause.failures).saturating_add(1);
        let pause = self.interval.saturating_mul(1 << failures.min(8)).min(RARELY);
        self.pauses.insert(name.to_owned(), Pause { until: Instant::now() + pause, failures });
    }
}

fn say(error: Refused) -> Trouble {
    Trouble::Other(error.to_string())
}
