//! Billing: the agent holds, releases and ends channels by what was used and paid; the client signs
//! what it owes.
//!
//! Each pass follows from the database alone and may be repeated. It is run for the channels that
//! have changed and, now and then, for all; what is found to be wrong is looked at again, and
//! changed, in one transaction. What is the same on both sides stands here.

mod agent;
mod client;

use privatix_plugin_api::message::ClientKey;

pub use self::client::Question;
use super::Service;
use privatix_base::clock;
use privatix_domain::billing::{Terms, Thresholds};
use privatix_domain::status::is_over;
use privatix_store::{BillingRow, StoreError, Txn};

/// Channels read at once.
const PAGE: u32 = 4096;

/// Channels changed in one transaction, which others wait for.
const GROUP: usize = 64;

/// Channels noted as settled in one transaction: two statements, however many they are.
const SETTLED_AT_ONCE: usize = 1024;

/// Why a channel has the hold `payment`.
pub(crate) const UNPAID: &str = "waits for payment";

/// What a look at a channel says.
enum Finding {
    /// Nothing has to be done now.
    Right,
    /// Something has to be done: it is looked at again where that is done.
    Wrong,
    /// Nothing will have to be done until something changes.
    Settled,
    /// The client: its agent has to be asked anew.
    Ask,
}

/// One side's eye for its channels. Both look at a row of the database, and do what follows in a
/// transaction.
trait Bill {
    /// What a look at a channel says, which is the first look or the one that decides.
    fn finding(&self, terms: &Terms, row: &BillingRow) -> Finding;

    /// From which usage on a channel is looked at, and how far it may be used.
    fn thresholds(&self, terms: &Terms, row: &BillingRow) -> Thresholds;

    /// Does what has to be done about a channel, as it is by now.
    fn settle(
        &self,
        txn: &mut Txn,
        terms: &Terms,
        row: BillingRow,
    ) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// Whether a live channel's thresholds are not what they have to be: those of one that an older
    /// version made.
    fn rings_wrongly(&self, terms: &Terms, row: &BillingRow) -> bool {
        !is_over(row.state.status) && row.thresholds != self.thresholds(terms, row)
    }
}

impl Service {
    /// Waits until something has changed that money depends on.
    async fn billing_wanted(&self) {
        self.inner.attention.drawn().await;
    }

    /// Bills the channels that have changed since. Returns those whose agents have to be asked anew.
    async fn bill_changed(&self, by: &impl Bill) -> Result<Vec<Question>, StoreError> {
        let changed = self.inner.attention.take();
        let mut ask = Vec::new();
        for ids in changed.chunks(PAGE as usize) {
            ask.extend(self.bill(by, self.inner.store.billing_some(ids).await?).await?);
        }
        Ok(ask)
    }

    /// Bills all channels that are not over, or all that are not settled, and marks the sessions that
    /// are measured here. Returns those whose agents have to be asked anew.
    async fn bill_all(&self, by: &impl Bill, over_too: bool) -> Result<Vec<Question>, StoreError> {
        let mut txn = self.inner.store.begin().await?;
        txn.session_mark(clock::unix_now()).await?;
        self.clock_note(&mut txn).await?;
        txn.commit().await?;
        let (mut ask, mut after) = (Vec::new(), None);
        loop {
            let rows = self.inner.store.billing_page(after, over_too, PAGE).await?;
            let Some(last) = rows.last() else { return Ok(ask) };
            after = Some(last.id);
            ask.extend(self.bill(by, rows).await?);
        }
    }

    async fn bill(
        &self,
        by: &impl Bill,
        rows: Vec<BillingRow>,
    ) -> Result<Vec<Question>, StoreError> {
        let (mut wrong, mut ask, mut settled) = (Vec::new(), Vec::new(), Vec::new());
        for row in rows {
            let Some(terms) = self.terms(&row.offering).await? else { continue };
            if by.rings_wrongly(&terms, &row) {
                wrong.push(row.id);
                continue;
            }
            match by.finding(&terms, &row) {
                Finding::Wrong => wrong.push(row.id),
                Finding::Settled if !row.settled => settled.push(row.id),
                Finding::Settled | Finding::Right => {}
                Finding::Ask => ask.push(Question { channel: row.id, agent: row.peer }),
            }
        }
        for ids in wrong.chunks(GROUP) {
            let mut txn = self.inner.store.begin().await?;
            for id in ids {
                self.put_right(by, &mut txn, *id).await?;
            }
            self.commit(txn).await?;
        }
        for ids in settled.chunks(SETTLED_AT_ONCE) {
            self.note_settled(by, ids).await?;
        }
        Ok(ask)
    }

    /// Looks at a channel as it is by now, and does what has to be done.
    async fn put_right(
        &self,
        by: &impl Bill,
        txn: &mut Txn,
        id: ClientKey,
    ) -> Result<(), StoreError> {
        let Some(row) = txn.billing_get(id).await? else { return Ok(()) };
        let Some(terms) = self.terms(&row.offering).await? else { return Ok(()) };
        if by.rings_wrongly(&terms, &row) {
            txn.billing_set(id, row.paid, by.thresholds(&terms, &row)).await?;
        }
        by.settle(txn, &terms, row).await
    }

    /// Looks at some channels as they are by now, and notes which of them are settled.
    async fn note_settled(&self, by: &impl Bill, ids: &[ClientKey]) -> Result<(), StoreError> {
        let mut txn = self.inner.store.begin().await?;
        let mut settled = Vec::with_capacity(ids.len());
        for row in txn.billing_some(ids).await? {
            if let Some(terms) = self.terms(&row.offering).await?
                && matches!(by.finding(&terms, &row), Finding::Settled)
            {
                settled.push(row.id);
            }
        }
        txn.billing_settle(&settled).await?;
        self.commit(txn).await
    }
}
