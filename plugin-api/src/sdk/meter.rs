//! A session that is counted, reported, and served no further than the core allows.
//!
//! A module has its [`Meter`] count what passes a stream ([`Meter::stream`]), asks it before it passes
//! anything on ([`Meter::take`]), or tells it of use that was measured elsewhere ([`Meter::record`]). The meter reports at intervals, and earlier as
//! the credit runs low; it obeys the status in each reply; and without an acknowledged report it
//! grants nothing beyond the credit, so that a database, a host or a network that fails costs one
//! credit at most. With a core that states no credit it grants everything, as long as reports are
//! acknowledged.
//!
//! Not here: what the credit is, which is the core's rule; and the connection to the client, which
//! the module closes when the meter has ended.

mod account;
mod metered;
mod registry;
mod reporter;
#[cfg(test)]
mod tests;

use std::any::Any;
use std::fmt;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::Value;
use tokio::sync::{Notify, watch};

use self::account::Account;
pub use self::metered::Metered;
pub(super) use self::registry::Registry;
pub use self::registry::Unreported;
use super::Core;
use crate::manifest::UsageReporting;
use crate::message::{ApiError, ClientKey, ErrorName, SessionId, SessionStarted, Status};

/// How a meter reports.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MeterOptions {
    /// The time between two reports while there is credit enough. Default: 1 s.
    pub report_every: Duration,
    /// How usage is reported, as the module's manifest says. Default: in total.
    pub reporting: UsageReporting,
    /// How long the core may leave a report without an acknowledgement until the meter ends. Default:
    /// 10 s.
    pub patience: Duration,
}

impl Default for MeterOptions {
    fn default() -> Self {
        Self {
            report_every: Duration::from_secs(1),
            reporting: UsageReporting::Total,
            patience: Duration::from_secs(10),
        }
    }
}

impl MeterOptions {
    /// The default, with so much time between two reports.
    #[must_use]
    pub fn every(report_every: Duration) -> Self {
        Self { report_every, ..Self::default() }
    }
}

/// Why a meter grants nothing any more.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Ended {
    /// The core allows no use in this status.
    Status(Status),
    /// The core refused a report.
    Refused(ApiError),
    /// The core has not acknowledged a report for too long; says what the last answer was.
    Unacknowledged(String),
    /// The module has stopped it.
    Stopped,
}

impl fmt::Display for Ended {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Status(status) => write!(out, "the channel is {status}"),
            Self::Refused(error) => write!(out, "the core refused a usage report: {error}"),
            Self::Unacknowledged(last) => {
                write!(out, "the core does not acknowledge usage reports: {last}")
            }
            Self::Stopped => out.write_str("the session was stopped"),
        }
    }
}

impl std::error::Error for Ended {}

/// An open session with its usage. Cheap to clone; all clones are one. Dropped by everybody, it stops
/// by itself.
#[derive(Clone)]
pub struct Meter {
    handle: Arc<Handle>,
}

impl fmt::Debug for Meter {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shared = &self.handle.shared;
        out.debug_struct("Meter").field("channel", &shared.channel).finish_non_exhaustive()
    }
}

/// What the users of a meter share; its reporter holds [`Shared`] alone.
struct Handle {
    shared: Arc<Shared>,
    offering: Value,
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.shared.stop();
    }
}

struct Shared {
    core: Core,
    channel: ClientKey,
    session: SessionId,
    options: MeterOptions,
    account: Mutex<Account>,
    /// The credit or the end has changed.
    changed: Arc<Notify>,
    /// A report is wanted before its time.
    wanted: Notify,
    ended: watch::Sender<Option<Ended>>,
    /// The usage up to which the core allows use.
    limit: watch::Sender<Option<u64>>,
    stopping: watch::Sender<bool>,
    /// What the session leaves unreported, once it is closed.
    closed: watch::Sender<Option<u64>>,
}

impl Meter {
    /// Opens a session of a channel. Call it on the module's runtime.
    ///
    /// # Errors
    /// Those of [`Core::start_session`]; `NonActiveChannel` if the status allows no use.
    pub async fn start(
        core: &Core,
        channel: ClientKey,
        client: Option<SocketAddr>,
        options: MeterOptions,
    ) -> Result<Self, ApiError> {
        let started = core.start_session(channel, client).await?;
        let allowed = started.status.allows_use();
        let meter = Self::of(core, channel, started, options);
        if allowed {
            return Ok(meter);
        }
        meter.stop().await;
        Err(ErrorName::NonActiveChannel.into())
    }

    /// Takes over a session that the module has opened itself. Call it on the module's runtime.
    #[must_use]
    pub fn of(
        core: &Core,
        channel: ClientKey,
        started: SessionStarted,
        options: MeterOptions,
    ) -> Self {
        Self::held(core, channel, started, options, Box::new(()))
    }

    /// The same; the meter keeps what it is handed until the session is closed.
    pub(super) fn held(
        core: &Core,
        channel: ClientKey,
        started: SessionStarted,
        options: MeterOptions,
        held: Box<dyn Any + Send>,
    ) -> Self {
        let SessionStarted { session, offering, status, credit } = started;
        let ended = (!status.allows_use()).then_some(Ended::Status(status));
        let shared = Arc::new(Shared {
            core: core.clone(),
            channel,
            session,
            options,
            account: Mutex::new(Account::new(credit)),
            changed: Arc::default(),
            wanted: Notify::new(),
            ended: watch::Sender::new(ended),
            limit: watch::Sender::new(credit),
            stopping: watch::Sender::new(false),
            closed: watch::Sender::new(None),
        });
        core.meters().add(&shared);
        let reporter = reporter::run(Arc::clone(&shared));
        tokio::spawn(async move {
            reporter.await;
            drop(held);
        });
        Self { handle: Arc::new(Handle { shared, offering }) }
    }

