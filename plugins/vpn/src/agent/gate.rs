//! What lets clients through: forwarding, address translation and speed, in a table of nftables
//! and in queues of the tunnel's device; and what counts them.
//!
//! Only addresses with an open session are forwarded. Orders are carried out one after the other
//! by a task of their own, all that wait at once, since each costs a process. The same task reads
//! the counters, and verifies that the table is as it was made: another program may remove it at
//! any time, as a reload of the distribution's firewall does. Until it is restored, the
//! [`barrier`] holds.

mod barrier;
mod keeper;
mod rules;
mod shaping;

use std::fs;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::sync::Arc;

use tokio::sync::{mpsc, oneshot};

use self::barrier::Barrier;
use self::keeper::Keeper;
pub(super) use self::shaping::{Speeds, WAITING};
use super::Board;
use super::tally::Tally;
use crate::journal::{Entry, Journal, JournalError, write_in_place};
use crate::run::{self, RunError};
use crate::session::Limit;
use crate::settings::Settings;

const FORWARDING: &str = "/proc/sys/net/ipv4/ip_forward";

/// Why there is no gate.
#[derive(Debug, thiserror::Error)]
pub(super) enum GateError {
    #[error(transparent)]
    Journal(#[from] JournalError),
    #[error("the rules of nftables")]
    Rules(#[source] RunError),
    #[error("forwarding cannot be switched on")]
    Forwarding(#[source] std::io::Error),
}

/// Something to be done to the gate.
enum Order {
    /// The device is new: nobody is served.
    Empty,
    Open(Ipv4Addr, Speeds, Arc<Tally>, Limit),
    /// The core allows another use, perhaps.
    Limit(Ipv4Addr),
    Shut(Ipv4Addr),
    Down(oneshot::Sender<()>),
}

/// The server's hand on the gate.
pub(super) struct Gate(mpsc::UnboundedSender<Order>);

impl Gate {
    /// Makes the rules; nobody is served yet.
    pub(super) async fn up(
        settings: &Settings,
        journal: Arc<Journal>,
        board: Board,
    ) -> Result<Self, GateError> {
        let table = format!("privatix_{}", settings.device);
        let entry = Entry::Table { name: table.clone(), kill_switch: None, agent: Vec::new() };
        journal.note(entry)?;
        let rules = rules::rules(settings, &table);
        run::nft(&rules).await.map_err(GateError::Rules)?;
        forward(&journal)?;
        let (orders, inbox) = mpsc::unbounded_channel();
        let mut barrier = Barrier::new(settings, &table);
        if let Err(error) = barrier.raise().await {
            let error = &error as &dyn std::error::Error;
            tracing::warn!(error, "the gate has no second line against a flush of the firewall");
        }
        let orders_again = orders.downgrade();
        let keeper =
            Keeper::new(settings, table, rules, barrier, journal, board, orders_again).await;
        tokio::spawn(keeper.map_err(GateError::Rules)?.run(inbox));
        Ok(Self(orders))
    }

    /// One that only says what it was told, a word and an address each; and whom it counts.
    #[cfg(test)]
    pub(super) fn in_words() -> (Self, mpsc::UnboundedReceiver<String>, Tallies) {
        let (orders, mut inbox) = mpsc::unbounded_channel();
        let (say, words) = mpsc::unbounded_channel();
        let tallies = Tallies::default();
        let counted = Arc::clone(&tallies);
        tokio::spawn(async move {
            while let Some(order) = inbox.recv().await {
                let mut counted = counted.lock().expect("not poisoned");
                let word = match order {
                    Order::Empty => {
                        counted.drain().for_each(|(_, tally): (_, Arc<Tally>)| tally.ends());
                        "empty".to_owned()
                    }
                    Order::Open(address, _, tally, _) => {
                        counted.insert(address, tally);
                        format!("open {address}")
                    }
                    Order::Limit(address) => format!("limit {address}"),
                    Order::Shut(address) => {
                        counted.remove(&address).inspect(|tally| tally.ends());
                        format!("shut {address}")
                    }
                    Order::Down(done) => {
                        counted.drain().for_each(|(_, tally)| tally.ends());
                        let _ = done.send(());
                        "down".to_owned()
                    }
                };
                let _ = say.send(word);
            }
        });
        (Self(orders), words, tallies)
    }

    pub(super) fn empty(&self) {
        self.order(Order::Empty);
    }

    /// Lets a client through up to its limit, and counts what passes until it is shut out.
    pub(super) fn open(&self, address: Ipv4Addr, speeds: Speeds, tally: Arc<Tally>, limit: Limit) {
        self.order(Order::Open(address, speeds, tally, limit));
    }

    pub(super) fn shut(&self, address: Ipv4Addr) {
        self.order(Order::Shut(address));
    }

    /// Takes it all away.
    pub(super) async fn down(&self) {
        let (done, gone) = oneshot::channel();
        self.order(Order::Down(done));
        let _ = gone.await;
    }

    fn order(&self, order: Order) {
        // The task ends only after `down`.
        let _ = self.0.send(order);
    }
}

/// Whom a gate in words counts.
#[cfg(test)]
pub(super) type Tallies = Arc<std::sync::Mutex<std::collections::HashMap<Ipv4Addr, Arc<Tally>>>>;

/// Switches forwarding on, if it is off; whether it was.
fn forward(journal: &Journal) -> Result<bool, GateError> {
    let path = PathBuf::from(FORWARDING);
    let before = fs::read_to_string(&path).map_err(GateError::Forwarding)?;
    if before.trim() != "0" {
        return Ok(false);
    }
    journal.note(Entry::Setting { path: path.clone(), before, set: "1\n".into() })?;
    write_in_place(&path, "1\n").map_err(GateError::Forwarding)?;
    Ok(true)
}
