//! The agent: holds, releases and ends channels.
//!
//! What has changed is judged beside the pass over all channels, which takes a while where there are
//! many. Both may meet at a channel: each looks at it anew before it changes anything.

use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval, sleep_until};

use super::ALL_EVERY;
use privatix_base::backoff::Backoff;
use privatix_base::condition::Condition;
use privatix_core::AgentApi;

/// Judges channels until shutdown.
pub async fn run(agent: AgentApi, mut shutdown: watch::Receiver<bool>) {
    tokio::select! {
        () = judge_all(&agent) => {}
        () = judge_changed(&agent) => {}
        _ = async { shutdown.wait_for(|down| *down).await.is_ok() } => {}
    }
}

async fn judge_all(agent: &AgentApi) {
    let mut failing = Condition::new(NOT_JUDGED);
    let mut all = interval(ALL_EVERY);
    all.set_missed_tick_behavior(MissedTickBehavior::Delay);
    // What a host that was killed has left undone may be of channels that are over. Until they are marked
    // as settled, every pass has to go past them.
    let mut over_too = true;
    loop {
        all.tick().await;
        over_too &= failing.note(agent.bill_all(over_too).await).is_none();
    }
}

async fn judge_changed(agent: &AgentApi) {
    let (mut failing, mut backoff) = (Condition::new(NOT_JUDGED), Backoff::default());
    loop {
        agent.billing_wanted().await;
        match failing.note(agent.bill_changed().await) {
            Some(_) => backoff.worked(&()),
            // What was not judged now is with the next pass over all.
            None => sleep_until(backoff.failed(())).await,
        }
    }
}

const NOT_JUDGED: &str = "channels are not judged";
