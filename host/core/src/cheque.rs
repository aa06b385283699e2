//! Cheques: taken by an agent, signed and sent by a client. A client keeps a cheque as unsent until
//! its agent has signed for it, and nothing that an agent only says, unsigned, changes that.

use privatix_plugin_api::message::ClientKey;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::channel::unknown;
use super::list::ListQuery;
use super::stored::{fingerprint, hash, key, message, parsed};
use super::{AgentApi, ClientApi, OperatorApi, Refused};
use privatix_base::clock::{self, UnixSeconds};
use privatix_domain::account::Account;
use privatix_domain::back_off::soon;
use privatix_domain::billing::Thresholds;
use privatix_domain::cheque::{self, Bundle, Cheque, Expect, Receipt};
use privatix_domain::code::Code;
use privatix_domain::identity::PublicKey;
use privatix_domain::signed::{self, Kind};
use privatix_store::{ChannelRow, ChequeRow, DueCheque, StoreError, Txn};

/// A cheque as the operator sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct ChequeView {
    /// Its channel.
    pub channel: ClientKey,
    /// Fingerprint of the other party's key.
    pub peer: String,
    /// All that is paid for the channel so far.
    pub balance: u64,
    /// What is paid at most.
    pub deposit: u64,
    /// When it was received or signed, Unix time.
    pub made_at: UnixSeconds,
    /// The client: whether the agent has not acknowledged it yet.
    pub unsent: bool,
    /// The client: when it is sent again, and what was said last.
    pub retry: Option<Retry>,
}

/// What becomes of a cheque that was not acknowledged.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct Retry {
    /// When it is sent again, Unix time.
    pub at: UnixSeconds,
    /// How often it was sent in vain.
    pub attempts: u32,
    /// Why.
    pub trouble: String,
}

/// Cheques of one page with what they rest on; an offering alone may have 64 KiB.
const BUNDLES: u32 = 100;

impl AgentApi {
    /// Takes a cheque, and looks at its channel at once. Returns the signed receipt.
    ///
    /// # Errors
    /// The first check that failed; `ChannelNotFound`.
    pub async fn cheque_received(&self, message: &Value) -> Result<Value, Refused> {
        let refused = |error: cheque::ChequeError| Refused::because(error.code(), &error);
        let channel = cheque::read(message).map_err(refused)?.channel;
        let row = self.core.channel_row(channel).await?;
        let known =
            self.core.inner.store.billing_some(&[channel]).await?.pop().ok_or_else(unknown)?;
        let expect = Expect {
            agent: &self.core.inner.identity.public().signing,
            client: &key(&row)?,
            channel,
            offering: &row.offering,
            deposit: row.deposit,
            paid: known.paid,
        };
        // Before the write lock is taken: the caller is a stranger until the signature is good.
        let cheque = cheque::check(message, &expect).map_err(refused)?;
        if cheque.balance > known.paid {
            self.keep_cheque(&row, &cheque, message).await?;
        }
        // It has just been shown by its client.
        let account = Account { best_cheque: None, ..self.account_now(channel).await? };
        let receipt = Receipt { cheque: hash(message)?, account };
        signed::sign(Kind::Receipt, receipt, &self.core.inner.identity)
            .map_err(|error| Refused::because(error.code(), &error))
    }

    /// Keeps a good cheque, unless a higher one has come meanwhile, and looks at its channel at once.
    async fn keep_cheque(
        &self,
        row: &ChannelRow,
        cheque: &Cheque,
        message: &Value,
    ) -> Result<(), Refused> {
        let (channel, balance) = (row.id, cheque.balance);
        let terms = self.core.terms_of(&row.offering).await?;
        let mut txn = self.core.inner.store.begin().await?;
        let before = txn.billing_get(channel).await?.map_or(0, |known| known.paid);
        if balance > before {
            txn.cheque_put(&received(cheque, message)).await?;
            txn.billing_set(channel, balance, Thresholds::of_agent(&terms, row.deposit, balance))
                .await?;
            self.core.commit(txn).await?;
            tracing::info!(%channel, balance, before, "cheque received");
        }
        let rows = self.core.inner.store.billing_some(&[channel]).await?;
        self.bill(rows).await?;
        Ok(())
    }
}

impl ClientApi {
    /// Signs a balance and has it sent.
    pub(crate) async fn sign_cheque(
        &self,
        txn: &mut Txn,
        channel: ClientKey,
        balance: u64,
    ) -> Result<(), StoreError> {
        let Some(row) = txn.channel_find(channel).await? else { return Ok(()) };
        let Ok(agent) = row.peer.parse::<PublicKey>() else {
            tracing::error!(%channel, peer = row.peer, "the agent's key cannot be read");
            return Ok(());
        };
        let cheque = Cheque {
            agent,
            client: self.core.inner.identity.public().signing,
            channel,
            offering: row.offering,
            balance,
        };
        let message = match signed::sign(Kind::Cheque, &cheque, &self.core.inner.identity) {
            Ok(message) => message,
            Err(error) => {
                tracing::error!(%channel, error = privatix_plugin_api::chain(&error), "no cheque was signed");
                return Ok(());
            }
        };
        let now = clock::unix_now();
        // An agent that cannot be reached is not asked more often because more is owed.
        let waits = txn.cheque_get(channel).await?.filter(|older| older.attempts > 0);
        let (due, attempts, trouble, away) = match waits {
            Some(older) => (older.due.unwrap_or(now), older.attempts, older.trouble, older.away),
            None => (now, 0, None, false),
        };
        let row = ChequeRow {
            channel,
            balance,
            message: message.to_string(),
            made_at: now,
            due: Some(due),
            attempts,
            trouble,
            away,
        };
        txn.cheque_put(&row).await?;
        txn.billing_set_paid(channel, balance).await?;
        tracing::info!(%channel, balance, "cheque signed");
        Ok(())
    }

