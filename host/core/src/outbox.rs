//! What modules have still to be told, and what follows from their answers.
//!
//! A command stands in the channel's row, written with what caused it, until its answer has been
//! saved: so it is told at least once, in order, also across a crash. Who tells it is not decided
//! here.

use std::collections::HashMap;
use std::sync::{MutexGuard, PoisonError};

use privatix_plugin_api::message::{ClientKey, SessionId, Status, StopReason};
use tokio::sync::watch;
use uuid::Uuid;

use super::channel::ChannelError;
use super::{ClientApi, Outbox, Service};
use privatix_base::clock::{self, UnixSeconds};
use privatix_domain::present::clip;
use privatix_domain::status::{Event, stop_reason};
use privatix_store::{ChannelRow, PendingCommand, StoreError, Txn};

/// How often a module is told to stop before its silence counts as an answer.
const STOPS: u32 = 3;

/// The same where there was no module to tell, in seconds.
const NO_MODULE_AGAIN: UnixSeconds = 20;

/// How long a start waits while there is no module for it, in seconds.
const WITHOUT_MODULE: UnixSeconds = 2;

/// How long after a stop without success the next one is sent, in seconds.
const STOP_AGAIN: UnixSeconds = 5;

/// How long after a start that was only told the next one is sent, in seconds.
const START_AGAIN: UnixSeconds = 5;

/// How a module answered a command.
#[derive(Debug, Clone)]
pub enum Answer {
    /// The service can be used now.
    Ready,
    /// It will be.
    Later,
    /// It was given to a program that has no way to answer, and may have lost it.
    Told,
    /// It is served no longer.
    Stopped,
    /// An error, a panic or silence.
    Failed(String),
    /// There is no module to tell.
    NoModule,
}

impl Outbox {
    /// Changes whenever there may be something new to tell.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.core.inner.outbox.subscribe()
    }

    /// What is to be told by now.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn commands(&self) -> Result<Vec<PendingCommand>, StoreError> {
        self.core.inner.store.channel_commands(clock::unix_now()).await
    }

    /// Puts off starts for which there is no module now.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn commands_wait(&self, commands: &[PendingCommand]) -> Result<(), StoreError> {
        if commands.is_empty() {
            return Ok(());
        }
        let mut txn = self.core.inner.store.begin().await?;
        let due = clock::unix_now() + WITHOUT_MODULE;
        for command in commands {
            txn.channel_command_later(command.channel, command.number, due).await?;
        }
        // Nothing new is to be told, so nobody is woken.
        txn.commit().await.map(drop)
    }

    /// Saves a module's answer; one to a command that has been replaced is without effect.
    ///
    /// # Errors
    /// [`StoreError`]; then the command is told again.
    pub async fn command_answered(
        &self,
        command: &PendingCommand,
        answer: Answer,
    ) -> Result<(), StoreError> {
        let mut txn = self.core.inner.store.begin().await?;
        let outcome = if command.start {
            self.started(&mut txn, command, answer).await
        } else {
            self.stopped(&mut txn, command, answer).await
        };
        match outcome {
            Ok(()) => self.core.commit(txn).await,
            Err(ChannelError::Store(error)) => Err(error),
            // The channel is gone or over: nothing is left to be told.
            Err(error) => {
                tracing::error!(channel = %command.channel, %error, "an answer had no effect");
                Ok(())
            }
        }
    }

    async fn started(
        &self,
        txn: &mut Txn,
        command: &PendingCommand,
        answer: Answer,
    ) -> Result<(), ChannelError> {
        let Some(row) = txn.channel_find(command.channel).await? else { return Ok(()) };
        if matches!(answer, Answer::Told) && row.state.status == Status::Activating {
            let due = clock::unix_now() + START_AGAIN;
            return Ok(txn.channel_command_again(command.channel, command.number, due).await?);
        }
        let newest = txn.channel_command_done(command.channel, command.number).await?;
        match answer {
            _ if !newest => {}
            Answer::Ready => {
                self.core.apply(txn, &row, Event::Ready, "started").await?;
            }
            Answer::Failed(why) => self.start_failed(txn, &row, &why).await?,
            Answer::Later | Answer::Told | Answer::Stopped | Answer::NoModule => {}
        }
        Ok(())
    }

    /// The channel rests, with the module's own words, until it is tried again.
    async fn start_failed(
        &self,
        txn: &mut Txn,
        row: &ChannelRow,
        why: &str,
    ) -> Result<(), ChannelError> {
        tracing::warn!(channel = %row.id, why, "start failed");
        let reason = format!("start failed: {}", clip(why));
        self.core.apply(txn, row, Event::StartFailed, &reason).await.map(drop)
    }

    async fn stopped(
        &self,
        txn: &mut Txn,
        command: &PendingCommand,
        answer: Answer,
    ) -> Result<(), ChannelError> {
        // A module that is coming up takes a while.
        let again = if matches!(answer, Answer::NoModule) { NO_MODULE_AGAIN } else { STOP_AGAIN };
        let acknowledged = matches!(answer, Answer::Stopped);
        let clean = acknowledged && !txn.session_is_open(command.channel).await?;
        if !clean && command.attempts + 1 < STOPS {
            let due = clock::unix_now() + again;
            return Ok(txn.channel_command_again(command.channel, command.number, due).await?);
        }
        if !txn.channel_command_done(command.channel, command.number).await? {
            return Ok(());
        }
        let Some(row) = txn.channel_find(command.channel).await? else { return Ok(()) };
        // It may have arrived by `StopSession`, which left the command to be told.
        let awaited = matches!(row.state.status, Status::Suspending | Status::Terminating);
        if clean || !awaited {
            self.core.apply(txn, &row, Event::Stopped, "stopped").await?;
            return Ok(());
        }
        tracing::error!(channel = %command.channel, "forced: the module did not stop the channel");
        *self.core.forced_counts().entry(row.product).or_default() += 1;
        self.core.apply(txn, &row, Event::Stopped, "forced: the module did not stop it").await?;
        Ok(())
    }

    /// How many channels of a product had to be stopped by force since this process began.
    pub fn forced(&self, product: Uuid) -> u64 {
        self.core.forced_counts().get(&product).copied().unwrap_or(0)
    }

    /// Has a module told of every channel it should be serving, after it has come up.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn served_channels(&self, product: Uuid) -> Result<Vec<ClientKey>, StoreError> {
        self.core.inner.store.channel_served(product).await
    }

    /// The channels of a product that its module has answered for: it said that it serves them.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn started_channels(&self, product: Uuid) -> Result<Vec<ClientKey>, StoreError> {
        self.core.inner.store.channel_started(product).await
    }

    /// A module can be told from now on: the stops that were put off for want of one are due.
    ///
    /// # Errors
    /// [`StoreError`]; they are told when they would have been.
    pub async fn routed(&self, product: Uuid) -> Result<(), StoreError> {
        let mut txn = self.core.inner.store.begin().await?;
        txn.channel_stops_due(product, clock::unix_now()).await?;
        self.core.commit(txn).await
    }

    /// Notes how a module that has just come up answered `start` for a channel it should serve.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn replayed(&self, channel: ClientKey, answer: Answer) -> Result<(), StoreError> {
        let mut txn = self.core.inner.store.begin().await?;
        let Some(row) = txn.channel_find(channel).await? else { return Ok(()) };
        let outcome = match answer {
            Answer::Ready => {
                self.core.apply(&mut txn, &row, Event::Ready, "started").await.map(drop)
            }
            // Without effect where it is to be stopped by now.
            Answer::Failed(why) => self.start_failed(&mut txn, &row, &why).await,
            Answer::Later | Answer::Told | Answer::Stopped | Answer::NoModule => Ok(()),
        };
        match outcome {
            Ok(()) => {}
            Err(ChannelError::Store(error)) => return Err(error),
            Err(error) => tracing::error!(%channel, %error, "an answer had no effect"),
        }
        self.core.commit(txn).await
    }

    /// The open sessions of a product.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn open_sessions(&self, product: Uuid) -> Result<Vec<SessionId>, StoreError> {
        self.core.open_sessions(product).await
    }

    /// Closes those of the earlier sessions of a product whose channels its module does not serve
    /// now, at their last known usage. Sessions that were opened since are the module's own affair.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn close_unserved(
        &self,
        product: Uuid,
        served: &[ClientKey],
        earlier: &[SessionId],
    ) -> Result<(), StoreError> {
        self.core.close_unserved(product, served, earlier).await
    }

    /// How many usage reports of a product were refused since this process began, because they said
    /// less than the ones before.
    pub fn backwards(&self, product: Uuid) -> u64 {
        self.core.backwards(product)
    }
}

