//! One session per channel, shared by all connections of the channel, and the way to cut them.
//!
//! A connection joins the session before it moves a byte and is a member until it is closed. A
//! keeper per session opens it and closes it once the last member is gone, so the last report is
//! exact. What is reported, when, and how much the core allows, is the SDK's `Meter`. It counts what
//! was delivered; what members have taken for it and not delivered is reserved, so that all of a
//! channel's connections together never take more than the credit. Nothing here knows sockets.

mod share;

use std::net::SocketAddr;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use privatix_plugin_api::message::{ApiError, ClientKey};
use privatix_plugin_api::sdk::{Core, Line, Lines, Meter, MeterOptions, ShuttingDown};
use tokio::sync::{Notify, watch};
use tokio::time::timeout;

use self::share::{Share, allowance};

/// Why a connection did not become a member.
#[derive(Debug, thiserror::Error)]
pub(crate) enum JoinError {
    #[error("the channel has its {0} connections already")]
    TooMany(usize),
    #[error("opening the session")]
    Refused(#[source] ApiError),
    #[error("the session was cut while it was being opened")]
    Cut,
    #[error(transparent)]
    Ending(#[from] ShuttingDown),
}

/// All sessions of a module.
#[derive(Clone)]
pub(crate) struct Sessions {
    shared: Arc<Shared>,
}

struct Shared {
    core: Core,
    options: MeterOptions,
    max_members: usize,
    /// After how long without members a session is closed, if at all.
    idle: Option<Duration>,
    /// One for each channel with a session. Its keeper and its members hold it.
    lines: Lines<Session>,
}

#[derive(Default)]
struct Session {
    /// Set once it is open.
    meter: OnceLock<Meter>,
    /// What became of opening it, once that is known.
    opened: watch::Sender<Option<Result<(), ApiError>>>,
    /// What members have taken and not delivered yet.
    reserved: Mutex<u64>,
    /// Something was given back.
    returned: Notify,
    /// Grows only while the line is not cut.
    members: watch::Sender<usize>,
}

/// A connection's share in a session. Dropped only when its sockets are closed.
pub(crate) struct Member {
    line: Line<Session>,
    /// Changed while [`Session::reserved`] is locked.
    share: Mutex<Share>,
    /// How often it was counted.
    #[cfg(test)]
    pub(crate) counts: std::sync::atomic::AtomicU64,
}

impl Sessions {
    pub(crate) fn new(
        core: Core,
        report: Duration,
        max_members: usize,
        idle: Option<Duration>,
    ) -> Self {
        let options = MeterOptions::every(report);
        let lines = Lines::new(&core);
        Self { shared: Arc::new(Shared { core, options, max_members, idle, lines }) }
    }

    /// Joins the channel's session, which is opened if there is none; an older one that is being
    /// closed is awaited first.
    pub(crate) async fn join(
        &self,
        channel: ClientKey,
        peer: Option<SocketAddr>,
    ) -> Result<Member, JoinError> {
        loop {
            let (line, is_new) = self.shared.lines.join(channel, Session::default).await?;
            if is_new {
                let kept = Kept { shared: Arc::clone(&self.shared), line: line.clone() };
                tokio::spawn(kept.keep(peer));
            }
            // Cut meanwhile, it is joined no more.
            if let Some(member) = Member::enter(line, self.shared.max_members)? {
                return member.opened().await;
            }
        }
    }

    /// Whether the channel has an open session.
    pub(crate) fn serves(&self, channel: ClientKey) -> bool {
        self.shared.lines.get(channel).is_some_and(|line| line.value().is_open())
    }

    /// The channels that have a session.
    pub(crate) fn served(&self) -> Vec<ClientKey> {
        self.shared.lines.served()
    }

    /// Cuts a channel's connections and returns once its session is closed.
    pub(crate) async fn end(&self, channel: ClientKey) {
        self.shared.lines.cut(channel).await;
    }

    /// Ends all sessions for good.
    pub(crate) async fn end_all(&self) {
        self.shared.lines.cut_all().await;
    }
}

impl Member {
    /// A member of a session, unless that was cut.
    fn enter(line: Line<Session>, most: usize) -> Result<Option<Self>, JoinError> {
        let (mut is_cut, mut is_full) = (false, false);
        line.value().members.send_if_modified(|members| {
            is_cut = line.is_cut();
            is_full = *members >= most;
            let enters = !is_cut && !is_full;
            *members += usize::from(enters);
            enters
        });
        match (is_cut, is_full) {
            (true, _) => Ok(None),
            (false, true) => Err(JoinError::TooMany(most)),
            (false, false) => Ok(Some(Self {
                line,
                share: Mutex::default(),
                #[cfg(test)]
                counts: std::sync::atomic::AtomicU64::default(),
            })),
        }
    }

    fn session(&self) -> &Session {
        self.line.value()
    }

    /// Takes up to so much of the credit, for bytes that are about to be read; waits while there is
    /// none.
    pub(crate) async fn take(&self, most: usize) -> usize {
        loop {
            let mut limit = self.session().meter.get().map(Meter::limit);
            let mut returned = pin!(self.session().returned.notified());
            // From here on no change is missed.
            returned.as_mut().enable();
            let taken = self.try_take(most);
            if taken > 0 {
                return taken;
            }
            let raised = async {
                match &mut limit {
                    Some(limit) => limit.changed().await.is_ok(),
                    None => false,
                }
            };
            tokio::select! {
                () = returned => {}
                true = raised => {}
            }
        }
    }

    /// The same at once; 0 if none is left.
    pub(crate) fn try_take(&self, most: usize) -> usize {
        self.with_share(|share, reserved, left| {
            let taken = allowance(left, reserved, share.reserved()).min(most as u64);
            share.taken += taken;
            // No more than `most`, which is a `usize`.
            usize::try_from(taken).unwrap_or(most)
        })
    }

    /// Gives back what was taken and not used.
    pub(crate) fn give_back(&self, amount: usize) {
        if amount > 0 {
            self.with_share(|share, _, _| share.taken = share.taken.saturating_sub(amount as u64));
            self.session().returned.notify_waiters();
        }
    }

    /// Counts what the member has delivered in all, and what was delivered to this system and waits
    /// to be read; of that, no more than the credit. Returns what is counted.
    pub(crate) fn deliver(&self, passed: u64, unread: u64) -> u64 {
        #[cfg(test)]
        self.counts.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let (delivered, more) = self.with_share(|share, reserved, left| {
            let certain = passed.saturating_sub(share.delivered);
            let free = left.map_or(u64::MAX, |left| left.saturating_sub(reserved));
            let more = (passed + unread).saturating_sub(share.delivered + certain);
            let more = certain + more.min(free.saturating_sub(certain));
            share.delivered += more;
            if let (Some(meter), 1..) = (self.session().meter.get(), more) {
                meter.record(more);
            }
            (share.delivered, more)
        });
        if more > 0 {
            // It may reserve more now.
            self.session().returned.notify_waiters();
        }
        delivered
    }

    /// Changes the share, given what all members have reserved and what the credit has left.
    fn with_share<T>(&self, change: impl FnOnce(&mut Share, u64, Option<u64>) -> T) -> T {
        let mut reserved = lock(&self.session().reserved);
        let mut share = lock(&self.share);
        let left = self.session().meter.get().map_or(Some(0), Meter::credit_left);
        let before = share.reserved();
        let outcome = change(&mut share, *reserved, left);
        *reserved = *reserved - before + share.reserved();
        outcome
    }

    /// Returns when the connection has to be closed.
    pub(crate) async fn is_cut(&self) {
        self.line.until_cut().await;
    }

    async fn opened(self) -> Result<Self, JoinError> {
        let mut opened = self.session().opened.subscribe();
        tokio::select! {
            biased;
            outcome = opened.wait_for(Option::is_some) => match outcome.ok().and_then(|it| it.clone()) {
                Some(Ok(())) => {}
                Some(Err(error)) => return Err(JoinError::Refused(error)),
                None => return Err(JoinError::Cut),
            },
            () = self.is_cut() => return Err(JoinError::Cut),
        }
        Ok(self)
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        // What was taken and not delivered is for others.
        self.with_share(|share, _, _| share.taken = share.delivered);
        self.session().returned.notify_waiters();
        self.session().members.send_modify(|members| *members -= 1);
    }
}

impl Session {
    fn is_open(&self) -> bool {
        matches!(*self.opened.borrow(), Some(Ok(())))
    }

    async fn is_empty(&self) {
        // The sender is here.
        let _ = self.members.subscribe().wait_for(|members| *members == 0).await;
    }
}

/// The keeper of a session. Dropped, it has cut the line, whatever happened to its task.
struct Kept {
    shared: Arc<Shared>,
    line: Line<Session>,
}

impl Kept {
    async fn keep(self, peer: Option<SocketAddr>) {
        let (core, channel, session) = (&self.shared.core, self.line.channel(), self.line.value());
        let started = match core.start_session(channel, peer).await {
            Ok(started) => started,
            Err(error) => {
                tracing::info!(%channel, %error, "no session");
                session.opened.send_replace(Some(Err(error)));
                return;
            }
        };
        self.line.serve(true);
        let allowed = started.status.allows_use();
        let meter = Meter::of(core, channel, started, self.shared.options);
        let meter = session.meter.get_or_init(|| meter);
        if allowed && !self.line.is_cut() {
            session.opened.send_replace(Some(Ok(())));
            self.watch(meter).await;
        }
        self.line.cut();
        session.is_empty().await;
        meter.stop().await;
    }

    /// Returns once the session is cut, has to be, or is idle.
    async fn watch(&self, meter: &Meter) {
        tokio::select! {
            () = self.line.until_cut() => {}
            () = self.idle() => {}
            why = meter.ended() => {
                tracing::debug!(channel = %self.line.channel(), %why, "the session ends");
            }
        }
    }

    /// Returns once the session was cut for being idle.
    async fn idle(&self) {
        let Some(idle) = self.shared.idle else { return std::future::pending().await };
        let all = &self.line.value().members;
        let mut members = all.subscribe();
        loop {
            let _ = members.wait_for(|members| *members == 0).await;
            if timeout(idle, members.changed()).await.is_err() {
                // Nobody enters while this is looked at.
                let is_idle = all.send_if_modified(|members| {
                    if *members == 0 {
                        self.line.cut();
                    }
                    *members == 0
                });
                if is_idle {
                    return;
                }
            }
        }
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        self.line.cut();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
