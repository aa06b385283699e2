//! Refusals of orders: signed by the agent where they are for good, believed by the client only
//! then. Everything else passes, and the order is sent again.

use privatix_plugin_api::json;
use serde_json::Value;

use super::{AgentApi, ClientApi, Refused};
use privatix_domain::code::{Code, Retry};
use privatix_domain::identity::PublicKey;
use privatix_domain::order::{OrderRefusal, check_refusal};
use privatix_domain::signed::{self, Kind};
use privatix_store::{OrderRow, OrderState};

impl AgentApi {
    /// The signed word on an order that it will never take; nothing where the same
    /// order may be taken later, or has no hash to sign.
    pub fn order_refusal(&self, order: &Value, refused: &Refused) -> Option<Value> {
        if refused.code.retry() != Retry::Never || !order.is_object() {
            return None;
        }
        let refusal = OrderRefusal {
            order: json::hash(order).ok()?,
            code: refused.code.clone(),
            text: refused.text.clone(),
        };
        signed::sign(Kind::OrderRefusal, refusal, &self.core.inner.identity).ok()
    }
}

impl ClientApi {
    /// Gives up an order that its agent has refused for good.
    ///
    /// # Errors
    /// The first check that failed; then the order goes on.
    pub async fn order_refused(&self, order_hash: &str, message: &Value) -> Result<(), Refused> {
        let mut txn = self.core.inner.store.begin().await?;
        let gone = || Refused::not_found("the order or its offering");
        let row = txn.order_get(order_hash).await?.ok_or_else(gone)?;
        let offering = txn.offering_get(&row.offering).await?.ok_or_else(gone)?;
        let agent: PublicKey = offering.agent.parse().map_err(|error| Refused::internal(&error))?;
        let refusal = check_refusal(message, &agent, order_hash)
            .map_err(|error| Refused::because(error.code(), &error))?;
        // An agent that has taken it cannot take that back.
        if row.state == OrderState::Waiting {
            let text = message.to_string();
            txn.order_settle(order_hash, OrderState::Rejected, Some(&text)).await?;
            self.core.commit(txn).await?;
            self.progress_clear(order_hash);
            let OrderRefusal { code, text, .. } = refusal;
            let refused = Refused { code, text }.clipped();
            if row.cancelled_at.is_some() {
                tracing::info!(order = order_hash, "the agent knows that the order is cancelled");
            } else {
                tracing::warn!(order = order_hash, %refused, "the agent refused the order");
            }
        }
        Ok(())
    }
}

/// Why a client's order was refused, which was checked when it came.
pub(super) fn reason(row: &OrderRow) -> Option<Refused> {
    let reply = row.reply.as_deref().filter(|_| row.state == OrderState::Rejected)?;
    serde_json::from_str(reply).ok().map(Refused::clipped)
}

/// Why an order that is not taken any more was refused.
pub(super) fn rejected(row: &OrderRow) -> Refused {
    match row.cancelled_at {
        Some(_) => cancelled(),
        None => Refused::new(Code::OrderRejected, "the agent's operator has refused it"),
    }
}

pub(super) fn cancelled() -> Refused {
    Refused::new(Code::OrderCancelled, "the client has cancelled it")
}
