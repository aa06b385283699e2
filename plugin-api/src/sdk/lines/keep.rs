//! The client's side of a service over a stream: connects, and connects again.

use std::pin::Pin;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{sleep, timeout};

use super::guest::LOGIN;
use super::{Line, Lines, Over};
use crate::message::{AccessMessage, ClientKey};
use crate::sdk::{Error, Meter, login};

/// The pause before a lost connection is made again.
const AGAIN: Duration = Duration::from_millis(500);

/// How long it may take until the channel is served.
const SERVED: Duration = Duration::from_secs(20);

/// One connection from the beginning to the end.
type Attempt = Pin<Box<dyn Future<Output = Result<Over, Error>> + Send>>;

impl Lines {
    /// Serves a channel from the client's side: has it connected, and returns once it is served. A
    /// connection that is lost is made again until the line is cut, because nobody else would do it.
    ///
    /// `connect` makes a connection, logs in and calls [`Line::run`]. While the channel is served by a line
    /// that was made with the same text, nothing happens; an older line is cut.
    ///
    /// # Errors
    /// The first attempt failed, or the channel was not served within 20 s.
    pub async fn keep<F>(
        &self,
        channel: ClientKey,
        made_with: &str,
        connect: impl Fn(Line) -> F + Send + Sync + 'static,
    ) -> Result<(), Error>
    where
        F: Future<Output = Result<Over, Error>> + Send + 'static,
    {
        if self.get(channel).is_some_and(|line| line.value() == made_with && line.is_served()) {
            return Ok(());
        }
        let line = self.open(channel, made_with.to_owned()).await?;
        let mut first: Attempt = Box::pin(connect(line.clone()));
        let first = tokio::select! {
            biased;
            // It was served, however shortly.
            over = &mut first => Box::pin(std::future::ready(Ok(over?))) as Attempt,
            () = line.is_serving(true) => first,
            () = sleep(SERVED) => return Err(late()),
        };
        tokio::spawn(async move {
            let mut attempt = first;
            loop {
                match line.settle(attempt).await {
                    Ok(Over::Service) => return,
                    Ok(Over::Connection) => tracing::warn!(%channel, "the connection was lost"),
                    Err(error) => tracing::debug!(%channel, error, "not connected again"),
                }
                tokio::select! {
                    () = line.until_cut() => return,
                    () = sleep(AGAIN) => {}
                }
                attempt = Box::pin(connect(line.clone()));
            }
        });
        Ok(())
    }
}

impl Line {
    /// Logs in at the agent, and opens a session. [`Guest::admit`](super::Guest::admit) is the other
    /// side of it.
    ///
    /// # Errors
    /// The agent or the core does not want it.
    pub async fn log_in<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        stream: &mut S,
        access: &AccessMessage,
    ) -> Result<Meter, Error> {
        let answered = timeout(LOGIN, login::write(stream, access)).await;
        answered.map_err(|_| format!("the agent has not answered within {LOGIN:?}"))??;
        Ok(self.meter(None).await?)
    }

    /// What comes of an attempt, which is given up when the line is cut or it takes too long, unless the
    /// channel is being served: then it ends by itself, with its session closed.
    async fn settle(&self, mut attempt: Attempt) -> Result<Over, Error> {
        tokio::select! {
            biased;
            outcome = &mut attempt => return outcome,
            () = self.is_serving(true) => {}
            () = self.until_cut() => return Ok(Over::Service),
            () = sleep(SERVED) => return Err(late()),
        }
        attempt.await
    }

    fn is_served(&self) -> bool {
        self.inner().is_served()
    }
}

fn late() -> Error {
    format!("the channel was not served within {SERVED:?}").into()
}
