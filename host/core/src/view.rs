//! Channels and sessions as their users see them, and the commands of these users.

use std::collections::{BTreeMap, HashMap};

use privatix_plugin_api::message::{ClientKey, Status};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use uuid::Uuid;

use super::channel::unknown;
use super::list::{CHANNEL_STATUSES, ListQuery};
use super::money::MoneyView;
use super::stored::fingerprint;
use super::{ClientApi, OperatorApi, Progress, Refused};
use privatix_base::clock::UnixSeconds;
use privatix_domain::account::Account;
use privatix_domain::code::Code;
use privatix_domain::present::{self, Line};
use privatix_domain::status::{self, Event, Hold};
use privatix_store::{ChangeRow, ChannelRow, SessionRow};

/// A channel as its user sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
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
    /// When the hold `fault` is lifted and its start tried again, Unix time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_at: Option<UnixSeconds>,
    /// Why it has this status.
    pub reason: String,
    /// Since when it has this status, Unix time.
    pub since: UnixSeconds,
    /// When it was made, Unix time.
    pub created_at: UnixSeconds,
    /// What was used, in smallest units, by this side's measure.
    pub usage: u64,
    /// What it costs and what is paid.
    pub money: Option<MoneyView>,
    /// Number of the newest access message.
    pub access_serial: u64,
    /// The client: what keeps it from going on at its agent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub progress: Option<Progress>,
    /// What last kept it from being active, as long as the history goes back; only when one channel
    /// is asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trouble: Option<ChangeView>,
    /// Its changes of status and holds, oldest first, the last 50 of them; only when one channel is
    /// asked for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub history: Vec<ChangeView>,
    /// What its module says a user should know, by name; only when one channel is asked for.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub service: BTreeMap<String, String>,
}

/// A change of a channel's status or holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ChangeView {
    /// When, Unix time.
    pub at: UnixSeconds,
    /// The status from then on.
    pub status: Status,
    /// The holds from then on.
    pub holds: Vec<String>,
    /// Why, with the words of the module or of the other party where it was theirs.
    pub reason: String,
}

/// How many changes of a channel are shown.
const HISTORY: u32 = 50;

/// A session as its user sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
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

impl OperatorApi {
    /// Channels, newest first.
    ///
    /// # Errors
    /// `BadRequest`, `NotFound` for what is asked for.
    pub async fn channel_views(&self, query: &ListQuery) -> Result<Vec<ChannelView>, Refused> {
        let page = query.by_channel(&CHANNEL_STATUSES)?;
        let rows = query.found(self.core.inner.store.channel_page(page).await?)?;
        let products = self.core.inner.store.product_list().await?;
        let mut billed = HashMap::new();
        for some in rows.chunks(1024) {
            let ids: Vec<_> = some.iter().map(|row| row.id).collect();
            let read = self.core.inner.store.billing_some(&ids).await?;
            billed.extend(read.into_iter().map(|row| (row.id, row)));
        }
        let mut views = Vec::with_capacity(rows.len());
        for row in rows {
            let name = products.iter().find(|product| product.id == row.product);
            let name = name.map(|product| product.name.clone()).unwrap_or_default();
            let billing = billed.get(&row.id).ok_or_else(unknown)?;
            let money = self.money(billing).await?;
            views.push(view(row, name, billing.usage, money));
        }
        Ok(views)
    }

    /// One channel, with all that is known of its money.
    ///
    /// # Errors
    /// `ChannelNotFound`.
    pub async fn channel_view(&self, channel: ClientKey) -> Result<ChannelView, Refused> {
        let found = self.core.inner.store.channel_with_changes(channel, HISTORY).await?;
        let (row, changes) = found.ok_or_else(unknown)?;
        let product = self.core.inner.store.product_get(row.product).await?;
        let name = product.map(|product| product.name).unwrap_or_default();
        let billing = self.core.inner.store.billing_some(&[channel]).await?.pop();
        let billing = billing.ok_or_else(unknown)?;
        let money = self.money_in_full(&billing).await?;
        let at = status::trouble(changes.iter().map(|change| change.state));
        let trouble = at.and_then(|at| changes.get(at)).cloned().map(change);
        let history = changes.into_iter().rev().map(change).collect();
        let progress = self.core.progress_of(&channel.to_string());
        Ok(ChannelView { progress, trouble, history, ..view(row, name, billing.usage, money) })
    }

    /// An offering as its template has it shown.
    ///
    /// # Errors
    /// `NotFound`.
    pub async fn offering_lines(&self, hash: &str) -> Result<Vec<Line>, Refused> {
        let view = self.core.offering_view(hash).await?;
        let noted = view.message.get("templateHash").and_then(Value::as_str).unwrap_or_default();
        let template = self.core.template(noted).await?;
        let template = template.ok_or_else(|| Refused::not_found("its template"))?;
        Ok(present::present(&view.message, &template, false))
    }

    /// The sessions of a channel, oldest first.
    ///
    /// # Errors
    /// `ChannelNotFound`; `BadRequest`, `NotFound` for what is asked for.
    pub async fn session_views(
        &self,
        channel: ClientKey,
        query: &ListQuery,
    ) -> Result<Vec<SessionView>, Refused> {
        self.core.channel_row(channel).await?;
        let rows = self.core.inner.store.session_page(channel, query.by_session()?).await?;
        Ok(rows.into_iter().map(session).collect())
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
        self.core.channel_event(channel, event, reason).await?;
        self.channel_view(channel).await
    }
}

impl ClientApi {
    /// A channel's access message as its template has it shown.
    ///
    /// # Errors
    /// `ChannelNotFound`, `AccessNotFound`.
    pub async fn channel_access(
        &self,
        channel: ClientKey,
        reveal: bool,
    ) -> Result<Vec<Line>, Refused> {
        let row = self.core.channel_row(channel).await?;
        let missing = || Refused::new(Code::AccessNotFound, "the access message is not here yet");
        let message = row.access.as_deref().and_then(|text| serde_json::from_str(text).ok());
        let message: Value = message.ok_or_else(missing)?;
        let template = self.core.template(&row.access_template).await?.ok_or_else(missing)?;
        Ok(present::present(&message, &template, reveal))
    }
}

fn view(row: ChannelRow, product: String, usage: u64, money: Option<MoneyView>) -> ChannelView {
    ChannelView {
        id: row.id,
        product,
        product_id: row.product,
        trouble: None,
        history: Vec::new(),
        service: BTreeMap::new(),
        offering: row.offering,
        peer: fingerprint(row.peer),
        status: row.state.status,
        holds: Account::words(row.state.holds),
        retry_at: row.fault_until.filter(|_| row.state.holds.contains(Hold::Fault)),
        reason: row.reason,
        since: row.since,
        created_at: row.created_at,
        usage,
        money,
        access_serial: row.access_serial,
        progress: None,
    }
}

fn change(row: ChangeRow) -> ChangeView {
    let ChangeRow { at, state, reason } = row;
    ChangeView { at, status: state.status, holds: Account::words(state.holds), reason }
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
