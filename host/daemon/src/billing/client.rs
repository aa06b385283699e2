//! The client: signs what it owes, asks agents what that is, and sends cheques until they are
//! acknowledged.
//!
//! One request of a channel is under way at a time, only so many of an agent's, and only so many of
//! all, so that an agent that does not answer holds up nobody else's payments. When a cheque is sent
//! again stands in the database; where that cannot be noted, in memory.

use std::collections::HashMap;
use std::time::Duration;

use privatix_plugin_api::message::ClientKey;
use serde_json::Value;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};

use super::ALL_EVERY;
use privatix_base::backoff::Backoff;
use privatix_base::condition::Condition;
use privatix_core::{ClientApi, Question, Refused};
use privatix_domain::signed::Kind;
use privatix_exchange::peer::Peer;
use privatix_store::{ChequeRow, DueCheque, StoreError};

/// Requests under way at once, and of those to one agent.
const AT_ONCE: usize = 256;
const AT_ONE_AGENT: usize = 8;

/// How often it is looked whether a cheque is due again.
const TICK: Duration = Duration::from_secs(1);

/// The least time between two questions about a channel, and between two payments of it.
const AGAIN: Duration = Duration::from_millis(250);

/// The least time after a question in vain.
const ASK_AGAIN_LATER: Duration = Duration::from_secs(5);

