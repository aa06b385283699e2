//! Orders as a client makes them, and what becomes of them by its agents' answers.

use privatix_plugin_api::message::ClientKey;
use serde_json::Value;
use uuid::Uuid;

use super::OrderView;
use crate::stored::{hash, message, parsed};
use crate::{ClientApi, Refused};
use privatix_base::clock;
use privatix_domain::billing::{Terms, Thresholds};
use privatix_domain::code::Code;
use privatix_domain::identity::PublicKey;
use privatix_domain::order::{self, Order};
use privatix_domain::signed::{self, Kind};
use privatix_domain::status::{Event, Hold};
use privatix_store::{OrderRow, OrderState};

/// How long an order may wait on its way, in seconds.
const VALID_FOR: u64 = 3600;

impl ClientApi {
    /// Makes an order, to be sent to the offering's agent until it is answered.
    ///
    /// # Errors
    /// `NotFound`, `DepositTooLow`.
    pub async fn order_make(
        &self,
        offering: &str,
        deposit: Option<u64>,
        held: bool,
    ) -> Result<OrderView, Refused> {
        let row = self.core.offering_by(offering).await?;
        let terms = parsed(&row)?;
        let keys = self.core.inner.identity.public();
        let (now, wall) = (clock::unix_now(), clock::wall_now());
        let order = Order {
            offering: row.hash.clone(),
            client_signing_key: keys.signing,
            client_sealing_key: keys.sealing,
            deposit: deposit.unwrap_or(terms.min_deposit().unwrap_or(0)),
            nonce: Uuid::new_v4(),
            expires: wall + VALID_FOR,
        };
        let message = signed::sign(Kind::Order, &order, &self.core.inner.identity)
            .map_err(|error| Refused::because(error.code(), &error))?;
        order::check(&order, wall, &row.hash, &terms)
            .map_err(|error| Refused::because(error.code(), &error))?;
        let kept = OrderRow {
            hash: hash(&message)?,
            offering: row.hash,
            client: keys.signing.to_string(),
            nonce: order.nonce.to_string(),
            message: message.to_string(),
            state: OrderState::Waiting,
            held,
            reply: None,
            created_at: now,
            cancelled_at: None,
        };
        let mut txn = self.core.inner.store.begin().await?;
        txn.order_add(&kept).await?;
        self.core.commit(txn).await?;
        self.core.order_view(&kept.hash).await
    }

    /// Takes in the agent's signed answer to an order.
    ///
    /// # Errors
    /// The first check that failed.
    pub async fn order_replied(
        &self,
        order_hash: &str,
        reply: &Value,
    ) -> Result<ClientKey, Refused> {
        let mut txn = self.core.inner.store.begin().await?;
        let gone = || Refused::not_found("the order or its offering");
        let row = txn.order_get(order_hash).await?.ok_or_else(gone)?;
        let offering = txn.offering_get(&row.offering).await?.ok_or_else(gone)?;
        let agent: PublicKey = offering.agent.parse().map_err(|error| Refused::internal(&error))?;
        let reply_read = order::check_reply(reply, &agent, order_hash)
            .map_err(|error| Refused::because(error.code(), &error))?;
        if row.state == OrderState::Accepted {
            return Ok(reply_read.channel);
        }
        let text = reply.to_string();
        txn.order_settle(order_hash, OrderState::Accepted, Some(&text)).await?;
        let id = reply_read.channel;
        if txn.channel_find(id).await?.is_some() {
            // Requests name a channel and no agent: two agents with one channel could replay them.
            return Err(Refused::new(
                Code::ChannelTaken,
                "the agent chose the id of another channel",
            ));
        }
        let read = parsed(&offering)?;
        let mut channel =
            self.core.new_channel(&mut txn, (&offering, &read), order_hash, id).await?;
        channel.deposit =
            message(&row.message)?.get("deposit").and_then(Value::as_u64).unwrap_or(0);
        if row.held {
            channel.state.holds = channel.state.holds.with(Hold::User);
        }
        txn.channel_add(&channel).await?;
        txn.billing_set(id, 0, Thresholds::of_client(&Terms::from(&read))).await?;
        if row.cancelled_at.is_some() {
            // The agent was faster than the cancellation, but the client does not want the channel.
            self.core
                .apply(&mut txn, &channel, Event::Terminate, "the order was cancelled")
                .await?;
        }
        self.core.commit(txn).await?;
        self.progress_clear(order_hash);
        tracing::info!(channel = %reply_read.channel, order = order_hash, "order accepted");
        Ok(reply_read.channel)
    }

    /// The orders that have no answer yet: hash, message, and the agent's URL.
    ///
    /// # Errors
    /// A database that fails.
    pub async fn orders_waiting(&self) -> Result<Vec<(String, Value, String)>, Refused> {
        let mut waiting = Vec::new();
        for row in self.core.inner.store.order_waiting().await? {
            if row.cancelled_at.is_some() {
                continue;
            }
            let Some(offering) = self.core.inner.store.offering_get(&row.offering).await? else {
                continue;
            };
            let message = message(&row.message)?;
            waiting.push((row.hash, message, parsed(&offering)?.exchange));
        }
        Ok(waiting)
    }
}
