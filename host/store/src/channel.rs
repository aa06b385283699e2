//! Channels of this core, with what their modules have still to be told.

use privatix_plugin_api::message::{ClientKey, Status};
use sqlx::Row;
use sqlx::sqlite::SqliteRow;
use uuid::Uuid;

use super::rules::{not_ended, statuses};
use super::{Result, Store, StoreError, Txn, from_db, to_db};
use privatix_base::clock::UnixSeconds;
use privatix_domain::status::{ChannelState, Effect, Holds};

/// A channel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChannelRow {
    /// The client key.
    pub id: ClientKey,
    /// Whose channel it is.
    pub product: Uuid,
    /// Hash of its order.
    pub order_hash: String,
    /// Hash of its offering.
    pub offering: String,
    /// The other party's signing key, as text.
    pub peer: String,
    /// For an agent: the client's sealing key, as text.
    pub peer_sealing: Option<String>,
    /// What the client promised to spend at most.
    pub deposit: u64,
    /// Hash of the template it was made with.
    pub access_template: String,
    /// Number of the newest access message.
    pub access_serial: u64,
    /// The newest access message: sealed for an agent, opened for a client.
    pub access: Option<String>,
    /// Status and holds.
    pub state: ChannelState,
    /// Why it has this status.
    pub reason: String,
    /// Since when it has this status, whatever its holds.
    pub since: UnixSeconds,
    /// When it was made.
    pub created_at: UnixSeconds,
    /// By when it has to be active.
    pub activate_by: Option<UnixSeconds>,
    /// When the hold `fault` is lifted.
    pub fault_until: Option<UnixSeconds>,
    /// How often in a row it was set.
    pub fault_count: u32,
}

/// What a module has to be told of a channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PendingCommand {
    /// The channel.
    pub channel: ClientKey,
    /// Its product.
    pub product: Uuid,
    /// To start, or to stop.
    pub start: bool,
    /// Its status, which says why it is stopped.
    pub status: Status,
    /// Rises with every command of the channel, so that an answer belongs to one.
    pub number: u64,
    /// How often it was told without success.
    pub attempts: u32,
}

/// A change of a channel's status or holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChangeRow {
    /// When.
    pub at: UnixSeconds,
    /// Status and holds from then on.
    pub state: ChannelState,
    /// Why.
    pub reason: String,
}

/// A channel's new state and everything that goes with it.
#[derive(Debug, Clone)]
pub struct StateChange<'a> {
    /// Status and holds.
    pub state: ChannelState,
    /// Why.
    pub reason: &'a str,
    /// What the module has to be told; replaces what it was to be told before.
    pub effect: Option<Effect>,
    /// By when it has to be active.
    pub activate_by: Option<UnixSeconds>,
    /// When the hold `fault` is lifted.
    pub fault_until: Option<UnixSeconds>,
    /// How often in a row it was set.
    pub fault_count: u32,
}

/// Said twice, because an index has the channels that have not ended.
macro_rules! of_product {
    () => {
        concat!(
            "SELECT id FROM channels WHERE product = $1 AND ",
            not_ended!(),
            " AND status IN (SELECT value FROM json_each($2)) ORDER BY created_at, id"
        )
    };
}

macro_rules! replay {
    () => {
        concat!(
            "UPDATE channels SET command = 'start', command_number = command_number + 1, \
             command_attempts = 0, command_due = $3 WHERE product = $1 AND ",
            not_ended!(),
            " AND status IN (SELECT value FROM json_each($2)) \
             AND (command IS DISTINCT FROM 'start' OR command_attempts > 0)"
        )
    };
}
#[cfg(test)]
pub(super) use {of_product, replay};

