//! What existing adapters need beyond the Service API: they know neither sessions nor statuses.
//!
//! The session meant is the open one. Such an adapter ends a client's access only when a call fails, so
//! a call about a channel that may not be used has to fail; and when it stops a client's session it
//! waits for a new start, which only the client's user can give.

use privatix_plugin_api::manifest::{Role, UsageReporting};
use privatix_plugin_api::message::{ApiError, ClientKey, Done, ErrorName, Status, Usage};

use super::usage::Reported;
use super::{Caller, ClientPlace, CoreReply, OfferingView, Refused, Service, internal};
use privatix_base::clock;
use privatix_base::logging::Admission;
use privatix_domain::status::Event;
use privatix_store::{ChannelRow, SessionRow};

impl Service {
    /// Opens a session, and says by which offering.
    ///
    /// # Errors
    /// Those of `StartSession`. The offering is read first, so that no session is open whose adapter
    /// was refused.
    pub(super) async fn adapter_start(
        &self,
        caller: &Caller,
        key: ClientKey,
        place: ClientPlace,
    ) -> Result<CoreReply, ApiError> {
        let offering = self.adapter_offering(caller, key).await?;
        match self.start_session(caller, key, place).await? {
            CoreReply::Started(started) => Ok(CoreReply::Offered(Box::new((started, offering)))),
            other => Ok(other),
        }
    }

    /// Usage of the open session, or else of the newest one: in all, or since the last report, as the
    /// product reports it. What comes too late for that session is dropped with a warning.
    ///
    /// # Errors
    /// For an agent's channel that is not active or has no open session: `NonActiveChannel`, whatever
    /// else is the matter, so that a tunnel that nobody meters is cut off. Otherwise what
    /// `UpdateSession` says of the open session.
    pub(super) async fn adapter_update(
        &self,
        caller: &Caller,
        key: ClientKey,
        amount: u64,
    ) -> Result<CoreReply, ApiError> {
        let channel = self.channel(caller, key).await?;
        let newest = self.inner.store.session_newest(key).await.map_err(internal)?;
        let is_open = newest.as_ref().is_some_and(|session| session.stopped_at.is_none());
        let serves = self.role() == Role::Agent;
        let usable = !serves || channel.state.status == Status::Active;
        let saved = match newest {
            Some(session) => self.adapter_report(caller, &session, amount).await,
            None => Err(ErrorName::SessionNotFound.into()),
        };
        match saved {
            // By now it may be otherwise.
            Ok(status) if !serves || (is_open && status == Status::Active) => {
                Ok(CoreReply::Done(Done {}))
            }
            Ok(_) => Err(ErrorName::NonActiveChannel.into()),
            // It is about what the adapter should know, and nobody is served unmetered.
            Err(error) if usable && is_open && error.name != ErrorName::SessionNotFound => {
                Err(error)
            }
            Err(error) => {
                // An adapter may repeat it for as long as it likes.
                if let Admission::Write { skipped } = self.inner.dropped.admit(0) {
                    tracing::warn!(module = caller.name, channel = %key, amount, %error, skipped,
                        "dropped a report of usage: the channel has no session that takes it");
                }
                if serves {
                    Err(ErrorName::NonActiveChannel.into())
                } else {
                    Ok(CoreReply::Done(Done {}))
                }
            }
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
        let reply = self.inner.usage.report(caller.product, session.channel, session.id, usage);
        let reply = reply.await.inspect_err(|error| self.note_backwards(caller.product, error))?;
        Ok(reply.status)
    }

    /// Ends the open session, if there is one, and answers a stop. A client's channel that is active
    /// is suspended by it: the adapter waits to be started again.
    ///
    /// # Errors
    /// `ChannelNotFound`; none because there is nothing to end.
    pub(super) async fn adapter_stop(
        &self,
        caller: &Caller,
        key: ClientKey,
    ) -> Result<CoreReply, ApiError> {
        let (mut txn, channel) = self.write(caller, key).await?;
        txn.session_close_open(key, clock::unix_now()).await.map_err(internal)?;
        let mut state = channel.state;
        if self.role() == Role::Client && state.status == Status::Active {
            state = self.apply(&mut txn, &channel, Event::Suspend, "stopped by its module").await?;
        }
        let channel = ChannelRow { state, ..channel };
        self.apply(&mut txn, &channel, Event::Stopped, "session stopped").await?;
        // It has done by itself what it would be told.
        txn.channel_stop_needless(key).await.map_err(internal)?;
        self.commit(txn).await.map_err(internal)?;
        Ok(CoreReply::Done(Done {}))
    }

    /// The offering of a channel of the caller's.
    ///
    /// # Errors
    /// `ChannelNotFound`.
    async fn adapter_offering(
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
