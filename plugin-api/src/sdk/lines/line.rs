//! One line, as its tasks hold it.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{oneshot, watch};
use tokio::time::timeout;

use super::errand::Errands;
use super::{Lines, Shared, is_set, lock};
use crate::message::{ApiError, ClientKey, ErrorName};
use crate::sdk::{Ended, Error, Meter};

/// How long a line waits for the core to open a session.
const OPENED: Duration = Duration::from_secs(10);

/// What a table of lines and the holders of a line share.
pub(super) struct Inner<T> {
    channel: ClientKey,
    value: T,
    /// Each [`Line`] has a receiver: the line has ended once there is none.
    cut: watch::Sender<bool>,
    serving: watch::Sender<bool>,
    pub(super) errands: Errands,
}

impl<T> Inner<T> {
    pub(super) fn new(channel: ClientKey, value: T) -> Self {
        let (cut, serving) = (watch::Sender::new(false), watch::Sender::new(false));
        Self { channel, value, cut, serving, errands: Errands::default() }
    }

    pub(super) fn channel(&self) -> ClientKey {
        self.channel
    }

    pub(super) fn cut(&self) {
        self.cut.send_replace(true);
    }

    pub(super) fn is_cut(&self) -> bool {
        *self.cut.borrow()
    }

    pub(super) fn has_ended(&self) -> bool {
        self.cut.is_closed()
    }

    pub(super) fn is_held_once(&self) -> bool {
        self.cut.receiver_count() == 1
    }

    pub(super) fn is_served(&self) -> bool {
        *self.serving.borrow() && !self.has_ended()
    }

    /// Cuts the line and returns once it has ended.
    pub(super) async fn end(&self) {
        self.cut();
        self.ended().await;
    }

    /// Returns once the line has ended.
    pub(super) async fn ended(&self) {
        self.cut.closed().await;
    }
}

/// Why [`Line::run`] has returned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Over {
    /// The connection is over. The channel is still to be served: the client connects again.
    Connection,
    /// The channel is not to be served any more: its line was cut, or the core allows no use.
    Service,
}

/// A line, held by whatever serves its channel. Cheap to clone; the line ends with the last clone.
pub struct Line<T = String> {
    inner: Arc<Inner<T>>,
    shared: Arc<Shared<T>>,
    cut: watch::Receiver<bool>,
}

impl<T> Clone for Line<T> {
    fn clone(&self) -> Self {
        Self::hold(&self.shared, Arc::clone(&self.inner))
    }
}

impl<T> Drop for Line<T> {
    fn drop(&mut self) {
        if self.inner.is_held_once() {
            self.shared.forget(&self.inner);
        }
    }
}

impl<T> fmt::Debug for Line<T> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Line").field("channel", &self.inner.channel).finish_non_exhaustive()
    }
}

impl<T> Line<T> {
    pub(super) fn hold(shared: &Arc<Shared<T>>, inner: Arc<Inner<T>>) -> Self {
        let cut = inner.cut.subscribe();
        Self { inner, shared: Arc::clone(shared), cut }
    }

    pub(super) fn inner(&self) -> &Inner<T> {
        &self.inner
    }

    /// The table that it is in.
    #[must_use]
    pub fn lines(&self) -> Lines<T> {
        Lines { shared: Arc::clone(&self.shared) }
    }

    /// Its channel.
    #[must_use]
    pub fn channel(&self) -> ClientKey {
        self.inner.channel
    }

    /// The module's own value.
    #[must_use]
    pub fn value(&self) -> &T {
        &self.inner.value
    }

    /// Whether it was cut.
    #[must_use]
    pub fn is_cut(&self) -> bool {
        self.inner.is_cut()
    }

    /// Returns when the line is cut. Holds it, and borrows nothing of it.
    pub fn until_cut(&self) -> impl Future<Output = ()> + Send + use<T> {
        is_set(self.cut.clone())
    }

    /// Cuts it, without waiting for its end.
    pub fn cut(&self) {
        self.inner.cut();
    }

    /// Says that the channel is being served from now on, or no longer. [`run`](Self::run) does that.
    pub fn serve(&self, serving: bool) {
        self.inner.serving.send_replace(serving);
    }

    /// Returns when the channel is being served, or is not.
    pub(super) async fn is_serving(&self, serving: bool) {
        // The sender is here.
        let _ = self.inner.serving.subscribe().wait_for(|is| *is == serving).await;
    }
}

impl<T: Send + Sync + 'static> Line<T> {
    /// Opens a session of the channel. The line does not end before the session is closed, also where
    /// nobody waits for the answer any more.
    ///
    /// # Errors
    /// Those of [`Meter::start`]; `Internal` if the core does not answer within 10 s.
    pub async fn meter(&self, client: Option<SocketAddr>) -> Result<Meter, ApiError> {
        let (line, (send, opened)) = (self.clone(), oneshot::channel());
        tokio::spawn(async move {
            // If nobody takes it, it is dropped, and closes the session.
            let _ = send.send(line.open_session(client).await);
        });
        opened.await.unwrap_or_else(|_| Err(ErrorName::Internal.into()))
    }

    async fn open_session(self, client: Option<SocketAddr>) -> Result<Meter, ApiError> {
        let (core, channel) = (self.shared.core.clone(), self.channel());
        let options = *lock(&self.shared.options);
        let asked = timeout(OPENED, core.start_session(channel, client)).await;
        let started = asked.map_err(|_| {
            let text = format!("the core has not opened a session within {OPENED:?}");
            ApiError::with(ErrorName::Internal, text)
        })??;
        let allowed = started.status.allows_use();
        let meter = Meter::held(&core, channel, started, options, Box::new(self));
        // Dropped, it closes the session; nobody has to wait for that but the line.
        if allowed { Ok(meter) } else { Err(ErrorName::NonActiveChannel.into()) }
    }

    /// Serves the channel: runs the traffic of a session until it ends or has to. Then the connection is
    /// closed, the last usage reported, and the session closed.
    ///
    /// `traffic` owns the connection, which is closed by dropping it.
    pub async fn run(
        &self,
        meter: Meter,
        traffic: impl Future<Output = Result<(), Error>> + Send + 'static,
    ) -> Over {
        self.serve(true);
        let mut traffic = Box::pin(traffic);
        let channel = self.channel();
        let over = tokio::select! {
            // An end that the traffic has seen first is told as what it is.
            biased;
            () = self.until_cut() => Over::Service,
            ended = meter.ended() => {
                tracing::info!(%channel, %ended, "the connection is closed");
                match ended {
                    // The channel is still to be served, once the core can say so again.
                    Ended::Unacknowledged(_) => Over::Connection,
                    _ => Over::Service,
                }
            }
            outcome = &mut traffic => {
                match outcome {
                    Ok(()) => tracing::debug!(%channel, "the connection has ended"),
                    Err(error) => tracing::debug!(%channel, error, "the connection has ended"),
                }
                Over::Connection
            }
        };
        // What is counted now is all there will be.
        drop(traffic);
        meter.stop().await;
        self.serve(false);
        over
    }
}
