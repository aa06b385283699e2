//! Orders: sent by a client, turned into channels by an agent, and then by the client.

use privatix_plugin_api::manifest::Role;
use privatix_plugin_api::message::{ClientKey, Status};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use uuid::Uuid;

use super::billing::UNPAID;
use super::cancel::{cancelled, rejected};
use super::list::ListQuery;
use super::offering::{hash, parsed};
use super::{Progress, Refused, Service, refusal};
use privatix_base::clock::{self, UnixSeconds};
use privatix_base::config::OrderPolicy;
use privatix_domain::billing::{AgentFacts, Terms, judge};
use privatix_domain::code::Code;
use privatix_domain::identity::PublicKey;
use privatix_domain::offering::Offering;
use privatix_domain::order::{self, Order, OrderReply};
use privatix_domain::signed::{self, Kind};
use privatix_domain::status::{ChannelState, Event, Hold, Holds};
use privatix_store::{ChannelRow, OfferingRow, OrderRow, OrderState, Txn};

/// How long an order may wait on its way, in seconds.
const VALID_FOR: u64 = 3600;

/// An agent's answer to an order.
#[derive(Debug, Clone, PartialEq)]
pub enum OrderAnswer {
    /// The signed reply.
    Accepted(Value),
    /// The operator has still to decide.
    Waiting,
}

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

impl Service {
    /// The agent: takes an order in; the same one again gets the same answer.
    ///
    /// # Errors
    /// The first rule it breaks: of its form, of the offering, or of this agent's policy.
    pub async fn order_received(&self, message: &Value) -> Result<OrderAnswer, Refused> {
        self.only(Role::Agent)?;
        let refused = |error: order::OrderError| Refused::because(error.code(), &error);
        // The signature comes first: everything after it costs more, and strangers pay nothing.
        let order = order::read(message).map_err(refused)?;
        let client = order.client_signing_key.to_string();
        let order_hash = hash(message)?;
        // Before anything that time may have changed: a client whose answer was lost may ask for it
        // long after the order has expired, and has a channel here.
        let nonce = order.nonce.to_string();
        if let Some(known) = self.inner.store.order_by_nonce(&client, &nonce).await? {
            return known_answer(&known, &order_hash);
        }
        let unknown = || Refused::new(Code::OfferingNotFound, "no such offering is made here");
        let found = self.inner.store.offering_get(&order.offering).await?.ok_or_else(unknown)?;
        let offering = parsed(&found)?;
        let now = clock::unix_now();
        let policy = self.inner.settings.orders;
        // What is decided by the message and the settings alone does not need the write lock.
        order::check(&order, clock::wall_now(), &found.hash, &offering).map_err(refused)?;
        self.is_allowed(policy, &client)?;
        let mut txn = self.inner.store.begin().await?;
        if let Some(known) = txn.order_by_nonce(&client, &nonce).await? {
            return known_answer(&known, &order_hash);
        }
        if self.inner.cancelled.holds(&order_hash, &client) {
            return Err(cancelled());
        }
        // Whatever may have changed since it was looked at is decided where it is accepted.
        let row = txn.offering_get(&order.offering).await?.ok_or_else(unknown)?;
        self.admit(&mut txn, &client, now).await?;
        is_open(&row)?;
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
        self.commit(txn).await?;
        tracing::info!(order = kept.hash, offering = row.hash, "order received");
        Ok(answer)
    }

    /// The agent's operator decides on an order that waits.
    ///
    /// # Errors
    /// `NotFound`; `BadStatus` where it was decided on before.
    pub async fn order_decide(&self, hash: &str, accept: bool) -> Result<OrderView, Refused> {
        self.only(Role::Agent)?;
        let hash = self.order_by(hash).await?.hash;
        let mut txn = self.inner.store.begin().await?;
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
            is_open(&offering)?;
            let message: Value =
                serde_json::from_str(&row.message).map_err(|error| Refused::internal(&error))?;
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
        self.commit(txn).await?;
        self.order_view(&hash).await
    }

