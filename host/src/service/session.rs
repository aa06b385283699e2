//! `ServiceReady`, `StartSession`, `UpdateSession`, `StopSession`.

use privatix_plugin_api::message::{
    ApiError, ClientKey, ErrorName, SessionId, SessionStarted, Status, StatusReply, Usage,
};
use serde_json::Value;
use uuid::Uuid;

use super::{Caller, ClientPlace, CoreReply, Service, internal};
use crate::clock::{self, UnixSeconds};
use crate::domain::status::{Event, transition};
use crate::domain::usage::{self, UsageError};
use crate::store::{ChannelRow, NewSession, SessionRow, Txn};

/// How long after its end a session still takes reports, in seconds.
const LATE_REPORTS: UnixSeconds = 60;

impl Service {
    pub(super) async fn service_ready(
        &self,
        caller: &Caller,
        key: ClientKey,
    ) -> Result<CoreReply, ApiError> {
        let (mut txn, channel) = self.write(caller, key).await?;
        let status = apply(&mut txn, &channel, Event::Ready, "service ready").await?;
        txn.commit().await.map_err(internal)?;
        Ok(CoreReply::Status(StatusReply { status }))
    }

    pub(super) async fn start_session(
        &self,
        caller: &Caller,
        key: ClientKey,
        place: ClientPlace,
    ) -> Result<CoreReply, ApiError> {
        let (mut txn, channel) = self.write(caller, key).await?;
        if !channel.state.status.allows_use() {
            return Err(ErrorName::NonActiveChannel.into());
        }
        let now = clock::unix_now();
        txn.session_close_open(key, now).await.map_err(internal)?;
        let session = NewSession {
            id: SessionId(Uuid::now_v7()),
            channel: key,
            client_address: place.address.map(|address| address.to_string()),
            client_port: place.port,
            started_at: now,
        };
        txn.session_open(&session).await.map_err(internal)?;
        let status = apply(&mut txn, &channel, Event::Ready, "session started").await?;
        txn.commit().await.map_err(internal)?;
        let started = SessionStarted { session: session.id, offering: Value::Null, status };
        Ok(CoreReply::Started(started))
    }

    pub(super) async fn update_session(
        &self,
        caller: &Caller,
        key: ClientKey,
        session: SessionId,
        report: Usage,
    ) -> Result<CoreReply, ApiError> {
        let (mut txn, channel) = self.write(caller, key).await?;
        let row = session_of(&mut txn, key, session).await?;
        let now = clock::unix_now();
        if row.stopped_at.is_some_and(|stopped| now.saturating_sub(stopped) > LATE_REPORTS) {
            return Err(ErrorName::SessionNotFound.into());
        }
        let account = usage::report(row.account, report).map_err(|error| match error {
            UsageError::WentBackwards { .. } => {
                ApiError::with(ErrorName::UsageWentBackwards, error)
            }
            UsageError::TooLarge => ApiError::with(ErrorName::BadRequest, error),
        })?;
        if account != row.account {
            txn.session_set_account(session, account).await.map_err(internal)?;
            txn.commit().await.map_err(internal)?;
        }
        Ok(CoreReply::Status(StatusReply { status: channel.state.status }))
    }

    pub(super) async fn stop_session(
        &self,
        caller: &Caller,
        key: ClientKey,
        session: SessionId,
    ) -> Result<CoreReply, ApiError> {
        let (mut txn, channel) = self.write(caller, key).await?;
        let row = session_of(&mut txn, key, session).await?;
        if row.stopped_at.is_some() {
            // Said again after its answer was lost.
            return Ok(CoreReply::Status(StatusReply { status: channel.state.status }));
        }
        txn.session_close(session, clock::unix_now()).await.map_err(internal)?;
        let status = apply(&mut txn, &channel, Event::Stopped, "session stopped").await?;
        txn.commit().await.map_err(internal)?;
        Ok(CoreReply::Status(StatusReply { status }))
    }

    /// Begins a write on a channel of the caller's.
    async fn write(&self, caller: &Caller, key: ClientKey) -> Result<(Txn, ChannelRow), ApiError> {
        let mut txn = self.inner.store.begin().await.map_err(internal)?;
        let channel = txn.channel_get(caller.product, key).await.map_err(internal)?;
        Ok((txn, channel.ok_or(ErrorName::ChannelNotFound)?))
    }
}

async fn session_of(
    txn: &mut Txn,
    key: ClientKey,
    session: SessionId,
) -> Result<SessionRow, ApiError> {
    let row = txn.session_get(key, session).await.map_err(internal)?;
    row.ok_or_else(|| ErrorName::SessionNotFound.into())
}

/// Applies an event of a module, which is without effect where it has nothing to do.
async fn apply(
    txn: &mut Txn,
    channel: &ChannelRow,
    event: Event,
    reason: &str,
) -> Result<Status, ApiError> {
    let outcome = transition(channel.state, event);
    let (state, _effect) = outcome.map_err(|error| ApiError::with(ErrorName::BadStatus, error))?;
    if state != channel.state {
        let now = clock::unix_now();
        txn.channel_set_state(channel.id, state, reason, now).await.map_err(internal)?;
    }
    Ok(state.status)
}
