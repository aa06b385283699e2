//! The line of a channel: one connection at most, the session on it, and the way to cut it.
//!
//! A task has a [`Line`] for as long as it serves a channel. The caller that cuts a line waits until that
//! task has reported its last usage, stopped the session and dropped the line.

use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::time::Duration;

use privatix_plugin_api::prelude::*;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{sleep, timeout};

use crate::fault;

/// The pause before something that failed is tried again.
pub(crate) const AGAIN: Duration = Duration::from_millis(500);

/// How long an errand may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// Somebody wants so much carried, and to know how much it was.
pub(crate) type Errand = (u64, oneshot::Sender<u64>);

/// The lines of all channels; nothing once the module has ended.
pub(crate) struct Lines(Mutex<Option<HashMap<ClientKey, Handle>>>, Ending);

/// Channels whose stop is not answered yet; only of a fault.
type Ending = std::sync::Mutex<Vec<ClientKey>>;

/// The module's end of a line. No [`Line`] is left once `cut` is closed.
#[derive(Clone)]
struct Handle {
    made_with: String,
    cut: watch::Sender<bool>,
    errands: mpsc::Sender<Errand>,
}

/// The end of a line that its task holds.
pub(crate) struct Line {
    pub(crate) channel: ClientKey,
    pub(crate) errands: mpsc::Receiver<Errand>,
    cut: watch::Receiver<bool>,
}

impl Default for Lines {
    fn default() -> Self {
        Self(Mutex::new(Some(HashMap::new())), Ending::default())
    }
}

impl Handle {
    /// Returns once the line is cut and nothing is left to be reported.
    async fn cut(&self) {
        self.cut.send_replace(true);
        self.cut.closed().await;
    }
}

impl Lines {
    /// A new line; an older one of the channel is cut first.
    pub(crate) async fn open(&self, channel: ClientKey, made_with: &str) -> Result<Line, Error> {
        loop {
            let older = {
                let mut lines = self.0.lock().await;
                let lines = lines.as_mut().ok_or("the module is ending")?;
                match lines.get(&channel).filter(|line| !line.cut.is_closed()) {
                    Some(older) => older.clone(),
                    None => {
                        let (cut, receiver) = watch::channel(false);
                        let (errands, asked) = mpsc::channel(1);
                        let made_with = made_with.to_owned();
                        lines.insert(channel, Handle { made_with, cut, errands });
                        return Ok(Line { channel, errands: asked, cut: receiver });
                    }
                }
            };
            // Not under the lock: it may take a while, and other channels have lines, too.
            older.cut().await;
        }
    }

    /// Whether the channel has a line that was made with just this.
    pub(crate) async fn has(&self, channel: ClientKey, made_with: &str) -> bool {
        let lines = self.0.lock().await;
        let line = lines.as_ref().and_then(|lines| lines.get(&channel));
        line.is_some_and(|line| !line.cut.is_closed() && line.made_with == made_with)
    }

    /// Ends the line of a channel, if there is one.
    pub(crate) async fn cut(&self, channel: ClientKey) {
        let line = self.0.lock().await.as_ref().and_then(|lines| lines.get(&channel).cloned());
        if let Some(line) = line {
            line.cut().await;
        }
        // What has ended may be forgotten, or the map would grow for ever.
        if let Some(lines) = self.0.lock().await.as_mut() {
            lines.retain(|_, line| !line.cut.is_closed());
        }
    }

    /// Says that a channel is being stopped, or that it is not any more.
    pub(crate) fn ending(&self, channel: ClientKey, is: bool) {
        let mut ending = self.1.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        ending.retain(|known| *known != channel);
        if is {
            ending.push(channel);
        }
    }

    /// Ends all lines for good.
    pub(crate) async fn cut_all(&self) {
        let lines: Vec<_> = self.0.lock().await.take().into_iter().flatten().collect();
        for (_, line) in &lines {
            line.cut.send_replace(true);
        }
        for (_, line) in lines {
            line.cut().await;
        }
    }

    /// The channels that are served.
    pub(crate) async fn served(&self) -> Vec<ClientKey> {
        let lines = self.0.lock().await;
        let served = lines.iter().flatten().filter(|(_, line)| !line.cut.is_closed());
        let mut served: Vec<_> = served.map(|(channel, _)| *channel).collect();
        served.extend(&*self.1.lock().unwrap_or_else(std::sync::PoisonError::into_inner));
        served
    }

