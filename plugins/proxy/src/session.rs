//! One session per channel, shared by all connections of the channel, and the way to cut them.
//!
//! A connection joins the session before it moves a byte and is a member until it is closed. A
//! keeper per session opens it and closes it once the last member is gone, so the last report is
//! exact. What is reported, when, and how much the core allows, is the SDK's `Meter`. It counts what
//! was delivered; what members have taken for it and not delivered is reserved, so that all of a
//! channel's connections together never take more than the credit. Nothing here knows sockets.

mod share;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use privatix_plugin_api::message::{ApiError, ClientKey};
use privatix_plugin_api::sdk::{Core, Meter, MeterOptions};
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
    #[error("the module is shutting down")]
    Ending,
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
    live: Mutex<Live>,
}

#[derive(Default)]
struct Live {
    /// Set by [`Sessions::end_all`]: no session is opened any more.
    ended: bool,
    by_channel: HashMap<ClientKey, Arc<Session>>,
}

struct Session {
    channel: ClientKey,
    /// Set once it is open.
    meter: OnceLock<Meter>,
    /// What members have taken and not delivered yet.
    reserved: Mutex<u64>,
    /// Something was given back.
    returned: Notify,
    phase: watch::Sender<Phase>,
    /// Grows only under the lock of [`Live`].
    members: watch::Sender<usize>,
}

/// Only ever goes forward.
#[derive(Debug, Clone)]
enum Phase {
    Opening,
    Open,
    /// Members have to go; the last report is not made yet.
    Cut,
    /// The core did not open it; nothing was used.
    Refused(ApiError),
    Ended,
}

/// A connection's share in a session. Dropped only when its sockets are closed.
pub(crate) struct Member {
    session: Arc<Session>,
    phase: watch::Receiver<Phase>,
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
        let live = Mutex::default();
        let options = MeterOptions { report_every: report, ..MeterOptions::default() };
        Self { shared: Arc::new(Shared { core, options, max_members, idle, live }) }
    }

    /// Joins the channel's session, which is opened if there is none; an older one that is being
    /// closed is awaited first.
    pub(crate) async fn join(
        &self,
        channel: ClientKey,
        peer: Option<SocketAddr>,
    ) -> Result<Member, JoinError> {
        loop {
            match self.enter(channel, peer)? {
                Ok(member) => return member.opened().await,
                Err(closing) => closing.ended().await,
            }
        }
    }

    /// A member of the session, or the session that is closing.
    fn enter(
        &self,
        channel: ClientKey,
        peer: Option<SocketAddr>,
    ) -> Result<Result<Member, Arc<Session>>, JoinError> {
        let mut live = self.shared.live();
        if live.ended {
            return Err(JoinError::Ending);
        }
        let session = match live.by_channel.get(&channel) {
            Some(session) if !session.allows_use() => return Ok(Err(Arc::clone(session))),
            Some(session) => Arc::clone(session),
            None => {
                let session = Arc::new(Session::new(channel));
                live.by_channel.insert(channel, Arc::clone(&session));
                let kept = Kept { shared: Arc::clone(&self.shared), session: Arc::clone(&session) };
                tokio::spawn(kept.keep(peer));
                session
            }
        };
        if *session.members.borrow() >= self.shared.max_members {
            return Err(JoinError::TooMany(self.shared.max_members));
        }
        session.members.send_modify(|members| *members += 1);
        let phase = session.phase.subscribe();
        Ok(Ok(Member {
            session,
            phase,
            share: Mutex::default(),
            #[cfg(test)]
            counts: std::sync::atomic::AtomicU64::default(),
        }))
    }

    /// Whether the channel has an open session.
    pub(crate) fn serves(&self, channel: ClientKey) -> bool {
        let live = self.shared.live();
        live.by_channel.get(&channel).is_some_and(|session| session.is_open())
    }

    /// The channels that have a session.
    pub(crate) fn served(&self) -> Vec<ClientKey> {
        let live = self.shared.live();
        let served = live.by_channel.values().filter(|session| session.is_served());
        served.map(|session| session.channel).collect()
    }

    /// Cuts a channel's connections and returns once its session is closed.
    pub(crate) async fn end(&self, channel: ClientKey) {
        let session = self.shared.live().by_channel.get(&channel).cloned();
        if let Some(session) = session {
            session.cut();
            session.ended().await;
        }
    }

    /// Ends all sessions for good.
    pub(crate) async fn end_all(&self) {
        let sessions: Vec<_> = {
            let mut live = self.shared.live();
            live.ended = true;
            live.by_channel.values().cloned().collect()
        };
        // All at once first, so that they end side by side.
        sessions.iter().for_each(|session| session.cut());
        for session in sessions {
            session.ended().await;
        }
    }
}

impl Shared {
    fn live(&self) -> MutexGuard<'_, Live> {
        lock(&self.live)
    }
}

