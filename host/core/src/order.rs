//! Orders: sent by a client, turned into channels by an agent, and then by the client.

mod agent;
mod client;

use privatix_plugin_api::message::{ClientKey, Status};
use serde::{Deserialize, Serialize};
use serde_json::Value;

pub use self::agent::OrderAnswer;
use super::list::{ListQuery, the_one};
use super::stored::fingerprint;
use super::{OperatorApi, Progress, Refused, Service, refusal};
use privatix_base::clock::{self, UnixSeconds};
use privatix_domain::offering::Offering;
use privatix_domain::status::{ChannelState, Holds};
use privatix_store::{ChannelRow, OfferingRow, OrderRow, OrderState, Txn};

/// An order as the operator sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct OrderView {
    /// Its hash.
    pub hash: String,
    /// Hash of the offering.
    pub offering: String,
    /// `waiting`, `accepted`, `rejected` or `cancelled`; `cancelling` until the agent knows.
    pub state: String,
    /// Fingerprint of the client's key.
    pub client: String,
    /// The channel, once there is one.
    pub channel: Option<ClientKey>,
    /// When it came or went, Unix time.
    pub created_at: UnixSeconds,
    /// The client: what keeps it, or the channel that it became, from going on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub progress: Option<Progress>,
    /// The client: why the agent refused it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refusal: Option<Refused>,
}

impl OperatorApi {
    /// Orders, newest first.
    ///
    /// # Errors
    /// `BadRequest`, `NotFound` for what is asked for.
    pub async fn order_views(&self, query: &ListQuery) -> Result<Vec<OrderView>, Refused> {
        let page = query.by_hash(&["waiting", "accepted", "rejected"])?;
        let rows = query.found(self.core.inner.store.order_page(page).await?)?;
        Ok(rows.into_iter().map(|row| self.core.order_shown(row)).collect())
    }

    /// One order, by its hash or a beginning of it.
    ///
    /// # Errors
    /// `NotFound`.
    pub async fn order_view(&self, hash: &str) -> Result<OrderView, Refused> {
        self.core.order_view(hash).await
    }
}

impl Service {
    pub(crate) async fn order_view(&self, hash: &str) -> Result<OrderView, Refused> {
        Ok(self.order_shown(self.order_by(hash).await?))
    }

    fn order_shown(&self, row: OrderRow) -> OrderView {
        let mut view = view(row);
        let of = view.channel.map(|channel| channel.to_string());
        view.progress = self.progress_of(of.as_ref().unwrap_or(&view.hash));
        view
    }

    /// One order, by its hash or a beginning of it.
    pub(crate) async fn order_by(&self, hash: &str) -> Result<OrderRow, Refused> {
        the_one("order", hash, self.inner.store.order_like(hash).await?)
    }

    /// The channel that an order becomes, on either side.
    async fn new_channel(
        &self,
        txn: &mut Txn,
        (offering, read): (&OfferingRow, &Offering),
        order_hash: &str,
        id: ClientKey,
    ) -> Result<ChannelRow, Refused> {
        let product = txn.product_get(offering.product).await?;
        let product = product.ok_or_else(|| Refused::not_found("its product"))?;
        let now = clock::unix_now();
        Ok(ChannelRow {
            id,
            product: product.id,
            order_hash: order_hash.to_owned(),
            offering: offering.hash.clone(),
            peer: offering.agent.clone(),
            peer_sealing: None,
            deposit: 0,
            access_template: read.access_template_hash.clone(),
            access_serial: 0,
            access: None,
            state: ChannelState { status: Status::Pending, holds: Holds::NONE },
            reason: "ordered".into(),
            since: now,
            created_at: now,
            activate_by: None,
            fault_until: None,
            fault_count: 0,
        })
    }
}

fn view(row: OrderRow) -> OrderView {
    let reply: Option<Value> =
        row.reply.as_deref().and_then(|text| serde_json::from_str(text).ok());
    let channel = reply.and_then(|reply| reply.get("channel")?.as_str()?.parse().ok());
    let refusal = refusal::reason(&row);
    OrderView {
        hash: row.hash,
        offering: row.offering,
        state: match (row.state, row.cancelled_at) {
            (OrderState::Waiting, Some(_)) => "cancelling",
            (OrderState::Rejected, Some(_)) => "cancelled",
            (state, _) => state.as_str(),
        }
        .to_owned(),
        client: fingerprint(row.client),
        channel,
        created_at: row.created_at,
        progress: None,
        refusal,
    }
}