impl Store {
    /// The channels of a product that its module should be serving, oldest first.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn channel_served(&self, product: Uuid) -> Result<Vec<ClientKey>> {
        self.channel_of(product, Status::allows_use).await
    }

    /// The channels of a product whose module has said that it serves them, oldest first.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn channel_started(&self, product: Uuid) -> Result<Vec<ClientKey>> {
        self.channel_of(product, |status| status == Status::Active).await
    }

    /// The channels of a product that have not ended, and whose status is such.
    async fn channel_of(
        &self,
        product: Uuid,
        is: impl Fn(Status) -> bool,
    ) -> Result<Vec<ClientKey>> {
        let query = sqlx::query_scalar(of_product!()).bind(product).bind(statuses(is));
        let ids = query.fetch_all(&self.pool).await;
        let ids: Vec<Uuid> = ids.map_err(StoreError::at("listing a product's channels"))?;
        Ok(ids.into_iter().map(ClientKey).collect())
    }

    /// The client: the channels that are not over on the agent's side, as far as is known.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn channel_followed(&self) -> Result<Vec<ChannelRow>> {
        let sql = "SELECT * FROM channels WHERE peer_ended = 0 ORDER BY created_at, id";
        let rows = sqlx::query(sql).fetch_all(&self.pool).await;
        rows.map_err(StoreError::at("listing followed channels"))?.iter().map(row).collect()
    }

    /// A channel, if it is this product's.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn channel_get(&self, product: Uuid, id: ClientKey) -> Result<Option<ChannelRow>> {
        let found = self.channel_find(id).await?;
        Ok(found.filter(|channel| channel.product == product))
    }

    /// A channel of any product.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn channel_find(&self, id: ClientKey) -> Result<Option<ChannelRow>> {
        let found = sqlx::query(GET).bind(id.0).fetch_optional(&self.pool).await;
        found.map_err(StoreError::at("reading a channel"))?.as_ref().map(row).transpose()
    }

    /// A channel of any product with the newest changes of its status or holds, newest first, all as they
    /// were at one moment.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn channel_with_changes(
        &self,
        id: ClientKey,
        limit: u32,
    ) -> Result<Option<(ChannelRow, Vec<ChangeRow>)>> {
        const STEP: &str = "reading a channel's history";
        let sql = "SELECT at, status, holds, reason FROM channel_changes WHERE channel = $1 \
                   ORDER BY at DESC, rowid DESC LIMIT $2";
        // Reads alone: no writer waits for it.
        let mut moment = self.pool.begin().await.map_err(StoreError::at(STEP))?;
        let found = sqlx::query(GET).bind(id.0).fetch_optional(&mut *moment).await;
        let found = found.map_err(StoreError::at(STEP))?;
        let query = sqlx::query(sql).bind(id.0).bind(i64::from(limit));
        let rows = query.fetch_all(&mut *moment).await.map_err(StoreError::at(STEP))?;
        moment.rollback().await.map_err(StoreError::at(STEP))?;
        let read = |row: &SqliteRow| {
            let at = row.try_get("at").map(from_db)?;
            Ok(ChangeRow { at, state: state(row)?, reason: row.try_get("reason")? })
        };
        let changes = rows.iter().map(read).collect::<std::result::Result<_, sqlx::Error>>();
        let changes = changes.map_err(StoreError::at(STEP))?;
        Ok(found.as_ref().map(row).transpose()?.map(|channel| (channel, changes)))
    }

    /// What modules have to be told by now, what is longest due first.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn channel_commands(&self, now: UnixSeconds) -> Result<Vec<PendingCommand>> {
        let sql = "SELECT id, product, command, status, command_number, command_attempts \
                   FROM channels WHERE command IS NOT NULL AND command_due <= $1 \
                   ORDER BY command_due, command_number LIMIT 1000";
        let rows = sqlx::query(sql).bind(to_db(now)).fetch_all(&self.pool).await;
        let rows = rows.map_err(StoreError::at("reading commands"))?;
        rows.iter().map(command).collect()
    }

    /// Channels whose time to become active is over, or whose fault is to be forgiven.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn channel_overdue(&self, now: UnixSeconds) -> Result<Vec<ClientKey>> {
        let sql = "SELECT id FROM channels WHERE activate_by <= $1 \
                   UNION SELECT id FROM channels WHERE fault_until <= $1";
        let ids = sqlx::query_scalar(sql).bind(to_db(now)).fetch_all(&self.pool).await;
        let ids: Vec<Uuid> = ids.map_err(StoreError::at("reading overdue channels"))?;
        Ok(ids.into_iter().map(ClientKey).collect())
    }
}

const GET: &str = "SELECT * FROM channels WHERE id = $1";

