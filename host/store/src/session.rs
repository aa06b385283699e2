//! Sessions of channels.

use privatix_plugin_api::json::MAX_INTEGER;
use privatix_plugin_api::message::{ClientKey, SessionId};
use sqlx::Row;
use uuid::Uuid;

use super::rules::measured;
use super::{Result, Store, StoreError, Txn, from_db, json, to_db};
use privatix_base::clock::UnixSeconds;
use privatix_domain::billing::Bounds;
use privatix_domain::usage::{Account, MOST_BETWEEN_MARKS};
use privatix_plugin_api::message::Status;

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
    /// Whether the core itself measures it, in seconds.
    pub measured: bool,
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

/// A session that a report is about, with what decides on the report.
#[derive(Debug, Clone, Copy)]
pub struct ReportTarget {
    /// The session.
    pub id: SessionId,
    /// Its channel.
    pub channel: ClientKey,
    /// Whose channel it is.
    pub product: Uuid,
    /// The channel's status.
    pub status: Status,
    /// What was used.
    pub account: Account,
    /// When it was closed.
    pub stopped_at: Option<UnixSeconds>,
    /// Whether the core itself measures it.
    pub measured: bool,
    /// What was used in the channel's closed sessions.
    pub used: u64,
    /// Usage of the channel from which on it has to be judged at once.
    pub alarm: Option<u64>,
    /// How far the channel may be used.
    pub bounds: Bounds,
}

impl Store {
    /// The open sessions of a product, with their channels.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn session_open(&self, product: Uuid) -> Result<Vec<(SessionId, ClientKey)>> {
        let sql = "SELECT s.id, s.channel FROM sessions s JOIN channels c ON c.id = s.channel \
                   WHERE s.stopped_at IS NULL AND c.product = $1";
        let ids = sqlx::query_as(sql).bind(product).fetch_all(&self.pool).await;
        let ids: Vec<(Uuid, Uuid)> = ids.map_err(StoreError::at("listing open sessions"))?;
        Ok(ids.into_iter().map(|(id, channel)| (SessionId(id), ClientKey(channel))).collect())
    }

    /// The newest session of a channel; the open one, where there is one.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn session_newest(&self, channel: ClientKey) -> Result<Option<SessionRow>> {
        let found = sqlx::query(NEWEST).bind(channel.0).fetch_optional(&self.pool).await;
        found.map_err(StoreError::at("reading a channel's session"))?.as_ref().map(row).transpose()
    }
}

