//! Accounts: what an agent says of a channel, and what its client learns from it.

use std::collections::HashMap;

use privatix_plugin_api::json::MAX_INTEGER;
use privatix_plugin_api::message::ClientKey;
use serde_json::Value;
use uuid::Uuid;

use super::channel::unknown;
use super::cheque::received;
use super::stored::{key, parsed};
use super::{AgentApi, ClientApi, Refused};
use privatix_base::clock;
use privatix_domain::account::{self, Account};
use privatix_domain::billing::{Thresholds, admitted_usage};
use privatix_domain::cheque::{self, ChequeError, Expect};
use privatix_domain::code::Code;
use privatix_domain::identity::PublicKey;
use privatix_domain::order::{ChannelRequest, check_request};
use privatix_domain::signed::{self, Kind};
use privatix_domain::status::{Event, Hold, has_ended, is_over};
use privatix_store::Txn;

/// A live channel that a client has to ask its agent about.
#[derive(Debug, Clone)]
pub struct Followed {
    /// The channel.
    pub channel: ClientKey,
    /// The agent's URL.
    pub exchange: String,
    /// Number of the newest access message that is known; 0 before the first.
    pub serial: u64,
    /// Whether this side has ended it and the agent has to be told.
    pub ended: bool,
}

impl AgentApi {
    /// Whether a request about a channel comes from its client, now, and for the first
    /// time.
    ///
    /// # Errors
    /// `ChannelNotFound`, or the first check that failed; `RepeatedRequest`.
    pub async fn request_received(
        &self,
        kind: Kind,
        channel: ClientKey,
        message: &Value,
    ) -> Result<(), Refused> {
        let row = self.core.channel_row(channel).await?;
        let client = key(&row)?;
        let now = clock::wall_now();
        let request = check_request(kind, message, &client, channel, now)
            .map_err(|error| Refused::because(error.code(), &error))?;
        let expires = now + 2 * ChannelRequest::TOLERANCE;
        let mut txn = self.core.inner.store.begin().await?;
        let fresh = txn.nonce_use(&row.peer, &request.nonce.to_string(), expires, now).await?;
        txn.commit().await?;
        if fresh {
            Ok(())
        } else {
            Err(Refused::new(Code::RepeatedRequest, "this request was made before"))
        }
    }

    /// The signed account of a channel.
    ///
    /// # Errors
    /// `ChannelNotFound`.
    pub async fn account(&self, channel: ClientKey) -> Result<Value, Refused> {
        let account = self.account_now(channel).await?;
        signed::sign(Kind::Account, account, &self.core.inner.identity)
            .map_err(|error| Refused::because(error.code(), &error))
    }

    pub(crate) async fn account_now(&self, channel: ClientKey) -> Result<Account, Refused> {
        let serial = self.core.channel_row(channel).await?.access_serial;
        let mut rows = self.core.inner.store.billing_some(&[channel]).await?;
        let row = rows.pop().ok_or_else(unknown)?;
        let terms = self.core.terms_of(&row.offering).await?;
        let best = self.core.inner.store.cheque_get(channel).await?;
        Ok(Account {
            channel,
            status: row.state.status,
            holds: Account::words(row.state.holds),
            usage: row.usage.min(MAX_INTEGER),
            cost: terms.cost(row.usage, row.deposit),
            paid: row.paid,
            serial,
            time: clock::wall_now(),
            best_cheque: best.and_then(|cheque| serde_json::from_str(&cheque.message).ok()),
        })
    }
}

impl ClientApi {
    /// A signed request about a channel.
    ///
    /// # Errors
    /// Only what no message can hold.
    pub fn request_make(&self, kind: Kind, channel: ClientKey) -> Result<Value, Refused> {
        let request = ChannelRequest { channel, time: clock::wall_now(), nonce: Uuid::new_v4() };
        signed::sign(kind, request, &self.core.inner.identity)
            .map_err(|error| Refused::because(error.code(), &error))
    }

    /// Takes in an account; returns whether there is a newer access message.
    ///
    /// # Errors
    /// The first check that failed.
    pub async fn account_received(
        &self,
        channel: ClientKey,
        message: &Value,
    ) -> Result<bool, Refused> {
        let row = self.core.channel_row(channel).await?;
        // Whether it is stale is only known where it is taken.
        let account = account::check(message, &key(&row)?, channel, 0)
            .map_err(|error| Refused::because(error.code(), &error))?;
        self.account_taken(&account, message).await?;
        Ok(account.serial > row.access_serial
            && !is_over(account.status)
            && !is_over(row.state.status))
    }

