//! `ServiceReady`, `StartSession`, `UpdateSession`, `StopSession`.

use std::collections::HashMap;
use std::sync::{MutexGuard, PoisonError};

use privatix_plugin_api::message::{
    ApiError, ClientKey, ErrorName, SessionId, SessionStarted, Status, StatusReply, Usage,
};
use serde_json::Value;
use uuid::Uuid;

use super::usage::Reported;
use super::{Caller, ClientApi, ClientPlace, CoreReply, Service, internal};
use privatix_base::clock;
use privatix_domain::billing::credit_applies;
use privatix_domain::present::clip;
use privatix_domain::status::{Event, Hold};
use privatix_store::{ChannelRow, NewSession, Txn};

impl ClientApi {
    /// The module has found that the agent wants what the user has not agreed to.
    pub(super) async fn hold_channel(
        &self,
        caller: &Caller,
        key: ClientKey,
        reason: &str,
    ) -> Result<CoreReply, ApiError> {
        let (mut txn, channel) = self.core.write(caller, key).await?;
        let reason = format!("the module asks for the user's agreement: {}", clip(reason));
        let state =
            self.core.apply(&mut txn, &channel, Event::HoldAdded(Hold::User), &reason).await?;
        self.core.commit(txn).await.map_err(internal)?;
        Ok(CoreReply::Status(StatusReply::new(state.status)))
    }
}

impl Service {
    pub(super) async fn service_ready(
        &self,
        caller: &Caller,
        key: ClientKey,
    ) -> Result<CoreReply, ApiError> {
        let (mut txn, channel) = self.write(caller, key).await?;
        let state = self.apply(&mut txn, &channel, Event::Ready, "service ready").await?;
        let terms = self.terms(&channel.offering).await.map_err(internal)?;
        let measured = terms.is_some_and(|terms| !credit_applies(&terms));
        let credit = self.credit(&mut txn, key, state.status, measured).await?;
        self.commit(txn).await.map_err(internal)?;
        Ok(CoreReply::Status(StatusReply { status: state.status, credit }))
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
        let terms = self.terms(&channel.offering).await.map_err(internal)?;
        txn.session_close_open(key, now).await.map_err(internal)?;
        let session = NewSession {
            // Rises with time, so that the sessions being reported lie together on disk.
            id: SessionId(Uuid::now_v7()),
            channel: key,
            client_address: place.address.map(|address| address.to_string()),
            client_port: place.port,
            started_at: now,
            measured: terms.is_some_and(|terms| !credit_applies(&terms)),
        };
        txn.session_open(&session).await.map_err(internal)?;
        let offering = txn.offering_get(&channel.offering).await.map_err(internal)?;
        let offering = offering.and_then(|row| serde_json::from_str(&row.message).ok());
        let state = self.apply(&mut txn, &channel, Event::Ready, "session started").await?;
        let credit = self.credit(&mut txn, key, state.status, session.measured).await?;
        self.commit(txn).await.map_err(internal)?;
        Ok(CoreReply::Started(SessionStarted {
            session: session.id,
            offering: offering.unwrap_or(Value::Null),
            status: state.status,
            credit,
        }))
    }

    pub(super) async fn update_session(
        &self,
        caller: &Caller,
        key: ClientKey,
        session: SessionId,
        usage: Usage,
    ) -> Result<CoreReply, ApiError> {
        let usage = Reported::Usage(usage);
        match self.inner.usage.report(caller.product, key, session, usage).await {
            Ok(reply) => Ok(CoreReply::Status(reply)),
            // Which of the two was not found is only looked up for the answer.
            Err(error) if error.name == ErrorName::SessionNotFound => {
                self.channel(caller, key).await?;
                Err(error)
            }
            Err(error) => {
                self.note_backwards(caller.product, &error);
                Err(error)
            }
        }
    }

    /// A report that went backwards is a fault of its module, and counted.
    pub(super) fn note_backwards(&self, product: Uuid, error: &ApiError) {
        if error.name == ErrorName::UsageWentBackwards {
            *self.backwards_counts().entry(product).or_default() += 1;
        }
    }

    pub(crate) fn backwards(&self, product: Uuid) -> u64 {
        self.backwards_counts().get(&product).copied().unwrap_or(0)
    }

    fn backwards_counts(&self) -> MutexGuard<'_, HashMap<Uuid, u64>> {
        self.inner.backwards.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) async fn stop_session(
        &self,
        caller: &Caller,
        key: ClientKey,
        session: SessionId,
    ) -> Result<CoreReply, ApiError> {
        let (mut txn, channel) = self.write(caller, key).await?;
        let row = txn.session_get(key, session).await.map_err(internal)?;
        let row = row.ok_or(ErrorName::SessionNotFound)?;
        if row.stopped_at.is_some() {
            // Said again after its answer was lost.
            return Ok(CoreReply::Status(StatusReply::new(channel.state.status)));
        }
        txn.session_close(session, clock::unix_now()).await.map_err(internal)?;
        let state = self.apply(&mut txn, &channel, Event::Stopped, "session stopped").await?;
        self.commit(txn).await.map_err(internal)?;
        Ok(CoreReply::Status(StatusReply::new(state.status)))
    }

    /// How much of a channel may be used until a report is acknowledged; none for a session that is
    /// measured here.
    async fn credit(
        &self,
        txn: &mut Txn,
        key: ClientKey,
        status: Status,
        measured: bool,
    ) -> Result<Option<u64>, ApiError> {
        if measured {
            return Ok(None);
        }
        if !status.allows_use() {
            return Ok(Some(0));
        }
        let (usage, bounds) = txn.billing_bounds(key).await.map_err(internal)?;
        Ok(Some(bounds.credit(usage, self.inner.settings.max_unreported)))
    }

    /// Begins a write on a channel of the caller's.
    pub(super) async fn write(
        &self,
        caller: &Caller,
        key: ClientKey,
    ) -> Result<(Txn, ChannelRow), ApiError> {
        let mut txn = self.inner.store.begin().await.map_err(internal)?;
        let channel = txn.channel_find(key).await.map_err(internal)?;
        let channel = channel.filter(|channel| channel.product == caller.product);
        Ok((txn, channel.ok_or(ErrorName::ChannelNotFound)?))
    }
}
