//! Cheques, and what agents have signed of channels.

use privatix_plugin_api::message::ClientKey;
use sqlx::Row;
use sqlx::sqlite::SqliteRow;

use super::rules::{is_due, of_channel};
use super::{Result, Store, StoreError, Txn, from_db, to_db};
use privatix_base::clock::UnixSeconds;
use privatix_domain::account::Account;
use privatix_domain::back_off;

/// The best cheque of a channel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChequeRow {
    /// The channel.
    pub channel: ClientKey,
    /// Its balance.
    pub balance: u64,
    /// The signed message.
    pub message: String,
    /// When it was received or signed.
    pub made_at: UnixSeconds,
    /// The client: when it is to be sent; none once it is acknowledged.
    pub due: Option<UnixSeconds>,
    /// How often in a row that failed.
    pub attempts: u32,
    /// What was said last.
    pub trouble: Option<String>,
    /// The client: whether the agent was not heard of at all when it was sent last.
    pub away: bool,
}

/// A cheque to be sent, and to whom.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DueCheque {
    /// The agent's key, as text.
    pub agent: String,
    /// The cheque.
    pub cheque: ChequeRow,
}

impl Store {
    /// So many cheques, by their channels, those after one. In this order a cheque that is replaced
    /// meanwhile stays where it is, so that nobody who reads on misses it.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn cheque_after(
        &self,
        after: Option<ClientKey>,
        limit: u32,
    ) -> Result<Vec<ChequeRow>> {
        let sql = "SELECT * FROM cheques WHERE channel > $1 ORDER BY channel LIMIT $2";
        let after = after.map_or(uuid::Uuid::nil(), |channel| channel.0);
        let rows = sqlx::query(sql).bind(after).bind(limit).fetch_all(&self.pool).await;
        rows.map_err(StoreError::at("listing cheques"))?.iter().map(row).collect()
    }

    /// The best cheque of a channel.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn cheque_get(&self, channel: ClientKey) -> Result<Option<ChequeRow>> {
        let found = sqlx::query(GET).bind(channel.0).fetch_optional(&self.pool).await;
        found.map_err(StoreError::at("reading a cheque"))?.as_ref().map(row).transpose()
    }

    /// The client: the cheques that are to be sent by a time, longest due first, but none to some
    /// agents.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn cheque_due(&self, now: UnixSeconds, not_to: &[&str]) -> Result<Vec<DueCheque>> {
        let sql = concat!(
            "SELECT cheques.*, c.peer FROM cheques JOIN channels c ON c.id = cheques.channel \
             WHERE due IS NOT NULL AND ",
            is_due!(),
            " AND c.peer NOT IN (SELECT value FROM json_each($3)) \
             ORDER BY due, channel LIMIT 1000"
        );
        let (by, beyond) = back_off::due(now);
        let query = sqlx::query(sql).bind(to_db(by)).bind(to_db(beyond));
        let rows = query.bind(super::json(&not_to)).fetch_all(&self.pool).await;
        let rows = rows.map_err(StoreError::at("reading unsent cheques"))?;
        let due = |found: &SqliteRow| {
            let agent = found.try_get("peer").map_err(StoreError::at("reading a cheque"))?;
            Ok(DueCheque { agent, cheque: row(found)? })
        };
        rows.iter().map(due).collect()
    }

    /// The client: what a channel's agent has signed last.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn account_get(&self, channel: ClientKey) -> Result<Option<String>> {
        let sql = "SELECT message FROM accounts WHERE channel = $1";
        let found = sqlx::query_scalar(sql).bind(channel.0).fetch_optional(&self.pool).await;
        found.map_err(StoreError::at("reading an account"))
    }
}

const GET: &str = "SELECT * FROM cheques WHERE channel = $1";

impl Txn {
    /// The best cheque of a channel.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn cheque_get(&mut self, channel: ClientKey) -> Result<Option<ChequeRow>> {
        let found = sqlx::query(GET).bind(channel.0).fetch_optional(&mut *self.inner).await;
        found.map_err(StoreError::at("reading a cheque"))?.as_ref().map(row).transpose()
    }

    /// Keeps a cheque in place of the channel's older one.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn cheque_put(&mut self, cheque: &ChequeRow) -> Result<()> {
        let sql = "INSERT INTO cheques (channel, balance, message, made_at, due, attempts, \
                   trouble, away) VALUES ($1, $2, $3, $4, $5, $6, $7, $8) \
                   ON CONFLICT (channel) DO UPDATE SET balance = $2, message = $3, made_at = $4, \
                   due = $5, attempts = $6, trouble = $7, away = $8";
        let query = sqlx::query(sql)
            .bind(cheque.channel.0)
            .bind(to_db(cheque.balance))
            .bind(&cheque.message)
            .bind(to_db(cheque.made_at))
            .bind(cheque.due.map(to_db))
            .bind(i64::from(cheque.attempts))
            .bind(&cheque.trouble)
            .bind(i16::from(cheque.away));
        query.execute(&mut *self.inner).await.map_err(StoreError::at("keeping a cheque"))?;
        Ok(())
    }

    /// The client: when the agent's last account of a channel was made; 0 before the first.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn account_time(&mut self, channel: ClientKey) -> Result<UnixSeconds> {
        let sql = "SELECT time FROM accounts WHERE channel = $1";
        let found = sqlx::query_scalar(sql).bind(channel.0).fetch_optional(&mut *self.inner).await;
        Ok(found.map_err(StoreError::at("reading an account"))?.map_or(0, from_db))
    }

    /// The client: keeps what a channel's agent has signed, beside what was measured here by now.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn account_put(&mut self, account: &Account, message: &str) -> Result<()> {
        self.touch(account.channel);
        let sql = concat!(
            "INSERT INTO accounts (channel, message, status, cost, paid, time, usage) \
             SELECT $1, $2, $3, $4, $5, $6, ",
            of_channel!(),
            " FROM channels c LEFT JOIN sessions s ON s.channel = c.id AND s.stopped_at IS NULL \
             WHERE c.id = $1 ON CONFLICT (channel) DO UPDATE SET message = $2, status = $3, \
             cost = $4, paid = $5, time = $6, usage = excluded.usage"
        );
        let query = sqlx::query(sql)
            .bind(account.channel.0)
            .bind(message)
            .bind(account.status.as_str())
            .bind(to_db(account.cost))
            .bind(to_db(account.paid))
            .bind(to_db(account.time));
        query.execute(&mut *self.inner).await.map_err(StoreError::at("keeping an account"))?;
        self.billing_unsettle(account.channel).await
    }
}

pub(super) fn row(row: &SqliteRow) -> Result<ChequeRow> {
    let read = || {
        let due: Option<i64> = row.try_get("due")?;
        let attempts: i64 = row.try_get("attempts")?;
        Ok::<_, sqlx::Error>(ChequeRow {
            channel: ClientKey(row.try_get("channel")?),
            balance: row.try_get("balance").map(from_db)?,
            message: row.try_get("message")?,
            made_at: row.try_get("made_at").map(from_db)?,
            due: due.map(from_db),
            attempts: u32::try_from(attempts).unwrap_or(u32::MAX),
            trouble: row.try_get("trouble")?,
            away: row.try_get::<i16, _>("away")? == 1,
        })
    };
    read().map_err(StoreError::at("reading a cheque"))
}
