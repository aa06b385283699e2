//! Errands: how `exercise` has the task of a line use the service.

use std::time::Duration;

use tokio::sync::{Mutex, mpsc, oneshot};
use tokio::time::timeout;

use super::{Line, Lines};
use crate::message::ClientKey;
use crate::sdk::Error;

/// How long an errand may take. Nobody takes one while there is no connection.
const PATIENCE: Duration = Duration::from_secs(10);

/// Something to be carried by a line.
#[derive(Debug)]
pub struct Errand {
    /// How much, in smallest units.
    pub amount: u64,
    done: Option<oneshot::Sender<u64>>,
}

impl Errand {
    /// One that nobody waits for.
    #[must_use]
    pub fn of(amount: u64) -> Self {
        Self { amount, done: None }
    }

    /// So much was carried.
    pub fn done(self, carried: u64) {
        if let Some(done) = self.done {
            // Nobody may wait any more.
            let _ = done.send(carried);
        }
    }
}

/// Both ends of the way to a line's task.
pub(super) struct Errands {
    send: mpsc::Sender<Errand>,
    receive: Mutex<mpsc::Receiver<Errand>>,
}

impl Default for Errands {
    fn default() -> Self {
        let (send, receive) = mpsc::channel(1);
        Self { send, receive: Mutex::new(receive) }
    }
}

impl<T> Lines<T> {
    /// Has the task of a channel's line carry so much, and returns how much it was: for
    /// [`exercise`](crate::sdk::ServiceModule::exercise).
    ///
    /// # Errors
    /// The channel has no line, or its task did not do it.
    pub async fn ask(&self, channel: ClientKey, amount: u64) -> Result<u64, Error> {
        let line = self.table().by_channel.get(&channel).cloned();
        let line = line.filter(|line| !line.has_ended()).ok_or("the channel is not served")?;
        let (send, done) = oneshot::channel();
        let asked = async {
            line.errands.send.send(Errand { amount, done: Some(send) }).await?;
            Ok::<_, Error>(done.await?)
        };
        tokio::select! {
            carried = timeout(PATIENCE, asked) => {
                carried.map_err(|_| format!("it was not carried within {PATIENCE:?}"))?
            }
            () = line.ended() => Err("the channel is not served any more".into()),
        }
    }
}

impl<T> Line<T> {
    /// The next errand. May be dropped and called again.
    pub async fn errand(&self) -> Errand {
        match self.inner().errands.receive.lock().await.recv().await {
            Some(errand) => errand,
            // The other end is here, too.
            None => std::future::pending().await,
        }
    }
}
