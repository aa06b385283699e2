//! What of a channel decides on money, read together; cheques are in [`super::cheque`].

use std::collections::BTreeMap;

use privatix_plugin_api::json::MAX_INTEGER;
use privatix_plugin_api::message::ClientKey;
use sqlx::Row;
use sqlx::sqlite::SqliteRow;
use uuid::Uuid;

use super::channel::state;
use super::rules::{not_ended, of_channel};
use super::{Result, Store, StoreError, Txn, from_db, to_db};
use privatix_base::clock::UnixSeconds;
use privatix_domain::billing::{Bounds, Thresholds};
use privatix_domain::status::ChannelState;
use privatix_domain::usage;
use privatix_plugin_api::message::Status;

/// A channel as billing sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BillingRow {
    /// The channel.
    pub id: ClientKey,
    /// Hash of its offering.
    pub offering: String,
    /// The other party's signing key, as text.
    pub peer: String,
    /// Status and holds.
    pub state: ChannelState,
    /// Since when it has its status.
    pub since: UnixSeconds,
    /// When it was made.
    pub created_at: UnixSeconds,
    /// What the client promised to spend at most.
    pub deposit: u64,
    /// The agent: balance of the best cheque. The client: of the highest that it has signed.
    pub paid: u64,
    /// What was used in all sessions; no more than integers go.
    pub usage: u64,
    /// When it was used last; 0 if it never was.
    pub used_at: UnixSeconds,
    /// Whether a session is open.
    pub in_session: bool,
    /// Whether there is an access message.
    pub has_access: bool,
    /// Whether nothing was left to be done when it was looked at last.
    pub settled: bool,
    /// What is kept beside it, for reports.
    pub thresholds: Thresholds,
    /// The client: what the agent has signed last.
    pub agent: Option<AgentRow>,
}

/// What the agent has signed last of a channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AgentRow {
    /// The status on its side.
    pub status: Status,
    /// What use has cost.
    pub cost: u64,
    /// The best balance it has.
    pub paid: u64,
    /// When it signed.
    pub time: UnixSeconds,
    /// What this side had measured when that came.
    pub usage_then: u64,
}

/// What a row is read from; the reader adds its condition.
macro_rules! select {
    ($($condition:tt)+) => {
        concat!(
            "SELECT c.id, c.offering, c.peer, c.status, c.holds, c.since, c.created_at, c.deposit, c.paid, c.used, \
             c.used_at, c.alarm, c.settled, c.use_limit, c.use_step, c.access IS NOT NULL AS has_access, \
             s.usage AS open_usage, \
             s.used_at AS open_used_at, a.status AS agent_status, a.cost AS agent_cost, \
             a.paid AS agent_paid, a.time AS agent_time, \
             a.usage AS agent_usage FROM channels c \
             LEFT JOIN sessions s ON s.channel = c.id AND s.stopped_at IS NULL \
             LEFT JOIN accounts a ON a.channel = c.id WHERE ",
            $($condition)+
        )
    };
}

impl Store {
    /// Some channels by their ids; ids that are none are left out.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn billing_some(&self, ids: &[ClientKey]) -> Result<Vec<BillingRow>> {
        let rows = sqlx::query(SOME).bind(hex(ids)).fetch_all(&self.pool).await;
        rows.map_err(StoreError::at("reading channels for billing"))?.iter().map(row).collect()
    }

    /// The next channels after one that are not settled, in the order of their ids: those that are
    /// not over, or all of these.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn billing_page(
        &self,
        after: Option<ClientKey>,
        all: bool,
        limit: u32,
    ) -> Result<Vec<BillingRow>> {
        let sql = if all {
            select!("c.settled = 0 AND c.id > $1 ORDER BY c.id LIMIT $2")
        } else {
            select!("c.settled = 0 AND c.id > $1 AND c.", not_ended!(), " ORDER BY c.id LIMIT $2")
        };
        let after = after.map_or(Uuid::nil(), |id| id.0);
        let rows = sqlx::query(sql).bind(after).bind(limit).fetch_all(&self.pool).await;
        rows.map_err(StoreError::at("reading channels for billing"))?.iter().map(row).collect()
    }
}

const SOME: &str = select!("c.id IN (SELECT unhex(value) FROM json_each($1))");

/// Ids as the one parameter of a statement.
fn hex(ids: &[ClientKey]) -> String {
    super::json(&ids.iter().map(|id| id.0.simple().to_string()).collect::<Vec<_>>())
}