impl ClientApi {
    /// Changes whenever there may be something new to say to an agent.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.core.inner.outbox.subscribe()
    }
}

impl Service {
    fn forced_counts(&self) -> MutexGuard<'_, HashMap<Uuid, u64>> {
        self.inner.forced.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has all of a product told again to a program that has just connected; what it serves of
    /// channels that are not live any more is returned, with the reason to stop it. Earlier sessions
    /// that it does not go on with are closed, where it says what it serves.
    ///
    /// # Errors
    /// [`StoreError`].
    pub(super) async fn connected(
        &self,
        product: Uuid,
        serving: Option<&[ClientKey]>,
        earlier: &[SessionId],
    ) -> Result<Vec<(ClientKey, StopReason)>, StoreError> {
        if let Some(serving) = serving {
            self.close_unserved(product, serving, earlier).await?;
        }
        let mut txn = self.inner.store.begin().await?;
        let mut strays = Vec::new();
        for channel in serving.unwrap_or_default() {
            let row = txn.channel_find(*channel).await?.filter(|row| row.product == product);
            match row.map(|row| row.state.status) {
                Some(status) if status.allows_use() => {}
                Some(status) => strays.push((*channel, stop_reason(status))),
                None => strays.push((*channel, StopReason::Terminated)),
            }
        }
        txn.channel_replay(product, clock::unix_now()).await?;
        self.commit(txn).await?;
        Ok(strays)
    }

    pub(crate) async fn open_sessions(&self, product: Uuid) -> Result<Vec<SessionId>, StoreError> {
        let open = self.inner.store.session_open(product).await?;
        Ok(open.into_iter().map(|(session, _)| session).collect())
    }

    pub(crate) async fn close_unserved(
        &self,
        product: Uuid,
        served: &[ClientKey],
        earlier: &[SessionId],
    ) -> Result<(), StoreError> {
        let open = self.inner.store.session_open(product).await?;
        let unserved = |(session, channel): &(SessionId, ClientKey)| {
            earlier.contains(session) && !served.contains(channel)
        };
        let now = clock::unix_now();
        let mut txn = self.inner.store.begin().await?;
        for (session, channel) in open.into_iter().filter(unserved) {
            txn.session_close_as_known(session, now).await?;
            tracing::warn!(%channel, "closed a session that nobody serves");
        }
        self.commit(txn).await
    }
}