    fn is_allowed(&self, policy: OrderPolicy, client: &str) -> Result<(), Refused> {
        let allowed = self.inner.settings.allowlist.iter().any(|key| key == client);
        if policy != OrderPolicy::Allowlist || allowed {
            return Ok(());
        }
        Err(Refused::new(Code::ClientNotAllowed, "this agent does not know the client's key"))
    }

    /// Caps on what one client may have and do.
    async fn admit(&self, txn: &mut Txn, client: &str, now: UnixSeconds) -> Result<(), Refused> {
        let settings = &self.inner.settings;
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
        let settings = &self.inner.settings;
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
        if live >= u64::from(self.inner.settings.max_channels_per_client) {
            return Err(Refused::new(Code::TooManyChannels, "too many channels at a time"));
        }
        Ok(())
    }

    fn accept(&self, order: &Order, row: &OrderRow) -> Result<(Value, ClientKey), Refused> {
        debug_assert_eq!(order.client_signing_key.to_string(), row.client);
        let channel = ClientKey(Uuid::new_v4());
        let reply = OrderReply { order: row.hash.clone(), channel };
        let signed = signed::sign(Kind::OrderReply, reply, &self.inner.identity)
            .map_err(|error| Refused::because(error.code(), &error))?;
        Ok((signed, channel))
    }

    /// The agent's side of a new channel: its credentials follow from its id, so its access message
    /// can be made from the beginning.
    async fn open_channel(
        &self,
        txn: &mut Txn,
        (offering, read): (&OfferingRow, &Offering),
        order: &Order,
        order_hash: &str,
        id: ClientKey,
    ) -> Result<(), Refused> {
        if !txn.offering_take(&offering.hash).await? {
            return Err(Refused::new(Code::SupplyExhausted, "all of the supply is taken"));
        }
        let mut channel = self.new_channel(txn, (offering, read), order_hash, id).await?;
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
        self.mark(txn, id, &terms, channel.deposit, 0).await?;
        let reason = if unpaid { UNPAID } else { "access message made" };
        self.apply(txn, &channel, Event::AccessReady, reason).await?;
        Ok(())
    }

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

    /// The client: makes an order, to be sent to the offering's agent until it is answered.
    ///
    /// # Errors
    /// `NotFound`, `DepositTooLow`.
    pub async fn order_make(
        &self,
        offering: &str,
        deposit: Option<u64>,
        held: bool,
    ) -> Result<OrderView, Refused> {
        self.only(Role::Client)?;
        let row = self.offering_by(offering).await?;
        let terms = parsed(&row)?;
        let keys = self.inner.identity.public();
        let (now, wall) = (clock::unix_now(), clock::wall_now());
        let order = Order {
            offering: row.hash.clone(),
            client_signing_key: keys.signing,
            client_sealing_key: keys.sealing,
            deposit: deposit.unwrap_or(terms.min_deposit().unwrap_or(0)),
            nonce: Uuid::new_v4(),
            expires: wall + VALID_FOR,
        };
        let message = signed::sign(Kind::Order, &order, &self.inner.identity)
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
        let mut txn = self.inner.store.begin().await?;
        txn.order_add(&kept).await?;
        self.commit(txn).await?;
        self.order_view(&kept.hash).await
    }

    /// The client: takes in the agent's signed answer to an order.
    ///
    /// # Errors
    /// The first check that failed.
    pub async fn order_replied(
        &self,
        order_hash: &str,
        reply: &Value,
    ) -> Result<ClientKey, Refused> {
        let mut txn = self.inner.store.begin().await?;
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
        let mut channel = self.new_channel(&mut txn, (&offering, &read), order_hash, id).await?;
        let message: Value =
            serde_json::from_str(&row.message).map_err(|error| Refused::internal(&error))?;
        channel.deposit = message.get("deposit").and_then(Value::as_u64).unwrap_or(0);
        if row.held {
            channel.state.holds = channel.state.holds.with(Hold::User);
        }
        txn.channel_add(&channel).await?;
        let terms = Terms::from(&read);
        self.mark(&mut txn, id, &terms, channel.deposit, 0).await?;
        if row.cancelled_at.is_some() {
            // The agent was faster than the cancellation, but the client does not want the channel.
            self.apply(&mut txn, &channel, Event::Terminate, "the order was cancelled").await?;
        }
        self.commit(txn).await?;
        self.progress_clear(order_hash);
        tracing::info!(channel = %reply_read.channel, order = order_hash, "order accepted");
        Ok(reply_read.channel)
    }