    /// Keeps what the agent has signed in an account or a receipt, and does what follows.
    ///
    /// # Errors
    /// `StaleAccount` for an older one than is known; `ChannelNotFound`.
    pub(crate) async fn account_taken(
        &self,
        account: &Account,
        message: &Value,
    ) -> Result<(), Refused> {
        let mut txn = self.core.inner.store.begin().await?;
        // One that was made in the future, by a clock that has been set since, is no measure.
        let last = txn.account_time(account.channel).await?.min(clock::wall_now());
        account::check_time(account, last)
            .map_err(|error| Refused::because(error.code(), &error))?;
        // Before the account is put beside what was measured here by then.
        self.remember_cheque(&mut txn, account).await?;
        txn.account_put(account, &message.to_string()).await?;
        settle_cheque(&mut txn, account).await?;
        if !account.known_holds().contains(Hold::Payment) {
            txn.channel_start_due(account.channel, clock::unix_now()).await?;
        }
        let row = txn.channel_find(account.channel).await?.ok_or_else(unknown)?;
        if has_ended(account.status) {
            txn.channel_peer_ended(account.channel).await?;
        }
        if is_over(account.status) && !is_over(row.state.status) {
            let why = account.end(row.deposit);
            self.core.apply(&mut txn, &row, Event::Terminate, why).await?;
        }
        Ok(self.core.commit(txn).await?)
    }

    /// Takes a cheque for its own that it has forgotten and its agent shows, if it has
    /// signed it. Then it has forgotten usage as well.
    async fn remember_cheque(&self, txn: &mut Txn, account: &Account) -> Result<(), Refused> {
        let Some(message) = &account.best_cheque else { return Ok(()) };
        let channel = account.channel;
        let row = txn.channel_find(channel).await?.ok_or_else(unknown)?;
        let known = txn.billing_get(channel).await?.ok_or_else(unknown)?;
        let expect = Expect {
            agent: &key(&row)?,
            client: &self.core.inner.identity.public().signing,
            channel,
            offering: &row.offering,
            deposit: row.deposit,
            paid: known.paid,
        };
        let cheque = match cheque::check(message, &expect) {
            Ok(cheque) if cheque.balance > known.paid => cheque,
            // An older one is no news: what was signed since is on its way.
            Ok(_) | Err(ChequeError::Stale { .. }) => return Ok(()),
            Err(error) => {
                let error = privatix_plugin_api::chain(&error);
                tracing::warn!(%channel, error, "the agent shows a cheque that is not this client's");
                return Ok(());
            }
        };
        let terms = self.core.terms_of(&row.offering).await?;
        let balance = cheque.balance;
        let admitted = admitted_usage(&terms, account.cost, account.usage, balance);
        let forgotten = admitted.saturating_sub(known.usage);
        if forgotten > 0 {
            txn.billing_add_used(&[(channel, forgotten)], clock::unix_now()).await?;
        }
        txn.cheque_put(&received(&cheque, message)).await?;
        txn.billing_set(channel, balance, Thresholds::of_client(&terms)).await?;
        let before = known.paid;
        tracing::warn!(%channel, balance, before, forgotten,
            "this host has forgotten a cheque that it has signed; the agent has shown it");
        Ok(())
    }

    /// The channels that agents are asked about.
    ///
    /// # Errors
    /// A database that fails.
    pub async fn channels_followed(&self) -> Result<Vec<Followed>, Refused> {
        let (mut followed, mut exchanges) = (Vec::new(), HashMap::new());
        for row in self.core.inner.store.channel_followed().await? {
            if !exchanges.contains_key(&row.offering) {
                let offering = self.core.inner.store.offering_get(&row.offering).await?;
                let Some(offering) = offering else { continue };
                exchanges.insert(row.offering.clone(), parsed(&offering)?.exchange);
            }
            let Some(exchange) = exchanges.get(&row.offering).cloned() else { continue };
            followed.push(Followed {
                channel: row.id,
                exchange,
                serial: if row.access.is_some() { row.access_serial } else { 0 },
                ended: is_over(row.state.status),
            });
        }
        Ok(followed)
    }

    /// The key of a channel's agent.
    ///
    /// # Errors
    /// `ChannelNotFound`.
    pub async fn agent_of(&self, channel: ClientKey) -> Result<PublicKey, Refused> {
        key(&self.core.channel_row(channel).await?)
    }
}

/// A cheque that the agent has is not sent any more; one that it has not, or has lost, is.
async fn settle_cheque(txn: &mut Txn, account: &Account) -> Result<(), Refused> {
    let Some(mut cheque) = txn.cheque_get(account.channel).await? else { return Ok(()) };
    match (account.paid >= cheque.balance, cheque.due) {
        (true, Some(_)) => (cheque.due, cheque.attempts, cheque.trouble) = (None, 0, None),
        (false, None) => cheque.due = Some(clock::unix_now()),
        // Back again: what it was not told for long it is told now.
        (false, Some(_)) if cheque.away => cheque.due = Some(clock::unix_now()),
        _ => return Ok(()),
    }
    cheque.away = false;
    Ok(txn.cheque_put(&cheque).await?)
}