impl Txn {
    /// A channel of any product.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn channel_find(&mut self, id: ClientKey) -> Result<Option<ChannelRow>> {
        let found = sqlx::query(GET).bind(id.0).fetch_optional(&mut *self.inner).await;
        found.map_err(StoreError::at("reading a channel"))?.as_ref().map(row).transpose()
    }

    /// How many channels of a client are not over.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn channel_count_live(&mut self, peer: &str) -> Result<u64> {
        let sql = concat!("SELECT COUNT(*) FROM channels WHERE peer = $1 AND ", not_ended!());
        let count = sqlx::query_scalar(sql).bind(peer).fetch_one(&mut *self.inner).await;
        count.map(from_db).map_err(StoreError::at("counting channels"))
    }

    /// Makes a channel; nothing is to be told to its module yet.
    ///
    /// # Errors
    /// [`StoreError`], also where the id, product, order or template is not what it should be.
    pub async fn channel_add(&mut self, channel: &ChannelRow) -> Result<()> {
        let sql = "INSERT INTO channels (id, product, order_hash, offering, peer, peer_sealing, \
                   deposit, access_template, access_serial, access, status, holds, reason, since, \
                   created_at, command_number, command_attempts, command_due, activate_by, \
                   fault_until, fault_count) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, \
                   $12, $13, $14, $15, 0, 0, 0, $16, $17, $18)";
        let query = sqlx::query(sql)
            .bind(channel.id.0)
            .bind(channel.product)
            .bind(&channel.order_hash)
            .bind(&channel.offering)
            .bind(&channel.peer)
            .bind(&channel.peer_sealing)
            .bind(to_db(channel.deposit))
            .bind(&channel.access_template)
            .bind(to_db(channel.access_serial))
            .bind(&channel.access)
            .bind(channel.state.status.as_str())
            .bind(i16::from(channel.state.holds.bits()))
            .bind(&channel.reason)
            .bind(to_db(channel.since))
            .bind(to_db(channel.created_at))
            .bind(channel.activate_by.map(to_db))
            .bind(channel.fault_until.map(to_db))
            .bind(i64::from(channel.fault_count));
        query.execute(&mut *self.inner).await.map_err(StoreError::at("making a channel"))?;
        self.change_note(channel.id, channel.state, &channel.reason, channel.since).await
    }

    /// Changes a channel's state, notes the change, and puts what follows into the outbox.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn channel_change(
        &mut self,
        id: ClientKey,
        change: &StateChange<'_>,
        now: UnixSeconds,
    ) -> Result<()> {
        self.touch(id);
        let sql = "UPDATE channels SET status = $2, holds = $3, reason = $4, \
                   since = CASE WHEN status = $2 THEN since ELSE $5 END, \
                   activate_by = $6, fault_until = $7, fault_count = $8, settled = 0 WHERE id = $1";
        let query = sqlx::query(sql)
            .bind(id.0)
            .bind(change.state.status.as_str())
            .bind(i16::from(change.state.holds.bits()))
            .bind(change.reason)
            .bind(to_db(now))
            .bind(change.activate_by.map(to_db))
            .bind(change.fault_until.map(to_db))
            .bind(i64::from(change.fault_count));
        let done = query.execute(&mut *self.inner).await;
        done.map_err(StoreError::at("changing a channel's status"))?;
        self.change_note(id, change.state, change.reason, now).await?;
        match change.effect {
            Some(effect) => self.channel_command(id, effect, now).await,
            None => Ok(()),
        }
    }

    /// Puts a command into the outbox, in place of an older one of the channel.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn channel_command(
        &mut self,
        id: ClientKey,
        effect: Effect,
        now: UnixSeconds,
    ) -> Result<()> {
        let command = match effect {
            Effect::Start => "start",
            Effect::Stop(_) => "stop",
        };
        let sql = "UPDATE channels SET command = $2, command_number = command_number + 1, \
                   command_attempts = 0, command_due = $3 WHERE id = $1";
        let query = sqlx::query(sql).bind(id.0).bind(command).bind(to_db(now));
        query.execute(&mut *self.inner).await.map_err(StoreError::at("noting a command"))?;
        Ok(())
    }

    /// Takes a command out of the outbox, unless a newer one is there; returns whether it was.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn channel_command_done(&mut self, id: ClientKey, number: u64) -> Result<bool> {
        let sql = "UPDATE channels SET command = NULL, command_attempts = 0 \
                   WHERE id = $1 AND command_number = $2 AND command IS NOT NULL";
        let query = sqlx::query(sql).bind(id.0).bind(to_db(number));
        let done = query.execute(&mut *self.inner).await;
        Ok(done.map_err(StoreError::at("settling a command"))?.rows_affected() > 0)
    }

    /// Takes a stop out of the outbox: its module has stopped the channel by itself.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn channel_stop_needless(&mut self, id: ClientKey) -> Result<()> {
        let sql = "UPDATE channels SET command = NULL, command_attempts = 0 \
                   WHERE id = $1 AND command = 'stop'";
        let done = sqlx::query(sql).bind(id.0).execute(&mut *self.inner).await;
        done.map_err(StoreError::at("settling a stop"))?;
        Ok(())
    }

    /// Takes a start out of the outbox that was told already, and would be told again.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn channel_start_needless(&mut self, id: ClientKey) -> Result<()> {
        let sql = "UPDATE channels SET command = NULL, command_attempts = 0 \
                   WHERE id = $1 AND command = 'start' AND command_attempts > 0";
        let done = sqlx::query(sql).bind(id.0).execute(&mut *self.inner).await;
        done.map_err(StoreError::at("settling a start"))?;
        Ok(())
    }

    /// Has a command told again later, unless a newer one is there.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn channel_command_again(
        &mut self,
        id: ClientKey,
        number: u64,
        due: UnixSeconds,
    ) -> Result<()> {
        let sql = "UPDATE channels SET command_attempts = command_attempts + 1, command_due = $3 \
                   WHERE id = $1 AND command_number = $2 AND command IS NOT NULL";
        let query = sqlx::query(sql).bind(id.0).bind(to_db(number)).bind(to_db(due));
        query.execute(&mut *self.inner).await.map_err(StoreError::at("putting a command off"))?;
        Ok(())
    }

    /// Has a command told later, without counting it as told; unless a newer one is there.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn channel_command_later(
        &mut self,
        id: ClientKey,
        number: u64,
        due: UnixSeconds,
    ) -> Result<()> {
        let sql = "UPDATE channels SET command_due = $3 \
                   WHERE id = $1 AND command_number = $2 AND command IS NOT NULL";
        let query = sqlx::query(sql).bind(id.0).bind(to_db(number)).bind(to_db(due));
        query.execute(&mut *self.inner).await.map_err(StoreError::at("putting a command off"))?;
        Ok(())
    }

    /// Has all that a product's module should be serving told to it again, and what it was told to
    /// stop at once. A start that was not told yet keeps its time.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn channel_replay(&mut self, product: Uuid, now: UnixSeconds) -> Result<()> {
        let query = sqlx::query(replay!()).bind(product).bind(statuses(Status::allows_use));
        let query = query.bind(to_db(now));
        let done = query.execute(&mut *self.inner).await;
        done.map_err(StoreError::at("having commands told again"))?;
        self.channel_stops_due(product, now).await
    }

    /// Has the stops of a product told now that were put off.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn channel_stops_due(&mut self, product: Uuid, now: UnixSeconds) -> Result<()> {
        let sql = "UPDATE channels SET command_due = $2 \
                   WHERE product = $1 AND command = 'stop' AND command_due > $2";
        let done = sqlx::query(sql).bind(product).bind(to_db(now)).execute(&mut *self.inner).await;
        done.map_err(StoreError::at("having stops told again"))?;
        Ok(())
    }

    /// Says when a start that was not told yet is to be told.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn channel_start_due(&mut self, id: ClientKey, due: UnixSeconds) -> Result<()> {
        let sql = "UPDATE channels SET command_due = $2 \
                   WHERE id = $1 AND command = 'start' AND command_attempts = 0";
        let query = sqlx::query(sql).bind(id.0).bind(to_db(due));
        query.execute(&mut *self.inner).await.map_err(StoreError::at("timing a start"))?;
        Ok(())
    }

    /// Sets a channel's access message and its number.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn channel_set_access(
        &mut self,
        id: ClientKey,
        serial: u64,
        access: Option<&str>,
    ) -> Result<()> {
        let sql = "UPDATE channels SET access_serial = $2, access = $3 WHERE id = $1";
        let query = sqlx::query(sql).bind(id.0).bind(to_db(serial)).bind(access);
        query
            .execute(&mut *self.inner)
            .await
            .map_err(StoreError::at("keeping an access message"))?;
        Ok(())
    }

    /// The agent has said that a channel is over.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn channel_peer_ended(&mut self, id: ClientKey) -> Result<()> {
        let query = sqlx::query("UPDATE channels SET peer_ended = 1 WHERE id = $1").bind(id.0);
        let done = query.execute(&mut *self.inner).await;
        done.map_err(StoreError::at("noting the end of a channel"))?;
        Ok(())
    }

    /// Has the access message of every live channel of a product made anew, one number higher.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn channel_reissue(&mut self, product: Uuid) -> Result<u64> {
        let sql = concat!(
            "UPDATE channels SET access_serial = access_serial + 1, access = NULL \
             WHERE product = $1 AND ",
            not_ended!()
        );
        let done = sqlx::query(sql).bind(product).execute(&mut *self.inner).await;
        Ok(done.map_err(StoreError::at("having access messages made anew"))?.rows_affected())
    }

    async fn change_note(
        &mut self,
        id: ClientKey,
        state: ChannelState,
        reason: &str,
        now: UnixSeconds,
    ) -> Result<()> {
        let sql = "INSERT INTO channel_changes (channel, at, status, holds, reason) \
                   VALUES ($1, $2, $3, $4, $5)";
        let query = sqlx::query(sql)
            .bind(id.0)
            .bind(to_db(now))
            .bind(state.status.as_str())
            .bind(i16::from(state.holds.bits()))
            .bind(reason);
        query.execute(&mut *self.inner).await.map_err(StoreError::at("noting a change"))?;
        Ok(())
    }
}

