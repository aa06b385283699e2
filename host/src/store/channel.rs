//! Channels of this core.

use privatix_plugin_api::message::ClientKey;
use sqlx::Row;
use uuid::Uuid;

use super::{Result, Store, StoreError, Txn, from_db, to_db};
use crate::clock::UnixSeconds;
use crate::domain::status::{ChannelState, Holds};

/// A channel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChannelRow {
    /// The client key.
    pub id: ClientKey,
    /// Whose channel it is.
    pub product: Uuid,
    /// Hash of the template it was made with.
    pub access_template: String,
    /// Status and holds.
    pub state: ChannelState,
    /// Why it has this status.
    pub reason: String,
    /// Since when it has this status.
    pub since: UnixSeconds,
    /// When it was made.
    pub created_at: UnixSeconds,
}

impl Store {
    /// The channels of a product that are not over, oldest first.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn channel_live(&self, product: Uuid) -> Result<Vec<ClientKey>> {
        let sql = "SELECT id FROM channels WHERE product = $1 AND status <> 'terminated' \
                   ORDER BY created_at, id";
        let ids = sqlx::query_scalar(sql).bind(product).fetch_all(&self.pool).await;
        let ids: Vec<Uuid> = ids.map_err(StoreError::at("listing live channels"))?;
        Ok(ids.into_iter().map(ClientKey).collect())
    }

    /// A channel, if it is this product's.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn channel_get(&self, product: Uuid, id: ClientKey) -> Result<Option<ChannelRow>> {
        let found = sqlx::query(GET).bind(id.0).bind(product).fetch_optional(&self.pool).await;
        found.map_err(StoreError::at("reading a channel"))?.as_ref().map(row).transpose()
    }
}

const GET: &str = "SELECT * FROM channels WHERE id = $1 AND product = $2";

impl Txn {
    /// A channel, if it is this product's.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn channel_get(
        &mut self,
        product: Uuid,
        id: ClientKey,
    ) -> Result<Option<ChannelRow>> {
        let found =
            sqlx::query(GET).bind(id.0).bind(product).fetch_optional(&mut *self.inner).await;
        found.map_err(StoreError::at("reading a channel"))?.as_ref().map(row).transpose()
    }

    /// Makes a channel.
    ///
    /// # Errors
    /// [`StoreError`], also where the id, product or template is not what it should be.
    pub async fn channel_add(&mut self, channel: &ChannelRow) -> Result<()> {
        let sql = "INSERT INTO channels (id, product, access_template, status, holds, reason, \
                   since, created_at) VALUES ($1, $2, $3, $4, $5, $6, $7, $8)";
        let query = sqlx::query(sql)
            .bind(channel.id.0)
            .bind(channel.product)
            .bind(&channel.access_template)
            .bind(channel.state.status.as_str())
            .bind(i16::from(channel.state.holds.bits()))
            .bind(&channel.reason)
            .bind(to_db(channel.since))
            .bind(to_db(channel.created_at));
        query.execute(&mut *self.inner).await.map_err(StoreError::at("making a channel"))?;
        Ok(())
    }

    /// Changes a channel's status and holds.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn channel_set_state(
        &mut self,
        id: ClientKey,
        state: ChannelState,
        reason: &str,
        now: UnixSeconds,
    ) -> Result<()> {
        let sql =
            "UPDATE channels SET status = $2, holds = $3, reason = $4, since = $5 WHERE id = $1";
        let query = sqlx::query(sql)
            .bind(id.0)
            .bind(state.status.as_str())
            .bind(i16::from(state.holds.bits()))
            .bind(reason)
            .bind(to_db(now));
        let done = query.execute(&mut *self.inner).await;
        done.map_err(StoreError::at("changing a channel's status"))?;
        Ok(())
    }
}

fn row(row: &sqlx::sqlite::SqliteRow) -> Result<ChannelRow> {
    let read = || {
        let status: String = row.try_get("status")?;
        let status = status.parse().map_err(|error: String| sqlx::Error::Decode(error.into()))?;
        let holds: i16 = row.try_get("holds")?;
        let holds = Holds::from_bits(u8::try_from(holds).unwrap_or(0));
        Ok::<_, sqlx::Error>(ChannelRow {
            id: ClientKey(row.try_get("id")?),
            product: row.try_get("product")?,
            access_template: row.try_get("access_template")?,
            state: ChannelState { status, holds },
            reason: row.try_get("reason")?,
            since: from_db(row.try_get("since")?),
            created_at: from_db(row.try_get("created_at")?),
        })
    };
    read().map_err(StoreError::at("reading a channel"))
}
