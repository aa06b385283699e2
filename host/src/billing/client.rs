//! The client: signs what it owes, asks agents what that is, and sends cheques until they are
//! acknowledged.
//!
//! One request of a channel is under way at a time, and only so many of all, so that an agent that
//! does not answer holds up nobody else's payments. When a cheque is sent again stands in the
//! database.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use privatix_plugin_api::message::ClientKey;
use serde_json::Value;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};

use super::ALL_EVERY;
use crate::domain::signed::Kind;
use crate::exchange::peer::Peer;
use crate::service::{Refused, Service};
use crate::store::{ChequeRow, StoreError};

/// Requests under way at once.
const AT_ONCE: usize = 64;

/// How often it is looked whether a cheque is due again.
const TICK: Duration = Duration::from_secs(1);

/// The least time between two questions about a channel, and after one in vain.
const ASK_AGAIN: Duration = Duration::from_millis(250);
const ASK_AGAIN_LATER: Duration = Duration::from_secs(5);

/// Pays until shutdown.
pub async fn run(service: Service, peer: Peer, mut shutdown: watch::Receiver<bool>) {
    let mut payer = Payer {
        service,
        peer,
        to_ask: HashSet::new(),
        not_before: HashMap::new(),
        busy: HashSet::new(),
        requests: JoinSet::new(),
    };
    let mut tick = interval(TICK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    // What a node that was killed has left undone may be of channels that are over.
    let mut all_at = Instant::now();
    payer.note(payer.service.bill_all(true).await);
    loop {
        payer.start_requests().await;
        let next_question = payer.next_question();
        tokio::select! {
            _ = tick.tick() => {
                if all_at.elapsed() >= ALL_EVERY {
                    all_at = Instant::now();
                    payer.note(payer.service.bill_all(false).await);
                }
            }
            () = payer.service.billing_wanted() => {
                payer.note(payer.service.bill_changed().await);
            }
            Some(done) = payer.requests.join_next() => payer.done(done.ok()),
            () = sleep_until(next_question) => {}
            _ = async { shutdown.wait_for(|down| *down).await.is_ok() } => return,
        }
    }
}

struct Payer {
    service: Service,
    peer: Peer,
    /// Channels whose agents may have counted more by now.
    to_ask: HashSet<ClientKey>,
    /// When a channel's agent may be asked again.
    not_before: HashMap<ClientKey, Instant>,
    /// Channels with a request under way.
    busy: HashSet<ClientKey>,
    requests: JoinSet<Done>,
}

/// A request that has ended.
struct Done {
    channel: ClientKey,
    /// When its agent may be asked again.
    not_before: Instant,
}

impl Payer {
    fn note(&mut self, asked_for: Result<Vec<ClientKey>, StoreError>) {
        match asked_for {
            Ok(channels) => self.to_ask.extend(channels),
            Err(error) => {
                tracing::error!(error = crate::chain(&error), "channels were not billed");
            }
        }
    }

    /// A request that panicked leaves its channel busy: better unpaid than paid for in a loop.
    fn done(&mut self, done: Option<Done>) {
        let Some(Done { channel, not_before }) = done else { return };
        self.busy.remove(&channel);
        self.not_before.insert(channel, not_before);
    }

    async fn start_requests(&mut self) {
        match self.service.cheques_due().await {
            Ok(cheques) => {
                for cheque in cheques {
                    if self.has_room(cheque.channel) {
                        self.busy.insert(cheque.channel);
                        self.requests.spawn(pay(self.service.clone(), self.peer.clone(), cheque));
                    }
                }
            }
            Err(error) => {
                tracing::error!(error = crate::chain(&error), "unsent cheques were not read");
            }
        }
        let now = Instant::now();
        let ready: Vec<_> =
            self.to_ask.iter().copied().filter(|id| self.may_ask(*id, now)).collect();
        for channel in ready {
            if self.has_room(channel) {
                self.to_ask.remove(&channel);
                self.busy.insert(channel);
                self.requests.spawn(ask(self.service.clone(), self.peer.clone(), channel));
            }
        }
        self.not_before.retain(|_, not_before| *not_before > now);
    }

    fn has_room(&self, channel: ClientKey) -> bool {
        !self.busy.contains(&channel) && self.busy.len() < AT_ONCE
    }

    fn may_ask(&self, channel: ClientKey, now: Instant) -> bool {
        self.not_before.get(&channel).is_none_or(|not_before| *not_before <= now)
    }

    /// When the next channel may be asked about, if it is not busy; far away where there is none.
    fn next_question(&self) -> Instant {
        let now = Instant::now();
        let waiting = self.to_ask.iter().filter(|channel| !self.busy.contains(channel));
        let times = waiting.map(|channel| self.not_before.get(channel).copied().unwrap_or(now));
        times.min().unwrap_or(now + ALL_EVERY)
    }
}

async fn pay(service: Service, peer: Peer, cheque: ChequeRow) -> Done {
    let channel = cheque.channel;
    let sent = send(&service, &peer, &cheque).await;
    if let Err(why) = &sent {
        tracing::warn!(%channel, balance = cheque.balance, why, "a cheque was not acknowledged");
        if let Err(error) = service.cheque_failed(&cheque, why).await {
            tracing::error!(error = crate::chain(&error), "a failure was not noted");
        }
        // Whatever it was, the agent's own signed account says how things stand.
        return ask(service, peer, channel).await;
    }
    Done { channel, not_before: Instant::now() + ASK_AGAIN }
}

async fn send(service: &Service, peer: &Peer, cheque: &ChequeRow) -> Result<(), String> {
    let receiver = service.payment_receiver(cheque.channel).await.map_err(say)?;
    let message: Value =
        serde_json::from_str(&cheque.message).map_err(|error| error.to_string())?;
    let receipt = peer.pay(&receiver, &message).await.map_err(|error| crate::chain(&error))?;
    service.receipt_received(cheque, &receipt).await.map_err(say)
}

async fn ask(service: Service, peer: Peer, channel: ClientKey) -> Done {
    let asked = async {
        let exchange = service.exchange_of(channel).await.map_err(say)?;
        let request = service.request_make(Kind::AccountRequest, channel).map_err(say)?;
        let account = peer.channel(&exchange, channel, "account", &request).await;
        let account = account.map_err(|error| crate::chain(&error))?;
        service.account_received(channel, &account).await.map_err(say)
    };
    let pause = match asked.await {
        Ok(_) => ASK_AGAIN,
        Err(why) => {
            tracing::debug!(%channel, why, "the agent did not say what is owed");
            ASK_AGAIN_LATER
        }
    };
    Done { channel, not_before: Instant::now() + pause }
}

fn say(refused: Refused) -> String {
    refused.to_string()
}
