//! Accounts: what an agent says of a channel, and what its client learns from it. And the commands
//! of either party's user.

use std::collections::BTreeMap;

use privatix_plugin_api::manifest::Role;
use privatix_plugin_api::message::{ClientKey, Status};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use uuid::Uuid;

use super::offering::parsed;
use super::{Refused, Service};
use crate::clock::{self, UnixSeconds};
use crate::domain::account::{self, Account};
use crate::domain::identity::PublicKey;
use crate::domain::order::{ChannelRequest, check_request};
use crate::domain::present::{self, Line};
use crate::domain::signed::{self, Kind};
use crate::domain::status::Event;
use crate::store::{ChannelRow, SessionRow};

/// A channel as its user sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ChannelView {
    /// Its id, which is the client key.
    pub id: ClientKey,
    /// The module's name.
    pub product: String,
    /// The product.
    pub product_id: Uuid,
    /// Hash of its offering.
    pub offering: String,
    /// Fingerprint of the other party's key.
    pub peer: String,
    /// Its status.
    pub status: Status,
    /// Why it may not be active.
    pub holds: Vec<String>,
    /// Why it has this status.
    pub reason: String,
    /// Since when it has this status, Unix time.
    pub since: UnixSeconds,
    /// When it was made, Unix time.
    pub created_at: UnixSeconds,
    /// What was used, in smallest units, by this side's measure.
    pub usage: u64,
    /// Number of the newest access message.
    pub access_serial: u64,
    /// What its module says a user should know, by name; only when one channel is asked for.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub service: BTreeMap<String, String>,
}

/// A session as its user sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SessionView {
    /// Its id.
    pub id: Uuid,
    /// Its channel.
    pub channel: ClientKey,
    /// What was used, in smallest units.
    pub usage: u64,
    /// When it was opened, Unix time.
    pub started_at: UnixSeconds,
    /// When it was closed, Unix time.
    pub stopped_at: Option<UnixSeconds>,
}

/// A live channel that the client has to ask its agent about.
#[derive(Debug, Clone)]
pub struct Followed {
    /// The channel.
    pub channel: ClientKey,
    /// The agent's URL.
    pub exchange: String,
    /// Number of the newest access message that is known; 0 before the first.
    pub serial: u64,
    /// Whether this side has ended it and the agent has to be told.
    pub ended: bool,
}

impl Service {
    /// The agent: whether a request about a channel comes from its client, now, and for the first
    /// time.
    ///
    /// # Errors
    /// `ChannelNotFound`, or the first check that failed; `RepeatedRequest`.
    pub async fn request_received(
        &self,
        kind: Kind,
        channel: ClientKey,
        message: &Value,
    ) -> Result<(), Refused> {
        self.only(Role::Agent)?;
        let row = self.channel_row(channel).await?;
        let client = key(&row)?;
        let now = clock::unix_now();
        let request = check_request(kind, message, &client, channel, now)
            .map_err(|error| Refused::new(error.code(), crate::chain(&error)))?;
        let expires = now + 2 * ChannelRequest::TOLERANCE;
        let mut txn = self.inner.store.begin().await?;
        let fresh = txn.nonce_use(&row.peer, &request.nonce.to_string(), expires, now).await?;
        txn.commit().await?;
        if fresh {
            Ok(())
        } else {
            Err(Refused::new("RepeatedRequest", "this request was made before"))
        }
    }

    /// The client: a signed request about a channel.
    ///
    /// # Errors
    /// Only what no message can hold.
    pub fn request_make(&self, kind: Kind, channel: ClientKey) -> Result<Value, Refused> {
        let request = ChannelRequest { channel, time: clock::unix_now(), nonce: Uuid::new_v4() };
        signed::sign(kind, request, &self.inner.identity)
            .map_err(|error| Refused::new(error.code(), crate::chain(&error)))
    }

    /// The agent's signed account of a channel.
    ///
    /// # Errors
    /// `ChannelNotFound`.
    pub async fn account(&self, channel: ClientKey) -> Result<Value, Refused> {
        let row = self.channel_row(channel).await?;
        let account = Account {
            channel,
            status: row.state.status,
            holds: Account::words(row.state.holds),
            usage: self.inner.store.session_usage(channel).await?,
            cost: 0,
            paid: 0,
            serial: row.access_serial,
            time: clock::unix_now(),
        };
        signed::sign(Kind::Account, account, &self.inner.identity)
            .map_err(|error| Refused::new(error.code(), crate::chain(&error)))
    }

    /// The client: takes in an account; returns whether there is a newer access message.
    ///
    /// # Errors
    /// The first check that failed.
    pub async fn account_received(
        &self,
        channel: ClientKey,
        message: &Value,
    ) -> Result<bool, Refused> {
        let row = self.channel_row(channel).await?;
        let account = account::check(message, &key(&row)?, channel, 0)
            .map_err(|error| Refused::new(error.code(), crate::chain(&error)))?;
        if is_over(account.status) {
            let mut txn = self.inner.store.begin().await?;
            txn.channel_peer_ended(channel).await?;
            // As it is by now: its user may have ended it meanwhile.
            if let Some(row) = txn.channel_find(channel).await?
                && !is_over(row.state.status)
            {
                self.apply(&mut txn, &row, Event::Terminate, "ended by the agent").await?;
            }
            self.commit(txn).await?;
            return Ok(false);
        }
        Ok(account.serial > row.access_serial && !is_over(row.state.status))
    }