    /// The cheques that are to be sent by now, but none to some agents.
    ///
    /// # Errors
    /// A database that fails.
    pub async fn cheques_due(&self, not_to: &[&str]) -> Result<Vec<DueCheque>, StoreError> {
        self.core.inner.store.cheque_due(clock::unix_now(), not_to).await
    }

    /// Where a channel's cheques go.
    ///
    /// # Errors
    /// `ChannelNotFound`, `AccessNotFound`.
    pub async fn payment_receiver(&self, channel: ClientKey) -> Result<String, Refused> {
        let row = self.core.channel_row(channel).await?;
        let missing = || Refused::new(Code::AccessNotFound, "the access message is not here yet");
        let access = row.access.as_deref().and_then(|text| serde_json::from_str(text).ok());
        let access: Value = access.ok_or_else(missing)?;
        let address = access.get("paymentReceiverAddress").and_then(Value::as_str);
        address.map(str::to_owned).ok_or_else(missing)
    }

    /// Takes in the agent's receipt for a cheque.
    ///
    /// # Errors
    /// The first check that failed; then the cheque stays unsent.
    pub async fn receipt_received(&self, sent: &ChequeRow, receipt: &Value) -> Result<(), Refused> {
        let row = self.core.channel_row(sent.channel).await?;
        let cheque = message(&sent.message)?;
        let read = cheque::check_receipt(
            receipt,
            &key(&row)?,
            sent.channel,
            &hash(&cheque)?,
            sent.balance,
        )
        .map_err(|error| Refused::because(error.code(), &error))?;
        self.account_taken(&read.account, receipt).await
    }

    /// A cheque was not acknowledged; it is sent again later, or once an agent who is away
    /// is heard of.
    ///
    /// # Errors
    /// A database that fails.
    pub async fn cheque_failed(
        &self,
        sent: &ChequeRow,
        why: &str,
        away: bool,
    ) -> Result<(), StoreError> {
        let mut txn = self.core.inner.store.begin().await?;
        let Some(mut row) = txn.cheque_get(sent.channel).await? else { return Ok(()) };
        if row.due.is_none() {
            // An account has settled it meanwhile.
            return Ok(());
        }
        row.attempts = row.attempts.saturating_add(1);
        row.due = Some(clock::unix_now() + soon(row.attempts).as_secs());
        row.trouble = Some(why.to_owned());
        row.away = away;
        txn.cheque_put(&row).await?;
        txn.commit().await.map(drop)
    }

    /// The agent's URL of a channel, where its account is asked for.
    ///
    /// # Errors
    /// `ChannelNotFound`.
    pub async fn exchange_of(&self, channel: ClientKey) -> Result<String, Refused> {
        let row = self.core.channel_row(channel).await?;
        let offering = self.core.inner.store.offering_get(&row.offering).await?;
        let offering = offering.ok_or_else(|| Refused::not_found("its offering"))?;
        Ok(parsed(&offering)?.exchange)
    }
}

impl OperatorApi {
    /// Cheques, newest first.
    ///
    /// # Errors
    /// `BadRequest`, `NotFound` for what is asked for.
    pub async fn cheque_views(&self, query: &ListQuery) -> Result<Vec<ChequeView>, Refused> {
        let mut views = Vec::new();
        let page = query.by_channel(&["unsent", "acknowledged"])?;
        for cheque in query.found(self.core.inner.store.cheque_page(page).await?)? {
            let row = self.core.channel_row(cheque.channel).await?;
            views.push(ChequeView {
                channel: cheque.channel,
                peer: fingerprint(row.peer),
                balance: cheque.balance,
                deposit: row.deposit,
                made_at: cheque.made_at,
                unsent: cheque.due.is_some(),
                retry: retry(&cheque),
            });
        }
        Ok(views)
    }

    /// A page of the best cheques with what they rest on, by their channels; empty where there are no
    /// more.
    ///
    /// # Errors
    /// `NotFound`, `BadRequest` for what is asked for; a database that fails.
    pub async fn cheque_bundles(&self, query: &ListQuery) -> Result<Vec<Bundle>, Refused> {
        let page = query.by_channel(&[])?;
        let limit = page.limit.min(BUNDLES);
        let mut bundles = Vec::new();
        let gone = |what| Refused::not_found(format!("the cheque's {what}"));
        for cheque in self.core.inner.store.cheque_after(page.after, limit).await? {
            let row = self.core.channel_row(cheque.channel).await?;
            let offering = self.core.inner.store.offering_get(&row.offering).await?;
            let order = self.core.inner.store.order_get(&row.order_hash).await?;
            let order = order.ok_or_else(|| gone("order"))?;
            bundles.push(Bundle {
                cheque: message(&cheque.message)?,
                offering: message(&offering.ok_or_else(|| gone("offering"))?.message)?,
                order: message(&order.message)?,
                order_reply: message(&order.reply.ok_or_else(|| gone("order reply"))?)?,
            });
        }
        Ok(bundles)
    }
}

pub(super) fn retry(cheque: &ChequeRow) -> Option<Retry> {
    let (at, trouble) = (cheque.due?, cheque.trouble.clone()?);
    Some(Retry { at, attempts: cheque.attempts, trouble })
}

pub(super) fn received(cheque: &Cheque, message: &Value) -> ChequeRow {
    ChequeRow {
        channel: cheque.channel,
        balance: cheque.balance,
        message: message.to_string(),
        made_at: clock::unix_now(),
        due: None,
        attempts: 0,
        trouble: None,
        away: false,
    }
}
