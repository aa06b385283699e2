//! Sessions of channels.

use privatix_plugin_api::message::{ClientKey, SessionId};
use sqlx::Row;
use uuid::Uuid;

use super::{Result, Store, StoreError, Txn, from_db, to_db};
use crate::clock::UnixSeconds;
use crate::domain::usage::Account;

/// A session to be opened.
#[derive(Debug, Clone)]
pub struct NewSession {
    /// Its id.
    pub id: SessionId,
    /// Its channel.
    pub channel: ClientKey,
    /// Where the client comes from.
    pub client_address: Option<String>,
    /// And its port.
    pub client_port: Option<u16>,
    /// Now.
    pub started_at: UnixSeconds,
}

/// A session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionRow {
    /// Its id.
    pub id: SessionId,
    /// Its channel.
    pub channel: ClientKey,
    /// What was used.
    pub account: Account,
    /// When it was opened.
    pub started_at: UnixSeconds,
    /// When it was closed.
    pub stopped_at: Option<UnixSeconds>,
}

impl Store {
    /// The sessions of a channel, oldest first.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn session_list(&self, channel: ClientKey) -> Result<Vec<SessionRow>> {
        let sql = "SELECT * FROM sessions WHERE channel = $1 ORDER BY started_at, id";
        let rows = sqlx::query(sql).bind(channel.0).fetch_all(&self.pool).await;
        rows.map_err(StoreError::at("listing sessions"))?.iter().map(row).collect()
    }
}

impl Txn {
    /// A session, if it is this channel's.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn session_get(
        &mut self,
        channel: ClientKey,
        id: SessionId,
    ) -> Result<Option<SessionRow>> {
        let sql = "SELECT * FROM sessions WHERE id = $1 AND channel = $2";
        let query = sqlx::query(sql).bind(id.0).bind(channel.0);
        let found = query.fetch_optional(&mut *self.inner).await;
        found.map_err(StoreError::at("reading a session"))?.as_ref().map(row).transpose()
    }

    /// Opens a session; the channel must not have an open one.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn session_open(&mut self, session: &NewSession) -> Result<()> {
        let sql = "INSERT INTO sessions (id, channel, client_address, client_port, usage, \
                   sequence, started_at) VALUES ($1, $2, $3, $4, 0, 0, $5)";
        let query = sqlx::query(sql)
            .bind(session.id.0)
            .bind(session.channel.0)
            .bind(&session.client_address)
            .bind(session.client_port.map(i32::from))
            .bind(to_db(session.started_at));
        query.execute(&mut *self.inner).await.map_err(StoreError::at("opening a session"))?;
        Ok(())
    }

    /// Closes a channel's open session, if it has one.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn session_close_open(&mut self, channel: ClientKey, now: UnixSeconds) -> Result<()> {
        let sql = "UPDATE sessions SET stopped_at = $2 WHERE channel = $1 AND stopped_at IS NULL";
        let query = sqlx::query(sql).bind(channel.0).bind(to_db(now));
        query.execute(&mut *self.inner).await.map_err(StoreError::at("closing a session"))?;
        Ok(())
    }

    /// Closes a session; one that is closed stays as it is.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn session_close(&mut self, id: SessionId, now: UnixSeconds) -> Result<()> {
        let sql = "UPDATE sessions SET stopped_at = $2 WHERE id = $1 AND stopped_at IS NULL";
        let query = sqlx::query(sql).bind(id.0).bind(to_db(now));
        query.execute(&mut *self.inner).await.map_err(StoreError::at("closing a session"))?;
        Ok(())
    }

    /// Notes what a session has used.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn session_set_account(&mut self, id: SessionId, account: Account) -> Result<()> {
        let sql = "UPDATE sessions SET usage = $2, sequence = $3 WHERE id = $1";
        let query =
            sqlx::query(sql).bind(id.0).bind(to_db(account.usage)).bind(to_db(account.sequence));
        query.execute(&mut *self.inner).await.map_err(StoreError::at("noting usage"))?;
        Ok(())
    }
}

fn row(row: &sqlx::sqlite::SqliteRow) -> Result<SessionRow> {
    let read = || {
        let id: Uuid = row.try_get("id")?;
        let stopped_at: Option<i64> = row.try_get("stopped_at")?;
        Ok::<_, sqlx::Error>(SessionRow {
            id: SessionId(id),
            channel: ClientKey(row.try_get("channel")?),
            account: Account {
                usage: from_db(row.try_get("usage")?),
                sequence: from_db(row.try_get("sequence")?),
            },
            started_at: from_db(row.try_get("started_at")?),
            stopped_at: stopped_at.map(from_db),
        })
    };
    read().map_err(StoreError::at("reading a session"))
}