    /// The client's orders that have no answer yet: hash, message, and the agent's URL.
    ///
    /// # Errors
    /// A database that fails.
    pub async fn orders_waiting(&self) -> Result<Vec<(String, Value, String)>, Refused> {
        let mut waiting = Vec::new();
        for row in self.inner.store.order_waiting().await? {
            if row.cancelled_at.is_some() {
                continue;
            }
            let Some(offering) = self.inner.store.offering_get(&row.offering).await? else {
                continue;
            };
            let message =
                serde_json::from_str(&row.message).map_err(|error| Refused::internal(&error))?;
            waiting.push((row.hash, message, parsed(&offering)?.exchange));
        }
        Ok(waiting)
    }

    /// Orders, newest first.
    ///
    /// # Errors
    /// `BadRequest`, `NotFound` for what is asked for.
    pub async fn order_views(&self, query: &ListQuery) -> Result<Vec<OrderView>, Refused> {
        let page = query.by_hash(&["waiting", "accepted", "rejected"])?;
        let rows = query.found(self.inner.store.order_page(page).await?)?;
        Ok(rows.into_iter().map(|row| self.order_shown(row)).collect())
    }

    /// One order, by its hash or a beginning of it.
    ///
    /// # Errors
    /// `NotFound`.
    pub async fn order_view(&self, hash: &str) -> Result<OrderView, Refused> {
        Ok(self.order_shown(self.order_by(hash).await?))
    }

    fn order_shown(&self, row: OrderRow) -> OrderView {
        let mut view = view(row);
        let of = view.channel.map(|channel| channel.to_string());
        view.progress = self.inner.progress.get(of.as_ref().unwrap_or(&view.hash));
        view
    }

    async fn order_by(&self, hash: &str) -> Result<OrderRow, Refused> {
        let mut rows = self.inner.store.order_like(hash).await?;
        match (rows.pop(), rows.len()) {
            (Some(row), 0) => Ok(row),
            (None, _) => Err(Refused::not_found(format!("no order's hash begins with {hash:?}"))),
            (Some(_), more) => {
                Err(Refused::not_found(format!("{} orders begin with {hash:?}", more + 1)))
            }
        }
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

/// Whether an offering takes orders.
fn is_open(offering: &OfferingRow) -> Result<(), Refused> {
    match offering.withdrawn_at {
        None => Ok(()),
        Some(_) => Err(Refused::new(Code::OfferingWithdrawn, "no more orders are taken for it")),
    }
}

fn view(row: OrderRow) -> OrderView {
    let reply: Option<Value> =
        row.reply.as_deref().and_then(|text| serde_json::from_str(text).ok());
    let channel = reply.and_then(|reply| reply.get("channel")?.as_str()?.parse().ok());
    let refusal = refusal::reason(&row);
    let fingerprint = row.client.parse::<PublicKey>().map(|key| key.fingerprint());
    OrderView {
        hash: row.hash,
        offering: row.offering,
        state: match (row.state, row.cancelled_at) {
            (OrderState::Waiting, Some(_)) => "cancelling",
            (OrderState::Rejected, Some(_)) => "cancelled",
            (state, _) => state.as_str(),
        }
        .to_owned(),
        client: fingerprint.unwrap_or(row.client),
        channel,
        created_at: row.created_at,
        progress: None,
        refusal,
    }
}