/// Pays until shutdown.
pub async fn run(client: ClientApi, peer: Peer, mut shutdown: watch::Receiver<bool>) {
    let mut payer = Payer {
        client,
        peer,
        to_ask: HashMap::new(),
        paces: HashMap::new(),
        busy: HashMap::new(),
        requests: JoinSet::new(),
        unsaved: Backoff::default(),
        unbilled: Condition::new("channels are not billed"),
        unread: Condition::new("unsent cheques are not read"),
        unnoted: Condition::new("it is not noted when cheques are sent again"),
    };
    let mut tick = interval(TICK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    // What a host that was killed has left undone may be of channels that are over.
    let mut all_at = Instant::now();
    let mut over_too = !payer.note(payer.client.bill_all(true).await);
    loop {
        let next_payment = payer.pay_what_is_due().await;
        payer.ask_what_is_owed();
        let next = payer.next_question().min(next_payment.unwrap_or_else(far));
        tokio::select! {
            _ = tick.tick() => {
                if all_at.elapsed() >= ALL_EVERY {
                    all_at = Instant::now();
                    over_too &= !payer.note(payer.client.bill_all(over_too).await);
                }
            }
            () = payer.client.billing_wanted() => {
                payer.note(payer.client.bill_changed().await);
            }
            Some(done) = payer.requests.join_next() => payer.done(done.ok()),
            () = sleep_until(next) => {}
            _ = async { shutdown.wait_for(|down| *down).await.is_ok() } => return,
        }
    }
}

struct Payer {
    client: ClientApi,
    peer: Peer,
    /// Channels whose agents may have counted more by now, and these agents.
    to_ask: HashMap<ClientKey, String>,
    paces: HashMap<ClientKey, Pace>,
    /// Channels with a request under way, and to whom.
    busy: HashMap<ClientKey, String>,
    requests: JoinSet<Done>,
    /// Channels whose payments cannot be noted; they are paid again later all the same.
    unsaved: Backoff<ClientKey>,
    unbilled: Condition,
    unread: Condition,
    unnoted: Condition,
}

/// When a channel's agent may be asked, and paid, again.
#[derive(Clone, Copy)]
struct Pace {
    ask: Instant,
    pay: Instant,
}

/// A request that has ended.
struct Done {
    channel: ClientKey,
    pace: Pace,
    /// Whether what became of a payment is in the database; none after a question.
    saved: Option<Result<(), StoreError>>,
}

impl Payer {
    /// Returns whether channels were billed.
    fn note(&mut self, asked_for: Result<Vec<Question>, StoreError>) -> bool {
        let Some(questions) = self.unbilled.note(asked_for) else { return false };
        let questions = questions.into_iter();
        self.to_ask.extend(questions.map(|Question { channel, agent }| (channel, agent)));
        true
    }

    /// A request that panicked leaves its channel busy: better unpaid than paid for in a loop.
    fn done(&mut self, done: Option<Done>) {
        let Some(Done { channel, mut pace, saved }) = done else { return };
        self.busy.remove(&channel);
        if let Some(saved) = saved {
            match self.unnoted.note(saved) {
                Some(()) => self.unsaved.worked(&channel),
                // It is due still, as far as the database knows.
                None => pace.pay = pace.pay.max(self.unsaved.failed(channel)),
            }
        }
        self.paces.insert(channel, pace);
    }

    /// Returns when the next payment may be made that could not be made now for its pace alone.
    async fn pay_what_is_due(&mut self) -> Option<Instant> {
        let now = Instant::now();
        self.paces.retain(|_, pace| pace.ask.max(pace.pay) > now);
        let full: Vec<&str> =
            self.busy.values().map(String::as_str).filter(|agent| self.is_full(agent)).collect();
        let due = self.client.cheques_due(&full).await;
        let due = self.unread.note(due)?;
        let mut next: Option<Instant> = None;
        for DueCheque { agent, cheque } in due {
            let channel = cheque.channel;
            let pace = self.paces.get(&channel).map(|pace| pace.pay).filter(|pay| *pay > now);
            if let Some(pay) = pace {
                next = Some(next.map_or(pay, |next| next.min(pay)));
            } else if self.has_room(channel, &agent) {
                self.busy.insert(channel, agent);
                self.requests.spawn(pay(self.client.clone(), self.peer.clone(), cheque));
            }
        }
        next
    }

    fn ask_what_is_owed(&mut self) {
        let now = Instant::now();
        let ready: Vec<_> =
            self.to_ask.keys().copied().filter(|id| self.next_ask(*id, now) <= now).collect();
        for channel in ready {
            let Some(agent) = self.to_ask.get(&channel) else { continue };
            if self.has_room(channel, agent)
                && let Some(agent) = self.to_ask.remove(&channel)
            {
                self.busy.insert(channel, agent);
                self.requests.spawn(ask(self.client.clone(), self.peer.clone(), channel));
            }
        }
    }

    fn has_room(&self, channel: ClientKey, agent: &str) -> bool {
        !self.busy.contains_key(&channel) && self.busy.len() < AT_ONCE && !self.is_full(agent)
    }

    fn is_full(&self, agent: &str) -> bool {
        self.busy.values().filter(|busy| *busy == agent).count() >= AT_ONE_AGENT
    }

    fn next_ask(&self, channel: ClientKey, now: Instant) -> Instant {
        self.paces.get(&channel).map_or(now, |pace| pace.ask)
    }

    /// When the next channel may be asked about, if there is room for it; far away where there is none.
    fn next_question(&self) -> Instant {
        let now = Instant::now();
        let waiting = self.to_ask.iter().filter(|(channel, agent)| self.has_room(**channel, agent));
        let times = waiting.map(|(channel, _)| self.next_ask(*channel, now));
        times.min().unwrap_or_else(far)
    }
}

/// Something else has happened long before.
fn far() -> Instant {
    Instant::now() + ALL_EVERY
}

async fn pay(client: ClientApi, peer: Peer, cheque: ChequeRow) -> Done {
    let channel = cheque.channel;
    let why = match send(&client, &peer, &cheque).await {
        Ok(()) => {
            let again = Instant::now() + AGAIN;
            let pace = Pace { ask: again, pay: again };
            return Done { channel, pace, saved: Some(Ok(())) };
        }
        Err(why) => why,
    };
    tracing::warn!(%channel, balance = cheque.balance, why, "a cheque was not acknowledged");
    // Whatever it was, the agent's own signed account says how things stand. It is asked first: who
    // answers is not away, and what he did not take is not pressed on him.
    let heard = account(&client, &peer, channel).await;
    let saved = client.cheque_failed(&cheque, &why, heard.is_err()).await;
    Done { saved: Some(saved), ..asked(channel, heard) }
}

async fn send(client: &ClientApi, peer: &Peer, cheque: &ChequeRow) -> Result<(), String> {
    let receiver = client.payment_receiver(cheque.channel).await.map_err(say)?;
    let message: Value =
        serde_json::from_str(&cheque.message).map_err(|error| error.to_string())?;
    let receipt =
        peer.pay(&receiver, &message).await.map_err(|error| privatix_plugin_api::chain(&error))?;
    client.receipt_received(cheque, &receipt).await.map_err(say)
}

async fn ask(client: ClientApi, peer: Peer, channel: ClientKey) -> Done {
    let heard = account(&client, &peer, channel).await;
    asked(channel, heard)
}

/// Has the agent say how things stand, and takes it in.
async fn account(client: &ClientApi, peer: &Peer, channel: ClientKey) -> Result<(), String> {
    let exchange = client.exchange_of(channel).await.map_err(say)?;
    let request = client.request_make(Kind::AccountRequest, channel).map_err(say)?;
    let account = peer.channel(&exchange, channel, "account", &request).await;
    let account = account.map_err(|error| privatix_plugin_api::chain(&error))?;
    client.account_received(channel, &account).await.map_err(say).map(drop)
}

fn asked(channel: ClientKey, heard: Result<(), String>) -> Done {
    let now = Instant::now();
    let pause = match heard {
        Ok(()) => AGAIN,
        Err(why) => {
            tracing::debug!(%channel, why, "the agent did not say what is owed");
            ASK_AGAIN_LATER
        }
    };
    Done { channel, pace: Pace { ask: now + pause, pay: now }, saved: None }
}

fn say(refused: Refused) -> String {
    refused.to_string()
}
