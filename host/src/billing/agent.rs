//! The agent: holds, releases and ends channels.
//!
//! What has changed is judged beside the pass over all channels, which takes a while where there are
//! many. Both may meet at a channel: each looks at it anew before it changes anything.

use std::future::Future;

use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval};

use super::ALL_EVERY;
use crate::service::Service;
use crate::store::StoreError;

/// Judges channels until shutdown.
pub async fn run(service: Service, mut shutdown: watch::Receiver<bool>) {
    tokio::select! {
        () = judge_all(&service) => {}
        () = judge_changed(&service) => {}
        _ = async { shutdown.wait_for(|down| *down).await.is_ok() } => {}
    }
}

async fn judge_all(service: &Service) {
    let mut all = interval(ALL_EVERY);
    all.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        all.tick().await;
        judged(service.bill_all(false)).await;
    }
}

async fn judge_changed(service: &Service) {
    loop {
        service.billing_wanted().await;
        judged(service.bill_changed()).await;
    }
}

async fn judged<T>(pass: impl Future<Output = Result<T, StoreError>>) {
    if let Err(error) = pass.await {
        tracing::error!(error = crate::chain(&error), "channels were not judged");
    }
}