    /// The session.
    #[must_use]
    pub fn session(&self) -> SessionId {
        self.handle.shared.session
    }

    /// The channel's offering, as `StartSession` gave it.
    #[must_use]
    pub fn offering(&self) -> &Value {
        &self.handle.offering
    }

    /// A stream of which every byte is counted, both ways. It passes on what the credit has left, and
    /// waits while there is none.
    #[must_use]
    pub fn stream<S>(&self, stream: S) -> Metered<S> {
        Metered::new(self.clone(), stream)
    }

    /// Counts up to `most` smallest units, as many as the credit has left, and returns how many. Waits
    /// while there is none. Take what is in hand, immediately before it is passed on: what is taken
    /// counts as used, also where it waits in a buffer.
    ///
    /// # Errors
    /// Why nothing may be used any more. The module then closes the connection and calls
    /// [`stop`](Self::stop).
    pub async fn take(&self, most: u64) -> Result<u64, Ended> {
        let shared = &self.handle.shared;
        loop {
            let changed = shared.changed.notified();
            tokio::pin!(changed);
            // From here on no change is missed.
            changed.as_mut().enable();
            if let Some(ended) = shared.ended.borrow().clone() {
                return Err(ended);
            }
            let (granted, hurry) = {
                let mut account = shared.account();
                (account.take(most), account.wants_report())
            };
            if hurry {
                shared.wanted.notify_one();
            }
            if granted > 0 || most == 0 {
                return Ok(granted);
            }
            changed.await;
        }
    }

    /// Gives back what was taken and not used.
    pub fn give_back(&self, unused: u64) {
        self.handle.shared.account().give_back(unused);
        self.handle.shared.changed.notify_waiters();
    }

    /// Counts usage that was measured elsewhere, and has happened already: it may exceed the credit.
    pub fn record(&self, used: u64) {
        let hurry = {
            let mut account = self.handle.shared.account();
            account.record(used);
            account.wants_report()
        };
        if hurry {
            self.handle.shared.wanted.notify_one();
        }
    }

    /// What was counted so far.
    #[must_use]
    pub fn used(&self) -> u64 {
        self.handle.shared.account().used()
    }

    /// How much may be used by now; `None` if the core states no limit.
    #[must_use]
    pub fn credit_left(&self) -> Option<u64> {
        self.handle.shared.account().left()
    }

    /// The usage of the session up to which the core allows use, and its changes: for a module that
    /// has something else enforce it, such as a quota of the kernel. `None`: no limit is stated.
    #[must_use]
    pub fn limit(&self) -> watch::Receiver<Option<u64>> {
        self.handle.shared.limit.subscribe()
    }

    /// Why nothing may be used any more, if that is so.
    #[must_use]
    pub fn end(&self) -> Option<Ended> {
        self.handle.shared.ended.borrow().clone()
    }

    /// Returns once nothing may be used any more, and why.
    pub async fn ended(&self) -> Ended {
        let mut ended = self.handle.shared.ended.subscribe();
        let outcome = ended.wait_for(Option::is_some).await;
        // The sender is here.
        outcome.ok().and_then(|ended| ended.clone()).unwrap_or(Ended::Stopped)
    }

    /// Reports the last usage, closes the session, and returns how much could not be reported, which is
    /// 0 unless the core refused it. While the core fails, the report is repeated: a caller with a
    /// deadline stops waiting at it, the meter goes on. Count nothing after this.
    pub async fn stop(&self) -> u64 {
        self.handle.shared.stop();
        let mut closed = self.handle.shared.closed.subscribe();
        let outcome = closed.wait_for(Option::is_some).await;
        // The sender is here.
        outcome.ok().and_then(|left| *left).unwrap_or_default()
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        let lost = self.account().unreported();
        self.core.meters().remove(self.session, self.channel, lost);
    }
}

impl Shared {
    fn account(&self) -> MutexGuard<'_, Account> {
        self.account.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sets credit aside for a step that is taken at once.
    fn reserve(self: &Arc<Self>, most: u64) -> Reserved {
        let (granted, hurry) = {
            let mut account = self.account();
            (account.reserve(most), account.wants_report())
        };
        if hurry {
            self.wanted.notify_one();
        }
        Reserved { shared: Arc::clone(self), granted }
    }

    fn stop(&self) {
        self.end(Ended::Stopped);
        self.stopping.send_replace(true);
    }

    /// The first reason is the one that is told.
    fn end(&self, why: Ended) {
        self.ended.send_if_modified(|ended| {
            let first = ended.is_none();
            if first {
                *ended = Some(why);
            }
            first
        });
        self.changed.notify_waiters();
    }
}

/// Credit that is set aside. Dropped, it is free again.
struct Reserved {
    shared: Arc<Shared>,
    granted: u64,
}

impl Reserved {
    /// Counts what was used of it.
    fn used(mut self, used: u64) {
        self.settle(used);
    }

    fn settle(&mut self, used: u64) {
        let granted = std::mem::take(&mut self.granted);
        let hurry = {
            let mut account = self.shared.account();
            account.settle(granted, used);
            account.wants_report()
        };
        if hurry {
            self.shared.wanted.notify_one();
        }
        if used < granted {
            self.shared.changed.notify_waiters();
        }
    }
}

impl Drop for Reserved {
    fn drop(&mut self) {
        if self.granted > 0 {
            self.settle(0);
        }
    }
}
