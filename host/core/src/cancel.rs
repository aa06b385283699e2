//! Cancelled orders. A client marks an order as cancelled and has its agent told until the agent has
//! answered; the agent's answer is its signed refusal, or its reply if it had accepted the order
//! before. Both answers are final, and the same again.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde_json::Value;

use super::refusal::{cancelled, rejected};
use super::stored::parsed;
use super::{AgentApi, ClientApi, OrderView, Refused};
use privatix_base::clock;
use privatix_domain::code::Code;
use privatix_domain::order::{OrderCancel, OrderRefusal, read_cancel};
use privatix_domain::signed::{self, Kind};
use privatix_store::OrderState;

/// So many cancellations of orders that have not come yet are remembered.
const REMEMBERED: usize = 4096;

/// The newest cancellations of orders that have not come yet: hash and client's key. Anybody can
/// send such cancellations, so they take a bounded amount of memory, and none of the disk.
#[derive(Default)]
pub(super) struct Early(Mutex<VecDeque<(String, String)>>);

impl Early {
    fn lock(&self) -> MutexGuard<'_, VecDeque<(String, String)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note(&self, order: &str, client: &str) {
        let mut known = self.lock();
        if known.iter().any(|(known, by)| known == order && by == client) {
            return;
        }
        if known.len() >= REMEMBERED {
            known.pop_front();
        }
        known.push_back((order.to_owned(), client.to_owned()));
    }

    /// Whether a client has cancelled this order before it came.
    pub(super) fn holds(&self, order: &str, client: &str) -> bool {
        self.lock().iter().any(|(known, by)| known == order && by == client)
    }
}

/// An order that a client has cancelled and its agent has not been told of yet.
#[derive(Debug, Clone)]
pub struct Cancelling {
    /// The order's hash.
    pub order: String,
    /// The signed cancellation.
    pub message: Value,
    /// The agent's URL.
    pub exchange: String,
}

impl ClientApi {
    /// Takes an order back that has no answer yet.
    ///
    /// # Errors
    /// `NotFound`; `BadStatus` where the agent has accepted or refused it.
    pub async fn order_cancel(&self, hash: &str) -> Result<OrderView, Refused> {
        let hash = self.core.order_view(hash).await?.hash;
        let mut txn = self.core.inner.store.begin().await?;
        let row = txn.order_get(&hash).await?.ok_or_else(|| Refused::not_found("the order"))?;
        match (row.state, row.cancelled_at) {
            (OrderState::Waiting, None) => {
                txn.order_cancel(&hash, clock::unix_now()).await?;
                self.core.commit(txn).await?;
                self.progress_clear(&hash);
                tracing::info!(order = hash, "order cancelled; the agent is told");
            }
            (OrderState::Waiting | OrderState::Rejected, Some(_)) => {}
            (OrderState::Accepted, _) => {
                let text = "the agent has accepted the order already. End its channel instead: \
                            privatix channel terminate CHANNEL";
                return Err(Refused::new(Code::BadStatus, text));
            }
            (OrderState::Rejected, None) => {
                let text = "the agent has refused the order; there is nothing to cancel";
                return Err(Refused::new(Code::BadStatus, text));
            }
        }
        self.core.order_view(&hash).await
    }

    /// The cancellations that its agents have to be told of.
    ///
    /// # Errors
    /// A database that fails.
    pub async fn orders_cancelling(&self) -> Result<Vec<Cancelling>, Refused> {
        let mut waiting = Vec::new();
        for row in self.core.inner.store.order_waiting().await? {
            if row.cancelled_at.is_none() {
                continue;
            }
            let Some(offering) = self.core.inner.store.offering_get(&row.offering).await? else {
                continue;
            };
            let cancel = OrderCancel {
                order: row.hash.clone(),
                client_signing_key: self.core.inner.identity.public().signing,
            };
            let message = signed::sign(Kind::OrderCancel, cancel, &self.core.inner.identity)
                .map_err(|error| Refused::because(error.code(), &error))?;
            let exchange = parsed(&offering)?.exchange;
            waiting.push(Cancelling { order: row.hash, message, exchange });
        }
        Ok(waiting)
    }

    /// Takes in the agent's answer to a cancellation.
    ///
    /// # Errors
    /// The first check that failed; then the agent is told again.
    pub async fn cancel_answered(&self, order_hash: &str, answer: &Value) -> Result<(), Refused> {
        if answer.get("channel").is_some() {
            return self.order_replied(order_hash, answer).await.map(drop);
        }
        self.order_refused(order_hash, answer).await
    }
}

impl AgentApi {
    /// Takes an order back at its client's word. Returns the final answer: a signed
    /// refusal, or the reply that has made a channel of the order before.
    ///
    /// # Errors
    /// The first check that failed; `ForeignOrder`.
    pub async fn cancel_received(&self, message: &Value) -> Result<Value, Refused> {
        let cancel =
            read_cancel(message).map_err(|error| Refused::because(error.code(), &error))?;
        let client = cancel.client_signing_key.to_string();
        let mut txn = self.core.inner.store.begin().await?;
        let Some(row) = txn.order_get(&cancel.order).await? else {
            self.own.cancelled.note(&cancel.order, &client);
            return self.cancelled_word(&cancel.order);
        };
        if row.client != client {
            return Err(Refused::new(Code::ForeignOrder, "the order is another client's"));
        }
        if row.state == OrderState::Waiting {
            txn.order_cancel(&row.hash, clock::unix_now()).await?;
            txn.order_settle(&row.hash, OrderState::Rejected, None).await?;
            self.core.commit(txn).await?;
            tracing::info!(order = row.hash, "the client cancelled its order");
            return self.cancelled_word(&row.hash);
        }
        match row.reply.as_deref().map(serde_json::from_str) {
            Some(Ok(reply)) if row.state == OrderState::Accepted => Ok(reply),
            _ => self.refusal_word(&row.hash, &rejected(&row)),
        }
    }

    fn cancelled_word(&self, order: &str) -> Result<Value, Refused> {
        self.refusal_word(order, &cancelled())
    }

    fn refusal_word(&self, order: &str, refused: &Refused) -> Result<Value, Refused> {
        let refusal = OrderRefusal {
            order: order.to_owned(),
            code: refused.code.clone(),
            text: refused.text.clone(),
        };
        signed::sign(Kind::OrderRefusal, refusal, &self.core.inner.identity)
            .map_err(|error| Refused::because(error.code(), &error))
    }
}
