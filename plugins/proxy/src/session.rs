//! One session per channel, shared by all connections of the channel, and the way to cut them.
//!
//! A connection joins the session before it moves a byte and is a member until it is closed. A
//! keeper per session opens it, reports the total, and closes it once the last member is gone, so
//! the last report is exact. Whoever ends a session waits for that. Nothing here knows sockets.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use privatix_plugin_api::message::{ApiError, ClientKey, ErrorName, SessionId, Status, Usage};
use privatix_plugin_api::sdk::Core;
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};

/// The pause before a session that could not be closed is closed again.
const RETRY: Duration = Duration::from_secs(1);

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
    report: Duration,
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
    used: AtomicU64,
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
}

impl Sessions {
    pub(crate) fn new(
        core: Core,
        report: Duration,
        max_members: usize,
        idle: Option<Duration>,
    ) -> Self {
        let live = Mutex::default();
        Self { shared: Arc::new(Shared { core, report, max_members, idle, live }) }
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
        Ok(Ok(Member { session, phase }))
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
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Member {
    /// Takes up to so much of the credit, for bytes that are about to be read.
    pub(crate) fn take(&self, most: usize) -> usize {
        most
    }

    /// Puts back what was taken and not used.
    pub(crate) fn give_back(&self, _amount: u64) {}

    /// Returns when there may be credit again.
    pub(crate) async fn may_take(&self) {}

    /// Bytes were delivered.
    pub(crate) fn count(&self, bytes: u64) {
        self.session.used.fetch_add(bytes, Relaxed);
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
        self.session.members.send_modify(|members| *members -= 1);
    }
}

impl Session {
    fn new(channel: ClientKey) -> Self {
        let (phase, members) = (watch::Sender::new(Phase::Opening), watch::Sender::new(0));
        Self { channel, used: AtomicU64::new(0), phase, members }
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
        let id = match core.start_session(channel, peer).await {
            Ok(started) if started.status.allows_use() => {
                self.session.open();
                started.session
            }
            Ok(started) => started.session,
            Err(error) => {
                tracing::info!(%channel, %error, "no session");
                self.forget();
                self.session.phase.send_replace(Phase::Refused(error));
                return;
            }
        };
        if self.session.is_open() {
            self.watch(id).await;
        }
        self.session.cut();
        self.session.is_empty().await;
        self.finish(id).await;
    }

    /// Reports until the session is cut, has to be, or is idle.
    async fn watch(&self, id: SessionId) {
        let mut ticks = interval(self.shared.report);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut idle = Box::pin(self.idle());
        loop {
            tokio::select! {
                () = self.session.is_cut() => return,
                () = &mut idle => return,
                _ = ticks.tick() => if !self.report(id).await {
                    return;
                },
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

    /// Reports the usage so far; whether to go on serving.
    async fn report(&self, id: SessionId) -> bool {
        match self.update(id).await {
            Ok(status) => status.allows_use(),
            Err(error) => {
                tracing::warn!(channel = %self.session.channel, %error, "usage was not taken");
                // A later report is the total again, so nothing is lost.
                error.name == ErrorName::Internal
            }
        }
    }

    /// Reports the last usage and closes the session, for as long as the core only fails.
    async fn finish(&self, id: SessionId) {
        while let Err(error) = self.close(id).await {
            tracing::warn!(channel = %self.session.channel, %error, "the session was not closed");
            if error.name != ErrorName::Internal {
                break;
            }
            sleep(RETRY).await;
        }
    }

    async fn close(&self, id: SessionId) -> Result<Status, ApiError> {
        self.update(id).await?;
        self.shared.core.stop_session(self.session.channel, id).await
    }

    async fn update(&self, id: SessionId) -> Result<Status, ApiError> {
        let total = Usage::Total(self.session.used.load(Relaxed));
        self.shared.core.update_session(self.session.channel, id, total).await
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
