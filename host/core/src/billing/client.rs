//! The client signs what it owes, and finds out which agents it has to ask what that is.

use privatix_plugin_api::message::ClientKey;

use super::{Bill, Finding};
use crate::ClientApi;
use privatix_domain::billing::{
    self, AgentSays, ClientFacts, Terms, Thresholds, may_owe_more, next_balance,
};
use privatix_domain::status::{Hold, has_ended, is_over};
use privatix_store::{BillingRow, StoreError, Txn};

/// An agent to be asked anew what is owed for a channel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Question {
    /// The channel.
    pub channel: ClientKey,
    /// The agent's key, as text.
    pub agent: String,
}

impl ClientApi {
    /// Waits until something has changed that money depends on.
    pub async fn billing_wanted(&self) {
        self.core.billing_wanted().await;
    }

    /// Bills the channels that have changed since. Returns those whose agents have to be asked anew.
    ///
    /// # Errors
    /// [`StoreError`]; what was not done is done with the next pass over all.
    pub async fn bill_changed(&self) -> Result<Vec<Question>, StoreError> {
        self.core.bill_changed(self).await
    }

    /// Bills all channels that are not over, or all that are not settled, and marks the sessions that
    /// are measured here. Returns those whose agents have to be asked anew.
    ///
    /// # Errors
    /// [`StoreError`]; what was not done is done with the next pass.
    pub async fn bill_all(&self, over_too: bool) -> Result<Vec<Question>, StoreError> {
        self.core.bill_all(self, over_too).await
    }

    pub(crate) fn facts(&self, row: &BillingRow) -> ClientFacts {
        let agent = row.agent;
        ClientFacts {
            usage: row.usage,
            deposit: row.deposit,
            // A host that was restored from a copy may have signed more than it knows.
            paid: row.paid.max(agent.map_or(0, |agent| agent.paid)),
            agent: agent.map(|agent| AgentSays { cost: agent.cost, usage_then: agent.usage_then }),
            in_session: row.in_session,
            held_by_user: row.state.holds.contains(Hold::User),
            over: is_over(row.state.status) || agent.is_some_and(|agent| has_ended(agent.status)),
            tolerance: self.own.settings.tolerance,
        }
    }
}

impl Bill for ClientApi {
    fn finding(&self, terms: &Terms, row: &BillingRow) -> Finding {
        let facts = self.facts(row);
        let here = has_ended(row.state.status);
        let there = row.agent.is_some_and(|agent| has_ended(agent.status));
        if billing::is_settled_for_client(terms, &facts, here && there) {
            Finding::Settled
        } else if !row.has_access {
            Finding::Right
        } else if next_balance(terms, &facts).is_some() {
            Finding::Wrong
        } else if may_owe_more(terms, &facts) {
            Finding::Ask
        } else {
            Finding::Right
        }
    }

    fn thresholds(&self, terms: &Terms, _row: &BillingRow) -> Thresholds {
        Thresholds::of_client(terms)
    }

    async fn settle(
        &self,
        txn: &mut Txn,
        terms: &Terms,
        row: BillingRow,
    ) -> Result<(), StoreError> {
        match next_balance(terms, &self.facts(&row)).filter(|_| row.has_access) {
            Some(balance) => self.sign_cheque(txn, row.id, balance).await,
            None => Ok(()),
        }
    }
}
