//! The client's reconciler: has agents visited for whom there is something to do: orders that have
//! no answer, live channels to be asked about, channels that were ended here.
//!
//! It takes no input: what is to be done follows from the database, so a client that was offline
//! catches up. Woken by changes and by a timer. Each agent is visited on its own, so that one that
//! does not answer holds up nobody else.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::peer::Peer;
use super::visit::{Errand, Visit, Visited};
use privatix_base::condition::Condition;
use privatix_core::{Cancelling, ClientApi};

/// An agent that does not answer is asked less and less often, up to this.
const RARELY: Duration = Duration::from_secs(60);

/// Agents visited at a time.
const AT_ONCE: usize = 64;

/// Keeps a client's channels up to date until shutdown.
pub async fn run(
    client: ClientApi,
    peer: Peer,
    interval: Duration,
    mut shutdown: watch::Receiver<bool>,
) {
    let mut changes = client.changes();
    let mut sync = Sync {
        client,
        peer,
        interval,
        pauses: HashMap::new(),
        visited: HashSet::new(),
        visits: JoinSet::new(),
        unread: [
            Condition::new("orders are not sent"),
            Condition::new("cancellations are not sent"),
            Condition::new("channels are not followed"),
        ],
    };
    loop {
        changes.borrow_and_update();
        sync.round().await;
        tokio::select! {
            _ = changes.changed() => {}
            Some(visited) = sync.visits.join_next() => {
                // One that panicked is not visited again: better late than in a loop.
                if let Ok(visited) = visited {
                    sync.returned(visited);
                }
            }
            () = tokio::time::sleep(interval) => {}
            _ = async { shutdown.wait_for(|down| *down).await.is_ok() } => return,
        }
    }
}

struct Sync {
    client: ClientApi,
    peer: Peer,
    interval: Duration,
    /// When an errand's turn comes again, by its name.
    pauses: HashMap<String, Pause>,
    /// Agents that are being visited, by URL.
    visited: HashSet<String>,
    visits: JoinSet<Visited>,
    /// Whether orders, cancellations and channels cannot be read.
    unread: [Condition; 3],
}

struct Pause {
    until: Instant,
    failures: u32,
}

impl Sync {
    /// Sets out to the agents for whom something is to be done by now.
    async fn round(&mut self) {
        let (errands, complete) = self.errands().await;
        // What could not be read may wait for its turn still.
        if complete {
            let all: HashSet<String> = errands.iter().map(|(_, errand)| errand.name()).collect();
            self.pauses.retain(|name, _| all.contains(name));
        }
        let mut by_agent: BTreeMap<String, Vec<Errand>> = BTreeMap::new();
        for (exchange, errand) in errands {
            if !self.visited.contains(&exchange) && !self.pauses(&errand.name()) {
                by_agent.entry(exchange).or_default().push(errand);
            }
        }
        for (exchange, errands) in by_agent {
            // The others' turn comes when one has returned.
            if self.visits.len() >= AT_ONCE {
                return;
            }
            self.visited.insert(exchange.clone());
            let (client, peer) = (self.client.clone(), self.peer.clone());
            self.visits.spawn(Visit { client, peer, exchange, errands }.run());
        }
    }

    /// All that is to be done, now or later, and at which URL; and whether that is really all.
    async fn errands(&mut self) -> (Vec<(String, Errand)>, bool) {
        let mut errands = Vec::new();
        let [no_orders, no_cancellations, no_channels] = &mut self.unread;
        let orders = no_orders.note(self.client.orders_waiting().await);
        let cancelling = no_cancellations.note(self.client.orders_cancelling().await);
        let channels = no_channels.note(self.client.channels_followed().await);
        let all = orders.is_some() && cancelling.is_some() && channels.is_some();
        errands.extend(
            orders
                .into_iter()
                .flatten()
                .map(|(hash, message, exchange)| (exchange, Errand::Order { hash, message })),
        );
        errands.extend(cancelling.into_iter().flatten().map(|order| {
            let Cancelling { order: hash, message, exchange } = order;
            (exchange, Errand::Cancel { hash, message })
        }));
        errands.extend(
            channels
                .into_iter()
                .flatten()
                .map(|followed| (followed.exchange.clone(), Errand::Channel(followed))),
        );
        (errands, all)
    }

    fn pauses(&self, name: &str) -> bool {
        self.pauses.get(name).is_some_and(|pause| Instant::now() < pause.until)
    }

    fn returned(&mut self, visited: Visited) {
        self.visited.remove(&visited.exchange);
        for (name, done) in visited.errands {
            if done { self.settle(name) } else { self.fail(name) }
        }
    }

    fn settle(&mut self, name: String) {
        let until = Instant::now() + self.interval;
        self.pauses.insert(name, Pause { until, failures: 0 });
    }

    fn fail(&mut self, name: String) {
        let failures = self.pauses.get(&name).map_or(0, |pause| pause.failures).saturating_add(1);
        let pause = self.interval.saturating_mul(1 << failures.min(8)).min(RARELY);
        self.pauses.insert(name, Pause { until: Instant::now() + pause, failures });
    }
}