/// Ids rise with time.
const NEWEST: &str = "SELECT * FROM sessions WHERE channel = $1 \
                      ORDER BY stopped_at IS NULL DESC, id DESC LIMIT 1";

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

    /// The newest session of a channel; the open one, where there is one.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn session_newest(&mut self, channel: ClientKey) -> Result<Option<SessionRow>> {
        let found = sqlx::query(NEWEST).bind(channel.0).fetch_optional(&mut *self.inner).await;
        found.map_err(StoreError::at("reading a channel's session"))?.as_ref().map(row).transpose()
    }

    /// Opens a session; the channel must not have an open one.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn session_open(&mut self, session: &NewSession) -> Result<()> {
        self.touch(session.channel);
        let sql = "INSERT INTO sessions (id, channel, client_address, client_port, usage, \
                   sequence, started_at, measured, used_at) \
                   VALUES ($1, $2, $3, $4, 0, 0, $5, $6, CASE WHEN $6 = 1 THEN $5 ELSE 0 END)";
        let query = sqlx::query(sql)
            .bind(session.id.0)
            .bind(session.channel.0)
            .bind(&session.client_address)
            .bind(session.client_port.map(i32::from))
            .bind(to_db(session.started_at))
            .bind(i16::from(session.measured));
        query.execute(&mut *self.inner).await.map_err(StoreError::at("opening a session"))?;
        Ok(())
    }

    /// Closes a channel's open session, if it has one; a measured one was used until now.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn session_close_open(&mut self, channel: ClientKey, now: UnixSeconds) -> Result<()> {
        let sql = "SELECT id FROM sessions WHERE channel = $1 AND stopped_at IS NULL";
        let open = sqlx::query_scalar(sql).bind(channel.0).fetch_optional(&mut *self.inner).await;
        match open.map_err(StoreError::at("looking for an open session"))? {
            Some(id) => self.session_close(SessionId(id), now).await,
            None => Ok(()),
        }
    }

    /// Closes a session; one that is closed stays as it is. A measured one was used until now.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn session_close(&mut self, id: SessionId, now: UnixSeconds) -> Result<()> {
        let sql = concat!(
            "UPDATE sessions SET usage = ",
            measured!(),
            ", used_at = $1 WHERE id = $3 AND measured = 1 AND stopped_at IS NULL"
        );
        let query = sqlx::query(sql).bind(to_db(now)).bind(to_db(MOST_BETWEEN_MARKS)).bind(id.0);
        query.execute(&mut *self.inner).await.map_err(StoreError::at("measuring a session"))?;
        self.session_close_as_known(id, now).await
    }

    /// Closes a session at the usage that is known; one that is closed stays as it is. A measured one
    /// ended at its last mark.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn session_close_as_known(&mut self, id: SessionId, now: UnixSeconds) -> Result<()> {
        let sql = "UPDATE sessions SET stopped_at = CASE WHEN measured = 1 THEN used_at ELSE $2 END \
                   WHERE id = $1 AND stopped_at IS NULL RETURNING channel";
        let query = sqlx::query_scalar(sql).bind(id.0).bind(to_db(now));
        let closed = query.fetch_optional(&mut *self.inner).await;
        let Some(channel) = closed.map_err(StoreError::at("closing a session"))? else {
            return Ok(());
        };
        self.touch(ClientKey(channel));
        // No further than integers go: a sum that the database cannot hold could not be read again.
        let sql = "UPDATE channels SET used = MIN(used + s.usage, $2), \
                   used_at = MAX(channels.used_at, s.used_at), settled = 0 \
                   FROM sessions s WHERE s.id = $1 AND channels.id = s.channel";
        let query = sqlx::query(sql).bind(id.0).bind(to_db(MAX_INTEGER));
        query.execute(&mut *self.inner).await.map_err(StoreError::at("adding up usage"))?;
        Ok(())
    }

    /// Marks all measured sessions that are open: they were used until now.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn session_mark(&mut self, now: UnixSeconds) -> Result<()> {
        let sql = concat!(
            "UPDATE sessions SET usage = ",
            measured!(),
            ", used_at = $1 WHERE measured = 1 AND stopped_at IS NULL"
        );
        let query = sqlx::query(sql).bind(to_db(now)).bind(to_db(MOST_BETWEEN_MARKS));
        query.execute(&mut *self.inner).await.map_err(StoreError::at("marking sessions"))?;
        Ok(())
    }

    /// The measured sessions that are open.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn session_measured(&mut self) -> Result<Vec<SessionId>> {
        let sql = "SELECT id FROM sessions WHERE measured = 1 AND stopped_at IS NULL";
        let ids = sqlx::query_scalar(sql).fetch_all(&mut *self.inner).await;
        let ids: Vec<Uuid> = ids.map_err(StoreError::at("listing measured sessions"))?;
        Ok(ids.into_iter().map(SessionId).collect())
    }

    /// Whether a channel has an open session.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn session_is_open(&mut self, channel: ClientKey) -> Result<bool> {
        let sql = "SELECT COUNT(*) FROM sessions WHERE channel = $1 AND stopped_at IS NULL";
        let count: i64 = sqlx::query_scalar(sql)
            .bind(channel.0)
            .fetch_one(&mut *self.inner)
            .await
            .map_err(StoreError::at("looking for an open session"))?;
        Ok(count > 0)
    }

    /// The sessions of a group of reports, in one statement; ids that are none are left out.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn session_targets(&mut self, ids: &[SessionId]) -> Result<Vec<ReportTarget>> {
        // One row of JSON: a row of its own for each session costs more than finding it.
        let sql = "SELECT json_group_array(json_array(hex(s.id), hex(s.channel), hex(c.product), \
                   c.status, s.usage, s.sequence, s.stopped_at, s.measured, c.used, c.alarm, \
                   c.use_limit, c.use_step)) \
                   FROM json_each($1) j JOIN sessions s ON s.id = unhex(j.value) \
                   JOIN channels c ON c.id = s.channel";
        let ids: Vec<String> = ids.iter().map(|id| id.0.simple().to_string()).collect();
        let text: String = sqlx::query_scalar(sql)
            .bind(json(&ids))
            .fetch_one(&mut *self.inner)
            .await
            .map_err(StoreError::at("reading a group of sessions"))?;
        targets(&text).map_err(StoreError::at("reading a group of sessions"))
    }

    /// Notes what a group of sessions has used, in one statement.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn session_set_accounts(
        &mut self,
        accounts: &[(SessionId, Account)],
        now: UnixSeconds,
    ) -> Result<()> {
        let sql = "UPDATE sessions SET usage = j.usage, sequence = j.sequence, \
                   used_at = CASE WHEN j.usage > sessions.usage THEN $2 ELSE used_at END FROM ( \
                   SELECT unhex(value ->> 0) AS id, value ->> 1 AS usage, value ->> 2 AS sequence \
                   FROM json_each($1)) j WHERE sessions.id = j.id";
        let rows: Vec<_> = accounts
            .iter()
            .map(|(id, account)| (id.0.simple().to_string(), account.usage, account.sequence))
            .collect();
        let query = sqlx::query(sql).bind(json(&rows)).bind(to_db(now));
        let done = query.execute(&mut *self.inner).await;
        done.map_err(StoreError::at("noting usage"))?;
        Ok(())
    }
}

type TargetRow<'a> = (
    &'a str,
    &'a str,
    &'a str,
    &'a str,
    i64,
    i64,
    Option<i64>,
    u8,
    i64,
    Option<i64>,
    Option<i64>,
    Option<i64>,
);

fn targets(text: &str) -> std::result::Result<Vec<ReportTarget>, sqlx::Error> {
    let decode = |error: Box<dyn std::error::Error + Send + Sync>| sqlx::Error::Decode(error);
    let rows: Vec<TargetRow<'_>> =
        serde_json::from_str(text).map_err(|error| decode(error.into()))?;
    rows.into_iter()
        .map(
            |(
                id,
                channel,
                product,
                status,
                usage,
                sequence,
                stopped_at,
                measured,
                used,
                alarm,
                limit,
                step,
            )| {
                let uuid = |text: &str| Uuid::try_parse(text).map_err(|error| decode(error.into()));
                Ok(ReportTarget {
                    id: SessionId(uuid(id)?),
                    channel: ClientKey(uuid(channel)?),
                    product: uuid(product)?,
                    status: status.parse().map_err(|error: String| decode(error.into()))?,
                    account: Account { usage: from_db(usage), sequence: from_db(sequence) },
                    stopped_at: stopped_at.map(from_db),
                    measured: measured == 1,
                    used: from_db(used),
                    alarm: alarm.map(from_db),
                    bounds: Bounds { limit: limit.map(from_db), step: step.map(from_db) },
                })
            },
        )
        .collect()
}

pub(super) fn row(row: &sqlx::sqlite::SqliteRow) -> Result<SessionRow> {
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
