//! Accepting connections, also when the system has no more file descriptors.
//!
//! An error of `accept` never ends a listener: it is remembered for `health`, and after a pause
//! that grows to a second the next try is made. What is in the queue waits there.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::sleep;

const FIRST_PAUSE: Duration = Duration::from_millis(10);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
/// Silence after which a peer is asked whether it is still there, and between further questions.
const KEEPALIVE: Duration = Duration::from_secs(60);

/// Takes in connections, never more than so many at once.
#[derive(Clone)]
pub(crate) struct Acceptor {
    places: Arc<Semaphore>,
    trouble: Arc<Mutex<Option<String>>>,
}

/// A connection and its place among those that may be there at once.
pub(crate) struct Accepted {
    pub(crate) stream: TcpStream,
    pub(crate) peer: SocketAddr,
    pub(crate) place: OwnedSemaphorePermit,
}

impl Acceptor {
    pub(crate) fn new(max_connections: usize) -> Self {
        let places = Arc::new(Semaphore::new(max_connections.min(Semaphore::MAX_PERMITS)));
        Self { places, trouble: Arc::default() }
    }

    /// Why no connection can be accepted now, if so.
    pub(crate) fn trouble(&self) -> Option<String> {
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The next connection there is a place for; those without are closed at once.
    pub(crate) async fn next(&self, listener: &TcpListener) -> Accepted {
        let mut pause = FIRST_PAUSE;
        loop {
            match listener.accept().await {
                Ok((stream, peer)) => {
                    pause = FIRST_PAUSE;
                    self.note(None);
                    match Arc::clone(&self.places).try_acquire_owned() {
                        Ok(place) => {
                            prepare(&stream);
                            return Accepted { stream, peer, place };
                        }
                        Err(_) => tracing::debug!(%peer, "closed: too many connections"),
                    }
                }
                // The peer went away while it was in the queue: no trouble of ours.
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
                Err(error) => {
                    if self.note(Some(error.to_string())) {
                        tracing::warn!(%error, "no connection can be accepted");
                    }
                    sleep(pause).await;
                    pause = (pause * 2).min(LONGEST_PAUSE);
                }
            }
        }
    }

    /// Whether this is news.
    fn note(&self, now: Option<String>) -> bool {
        let mut trouble = self.trouble.lock().unwrap_or_else(PoisonError::into_inner);
        let news = trouble.is_some() != now.is_some();
        *trouble = now;
        news
    }
}

/// Sends small pieces at once, and finds out when the peer is gone.
pub(crate) fn prepare(stream: &TcpStream) {
    let keepalive = TcpKeepalive::new().with_time(KEEPALIVE).with_interval(KEEPALIVE);
    let set = stream.set_nodelay(true);
    if let Err(error) = set.and_then(|()| SockRef::from(stream).set_tcp_keepalive(&keepalive)) {
        // It works without, only less well.
        tracing::debug!(%error, "a socket option was not taken");
    }
}
