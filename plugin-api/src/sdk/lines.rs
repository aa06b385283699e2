//! The lines of a module: what serves a channel, and the way to cut it.
//!
//! A *line* is whatever serves a channel: one connection, several, a tunnel. A channel has one line at
//! most. A task holds a [`Line`] for as long as it serves the channel, and so does every meter that a
//! line has opened, until its session is closed. So a line has ended only when the last usage is
//! reported, whatever happened to the tasks on it, and [`Lines::cut`] returns then: a module answers
//! `stop` and `shutdown` with it.
//!
//! [`Lines::accept`] and [`Lines::keep`] are the two sides of a service over a stream: the agent takes
//! in connections and asks who they are, the client connects and connects again. A module with a
//! protocol of its own uses [`Lines::open`] or [`Lines::join`].

mod errand;
mod guest;
mod keep;
mod line;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

pub use self::errand::Errand;
pub use self::guest::Guest;
use self::line::Inner;
pub use self::line::{Line, Over};
use super::{Core, MeterOptions};
use crate::message::ClientKey;

/// The module is shutting down: no line is opened any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the module is shutting down")]
pub struct ShuttingDown;

/// The lines of all channels. Cheap to clone; all clones are one.
///
/// Each line has a value of the module's own. By default that is a text: what the line was made with,
/// such as the nonce of an access message.
pub struct Lines<T = String> {
    shared: Arc<Shared<T>>,
}

struct Shared<T> {
    core: Core,
    options: Mutex<MeterOptions>,
    table: Mutex<Table<T>>,
    /// Set once. Held by everything that is not on a line and has to go at the end.
    ending: watch::Sender<bool>,
}

struct Table<T> {
    ended: bool,
    by_channel: HashMap<ClientKey, Arc<Inner<T>>>,
}

impl<T> Clone for Lines<T> {
    fn clone(&self) -> Self {
        Self { shared: Arc::clone(&self.shared) }
    }
}

impl<T> fmt::Debug for Lines<T> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let channels: Vec<_> = self.table().by_channel.keys().copied().collect();
        out.debug_struct("Lines").field("channels", &channels).finish_non_exhaustive()
    }
}

impl<T> Lines<T> {
    /// No lines yet.
    #[must_use]
    pub fn new(core: &Core) -> Self {
        let table = Mutex::new(Table { ended: false, by_channel: HashMap::new() });
        let (options, ending) = (Mutex::default(), watch::Sender::new(false));
        Self { shared: Arc::new(Shared { core: core.clone(), options, table, ending }) }
    }

    /// How the meters of the lines report from now on.
    pub fn report(&self, options: MeterOptions) {
        *lock(&self.shared.options) = options;
    }

    /// Opens a line. An older one of the channel is cut, and awaited first.
    ///
    /// # Errors
    /// The module is shutting down.
    pub async fn open(&self, channel: ClientKey, value: T) -> Result<Line<T>, ShuttingDown> {
        loop {
            let older = {
                let mut table = self.table();
                match table.live(channel)? {
                    Some(older) => older,
                    None => return Ok(self.insert(&mut table, channel, value)),
                }
            };
            // Not under the lock: it may take a while, and other channels have lines, too.
            older.end().await;
        }
    }

    /// Holds the channel's line, too, or opens one if there is none; whether it was opened. A line that
    /// was cut is awaited first.
    ///
    /// # Errors
    /// The module is shutting down.
    pub async fn join(
        &self,
        channel: ClientKey,
        make: impl FnOnce() -> T,
    ) -> Result<(Line<T>, bool), ShuttingDown> {
        loop {
            let cut = {
                let mut table = self.table();
                match table.live(channel)? {
                    None => return Ok((self.insert(&mut table, channel, make()), true)),
                    Some(line) if line.is_cut() => line,
                    Some(line) => return Ok((Line::hold(&self.shared, line), false)),
                }
            };
            cut.end().await;
        }
    }

    /// Holds the channel's line, if there is one that was not cut.
    #[must_use]
    pub fn get(&self, channel: ClientKey) -> Option<Line<T>> {
        let table = self.table();
        let line = table.by_channel.get(&channel).filter(|line| !line.is_cut())?;
        Some(Line::hold(&self.shared, Arc::clone(line)))
    }

    /// Holds all lines that were not cut.
    #[must_use]
    pub fn all(&self) -> Vec<Line<T>> {
        let table = self.table();
        let lines = table.by_channel.values().filter(|line| !line.is_cut() && !line.has_ended());
        lines.map(|line| Line::hold(&self.shared, Arc::clone(line))).collect()
    }

    /// The channels that are being served, for `sessions`: from [`Line::run`] or [`Line::serve`] until
    /// the session is closed.
    #[must_use]
    pub fn served(&self) -> Vec<ClientKey> {
        let table = self.table();
        let served = table.by_channel.iter().filter(|(_, line)| line.is_served());
        served.map(|(channel, _)| *channel).collect()
    }

    /// Cuts the line of a channel, if there is one, and returns once it has ended.
    pub async fn cut(&self, channel: ClientKey) {
        let line = self.table().by_channel.get(&channel).cloned();
        if let Some(line) = line {
            line.end().await;
        }
        // What has ended may be forgotten, or the table would grow for ever.
        self.table().by_channel.retain(|_, line| !line.has_ended());
    }

    /// Ends everything for good: lets nobody in any more, cuts all lines, and returns once they have
    /// ended. A module's `shutdown` has a deadline, at which the SDK stops waiting for it and says what
    /// is not reported.
    pub async fn cut_all(&self) {
        let lines: Vec<_> = {
            let mut table = self.table();
            table.ended = true;
            table.by_channel.drain().map(|(_, line)| line).collect()
        };
        self.shared.ending.send_replace(true);
        // All at once first, so that they end side by side.
        lines.iter().for_each(|line| line.cut());
        for line in lines {
            line.end().await;
        }
        self.shared.ending.closed().await;
    }

    fn insert(&self, table: &mut Table<T>, channel: ClientKey, value: T) -> Line<T> {
        let line = Arc::new(Inner::new(channel, value));
        // Held before anybody else can see it.
        let held = Line::hold(&self.shared, Arc::clone(&line));
        table.by_channel.insert(channel, line);
        held
    }

    fn table(&self) -> MutexGuard<'_, Table<T>> {
        lock(&self.shared.table)
    }
}

impl<T> Shared<T> {
    /// Takes a line out of the table, which its last holder drops.
    fn forget(&self, line: &Arc<Inner<T>>) {
        let mut table = lock(&self.table);
        let known = table.by_channel.get(&line.channel());
        if known.is_some_and(|known| Arc::ptr_eq(known, line)) && line.is_held_once() {
            table.by_channel.remove(&line.channel());
        }
    }
}

impl<T> Table<T> {
    /// The channel's line, if it has not ended.
    fn live(&self, channel: ClientKey) -> Result<Option<Arc<Inner<T>>>, ShuttingDown> {
        if self.ended {
            return Err(ShuttingDown);
        }
        Ok(self.by_channel.get(&channel).filter(|line| !line.has_ended()).cloned())
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn is_set(mut flag: watch::Receiver<bool>) {
    // An error would mean that the sender is gone, and with it all that is waited for.
    let _ = flag.wait_for(|set| *set).await;
}