impl Member {
    /// Takes up to so much of the credit, for bytes that are about to be read; waits while there is
    /// none.
    pub(crate) async fn take(&self, most: usize) -> usize {
        loop {
            let mut limit = self.session.meter.get().map(Meter::limit);
            let mut returned = pin!(self.session.returned.notified());
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
            self.session.returned.notify_waiters();
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
            if let (Some(meter), 1..) = (self.session.meter.get(), more) {
                meter.record(more);
            }
            (share.delivered, more)
        });
        if more > 0 {
            // It may reserve more now.
            self.session.returned.notify_waiters();
        }
        delivered
    }

    /// Changes the share, given what all members have reserved and what the credit has left.
    fn with_share<T>(&self, change: impl FnOnce(&mut Share, u64, Option<u64>) -> T) -> T {
        let mut reserved = lock(&self.session.reserved);
        let mut share = lock(&self.share);
        let left = self.session.meter.get().map_or(Some(0), Meter::credit_left);
        let before = share.reserved();
        let outcome = change(&mut share, *reserved, left);
        *reserved = *reserved - before + share.reserved();
        outcome
    }

    /// Returns when the connection has to be closed.
    pub(crate) async fn is_cut(&self) {
        let mut phase = self.phase.clone();
        // An error would mean that the session is gone.
        let _ = phase.wait_for(|phase| !matches!(phase, Phase::Opening | Phase::Open)).await;
    }

    async fn opened(self) -> Result<Self, JoinError> {
        let mut phase = self.phase.clone();
        let phase = match phase.wait_for(|phase| !matches!(phase, Phase::Opening)).await {
            Ok(phase) => phase.clone(),
            Err(_) => Phase::Ended,
        };
        match phase {
            Phase::Open => Ok(self),
            Phase::Refused(error) => Err(JoinError::Refused(error)),
            Phase::Opening | Phase::Cut | Phase::Ended => Err(JoinError::Cut),
        }
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        // What was taken and not delivered is for others.
        self.with_share(|share, _, _| share.taken = share.delivered);
        self.session.returned.notify_waiters();
        self.session.members.send_modify(|members| *members -= 1);
    }
}

impl Session {
    fn new(channel: ClientKey) -> Self {
        let (phase, members) = (watch::Sender::new(Phase::Opening), watch::Sender::new(0));
        Self {
            channel,
            meter: OnceLock::new(),
            reserved: Mutex::new(0),
            returned: Notify::new(),
            phase,
            members,
        }
    }

    fn allows_use(&self) -> bool {
        matches!(*self.phase.borrow(), Phase::Opening | Phase::Open)
    }

    fn is_open(&self) -> bool {
        matches!(*self.phase.borrow(), Phase::Open)
    }

    fn is_served(&self) -> bool {
        matches!(*self.phase.borrow(), Phase::Open | Phase::Cut)
    }

    fn cut(&self) {
        self.phase.send_if_modified(|phase| {
            let go = matches!(phase, Phase::Opening | Phase::Open);
            if go {
                *phase = Phase::Cut;
            }
            go
        });
    }

    fn open(&self) {
        self.phase.send_if_modified(|phase| {
            let go = matches!(phase, Phase::Opening);
            if go {
                *phase = Phase::Open;
            }
            go
        });
    }

    async fn is_cut(&self) {
        let mut phase = self.phase.subscribe();
        let _ = phase.wait_for(|phase| !matches!(phase, Phase::Opening | Phase::Open)).await;
    }

    async fn ended(&self) {
        let mut phase = self.phase.subscribe();
        let _ = phase.wait_for(|phase| matches!(phase, Phase::Refused(_) | Phase::Ended)).await;
    }

    async fn is_empty(&self) {
        let _ = self.members.subscribe().wait_for(|members| *members == 0).await;
    }
}

/// The keeper of a session. Dropped, it has forgotten the session, whatever happened to its task.
struct Kept {
    shared: Arc<Shared>,
    session: Arc<Session>,
}

impl Kept {
    async fn keep(self, peer: Option<SocketAddr>) {
        let (core, channel) = (&self.shared.core, self.session.channel);
        let started = match core.start_session(channel, peer).await {
            Ok(started) => started,
            Err(error) => {
                tracing::info!(%channel, %error, "no session");
                self.forget();
                self.session.phase.send_replace(Phase::Refused(error));
                return;
            }
        };
        let allowed = started.status.allows_use();
        let meter = Meter::of(core, channel, started, self.shared.options);
        let meter = self.session.meter.get_or_init(|| meter);
        if allowed {
            self.session.open();
            self.watch(meter).await;
        }
        self.session.cut();
        self.session.is_empty().await;
        meter.stop().await;
    }

    /// Returns once the session is cut, has to be, or is idle.
    async fn watch(&self, meter: &Meter) {
        tokio::select! {
            () = self.session.is_cut() => {}
            () = self.idle() => {}
            why = meter.ended() => {
                tracing::debug!(channel = %self.session.channel, %why, "the session ends");
            }
        }
    }

    /// Returns once the session was cut for being idle.
    async fn idle(&self) {
        let Some(idle) = self.shared.idle else { return std::future::pending().await };
        let mut members = self.session.members.subscribe();
        loop {
            let _ = members.wait_for(|members| *members == 0).await;
            if timeout(idle, members.changed()).await.is_err() {
                // Nobody can join while this is locked.
                let _live = self.shared.live();
                if *self.session.members.borrow() == 0 {
                    return self.session.cut();
                }
            }
        }
    }

    fn forget(&self) {
        let mut live = self.shared.live();
        let known = live.by_channel.get(&self.session.channel);
        if known.is_some_and(|known| Arc::ptr_eq(known, &self.session)) {
            live.by_channel.remove(&self.session.channel);
        }
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        self.forget();
        self.session.phase.send_if_modified(|phase| {
            let go = !matches!(phase, Phase::Refused(_));
            if go {
                *phase = Phase::Ended;
            }
            go
        });
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
