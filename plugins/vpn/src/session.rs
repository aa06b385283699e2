//! One use of a channel, from the side of whoever counts: opens the core's session, reports the
//! total, closes it once the tunnel is gone. The last report is exact.

use std::net::SocketAddr;
use std::time::Duration;

use privatix_plugin_api::message::{ApiError, ClientKey, ErrorName, SessionId, Status, Usage};
use privatix_plugin_api::sdk::Core;
use serde_json::Value;
use tokio::sync::{mpsc, watch};
use tokio::time::{sleep, timeout};

/// The pause before a call that failed is made again.
const RETRY: Duration = Duration::from_secs(1);

/// A report is made at least so often, also if nothing was used: its answer may say stop.
const SILENCE: Duration = Duration::from_secs(10);

/// After so many reports that failed one after the other, the client is not served any longer:
/// what it uses would be on nobody's books.
const MAX_UNREPORTED: u32 = 10;

/// What was used so far, and whether that was all.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Count {
    pub(crate) total: u64,
    pub(crate) ended: bool,
}

/// What became of a session.
#[derive(Debug)]
pub(crate) enum Verdict {
    /// It is open, on these terms.
    Open(Value),
    /// The core does not want it.
    Refused,
    /// The channel may not be used any longer.
    Over,
    /// Nothing of it is left to be done.
    Closed,
}

/// Where a session's verdicts go: beside its mark.
pub(crate) type Verdicts<M> = mpsc::UnboundedSender<(M, Verdict)>;

/// Tells a session what was used. Dropped, it has ended.
#[derive(Debug)]
pub(crate) struct Meter(watch::Sender<Count>);

impl Meter {
    /// Takes a total; one that is lower than before is not taken.
    pub(crate) fn count(&self, total: u64) {
        self.0.send_if_modified(|count| {
            let more = total > count.total;
            count.total = count.total.max(total);
            more
        });
    }
}

impl Drop for Meter {
    fn drop(&mut self) {
        self.0.send_modify(|count| count.ended = true);
    }
}

/// Opens a session for a tunnel that is up.
pub(crate) fn open<M: Copy + Send + Sync + 'static>(
    core: Core,
    channel: ClientKey,
    peer: Option<SocketAddr>,
    mark: M,
    verdicts: Verdicts<M>,
) -> Meter {
    let (meter, counts) = watch::channel(Count::default());
    tokio::spawn(async move {
        let keeper = Keeper { core, channel, counts };
        // Nobody listens any more once the module is shut down.
        let say = |verdict| drop(verdicts.send((mark, verdict)));
        keeper.keep(peer, say).await;
    });
    Meter(meter)
}

struct Keeper {
    core: Core,
    channel: ClientKey,
    counts: watch::Receiver<Count>,
}

impl Keeper {
    async fn keep(mut self, peer: Option<SocketAddr>, say: impl Fn(Verdict)) {
        if let Some(session) = self.begin(peer, &say).await {
            self.report(session, &say).await;
            self.finish(session).await;
        }
        say(Verdict::Closed);
    }

    /// Opens the session, for as long as the core only fails and there is something to open.
    async fn begin(&self, peer: Option<SocketAddr>, say: &impl Fn(Verdict)) -> Option<SessionId> {
        let channel = self.channel;
        loop {
            match self.core.start_session(channel, peer).await {
                Ok(started) => {
                    let use_is_allowed = started.status.allows_use();
                    say(if use_is_allowed {
                        Verdict::Open(started.offering)
                    } else {
                        Verdict::Over
                    });
                    return Some(started.session);
                }
                Err(error) if error.name == ErrorName::Internal && !self.counts.borrow().ended => {
                    tracing::warn!(%channel, %error, "the session was not opened");
                    sleep(RETRY).await;
                }
                Err(error) => {
                    tracing::info!(%channel, %error, "no session");
                    say(Verdict::Refused);
                    return None;
                }
            }
        }
    }

    /// Reports until the tunnel is gone.
    async fn report(&mut self, session: SessionId, say: &impl Fn(Verdict)) {
        let mut failures = 0;
        loop {
            // Late is as good as changed; gone counts as ended.
            let changed = timeout(SILENCE, self.counts.changed()).await;
            let count = *self.counts.borrow_and_update();
            if count.ended || matches!(changed, Ok(Err(_))) {
                return;
            }
            match self.update(session, count.total).await {
                Ok(status) if status.allows_use() => failures = 0,
                Ok(_) => say(Verdict::Over),
                Err(error) => {
                    tracing::warn!(channel = %self.channel, %error, "usage was not taken");
                    failures += 1;
                    // A later report is the total again, so nothing is lost by one that failed.
                    if error.name != ErrorName::Internal || failures >= MAX_UNREPORTED {
                        say(Verdict::Over);
                    }
                }
            }
        }
    }

    /// Reports the last usage and closes the session, for as long as the core only fails.
    async fn finish(&self, session: SessionId) {
        let total = self.counts.borrow().total;
        while let Err(error) = self.close(session, total).await {
            tracing::warn!(channel = %self.channel, %error, "the session was not closed");
            if error.name != ErrorName::Internal {
                return;
            }
            sleep(RETRY).await;
        }
    }

    async fn close(&self, session: SessionId, total: u64) -> Result<Status, ApiError> {
        self.update(session, total).await?;
        self.core.stop_session(self.channel, session).await
    }

    async fn update(&self, session: SessionId, total: u64) -> Result<Status, ApiError> {
        self.core.update_session(self.channel, session, Usage::Total(total)).await
    }
}

#[cfg(test)]
mod tests;
