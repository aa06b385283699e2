//! Billing: the agent holds, releases and ends channels by what was used and paid; the client signs
//! what it owes.
//!
//! Each pass follows from the database alone and may be repeated. It is run for the channels that
//! have changed and, now and then, for all; what is found to be wrong is looked at again, and
//! changed, in one transaction.

use std::sync::{Arc, PoisonError};

use privatix_plugin_api::json::MAX_INTEGER;
use privatix_plugin_api::manifest::Role;
use privatix_plugin_api::message::{ClientKey, Status};

use super::account::is_over;
use super::channel::ChannelError;
use super::offering::parsed;
use super::{Refused, Service};
use privatix_base::clock::{self, UnixSeconds};
use privatix_domain::billing::{
    self, AgentFacts, AgentSays, Bounds, ClientFacts, Terms, judge, may_owe_more, next_balance,
};
use privatix_domain::status::{Event, Hold};
use privatix_store::{BillingRow, StoreError, Txn};

/// Channels read at once.
const PAGE: u32 = 4096;

/// Channels changed in one transaction, which others wait for.
const GROUP: usize = 64;

/// Channels noted as settled in one transaction: two statements, however many they are.
const SETTLED_AT_ONCE: usize = 1024;

/// An agent to be asked anew what is owed for a channel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Question {
    /// The channel.
    pub channel: ClientKey,
    /// The agent's key, as text.
    pub agent: String,
}

impl Service {
    /// Waits until something has changed that money depends on.
    pub async fn billing_wanted(&self) {
        self.inner.attention.drawn().await;
    }

    /// Bills the channels that have changed since. Returns those whose agents have to be asked anew.
    ///
    /// # Errors
    /// [`StoreError`]; what was not done is done with the next pass over all.
    pub async fn bill_changed(&self) -> Result<Vec<Question>, StoreError> {
        let changed = self.inner.attention.take();
        let mut ask = Vec::new();
        for ids in changed.chunks(PAGE as usize) {
            ask.extend(self.bill(self.inner.store.billing_some(ids).await?).await?);
        }
        Ok(ask)
    }

    /// Bills all channels that are not over, or all that are not settled, and marks the sessions that are measured
    /// here. Returns those whose agents have to be asked anew.
    ///
    /// # Errors
    /// [`StoreError`]; what was not done is done with the next pass.
    pub async fn bill_all(&self, over_too: bool) -> Result<Vec<Question>, StoreError> {
        let mut txn = self.inner.store.begin().await?;
        txn.session_mark(clock::unix_now()).await?;
        self.clock_note(&mut txn).await?;
        txn.commit().await?;
        let (mut ask, mut after) = (Vec::new(), None);
        loop {
            let rows = self.inner.store.billing_page(after, over_too, PAGE).await?;
            let Some(last) = rows.last() else { return Ok(ask) };
            after = Some(last.id);
            ask.extend(self.bill(rows).await?);
        }
    }

