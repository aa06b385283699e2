//! Pinned agents, offerings and orders.

use sqlx::Row;
use sqlx::sqlite::SqliteRow;
use uuid::Uuid;

use super::rules::is_open;
use super::{Result, Store, StoreError, Txn, from_db, to_db};
use privatix_base::clock::UnixSeconds;

/// An offering: an agent's own, or one that a client has fetched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OfferingRow {
    /// Hash of the message.
    pub hash: String,
    /// The product it sells.
    pub product: Uuid,
    /// The agent's signing key, as text.
    pub agent: String,
    /// The signed message as JSON.
    pub message: String,
    /// How many more orders are taken.
    pub supply_left: u64,
    /// When it was published or fetched.
    pub made_at: UnixSeconds,
    /// When it was withdrawn.
    pub withdrawn_at: Option<UnixSeconds>,
}

/// Where an order is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OrderState {
    /// Not answered yet: to be decided on by the agent's operator, or to be sent again.
    Waiting,
    /// A channel was made of it.
    Accepted,
    /// Refused for good.
    Rejected,
}

impl OrderState {
    /// The word used in tables and JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Accepted => "accepted",
            Self::Rejected => "rejected",
        }
    }
}

/// An order, received or sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OrderRow {
    /// Hash of the message.
    pub hash: String,
    /// Hash of the offering.
    pub offering: String,
    /// The client's signing key, as text.
    pub client: String,
    /// Unique for the client.
    pub nonce: String,
    /// The signed message as JSON.
    pub message: String,
    /// Where it is.
    pub state: OrderState,
    /// Whether the channel begins with the hold `user`.
    pub held: bool,
    /// The agent's signed answer.
    pub reply: Option<String>,
    /// When it came or went.
    pub created_at: UnixSeconds,
    /// When the client cancelled it.
    pub cancelled_at: Option<UnixSeconds>,
}

impl Store {
    /// Whether a client accepts offerings of this agent.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn agent_is_pinned(&self, key: &str) -> Result<bool> {
        let sql = "SELECT COUNT(*) FROM agents WHERE signing_key = $1";
        let count: i64 = sqlx::query_scalar(sql)
            .bind(key)
            .fetch_one(&self.pool)
            .await
            .map_err(StoreError::at("looking for an agent"))?;
        Ok(count > 0)
    }

    /// Offerings that orders are taken for, in the order of their hashes, after one of them.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn offering_page(&self, after: &str, limit: u32) -> Result<Vec<OfferingRow>> {
        let sql = concat!(
            "SELECT * FROM offerings WHERE hash > $1 AND ",
            is_open!(),
            " ORDER BY hash LIMIT $2"
        );
        let rows = sqlx::query(sql).bind(after).bind(limit).fetch_all(&self.pool).await;
        rows.map_err(StoreError::at("listing offerings"))?.iter().map(offering).collect()
    }

    /// One offering.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn offering_get(&self, hash: &str) -> Result<Option<OfferingRow>> {
        let found = sqlx::query(OFFERING).bind(hash).fetch_optional(&self.pool).await;
        found.map_err(StoreError::at("reading an offering"))?.as_ref().map(offering).transpose()
    }

    /// One order.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn order_get(&self, hash: &str) -> Result<Option<OrderRow>> {
        let found = sqlx::query(ORDER).bind(hash).fetch_optional(&self.pool).await;
        found.map_err(StoreError::at("reading an order"))?.as_ref().map(order).transpose()
    }

    /// The order a client made with a nonce.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn order_by_nonce(&self, client: &str, nonce: &str) -> Result<Option<OrderRow>> {
        let found = sqlx::query(BY_NONCE).bind(client).bind(nonce).fetch_optional(&self.pool).await;
        found.map_err(StoreError::at("reading an order"))?.as_ref().map(order).transpose()
    }

    /// The orders that have no answer yet, oldest first.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn order_waiting(&self) -> Result<Vec<OrderRow>> {
        let sql = "SELECT * FROM orders WHERE state = 'waiting' ORDER BY created_at, hash";
        let rows = sqlx::query(sql).fetch_all(&self.pool).await;
        rows.map_err(StoreError::at("listing orders"))?.iter().map(order).collect()
    }
}

const OFFERING: &str = "SELECT * FROM offerings WHERE hash = $1";
const BY_NONCE: &str = "SELECT * FROM orders WHERE client = $1 AND nonce = $2";
const ORDER: &str = "SELECT * FROM orders WHERE hash = $1";

