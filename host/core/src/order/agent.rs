//! Orders as an agent takes them: checked, decided on, and made into channels.

use privatix_plugin_api::message::ClientKey;
use serde_json::Value;
use uuid::Uuid;

use super::OrderView;
use crate::billing::UNPAID;
use crate::refusal::{cancelled, rejected};
use crate::stored::{hash, message, parsed};
use crate::{AgentApi, Refused};
use privatix_base::clock::{self, UnixSeconds};
use privatix_base::config::OrderPolicy;
use privatix_domain::billing::{AgentFacts, Terms, Thresholds, judge};
use privatix_domain::code::Code;
use privatix_domain::offering::{Closed, Offering};
use privatix_domain::order::{self, Order, OrderReply};
use privatix_domain::signed::{self, Kind};
use privatix_domain::status::{Event, Hold};
use privatix_store::{OfferingRow, OrderRow, OrderState, Txn};

/// An agent's answer to an order.
#[derive(Debug, Clone, PartialEq)]
pub enum OrderAnswer {
    /// The signed reply.
    Accepted(Value),
    /// The operator has still to decide.
    Waiting,
}

impl AgentApi {
    /// Takes an order in; the same one again gets the same answer.
    ///
    /// # Errors
    /// The first rule it breaks: of its form, of the offering, or of this agent's policy.
    pub async fn order_received(&self, message: &Value) -> Result<OrderAnswer, Refused> {
        let refused = |error: order::OrderError| Refused::because(error.code(), &error);
        // The signature comes first: everything after it costs more, and strangers pay nothing.
        let order = order::read(message).map_err(refused)?;
        let client = order.client_signing_key.to_string();
        let order_hash = hash(message)?;
        // Before anything that time may have changed: a client whose answer was lost may ask for it
        // long after the order has expired, and has a channel here.
        let nonce = order.nonce.to_string();
        if let Some(known) = self.core.inner.store.order_by_nonce(&client, &nonce).await? {
            return known_answer(&known, &order_hash);
        }
        let unknown = || Refused::new(Code::OfferingNotFound, "no such offering is made here");
        let found =
            self.core.inner.store.offering_get(&order.offering).await?.ok_or_else(unknown)?;
        let offering = parsed(&found)?;
        let now = clock::unix_now();
        let policy = self.own.settings.orders;
        // What is decided by the message and the settings alone does not need the write lock.
        order::check(&order, clock::wall_now(), &found.hash, &offering).map_err(refused)?;
        self.is_allowed(policy, &client)?;
        let mut txn = self.core.inner.store.begin().await?;
        if let Some(known) = txn.order_by_nonce(&client, &nonce).await? {
            return known_answer(&known, &order_hash);
        }
        if self.own.cancelled.holds(&order_hash, &client) {
            return Err(cancelled());
        }
        // Whatever may have changed since it was looked at is decided where it is accepted.
        let row = txn.offering_get(&order.offering).await?.ok_or_else(unknown)?;
        self.admit(&mut txn, &client, now).await?;
        not_withdrawn(&row)?;
        let mut kept = OrderRow {
            hash: order_hash,
            offering: row.hash.clone(),
            client,
            nonce,
            message: message.to_string(),
            state: OrderState::Waiting,
            held: false,
            reply: None,
            created_at: now,
            cancelled_at: None,
        };
        let answer = if policy == OrderPolicy::Manual {
            self.may_wait(&mut txn, &kept.client).await?;
            txn.order_add(&kept).await?;
            OrderAnswer::Waiting
        } else {
            let (reply, channel) = self.accept(&order, &kept)?;
            kept.state = OrderState::Accepted;
            kept.reply = Some(reply.to_string());
            txn.order_add(&kept).await?;
            self.open_channel(&mut txn, (&row, &offering), &order, &kept.hash, channel).await?;
            OrderAnswer::Accepted(reply)
        };
        self.core.commit(txn).await?;
        tracing::info!(order = kept.hash, offering = row.hash, "order received");
        Ok(answer)
    }

    /// The operator decides on an order that waits.
    ///
    /// # Errors
    /// `NotFound`; `BadStatus` where it was decided on before.
    pub async fn order_decide(&self, hash: &str, accept: bool) -> Result<OrderView, Refused> {
        let hash = self.core.order_by(hash).await?.hash;
        let mut txn = self.core.inner.store.begin().await?;
        let row = txn.order_get(&hash).await?.ok_or_else(|| Refused::not_found("the order"))?;
        if row.state != OrderState::Waiting {
            return Err(Refused::new(
                Code::BadStatus,
                format!("it is {} already", row.state.as_str()),
            ));
        }
        if accept {
            let gone = || Refused::not_found("its offering");
            let offering = txn.offering_get(&row.offering).await?.ok_or_else(gone)?;
            not_withdrawn(&offering)?;
            let message = message(&row.message)?;
            // It was checked when it came: waiting for the operator does not make it too late.
            let order =
                order::read(&message).map_err(|error| Refused::because(error.code(), &error))?;
            self.has_room(&mut txn, &row.client).await?;
            let (reply, channel) = self.accept(&order, &row)?;
            let text = reply.to_string();
            txn.order_settle(&hash, OrderState::Accepted, Some(&text)).await?;
            let read = parsed(&offering)?;
            self.open_channel(&mut txn, (&offering, &read), &order, &hash, channel).await?;
        } else {
            txn.order_settle(&hash, OrderState::Rejected, None).await?;
        }
        self.core.commit(txn).await?;
        self.core.order_view(&hash).await
    }

