//! A database with many channels, each with an open session, and the same writes by hand.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Context;
use privatix_domain::identity::Identity;
use privatix_plugin_api::message::{ClientKey, CoreRequest, SessionId, Usage};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqliteSynchronous};
use sqlx::{ConnectOptions, Connection, SqliteConnection};
use uuid::Uuid;

pub(super) const PRODUCT: Uuid = Uuid::from_u128(7);
/// What the agent's identity is made of.
pub(super) const ENTROPY: [u8; 96] = [7; 96];

/// Ids rise with the number, as those of sessions do with time.
const SESSIONS: u128 = 1 << 100;
const CHANNELS: u128 = 1 << 101;

const FILL: [&str; 6] = [
    "INSERT INTO templates (hash, kind, document, registered_at) VALUES ('t', 'access', '{}', 0)",
    "INSERT INTO products (id, name, role, version, usage_reporting, access_template, config, \
     registered_at, updated_at) VALUES (unhex(printf('%032x', 7)), 'bench', 'agent', '1', 'total', \
     't', '{}', 0, 0)",
    "INSERT INTO offerings (hash, product, agent, message, supply_left, made_at) \
     VALUES ('o', unhex(printf('%032x', 7)), 'a', '{}', 0, 0)",
    "WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i + 1 < $1) \
     INSERT INTO orders (hash, offering, client, nonce, message, state, held, created_at) \
     SELECT 'order ' || i, 'o', 'c', i, '{}', 'accepted', 0, 0 FROM n",
    "WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i + 1 < $1) \
     INSERT INTO channels (id, product, order_hash, offering, peer, deposit, access_template, \
     access_serial, status, holds, reason, since, created_at, command_number, command_attempts, \
     command_due, fault_count) SELECT unhex('00000020' || printf('%024x', i)), \
     unhex(printf('%032x', 7)), 'order ' || i, 'o', 'c', 0, 't', 1, 'active', 0, '', 0, 0, 0, 0, \
     0, 0 FROM n",
    "WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i + 1 < $1) \
     INSERT INTO sessions (id, channel, usage, sequence, started_at) \
     SELECT unhex('00000010' || printf('%024x', i)), unhex('00000020' || printf('%024x', i)), \
     0, 0, 0 FROM n",
];

/// Fills a fresh database.
pub(super) async fn fill(path: &Path, channels: u64) -> anyhow::Result<()> {
    let mut database = open(path).await?;
    let mut txn = database.begin().await?;
    let channels = i64::try_from(channels)?;
    for sql in FILL {
        let query = sqlx::query(sql);
        let query = if sql.contains("$1") { query.bind(channels) } else { query };
        query.execute(&mut *txn).await.with_context(|| sql.to_owned())?;
    }
    txn.commit().await?;
    sqlx::query("PRAGMA wal_checkpoint(TRUNCATE)").execute(&mut database).await?;
    Ok(database.close().await?)
}

/// Rows a second of grouped statements, so many rows in each, a commit after each.
pub(super) async fn raw(
    path: &Path,
    channels: u64,
    group: u64,
    time: Duration,
) -> anyhow::Result<f64> {
    let mut database = open(path).await?;
    let group = group.min(channels);
    let (begun, mut round) = (Instant::now(), 0u64);
    while begun.elapsed() < time {
        let first = round.wrapping_mul(2_654_435_761) % channels;
        // Spread as the callers' are, in key order.
        let mut numbers: Vec<u64> =
            (0..group).map(|row| (first + row * (channels / group)) % channels).collect();
        numbers.sort_unstable();
        let rows: Vec<_> = numbers.iter().map(|number| (hex(*number), 0, round)).collect();
        let mut txn = database.begin_with("BEGIN IMMEDIATE").await?;
        sqlx::query(
            "UPDATE sessions SET usage = j.usage, sequence = j.sequence FROM ( \
             SELECT unhex(value ->> 0) AS id, value ->> 1 AS usage, value ->> 2 AS sequence \
             FROM json_each($1)) j WHERE sessions.id = j.id",
        )
        .bind(serde_json::to_string(&rows)?)
        .execute(&mut *txn)
        .await?;
        txn.commit().await?;
        round += 1;
    }
    let per_second = (round * group) as f64 / begun.elapsed().as_secs_f64();
    sqlx::query("UPDATE sessions SET usage = 0, sequence = 0").execute(&mut database).await?;
    sqlx::query("PRAGMA wal_checkpoint(TRUNCATE)").execute(&mut database).await?;
    database.close().await?;
    Ok(per_second)
}

pub(super) fn report(number: u64) -> CoreRequest {
    CoreRequest::UpdateSession {
        client_key: channel(number),
        session: SessionId(Uuid::from_u128(SESSIONS + u128::from(number))),
        // Higher than every one before it, for any session, also in a later load.
        usage: Usage::Total(rising()),
    }
}

pub(super) fn login(identity: &Identity, number: u64) -> CoreRequest {
    let client_key = channel(number);
    let password = identity.password(client_key, &format!("order {number}"));
    CoreRequest::AuthClient { client_key, password }
}

fn channel(number: u64) -> ClientKey {
    ClientKey(Uuid::from_u128(CHANNELS + u128::from(number)))
}

fn hex(number: u64) -> String {
    Uuid::from_u128(SESSIONS + u128::from(number)).simple().to_string()
}

/// Nanoseconds of a clock that only rises, which no session has reported before.
fn rising() -> u64 {
    static BEGUN: std::sync::OnceLock<Instant> = std::sync::OnceLock::new();
    let nanoseconds = BEGUN.get_or_init(Instant::now).elapsed().as_nanos();
    u64::try_from(nanoseconds).unwrap_or(u64::MAX)
}

pub(super) async fn open(path: &Path) -> anyhow::Result<SqliteConnection> {
    let options = SqliteConnectOptions::new()
        .filename(path)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full)
        .foreign_keys(true);
    options.connect().await.context("opening the database")
}

#[cfg(test)]
mod tests {
    use privatix_store::Store;

    use super::*;

    /// The tables change with the host; this is the only place that writes them by hand.
    #[tokio::test]
    async fn a_fresh_database_is_filled() {
        let home = tempfile::tempdir().expect("a directory");
        let path = home.path().join("state.db");
        Store::open(&path).await.expect("opened").close().await;
        fill(&path, 3).await.expect("filled");
        assert!(raw(&path, 3, 2, Duration::ZERO).await.expect("written").abs() < f64::EPSILON);
        let mut database = open(&path).await.expect("opened");
        let sql = "SELECT COUNT(*) FROM channels c JOIN sessions s ON s.channel = c.id \
                   JOIN orders o ON o.hash = c.order_hash";
        let count: i64 = sqlx::query_scalar(sql).fetch_one(&mut database).await.expect("counted");
        assert_eq!(count, 3);
    }
}
