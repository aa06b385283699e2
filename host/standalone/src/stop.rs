//! The end of all connections.

use tokio::sync::watch;

/// Returns when the host stops; also if it does so without having said it.
pub(super) async fn stopped(stop: &mut watch::Receiver<bool>) {
    let _ = stop.wait_for(|stop| *stop).await;
}
