//! One connection of a tunnel, and how it ends: with a reset, unless both of its ways have ended.

use std::time::Duration;

use socket2::SockRef;
use tokio::io::Interest;
use tokio::net::TcpStream;

/// A connection that is reset when it is dropped, unless both of its ways have ended. The same
/// happens when the process is killed, since the system knows of it from the beginning.
#[derive(Debug)]
pub(crate) struct Leg {
    pub(super) stream: TcpStream,
}

impl Leg {
    pub(crate) fn new(stream: TcpStream) -> Self {
        linger(&stream, Some(Duration::ZERO));
        Self { stream }
    }

    /// Both ways have ended.
    pub(super) fn ended(&self) {
        linger(&self.stream, None);
    }
}

impl Drop for Leg {
    fn drop(&mut self) {
        // Before a reset, what has arrived is acknowledged, or the other side would not count it.
        let _ = self.stream.set_quickack(true);
    }
}

fn linger(stream: &TcpStream, linger: Option<Duration>) {
    // A connection that cannot be reset is closed all the same.
    if let Err(error) = SockRef::from(stream).set_linger(linger) {
        tracing::debug!(%error, "a socket option was not taken");
    }
}

/// Returns once the connection was reset, or has failed otherwise.
pub(super) async fn is_reset(stream: &TcpStream) {
    // An error would mean that the runtime ends.
    let _ = stream.ready(Interest::ERROR).await;
}