impl Txn {
    /// Some channels by their ids; ids that are none are left out.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn billing_some(&mut self, ids: &[ClientKey]) -> Result<Vec<BillingRow>> {
        let rows = sqlx::query(SOME).bind(hex(ids)).fetch_all(&mut *self.inner).await;
        rows.map_err(StoreError::at("reading channels for billing"))?.iter().map(row).collect()
    }

    /// Notes of some channels that nothing is left to be done about their money.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn billing_settle(&mut self, ids: &[ClientKey]) -> Result<()> {
        let sql = "UPDATE channels SET settled = 1 \
                   WHERE id IN (SELECT unhex(value) FROM json_each($1))";
        let done = sqlx::query(sql).bind(hex(ids)).execute(&mut *self.inner).await;
        done.map_err(StoreError::at("settling channels"))?;
        Ok(())
    }

    /// A channel as billing sees it.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn billing_get(&mut self, id: ClientKey) -> Result<Option<BillingRow>> {
        let found = sqlx::query(select!("c.id = $1")).bind(id.0);
        let found = found.fetch_optional(&mut *self.inner).await;
        found
            .map_err(StoreError::at("reading a channel for billing"))?
            .as_ref()
            .map(row)
            .transpose()
    }

    /// Sets what is paid for a channel, and what follows for its use.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn billing_set(
        &mut self,
        id: ClientKey,
        paid: u64,
        thresholds: Thresholds,
    ) -> Result<()> {
        let Thresholds { alarm, bounds } = thresholds;
        self.touch(id);
        let sql = "UPDATE channels SET paid = $2, alarm = $3, use_limit = $4, use_step = $5, \
                   settled = 0 WHERE id = $1";
        let query = sqlx::query(sql).bind(id.0).bind(to_db(paid)).bind(alarm.map(to_db));
        let query = query.bind(bounds.limit.map(to_db)).bind(bounds.step.map(to_db));
        query.execute(&mut *self.inner).await.map_err(StoreError::at("noting a payment"))?;
        Ok(())
    }

    /// Notes that something may be left to be done about a channel's money.
    ///
    /// # Errors
    /// [`StoreError`].
    pub(super) async fn billing_unsettle(&mut self, id: ClientKey) -> Result<()> {
        let sql = "UPDATE channels SET settled = 0 WHERE id = $1 AND settled = 1";
        let done = sqlx::query(sql).bind(id.0).execute(&mut *self.inner).await;
        done.map_err(StoreError::at("looking at a channel again"))?;
        Ok(())
    }

    /// Sets what is paid for a channel alone.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn billing_set_paid(&mut self, id: ClientKey, paid: u64) -> Result<()> {
        self.touch(id);
        let query = sqlx::query("UPDATE channels SET paid = $2, settled = 0 WHERE id = $1");
        let done = query.bind(id.0).bind(to_db(paid)).execute(&mut *self.inner).await;
        done.map_err(StoreError::at("noting a payment"))?;
        Ok(())
    }

    /// What a channel has used in all sessions, and how far it may be used.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn billing_bounds(&mut self, id: ClientKey) -> Result<(u64, Bounds)> {
        let sql = concat!(
            "SELECT ",
            of_channel!(),
            ", c.use_limit, c.use_step FROM channels c \
             LEFT JOIN sessions s ON s.channel = c.id AND s.stopped_at IS NULL WHERE c.id = $1"
        );
        let found = sqlx::query_as(sql).bind(id.0).fetch_optional(&mut *self.inner).await;
        let found: Option<(i64, Option<i64>, Option<i64>)> =
            found.map_err(StoreError::at("reading how far a channel may be used"))?;
        let (used, limit, step) = found.unwrap_or_default();
        Ok((from_db(used), Bounds { limit: limit.map(from_db), step: step.map(from_db) }))
    }

    /// Adds usage that was reported late, after its session was closed, in one statement.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn billing_add_used(
        &mut self,
        late: &[(ClientKey, u64)],
        now: UnixSeconds,
    ) -> Result<()> {
        // A channel's usage ends where integers do; see `session_close_as_known`.
        let mut sums: BTreeMap<String, u64> = BTreeMap::new();
        for (id, more) in late {
            let sum = sums.entry(id.0.simple().to_string()).or_default();
            *sum = sum.saturating_add(*more).min(MAX_INTEGER);
        }
        let rows: Vec<_> = sums.into_iter().collect();
        let sql = "UPDATE channels SET used = MIN(used + j.more, $3), used_at = $2, settled = 0 FROM ( \
                   SELECT unhex(value ->> 0) AS id, value ->> 1 AS more FROM json_each($1)) j \
                   WHERE channels.id = j.id";
        let query = sqlx::query(sql).bind(super::json(&rows)).bind(to_db(now));
        let query = query.bind(to_db(MAX_INTEGER));
        query.execute(&mut *self.inner).await.map_err(StoreError::at("noting late usage"))?;
        Ok(())
    }
}

fn row(row: &SqliteRow) -> Result<BillingRow> {
    let number = |name: &str| row.try_get(name).map(from_db);
    let maybe =
        |name: &str| Ok::<_, sqlx::Error>(row.try_get::<Option<i64>, _>(name)?.map(from_db));
    let read = || {
        let open_usage = maybe("open_usage")?;
        Ok::<_, sqlx::Error>(BillingRow {
            id: ClientKey(row.try_get("id")?),
            offering: row.try_get("offering")?,
            peer: row.try_get("peer")?,
            state: state(row)?,
            since: number("since")?,
            created_at: number("created_at")?,
            deposit: number("deposit")?,
            paid: number("paid")?,
            usage: usage::of_channel(number("used")?, open_usage.unwrap_or(0)),
            used_at: number("used_at")?.max(maybe("open_used_at")?.unwrap_or(0)),
            in_session: open_usage.is_some(),
            has_access: row.try_get("has_access")?,
            settled: row.try_get::<i16, _>("settled")? == 1,
            thresholds: Thresholds {
                alarm: maybe("alarm")?,
                bounds: Bounds { limit: maybe("use_limit")?, step: maybe("use_step")? },
            },
            agent: agent(row)?,
        })
    };
    read().map_err(StoreError::at("reading a channel for billing"))
}

fn agent(row: &SqliteRow) -> std::result::Result<Option<AgentRow>, sqlx::Error> {
    let Some(status) = row.try_get::<Option<String>, _>("agent_status")? else { return Ok(None) };
    Ok(Some(AgentRow {
        status: status.parse().map_err(|error: String| sqlx::Error::Decode(error.into()))?,
        cost: row.try_get("agent_cost").map(from_db)?,
        paid: row.try_get("agent_paid").map(from_db)?,
        time: row.try_get("agent_time").map(from_db)?,
        usage_then: row.try_get("agent_usage").map(from_db)?,
    }))
}