    /// Ends the sessions that were measured by a process of this host that is no more, at their last
    /// marks.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn sessions_recovered(&self) -> Result<(), StoreError> {
        let mut txn = self.inner.store.begin().await?;
        for session in txn.session_measured().await? {
            txn.session_close_as_known(session, clock::unix_now()).await?;
        }
        self.commit(txn).await
    }

    pub(super) async fn bill(&self, rows: Vec<BillingRow>) -> Result<Vec<Question>, StoreError> {
        let (mut wrong, mut ask, mut settled) = (Vec::new(), Vec::new(), Vec::new());
        let now = clock::unix_now();
        for row in rows {
            let Some(terms) = self.terms(&row.offering).await? else { continue };
            match self.role() {
                _ if self.rings_wrongly(&terms, &row) => wrong.push(row.id),
                Role::Agent if self.verdict(&terms, &row, now).is_some() => wrong.push(row.id),
                _ if !row.settled && self.is_settled(&terms, &row) => settled.push(row.id),
                Role::Agent => {}
                Role::Client if !row.has_access => {}
                Role::Client => {
                    let facts = self.client_facts(&row);
                    if next_balance(&terms, &facts).is_some() {
                        wrong.push(row.id);
                    } else if may_owe_more(&terms, &facts) {
                        ask.push(Question { channel: row.id, agent: row.peer });
                    }
                }
            }
        }
        for ids in wrong.chunks(GROUP) {
            let mut txn = self.inner.store.begin().await?;
            for id in ids {
                self.settle(&mut txn, *id).await?;
            }
            self.commit(txn).await?;
        }
        for ids in settled.chunks(SETTLED_AT_ONCE) {
            self.note_settled(ids).await?;
        }
        Ok(ask)
    }

    /// Looks at some channels as they are by now, and notes which of them are settled.
    async fn note_settled(&self, ids: &[ClientKey]) -> Result<(), StoreError> {
        let mut txn = self.inner.store.begin().await?;
        let mut settled = Vec::with_capacity(ids.len());
        for row in txn.billing_some(ids).await? {
            if let Some(terms) = self.terms(&row.offering).await?
                && self.is_settled(&terms, &row)
            {
                settled.push(row.id);
            }
        }
        txn.billing_settle(&settled).await?;
        self.commit(txn).await
    }

    /// Looks at a channel as it is by now, and does what has to be done.
    async fn settle(&self, txn: &mut Txn, id: ClientKey) -> Result<(), StoreError> {
        let Some(row) = txn.billing_get(id).await? else { return Ok(()) };
        let Some(terms) = self.terms(&row.offering).await? else { return Ok(()) };
        if self.rings_wrongly(&terms, &row) {
            self.mark(txn, id, &terms, row.deposit, row.paid).await?;
        }
        if self.role() == Role::Client {
            let balance = next_balance(&terms, &self.client_facts(&row));
            let Some(balance) = balance.filter(|_| row.has_access) else {
                return Ok(());
            };
            return self.sign_cheque(txn, id, balance).await;
        }
        let Some((event, reason)) = self.verdict(&terms, &row, clock::unix_now()) else {
            return Ok(());
        };
        let Some(channel) = txn.channel_find(id).await? else { return Ok(()) };
        match self.apply(txn, &channel, event, reason).await {
            Err(ChannelError::Store(error)) => Err(error),
            // A verdict is no user's command.
            Err(error) => {
                tracing::error!(channel = %id, %error, "a verdict was not applied");
                Ok(())
            }
            Ok(_) => Ok(()),
        }
    }

    /// Whether nothing will be left to be done until something changes.
    fn is_settled(&self, terms: &Terms, row: &BillingRow) -> bool {
        match self.role() {
            Role::Agent => billing::is_settled_for_agent(&self.agent_facts(row)),
            Role::Client => {
                let ended = |status| status == Status::Terminated;
                let both = ended(row.state.status) && row.agent.is_some_and(|a| ended(a.status));
                billing::is_settled_for_client(terms, &self.client_facts(row), both)
            }
        }
    }

    /// The usage from which on a report has a channel looked at at once. A client looks with every
    /// report at a channel that costs anything.
    fn alarm(&self, terms: &Terms, deposit: u64, paid: u64) -> Option<u64> {
        match self.role() {
            Role::Agent => {
                billing::alarm(terms, deposit, paid).filter(|alarm| *alarm <= MAX_INTEGER)
            }
            Role::Client => terms.are_watched().then_some(0),
        }
    }

    /// How far a channel may be used.
    fn bounds(&self, terms: &Terms, deposit: u64, paid: u64) -> Bounds {
        match self.role() {
            Role::Agent => Bounds::of_agent(terms, deposit, paid),
            Role::Client => Bounds::of_client(terms),
        }
    }

    /// Notes what is paid for a channel, and what follows from it.
    pub(super) async fn mark(
        &self,
        txn: &mut Txn,
        id: ClientKey,
        terms: &Terms,
        deposit: u64,
        paid: u64,
    ) -> Result<(), StoreError> {
        let alarm = self.alarm(terms, deposit, paid);
        txn.billing_set(id, paid, alarm, self.bounds(terms, deposit, paid)).await
    }

    /// Whether a live channel's alarm or bounds are not what they have to be: those of one that an
    /// older version made.
    fn rings_wrongly(&self, terms: &Terms, row: &BillingRow) -> bool {
        let (deposit, paid) = (row.deposit, row.paid);
        let right = (self.alarm(terms, deposit, paid), self.bounds(terms, deposit, paid));
        !is_over(row.state.status) && (row.alarm, row.bounds) != right
    }

    pub(super) fn client_facts(&self, row: &BillingRow) -> ClientFacts {
        let ended = |status| status == Status::Terminated;
        let agent = row.agent;
        ClientFacts {
            usage: row.usage,
            deposit: row.deposit,
            // A host that was restored from a copy may have signed more than it knows.
            paid: row.paid.max(agent.map_or(0, |agent| agent.paid)),
            agent: agent.map(|agent| AgentSays { cost: agent.cost, usage_then: agent.usage_then }),
            in_session: row.in_session,
            held_by_user: row.state.holds.contains(Hold::User),
            over: is_over(row.state.status) || agent.is_some_and(|agent| ended(agent.status)),
            tolerance: self.inner.settings.tolerance,
        }
    }

    /// The terms of an offering, read once; none where its message cannot be read, which was checked
    /// when it came.
    pub(super) async fn terms(&self, offering: &str) -> Result<Option<Arc<Terms>>, StoreError> {
        let known = || self.inner.terms.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(terms) = known().get(offering) {
            return Ok(Some(Arc::clone(terms)));
        }
        let Some(row) = self.inner.store.offering_get(offering).await? else { return Ok(None) };
        let Ok(read) = parsed(&row) else { return Ok(None) };
        let terms = Arc::new(Terms::from(&read));
        known().insert(offering.to_owned(), Arc::clone(&terms));
        Ok(Some(terms))
    }

    /// The terms of a channel's offering.
    pub(super) async fn terms_of(&self, offering: &str) -> Result<Arc<Terms>, Refused> {
        let terms = self.terms(offering).await?;
        terms.ok_or_else(|| Refused::not_found("the channel's offering"))
    }
}

impl Service {
    pub(super) fn agent_facts(&self, row: &BillingRow) -> AgentFacts {
        let within = self.inner.settings.first_payment_timeout.as_secs();
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
        let judgement = judge(terms, &self.agent_facts(row), now);
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

/// Why a channel has the hold `payment`.
pub(super) const UNPAID: &str = "waits for payment";