    /// A user's command.
    ///
    /// # Errors
    /// `ChannelNotFound`, `BadStatus`.
    pub async fn channel_command(
        &self,
        channel: ClientKey,
        event: Event,
    ) -> Result<ChannelView, Refused> {
        let reason = match event {
            Event::Suspend => "suspended by the user",
            Event::Resume => "resumed by the user",
            _ => "terminated by the user",
        };
        self.channel_event(channel, event, reason).await?;
        self.channel_view(channel).await
    }

    /// The channels a client asks its agents about.
    ///
    /// # Errors
    /// A database that fails.
    pub async fn channels_followed(&self) -> Result<Vec<Followed>, Refused> {
        let mut followed = Vec::new();
        for row in self.inner.store.channel_followed().await? {
            let Some(offering) = self.inner.store.offering_get(&row.offering).await? else {
                continue;
            };
            followed.push(Followed {
                channel: row.id,
                exchange: parsed(&offering)?.exchange,
                serial: if row.access.is_some() { row.access_serial } else { 0 },
                ended: is_over(row.state.status),
            });
        }
        Ok(followed)
    }

    /// All channels, newest first.
    ///
    /// # Errors
    /// A database that fails.
    pub async fn channel_views(&self) -> Result<Vec<ChannelView>, Refused> {
        let mut views = Vec::new();
        for row in self.inner.store.channel_list().await? {
            views.push(self.view(row).await?);
        }
        Ok(views)
    }

    /// One channel.
    ///
    /// # Errors
    /// `ChannelNotFound`.
    pub async fn channel_view(&self, channel: ClientKey) -> Result<ChannelView, Refused> {
        let row = self.channel_row(channel).await?;
        self.view(row).await
    }

    /// A channel's access message as its template has it shown.
    ///
    /// # Errors
    /// `ChannelNotFound`, `AccessNotFound`.
    pub async fn channel_access(
        &self,
        channel: ClientKey,
        reveal: bool,
    ) -> Result<Vec<Line>, Refused> {
        self.only(Role::Client)?;
        let row = self.channel_row(channel).await?;
        let missing = || Refused::new("AccessNotFound", "the access message is not here yet");
        let message = row.access.as_deref().and_then(|text| serde_json::from_str(text).ok());
        let message: Value = message.ok_or_else(missing)?;
        let template = self.template(&row.access_template).await?.ok_or_else(missing)?;
        Ok(present::present(&message, &template, reveal))
    }

    /// An offering as its template has it shown.
    ///
    /// # Errors
    /// `NotFound`.
    pub async fn offering_lines(&self, hash: &str) -> Result<Vec<Line>, Refused> {
        let view = self.offering_view(hash).await?;
        let noted = view.message.get("templateHash").and_then(Value::as_str).unwrap_or_default();
        let template = self.template(noted).await?;
        let template = template.ok_or_else(|| Refused::not_found("its template"))?;
        Ok(present::present(&view.message, &template, false))
    }

    /// The sessions of a channel, oldest first.
    ///
    /// # Errors
    /// `ChannelNotFound`.
    pub async fn session_views(&self, channel: ClientKey) -> Result<Vec<SessionView>, Refused> {
        self.channel_row(channel).await?;
        let rows = self.inner.store.session_list(channel).await?;
        Ok(rows.into_iter().map(session).collect())
    }

    async fn channel_row(&self, channel: ClientKey) -> Result<ChannelRow, Refused> {
        let found = self.inner.store.channel_find(channel).await?;
        found.ok_or_else(|| Refused::new("ChannelNotFound", "there is no such channel"))
    }

    async fn view(&self, row: ChannelRow) -> Result<ChannelView, Refused> {
        let product = self.inner.store.product_get(row.product).await?;
        let peer = row.peer.parse::<PublicKey>().map(|key| key.fingerprint());
        Ok(ChannelView {
            id: row.id,
            product: product.map(|product| product.name).unwrap_or_default(),
            product_id: row.product,
            service: BTreeMap::new(),
            offering: row.offering,
            peer: peer.unwrap_or(row.peer),
            status: row.state.status,
            holds: Account::words(row.state.holds),
            reason: row.reason,
            since: row.since,
            created_at: row.created_at,
            usage: self.inner.store.session_usage(row.id).await?,
            access_serial: row.access_serial,
        })
    }
}

fn is_over(status: Status) -> bool {
    matches!(status, Status::Terminating | Status::Terminated)
}

fn session(row: SessionRow) -> SessionView {
    SessionView {
        id: row.id.0,
        channel: row.channel,
        usage: row.account.usage,
        started_at: row.started_at,
        stopped_at: row.stopped_at,
    }
}

/// The other party's key of a channel.
fn key(row: &ChannelRow) -> Result<PublicKey, Refused> {
    row.peer.parse().map_err(|error| Refused::internal(&error))
}