impl Txn {
    /// From now on offerings of this agent are accepted.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn agent_pin(&mut self, key: &str, print: &str, now: UnixSeconds) -> Result<()> {
        let sql = "INSERT INTO agents (signing_key, fingerprint, pinned_at) VALUES ($1, $2, $3) \
                   ON CONFLICT (signing_key) DO NOTHING";
        let query = sqlx::query(sql).bind(key).bind(print).bind(to_db(now));
        query.execute(&mut *self.inner).await.map_err(StoreError::at("pinning an agent"))?;
        Ok(())
    }

    /// Keeps an offering; of one that is there already, only the product may change.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn offering_add(&mut self, row: &OfferingRow) -> Result<()> {
        let sql = "INSERT INTO offerings (hash, product, agent, message, supply_left, made_at) \
                   VALUES ($1, $2, $3, $4, $5, $6) \
                   ON CONFLICT (hash) DO UPDATE SET product = excluded.product";
        let query = sqlx::query(sql)
            .bind(&row.hash)
            .bind(row.product)
            .bind(&row.agent)
            .bind(&row.message)
            .bind(to_db(row.supply_left))
            .bind(to_db(row.made_at));
        query.execute(&mut *self.inner).await.map_err(StoreError::at("keeping an offering"))?;
        Ok(())
    }

    /// One offering.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn offering_get(&mut self, hash: &str) -> Result<Option<OfferingRow>> {
        let found = sqlx::query(OFFERING).bind(hash).fetch_optional(&mut *self.inner).await;
        found.map_err(StoreError::at("reading an offering"))?.as_ref().map(offering).transpose()
    }

    /// Marks an offering as withdrawn; returns whether it was not yet.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn offering_withdraw(&mut self, hash: &str, now: UnixSeconds) -> Result<bool> {
        let sql = "UPDATE offerings SET withdrawn_at = $2 WHERE hash = $1 AND withdrawn_at IS NULL";
        let done = sqlx::query(sql).bind(hash).bind(to_db(now)).execute(&mut *self.inner).await;
        Ok(done.map_err(StoreError::at("withdrawing an offering"))?.rows_affected() > 0)
    }

    /// Takes one from the supply of an offering, of which there has to be something.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn offering_take(&mut self, hash: &str) -> Result<()> {
        let sql = "UPDATE offerings SET supply_left = supply_left - 1 WHERE hash = $1";
        let done = sqlx::query(sql).bind(hash).execute(&mut *self.inner).await;
        done.map_err(StoreError::at("taking from a supply"))?;
        Ok(())
    }

    /// Gives one back to the supply.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn offering_give_back(&mut self, hash: &str) -> Result<()> {
        let sql = "UPDATE offerings SET supply_left = supply_left + 1 WHERE hash = $1";
        let done = sqlx::query(sql).bind(hash).execute(&mut *self.inner).await;
        done.map_err(StoreError::at("giving back to a supply"))?;
        Ok(())
    }

    /// Keeps an order.
    ///
    /// # Errors
    /// [`StoreError`], also where the client has used the nonce.
    pub async fn order_add(&mut self, row: &OrderRow) -> Result<()> {
        let sql = "INSERT INTO orders (hash, offering, client, nonce, message, state, held, reply, \
                   created_at) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)";
        let query = sqlx::query(sql)
            .bind(&row.hash)
            .bind(&row.offering)
            .bind(&row.client)
            .bind(&row.nonce)
            .bind(&row.message)
            .bind(row.state.as_str())
            .bind(i16::from(row.held))
            .bind(&row.reply)
            .bind(to_db(row.created_at));
        query.execute(&mut *self.inner).await.map_err(StoreError::at("keeping an order"))?;
        Ok(())
    }

    /// The order a client made with a nonce.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn order_by_nonce(&mut self, client: &str, nonce: &str) -> Result<Option<OrderRow>> {
        let query = sqlx::query(BY_NONCE).bind(client).bind(nonce);
        let found = query.fetch_optional(&mut *self.inner).await;
        found.map_err(StoreError::at("reading an order"))?.as_ref().map(order).transpose()
    }

    /// One order.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn order_get(&mut self, hash: &str) -> Result<Option<OrderRow>> {
        let found = sqlx::query(ORDER).bind(hash).fetch_optional(&mut *self.inner).await;
        found.map_err(StoreError::at("reading an order"))?.as_ref().map(order).transpose()
    }

    /// How many orders a client has made since then.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn order_count_since(&mut self, client: &str, since: UnixSeconds) -> Result<u64> {
        let sql = "SELECT COUNT(*) FROM orders WHERE client = $1 AND created_at >= $2";
        let query = sqlx::query_scalar(sql).bind(client).bind(to_db(since));
        let count = query.fetch_one(&mut *self.inner).await;
        count.map(from_db).map_err(StoreError::at("counting orders"))
    }

    /// How many orders wait for a decision: of one client, or of all.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn order_count_waiting(&mut self, client: Option<&str>) -> Result<u64> {
        let sql = match client {
            Some(_) => "SELECT COUNT(*) FROM orders WHERE state = 'waiting' AND client = $1",
            None => "SELECT COUNT(*) FROM orders WHERE state = 'waiting'",
        };
        let query = sqlx::query_scalar(sql);
        let query = client.map_or(query, |client| sqlx::query_scalar(sql).bind(client));
        let count = query.fetch_one(&mut *self.inner).await;
        count.map(from_db).map_err(StoreError::at("counting orders"))
    }

    /// Settles an order.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn order_settle(
        &mut self,
        hash: &str,
        state: OrderState,
        reply: Option<&str>,
    ) -> Result<()> {
        let sql = "UPDATE orders SET state = $2, reply = $3 WHERE hash = $1";
        let query = sqlx::query(sql).bind(hash).bind(state.as_str()).bind(reply);
        query.execute(&mut *self.inner).await.map_err(StoreError::at("settling an order"))?;
        Ok(())
    }

    /// Notes that the client has cancelled an order.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn order_cancel(&mut self, hash: &str, now: UnixSeconds) -> Result<()> {
        let sql = "UPDATE orders SET cancelled_at = $2 WHERE hash = $1";
        let query = sqlx::query(sql).bind(hash).bind(to_db(now));
        query.execute(&mut *self.inner).await.map_err(StoreError::at("cancelling an order"))?;
        Ok(())
    }

    /// Notes a nonce; returns whether it is new.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn nonce_use(
        &mut self,
        peer: &str,
        nonce: &str,
        expires: UnixSeconds,
        now: UnixSeconds,
    ) -> Result<bool> {
        let forget = sqlx::query("DELETE FROM nonces WHERE expires < $1").bind(to_db(now));
        forget.execute(&mut *self.inner).await.map_err(StoreError::at("forgetting nonces"))?;
        let sql = "INSERT INTO nonces (peer, nonce, expires) VALUES ($1, $2, $3) \
                   ON CONFLICT DO NOTHING";
        let query = sqlx::query(sql).bind(peer).bind(nonce).bind(to_db(expires));
        let done = query.execute(&mut *self.inner).await;
        Ok(done.map_err(StoreError::at("noting a nonce"))?.rows_affected() > 0)
    }
}

