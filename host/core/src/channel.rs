//! What happens to a channel: one way for every event to be decided, saved and passed on.

use privatix_plugin_api::message::{ApiError, ClientKey, ErrorName, Status};

use super::{AgentApi, Outbox, Refused, Service, internal};
use privatix_base::clock::{self, UnixSeconds};
use privatix_domain::back_off::back_off;
use privatix_domain::code::Code;
use privatix_domain::status::{
    BadStatus, ChannelState, Event, Hold, has_ended, is_at_rest, is_over, overdue, transition,
};
use privatix_store::{ChannelRow, StateChange, StoreError, Txn};

/// Why an event was not applied.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ChannelError {
    /// There is no such channel.
    #[error("no channel has the id {0}")]
    NotFound(ClientKey),
    /// The command makes no sense now.
    #[error(transparent)]
    BadStatus(#[from] BadStatus),
    /// The database failed.
    #[error("the channel was not changed")]
    Store(#[from] StoreError),
}

impl From<ChannelError> for ApiError {
    fn from(error: ChannelError) -> Self {
        match error {
            ChannelError::NotFound(_) => ErrorName::ChannelNotFound.into(),
            ChannelError::BadStatus(error) => Self::with(ErrorName::BadStatus, error),
            ChannelError::Store(error) => internal(error),
        }
    }
}

impl From<ChannelError> for Refused {
    fn from(error: ChannelError) -> Self {
        match error {
            ChannelError::NotFound(_) => Self::new(Code::ChannelNotFound, error),
            ChannelError::BadStatus(_) => Self::new(Code::BadStatus, error),
            ChannelError::Store(error) => error.into(),
        }
    }
}

impl AgentApi {
    /// The channel's client ends it; again, it changes nothing.
    ///
    /// # Errors
    /// `ChannelNotFound`.
    pub async fn channel_ended(&self, channel: ClientKey) -> Result<(), Refused> {
        match self.core.channel_event(channel, Event::Terminate, "ended by the client").await {
            // It is ending already.
            Ok(_) | Err(ChannelError::BadStatus(_)) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

impl Outbox {
    /// Applies what is due by now: activations that took too long, faults that are forgiven.
    ///
    /// # Errors
    /// [`StoreError`]; it is tried again with the next call.
    pub async fn channels_tick(&self) -> Result<(), StoreError> {
        let now = clock::unix_now();
        for channel in self.core.inner.store.channel_overdue(now).await? {
            let mut txn = self.core.inner.store.begin().await?;
            let Some(row) = txn.channel_find(channel).await? else { continue };
            // It may have changed since it was found.
            let Some((event, reason)) = overdue(row.activate_by, row.fault_until, now) else {
                continue;
            };
            match self.core.apply(&mut txn, &row, event, reason).await {
                Ok(_) => self.core.commit(txn).await?,
                Err(ChannelError::Store(error)) => return Err(error),
                // Neither event is a user's command.
                Err(error) => tracing::error!(%channel, %error, "a time-out was not applied"),
            }
        }
        Ok(())
    }
}

impl Service {
    /// Applies an event to a channel and saves what follows.
    pub(crate) async fn channel_event(
        &self,
        channel: ClientKey,
        event: Event,
        reason: &str,
    ) -> Result<Status, ChannelError> {
        let mut txn = self.inner.store.begin().await?;
        let row = txn.channel_find(channel).await?.ok_or(ChannelError::NotFound(channel))?;
        let state = self.apply(&mut txn, &row, event, reason).await?;
        self.commit(txn).await?;
        Ok(state.status)
    }

    pub(crate) async fn channel_row(&self, channel: ClientKey) -> Result<ChannelRow, Refused> {
        let found = self.inner.store.channel_find(channel).await?;
        found.ok_or_else(unknown)
    }

    /// Commits, has deliverers look at the outbox, and billing at what has changed.
    pub(crate) async fn commit(&self, txn: Txn) -> Result<(), StoreError> {
        self.inner.attention.draw(txn.commit().await?);
        self.inner.outbox.send_modify(|count| *count += 1);
        Ok(())
    }

    /// Decides on an event and writes what follows into the transaction.
    pub(crate) async fn apply(
        &self,
        txn: &mut Txn,
        channel: &ChannelRow,
        event: Event,
        reason: &str,
    ) -> Result<ChannelState, ChannelError> {
        let (state, effect) = transition(channel.state, event)?;
        if state == channel.state {
            return Ok(state);
        }
        let now = clock::unix_now();
        let (fault_until, fault_count) = fault(channel, state, now);
        let change = StateChange {
            state,
            reason,
            effect,
            activate_by: self.activate_by(channel, state, now),
            fault_until,
            fault_count,
        };
        txn.channel_change(channel.id, &change, now).await?;
        if (channel.state.status, state.status) == (Status::Activating, Status::Active) {
            txn.channel_start_needless(channel.id).await?;
        }
        if is_at_rest(state.status) {
            // Forced, or terminated from a status in which nobody was told.
            txn.session_close_open(channel.id, now).await?;
        }
        if has_ended(state.status) && channel.peer_sealing.is_some() {
            txn.offering_give_back(&channel.offering).await?;
        }
        tracing::info!(channel = %channel.id, from = %channel.state.status, to = %state.status,
            holds = %state.holds, reason, "channel");
        Ok(state)
    }

    fn activate_by(
        &self,
        channel: &ChannelRow,
        state: ChannelState,
        now: UnixSeconds,
    ) -> Option<UnixSeconds> {
        match (state.status, channel.state.status) {
            (Status::Activating, Status::Activating) => channel.activate_by,
            (Status::Activating, _) => Some(now + self.inner.settings.activation_timeout.as_secs()),
            _ => None,
        }
    }
}

pub(super) fn unknown() -> Refused {
    Refused::new(Code::ChannelNotFound, "there is no such channel")
}

/// When the hold `fault` is lifted, and how often in a row it has been set.
fn fault(
    channel: &ChannelRow,
    state: ChannelState,
    now: UnixSeconds,
) -> (Option<UnixSeconds>, u32) {
    let (held, was_held) =
        (state.holds.contains(Hold::Fault), channel.state.holds.contains(Hold::Fault));
    match (held, was_held) {
        // Nothing will be tried again.
        (true, _) if is_over(state.status) => (None, channel.fault_count),
        (true, false) => {
            let count = channel.fault_count.saturating_add(1);
            (Some(now + back_off(count).as_secs()), count)
        }
        (true, true) => (channel.fault_until, channel.fault_count),
        (false, _) if state.status == Status::Active => (None, 0),
        (false, _) => (None, channel.fault_count),
    }
}
