//! One use of a channel, from the side of whoever counts: opens the core's session, hands what was
//! counted to the SDK's meter, closes it once the tunnel is gone. The last report is exact.

use std::net::SocketAddr;
use std::time::Duration;

use privatix_plugin_api::message::{ClientKey, ErrorName, SessionStarted};
use privatix_plugin_api::sdk::{self, Core, MeterOptions};
use serde_json::Value;
use tokio::sync::{mpsc, watch};
use tokio::time::sleep;

/// The pause before a session that could not be opened is tried again.
const RETRY: Duration = Duration::from_secs(1);

/// How often a client's usage is counted, and reported at most.
pub(crate) const COUNT: Duration = Duration::from_millis(200);

/// What a fast line carries in a millisecond: 100 Mbit/s.
const FAST: u64 = 12_500;

/// What was used so far, and whether that was all.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Count {
    pub(crate) total: u64,
    pub(crate) ended: bool,
}

/// What became of a session.
#[derive(Debug)]
pub(crate) enum Verdict {
    /// It is open, on these terms; with it comes the usage up to which it may be used.
    Open(Value, Limit),
    /// The core does not want it.
    Refused,
    /// The channel may not be used any longer.
    Over,
    /// Nothing of it is left to be done.
    Closed,
}

/// For whom is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    /// Its reports follow the credit.
    Agent,
    /// What is paid next follows its reports.
    Client,
}

impl Side {
    fn options(self, offering: &Value) -> MeterOptions {
        let mut options = MeterOptions::default();
        if let (Self::Client, Some(pause)) = (self, pause_of(offering)) {
            options.report_every = pause.clamp(COUNT, options.report_every);
        }
        options
    }
}

/// How often the usage of a client is to be reported, so that the next payment is made before a fast
/// line has used up the last one: four times in an interval.
fn pause_of(offering: &Value) -> Option<Duration> {
    if offering["unitType"] != "units" {
        return None;
    }
    let interval = offering["billingInterval"].as_u64()?;
    let interval = interval.saturating_mul(offering["unitSize"].as_u64()?);
    Some(Duration::from_millis(interval / 4 / FAST))
}

/// The usage up to which the core allows use, and its changes; `None` where it states none.
pub(crate) type Limit = watch::Receiver<Option<u64>>;

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
    side: Side,
    peer: Option<SocketAddr>,
    mark: M,
    verdicts: Verdicts<M>,
) -> Meter {
    let (meter, counts) = watch::channel(Count::default());
    tokio::spawn(async move {
        let keeper = Keeper { core, channel, side, counts };
        // Nobody listens any more once the module is shut down.
        let say = |verdict| drop(verdicts.send((mark, verdict)));
        keeper.keep(peer, say).await;
    });
    Meter(meter)
}

struct Keeper {
    core: Core,
    channel: ClientKey,
    side: Side,
    counts: watch::Receiver<Count>,
}

impl Keeper {
    async fn keep(mut self, peer: Option<SocketAddr>, say: impl Fn(Verdict)) {
        if let Some(started) = self.begin(peer, &say).await {
            let (allowed, offering) = (started.status.allows_use(), started.offering.clone());
            let options = self.side.options(&offering);
            let meter = sdk::Meter::of(&self.core, self.channel, started, options);
            if allowed {
                say(Verdict::Open(offering, meter.limit()));
            }
            self.count(&meter, &say).await;
            // What cannot be reported is said by the SDK, also when the module ends.
            meter.stop().await;
        }
        say(Verdict::Closed);
    }

    /// Opens the session, for as long as the core only fails and there is something to open.
    async fn begin(
        &self,
        peer: Option<SocketAddr>,
        say: &impl Fn(Verdict),
    ) -> Option<SessionStarted> {
        let channel = self.channel;
        loop {
            match self.core.start_session(channel, peer).await {
                Ok(started) => return Some(started),
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

    /// Hands over what is counted until the tunnel is gone. That nothing may be used any more is
    /// said once, and what is used all the same is counted to the end.
    async fn count(&mut self, meter: &sdk::Meter, say: &impl Fn(Verdict)) {
        let (mut told, mut over) = (0, false);
        loop {
            tokio::select! {
                changed = self.counts.changed() => {
                    let count = *self.counts.borrow_and_update();
                    meter.record(count.total - told);
                    told = count.total;
                    // Gone counts as ended.
                    if count.ended || changed.is_err() {
                        return;
                    }
                }
                why = meter.ended(), if !over => {
                    tracing::info!(channel = %self.channel, %why, "the session is over");
                    over = true;
                    say(Verdict::Over);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