pub(super) fn offering(row: &SqliteRow) -> Result<OfferingRow> {
    let read = || {
        let withdrawn_at: Option<i64> = row.try_get("withdrawn_at")?;
        Ok::<_, sqlx::Error>(OfferingRow {
            hash: row.try_get("hash")?,
            product: row.try_get("product")?,
            agent: row.try_get("agent")?,
            message: row.try_get("message")?,
            supply_left: from_db(row.try_get("supply_left")?),
            made_at: from_db(row.try_get("made_at")?),
            withdrawn_at: withdrawn_at.map(from_db),
        })
    };
    read().map_err(StoreError::at("reading an offering"))
}

pub(super) fn order(row: &SqliteRow) -> Result<OrderRow> {
    let read = || {
        let state: String = row.try_get("state")?;
        let held: i16 = row.try_get("held")?;
        let cancelled_at: Option<i64> = row.try_get("cancelled_at")?;
        Ok::<_, sqlx::Error>(OrderRow {
            hash: row.try_get("hash")?,
            offering: row.try_get("offering")?,
            client: row.try_get("client")?,
            nonce: row.try_get("nonce")?,
            message: row.try_get("message")?,
            state: match state.as_str() {
                "accepted" => OrderState::Accepted,
                "rejected" => OrderState::Rejected,
                _ => OrderState::Waiting,
            },
            held: held != 0,
            reply: row.try_get("reply")?,
            created_at: from_db(row.try_get("created_at")?),
            cancelled_at: cancelled_at.map(from_db),
        })
    };
    read().map_err(StoreError::at("reading an order"))
}
