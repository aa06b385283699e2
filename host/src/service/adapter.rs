//! What existing adapters need beyond the Service API: they know neither sessions nor statuses.
//!
//! The session meant is the open one. Such an adapter ends a client's access only when a call fails, so
//! a call about a channel that may not be used has to fail; and when it stops a client's session it
//! waits for a new start, which only the client's user can give.

use privatix_plugin_api::manifest::{Role, UsageReporting};
use privatix_plugin_api::message::{ApiError, ClientKey, Done, ErrorName, Status, Usage};

use super::usage::Reported;
use super::{Caller, CoreReply, OfferingView, Refused, Service, internal};
use crate::clock;
use crate::domain::status::Event;
use crate::store::{ChannelRow, SessionRow};

impl Service {
    /// Usage of the open session: in all, or since the last report, as the product reports it.
    ///
    /// # Errors
    /// For an agent's channel that is not active: `NonActiveChannel`, whatever else is the matter, with
    /// the usage saved if it can be. Otherwise `SessionNotFound` where none is open, and what
    /// `UpdateSession` says.
    pub async fn adapter_update(
        &self,
        caller: &Caller,
        key: ClientKey,
        amount: u64,
    ) -> Result<CoreReply, ApiError> {
        let channel = self.channel(caller, key).await?;
        let unusable = self.role() == Role::Agent && channel.state.status != Status::Active;
        let newest = self.inner.store.session_newest(key).await.map_err(internal)?;
        let session = newest.filter(|session| unusable || session.stopped_at.is_none());
        let saved = match session {
            Some(session) => self.adapter_report(caller, &session, amount).await,
            None => Err(ErrorName::SessionNotFound.into()),
        };
        if unusable {
            if let Err(error) = saved {
                tracing::debug!(channel = %key, %error, "usage of a channel that is not active");
            }
            return Err(ErrorName::NonActiveChannel.into());
        }
        // By now it may be otherwise.
        match saved? {
            Status::Active => Ok(CoreReply::Done(Done {})),
            _ if self.role() == Role::Agent => Err(ErrorName::NonActiveChannel.into()),
            _ => Ok(CoreReply::Done(Done {})),
        }
    }

    async fn adapter_report(
        &self,
        caller: &Caller,
        session: &SessionRow,
        amount: u64,
    ) -> Result<Status, ApiError> {
        let product = self.inner.store.product_get(caller.product).await.map_err(internal)?;
        let incremental = product.is_some_and(|product| {
            product.usage_reporting == super::reporting(UsageReporting::Incremental)
        });
        let usage = if incremental {
            Reported::More(amount)
        } else {
            Reported::Usage(Usage::Total(amount))
        };
        self.inner.usage.report(caller.product, session.channel, session.id, usage).await
    }

    /// Ends the open session. A client's channel that is active is suspended by it: the adapter waits
    /// to be started again.
    ///
    /// # Errors
    /// `SessionNotFound` where none is open.
    pub async fn adapter_stop(
        &self,
        caller: &Caller,
        key: ClientKey,
    ) -> Result<CoreReply, ApiError> {
        let (mut txn, channel) = self.write(caller, key).await?;
        let open = txn.session_newest(key).await.map_err(internal)?;
        let open = open.filter(|session| session.stopped_at.is_none());
        let session = open.ok_or(ErrorName::SessionNotFound)?;
        txn.session_close(session.id, clock::unix_now()).await.map_err(internal)?;
        let mut state = channel.state;
        if self.role() == Role::Client && state.status == Status::Active {
            state = self.apply(&mut txn, &channel, Event::Suspend, "stopped by its module").await?;
        }
        let channel = ChannelRow { state, ..channel };
        self.apply(&mut txn, &channel, Event::Stopped, "session stopped").await?;
        self.commit(txn).await.map_err(internal)?;
        Ok(CoreReply::Done(Done {}))
    }

    /// The offering of a channel of the caller's.
    ///
    /// # Errors
    /// `ChannelNotFound`.
    pub async fn adapter_offering(
        &self,
        caller: &Caller,
        key: ClientKey,
    ) -> Result<OfferingView, ApiError> {
        let channel = self.channel(caller, key).await?;
        let found = self.offering_view(&channel.offering).await;
        found.map_err(|refused: Refused| {
            tracing::error!(channel = %key, error = %refused, "a channel's offering");
            ErrorName::Internal.into()
        })
    }
}
