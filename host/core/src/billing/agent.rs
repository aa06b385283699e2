//! The agent judges its channels: whether they wait for payment, and whether they are over.

use super::{Bill, Finding, UNPAID};
use crate::AgentApi;
use crate::channel::ChannelError;
use privatix_base::clock::{self, UnixSeconds};
use privatix_domain::billing::{self, AgentFacts, Terms, Thresholds, judge};
use privatix_domain::status::{Event, Hold, is_over};
use privatix_store::{BillingRow, StoreError, Txn};

impl AgentApi {
    /// Waits until something has changed that money depends on.
    pub async fn billing_wanted(&self) {
        self.core.billing_wanted().await;
    }

    /// Judges the channels that have changed since.
    ///
    /// # Errors
    /// [`StoreError`]; what was not done is done with the next pass over all.
    pub async fn bill_changed(&self) -> Result<(), StoreError> {
        self.core.bill_changed(self).await.map(drop)
    }

    /// Judges all channels that are not over, or all that are not settled, and marks the sessions
    /// that are measured here.
    ///
    /// # Errors
    /// [`StoreError`]; what was not done is done with the next pass.
    pub async fn bill_all(&self, over_too: bool) -> Result<(), StoreError> {
        self.core.bill_all(self, over_too).await.map(drop)
    }

    /// Judges some channels at once.
    pub(crate) async fn bill(&self, rows: Vec<BillingRow>) -> Result<(), StoreError> {
        self.core.bill(self, rows).await.map(drop)
    }

    pub(crate) fn facts(&self, row: &BillingRow) -> AgentFacts {
        let within = self.own.settings.first_payment_timeout.as_secs();
        AgentFacts {
            status: row.state.status,
            since: row.since,
            used_at: row.used_at,
            usage: row.usage,
            deposit: row.deposit,
            paid: row.paid,
            first_payment_by: row.created_at.saturating_add(within),
        }
    }

    /// What has to happen to a channel, and why.
    fn verdict(
        &self,
        terms: &Terms,
        row: &BillingRow,
        now: UnixSeconds,
    ) -> Option<(Event, &'static str)> {
        if is_over(row.state.status) {
            return None;
        }
        let judgement = judge(terms, &self.facts(row), now);
        if let Some(end) = judgement.end {
            return Some((Event::Terminate, end.as_str()));
        }
        match (judgement.hold, row.state.holds.contains(Hold::Payment)) {
            (true, false) => Some((Event::HoldAdded(Hold::Payment), UNPAID)),
            (false, true) => Some((Event::HoldRemoved(Hold::Payment), "paid")),
            _ => None,
        }
    }
}

impl Bill for AgentApi {
    fn finding(&self, terms: &Terms, row: &BillingRow) -> Finding {
        if self.verdict(terms, row, clock::unix_now()).is_some() {
            Finding::Wrong
        } else if billing::is_settled_for_agent(&self.facts(row)) {
            Finding::Settled
        } else {
            Finding::Right
        }
    }

    fn thresholds(&self, terms: &Terms, row: &BillingRow) -> Thresholds {
        Thresholds::of_agent(terms, row.deposit, row.paid)
    }

    async fn settle(
        &self,
        txn: &mut Txn,
        terms: &Terms,
        row: BillingRow,
    ) -> Result<(), StoreError> {
        let Some((event, reason)) = self.verdict(terms, &row, clock::unix_now()) else {
            return Ok(());
        };
        let Some(channel) = txn.channel_find(row.id).await? else { return Ok(()) };
        match self.core.apply(txn, &channel, event, reason).await {
            Err(ChannelError::Store(error)) => Err(error),
            // A verdict is no user's command.
            Err(error) => {
                tracing::error!(channel = %row.id, %error, "a verdict was not applied");
                Ok(())
            }
            Ok(_) => Ok(()),
        }
    }
}
