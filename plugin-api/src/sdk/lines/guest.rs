//! The agent's side of a service over a stream: connections come in, and say who they are.
//!
//! A connection that has not logged in is bounded in time, in bytes and in number, and knows no channel.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::{sleep, timeout};

use super::{Line, Lines, ShuttingDown, is_set};
use crate::sdk::{Error, Meter, login};

/// How many connections may be logging in at once; further ones wait in the system's queue.
const MAX_LOGINS: usize = 256;

/// How long a login may take.
pub(super) const LOGIN: Duration = Duration::from_secs(10);

/// The pause after a connection could not be accepted.
const AGAIN: Duration = Duration::from_millis(500);

/// A connection that has not logged in.
#[derive(Debug)]
pub struct Guest {
    lines: Lines,
    ending: watch::Receiver<bool>,
    place: OwnedSemaphorePermit,
}

impl Lines {
    /// Takes in connections until the module shuts down, and has each one served by a task of its own.
    ///
    /// `next` is the listener's: `move |context| listener.poll_accept(context)`.
    pub fn accept<C, F>(
        &self,
        mut next: impl FnMut(&mut Context<'_>) -> Poll<io::Result<C>> + Send + 'static,
        serve: impl Fn(C, Guest) -> F + Send + 'static,
    ) where
        C: Send + 'static,
        F: Future<Output = Result<(), Error>> + Send + 'static,
    {
        let (lines, ending) = (self.clone(), self.shared.ending.subscribe());
        let held = ending.clone();
        let accepting = async move {
            let places = Arc::new(Semaphore::new(MAX_LOGINS));
            // Nobody closes the semaphore.
            while let Ok(place) = Arc::clone(&places).acquire_owned().await {
                match std::future::poll_fn(&mut next).await {
                    Ok(connection) => {
                        let guest = Guest { lines: lines.clone(), ending: ending.clone(), place };
                        let served = serve(connection, guest);
                        tokio::spawn(async move {
                            if let Err(error) = served.await {
                                tracing::info!(error, "a connection was not served");
                            }
                        });
                    }
                    Err(error) => {
                        tracing::warn!(%error, "no connection could be accepted");
                        sleep(AGAIN).await;
                    }
                }
            }
        };
        tokio::spawn(async move {
            tokio::select! {
                () = is_set(held.clone()) => {}
                () = accepting => {}
            }
            // The listener is gone by now.
            drop(held);
        });
    }
}

impl Guest {
    /// Reads who it is, asks the core, opens the channel's line and a session, and answers. An older
    /// line of the channel is cut.
    ///
    /// The login is a line of text, `<client key> <password>`; it is answered with `ok` or with
    /// `denied <reason>`. [`Line::log_in`] is the other side of it.
    ///
    /// # Errors
    /// It did not log in, or the core opens no session. What it has sent is in no error, since it may
    /// be a password.
    pub async fn admit<S: AsyncRead + AsyncWrite + Unpin>(
        self,
        stream: &mut S,
        client: Option<SocketAddr>,
    ) -> Result<(Line, Meter), Error> {
        let Self { lines, ending, place } = self;
        let channel = tokio::select! {
            () = is_set(ending.clone()) => return Err(ShuttingDown.into()),
            channel = timeout(LOGIN, login::read(stream, &lines.shared.core)) => {
                channel.map_err(|_| format!("no login within {LOGIN:?}"))??
            }
        };
        drop(place);
        // The line comes before the session: a `stop` from now on finds it and waits for its end.
        let line = lines.open(channel, String::new()).await?;
        drop(ending);
        let meter = line.meter(client).await?;
        let answered = timeout(LOGIN, login::accept(stream)).await;
        answered.map_err(|_| format!("the answer was not taken within {LOGIN:?}"))??;
        Ok((line, meter))
    }
}