    fn is_allowed(&self, policy: OrderPolicy, client: &str) -> Result<(), Refused> {
        let allowed = self.own.settings.allowlist.iter().any(|key| key == client);
        if policy != OrderPolicy::Allowlist || allowed {
            return Ok(());
        }
        Err(Refused::new(Code::ClientNotAllowed, "this agent does not know the client's key"))
    }

    /// Caps on what one client may have and do.
    async fn admit(&self, txn: &mut Txn, client: &str, now: UnixSeconds) -> Result<(), Refused> {
        let settings = &self.own.settings;
        let recent = txn.order_count_since(client, now.saturating_sub(3600)).await?;
        if recent >= u64::from(settings.max_orders_per_hour) {
            return Err(Refused::new(
                Code::TooManyOrders,
                "too many orders in an hour; try again later",
            ));
        }
        self.has_room(txn, client).await
    }

    /// Caps on what waits for the operator: keys cost nothing, so strangers have one together.
    async fn may_wait(&self, txn: &mut Txn, client: &str) -> Result<(), Refused> {
        let settings = &self.own.settings;
        let full = |text| Err(Refused::new(Code::TooManyWaiting, text));
        let own = txn.order_count_waiting(Some(client)).await?;
        if own >= u64::from(settings.max_waiting_orders_per_client) {
            return full("too many of this client's orders wait for the agent's operator");
        }
        let known = settings.allowlist.iter().any(|key| key == client);
        let all = txn.order_count_waiting(None).await?;
        if !known && all >= u64::from(settings.max_waiting_orders) {
            return full("too many orders wait for the agent's operator; try again later");
        }
        Ok(())
    }

    async fn has_room(&self, txn: &mut Txn, client: &str) -> Result<(), Refused> {
        let live = txn.channel_count_live(client).await?;
        if live >= u64::from(self.own.settings.max_channels_per_client) {
            return Err(Refused::new(Code::TooManyChannels, "too many channels at a time"));
        }
        Ok(())
    }

    fn accept(&self, order: &Order, row: &OrderRow) -> Result<(Value, ClientKey), Refused> {
        debug_assert_eq!(order.client_signing_key.to_string(), row.client);
        let channel = ClientKey(Uuid::new_v4());
        let reply = OrderReply { order: row.hash.clone(), channel };
        let signed = signed::sign(Kind::OrderReply, reply, &self.core.inner.identity)
            .map_err(|error| Refused::because(error.code(), &error))?;
        Ok((signed, channel))
    }

    /// This side of a new channel: its credentials follow from its id, so its access message
    /// can be made from the beginning.
    async fn open_channel(
        &self,
        txn: &mut Txn,
        (offering, read): (&OfferingRow, &Offering),
        order: &Order,
        order_hash: &str,
        id: ClientKey,
    ) -> Result<(), Refused> {
        if let Some(closed) = closed(offering) {
            return Err(Refused::new(closed.code(), closed));
        }
        txn.offering_take(&offering.hash).await?;
        let mut channel = self.core.new_channel(txn, (offering, read), order_hash, id).await?;
        channel.peer = order.client_signing_key.to_string();
        channel.peer_sealing = Some(order.client_sealing_key.to_string());
        channel.deposit = order.deposit;
        channel.access_serial = 1;
        let terms = Terms::from(read);
        let facts = AgentFacts::ordered(channel.since, channel.deposit);
        let unpaid = judge(&terms, &facts, channel.since).hold;
        if unpaid {
            channel.state.holds = channel.state.holds.with(Hold::Payment);
        }
        txn.channel_add(&channel).await?;
        txn.billing_set(id, 0, Thresholds::of_agent(&terms, channel.deposit, 0)).await?;
        let reason = if unpaid { UNPAID } else { "access message made" };
        self.core.apply(txn, &channel, Event::AccessReady, reason).await?;
        Ok(())
    }
}

fn known_answer(known: &OrderRow, order_hash: &str) -> Result<OrderAnswer, Refused> {
    if known.hash != order_hash {
        return Err(Refused::new(Code::NonceUsed, "the nonce was used for another order"));
    }
    match (known.state, known.reply.as_deref().map(serde_json::from_str)) {
        (OrderState::Accepted, Some(Ok(reply))) => Ok(OrderAnswer::Accepted(reply)),
        (OrderState::Waiting, _) => Ok(OrderAnswer::Waiting),
        _ => Err(rejected(known)),
    }
}

fn closed(offering: &OfferingRow) -> Option<Closed> {
    Closed::of(offering.withdrawn_at.is_some(), offering.supply_left)
}

/// An order may wait for the operator also while nothing of the supply is left.
fn not_withdrawn(offering: &OfferingRow) -> Result<(), Refused> {
    match closed(offering) {
        Some(withdrawn @ Closed::Withdrawn) => Err(Refused::new(withdrawn.code(), withdrawn)),
        Some(Closed::Exhausted) | None => Ok(()),
    }
}