    /// Has the line of a channel carry so much, and returns how much it was.
    pub(crate) async fn ask(&self, channel: ClientKey, amount: u64) -> Result<u64, Error> {
        let lines = self.0.lock().await;
        let errands = lines.as_ref().and_then(|lines| lines.get(&channel));
        let errands =
            errands.map(|line| line.errands.clone()).ok_or("the channel is not served")?;
        drop(lines);
        let (done, carried) = oneshot::channel();
        let asked = async {
            errands.send((amount, done)).await?;
            Ok::<_, Error>(carried.await?)
        };
        // Nobody takes an errand while there is no connection.
        timeout(PATIENCE, asked).await?
    }
}

impl Line {
    /// Returns when the line is cut; borrows nothing of it.
    pub(crate) fn is_cut(&self) -> impl Future<Output = ()> + Send + use<> {
        let mut cut = self.cut.clone();
        async move {
            // An error would mean that the module is gone.
            let _ = cut.wait_for(|cut| *cut).await;
        }
    }
}

/// A session of the core's, and what was used in it.
pub(crate) struct Session {
    core: Core,
    channel: ClientKey,
    id: SessionId,
    used: AtomicU64,
    /// The usage up to which the core allows use; nothing where it states no limit.
    limit: watch::Sender<Option<u64>>,
}

impl Session {
    /// Opens a session; an error or a status that allows no use is no session.
    pub(crate) async fn start(core: &Core, channel: ClientKey) -> Result<Self, Error> {
        let started = core.start_session(channel, None).await?;
        let core = core.clone();
        let limit = watch::Sender::new(started.credit);
        let session = Self { core, channel, id: started.session, used: AtomicU64::new(0), limit };
        if !fault::is("ignores-start-status") && !started.status.allows_use() {
            session.finish().await;
            return Err(format!("the channel is {}", started.status).into());
        }
        Ok(session)
    }

    /// How much of it may be used now; waits while that is nothing.
    pub(crate) async fn room(&self, most: u64) -> u64 {
        let mut limit = self.limit.subscribe();
        loop {
            let left = limit
                .borrow_and_update()
                .map_or(most, |limit| limit.saturating_sub(self.used.load(SeqCst)));
            if fault::is("ignores-credit") || (left > 0 && fault::is("credit-by-buffer")) {
                return most;
            }
            if left > 0 {
                return left.min(most);
            }
            // An error would mean that the session is gone.
            let _ = limit.changed().await;
        }
    }

    /// Notes that so much was used.
    pub(crate) fn add(&self, amount: u64) {
        self.used.fetch_add(amount, SeqCst);
    }

    /// Reports the usage so far; whether to go on serving. `Ok` means that the core has it on disk.
    pub(crate) async fn report(&self) -> bool {
        if fault::is("reports-nothing") {
            return true;
        }
        let waits = || self.limit.borrow().is_some_and(|limit| self.used.load(SeqCst) >= limit);
        if fault::is("waits-without-asking") && waits() {
            return true;
        }
        match self.update().await {
            Ok(_) if fault::is("ignores-status") => true,
            Err(_) if fault::is("ignores-status") => true,
            Ok(status) => status.allows_use(),
            Err(error) => {
                tracing::warn!(channel = %self.channel, %error, "usage was not taken");
                // The core could not just now. The next report is the total again: nothing is lost.
                error.name == ErrorName::Internal
            }
        }
    }

    /// Reports the last usage and stops the session, for as long as the core only fails.
    pub(crate) async fn finish(self) {
        while let Err(error) = self.close().await {
            tracing::warn!(channel = %self.channel, %error, "the session was not stopped");
            if error.name != ErrorName::Internal || fault::is("gives-up-at-stop") {
                return;
            }
            sleep(AGAIN).await;
        }
    }

    async fn close(&self) -> Result<(), ApiError> {
        if !fault::is("forgets-last-report") {
            self.update().await?;
        }
        if fault::is("forgets-stop-session") {
            return Ok(());
        }
        self.core.stop_session(self.channel, self.id).await.map(drop)
    }

    async fn update(&self) -> Result<Status, ApiError> {
        // A total may be sent twice without harm, unlike an increment.
        let counted = self.used.load(SeqCst);
        let used = match counted {
            used if fault::is("usage-falls") && used > 150_000 => 1,
            used if fault::is("usage-doubled") => used * 2,
            used => used,
        };
        let used = Usage::Total(used);
        let used = match used {
            Usage::Total(amount) if fault::is("increments-unsaid") => {
                Usage::Incremental { sequence: amount + 1, amount }
            }
            used => used,
        };
        let reply = self.core.report(self.channel, self.id, used).await?;
        self.limit.send_replace(reply.credit.map(|credit| counted.saturating_add(credit)));
        Ok(reply.status)
    }
}
