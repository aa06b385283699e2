//! The agent: holds, releases and ends channels.

use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval};

use super::ALL_EVERY;
use crate::service::Service;

/// Judges channels until shutdown.
pub async fn run(service: Service, mut shutdown: watch::Receiver<bool>) {
    let mut all = interval(ALL_EVERY);
    all.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let done = tokio::select! {
            _ = all.tick() => service.bill_all(false).await,
            () = service.billing_wanted() => service.bill_changed().await,
            _ = async { shutdown.wait_for(|down| *down).await.is_ok() } => return,
        };
        if let Err(error) = done {
            tracing::error!(error = crate::chain(&error), "channels were not judged");
        }
    }
}