fn status(row: &SqliteRow) -> std::result::Result<Status, sqlx::Error> {
    let status: String = row.try_get("status")?;
    status.parse().map_err(|error: String| sqlx::Error::Decode(error.into()))
}

/// Status and holds of a row that has both.
pub(super) fn state(row: &SqliteRow) -> std::result::Result<ChannelState, sqlx::Error> {
    let holds: i16 = row.try_get("holds")?;
    let holds = Holds::from_bits(u8::try_from(holds).unwrap_or(0));
    Ok(ChannelState { status: status(row)?, holds })
}

pub(super) fn row(row: &SqliteRow) -> Result<ChannelRow> {
    let number = |name: &str| row.try_get(name).map(from_db);
    let time = |name: &str| Ok::<_, sqlx::Error>(row.try_get::<Option<i64>, _>(name)?.map(from_db));
    let read = || {
        Ok::<_, sqlx::Error>(ChannelRow {
            id: ClientKey(row.try_get("id")?),
            product: row.try_get("product")?,
            order_hash: row.try_get("order_hash")?,
            offering: row.try_get("offering")?,
            peer: row.try_get("peer")?,
            peer_sealing: row.try_get("peer_sealing")?,
            deposit: number("deposit")?,
            access_template: row.try_get("access_template")?,
            access_serial: number("access_serial")?,
            access: row.try_get("access")?,
            state: state(row)?,
            reason: row.try_get("reason")?,
            since: number("since")?,
            created_at: number("created_at")?,
            activate_by: time("activate_by")?,
            fault_until: time("fault_until")?,
            fault_count: u32::try_from(number("fault_count")?).unwrap_or(u32::MAX),
        })
    };
    read().map_err(StoreError::at("reading a channel"))
}

fn command(row: &SqliteRow) -> Result<PendingCommand> {
    let read = || {
        let command: String = row.try_get("command")?;
        let attempts: i64 = row.try_get("command_attempts")?;
        Ok::<_, sqlx::Error>(PendingCommand {
            channel: ClientKey(row.try_get("id")?),
            product: row.try_get("product")?,
            start: command == "start",
            status: status(row)?,
            number: row.try_get("command_number").map(from_db)?,
            attempts: u32::try_from(attempts).unwrap_or(0),
        })
    };
    read().map_err(StoreError::at("reading a command"))
}
