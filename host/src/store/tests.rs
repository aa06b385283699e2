//! A database of an older version, brought up to date. Also a long history, and what it costs.

mod faults;

use std::borrow::Cow;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use privatix_plugin_api::message::{ClientKey, SessionId};
use sqlx::migrate::Migrator;
use sqlx::sqlite::{SqliteConnectOptions, SqlitePoolOptions};
use uuid::Uuid;

use super::{MIGRATIONS, Store};
use crate::clock;

const FILL: &str = "
    INSERT INTO templates VALUES ('t', 'access', '{}', 0);
    INSERT INTO products (id, name, role, version, usage_reporting, access_template, config,
        registered_at, updated_at) VALUES (unhex(printf('%032x', 1)), 'p', 'agent', '1', 'total',
        't', '{}', 0, 0);
    INSERT INTO offerings VALUES ('o', unhex(printf('%032x', 1)), 'a', '{}', 0, 0, NULL);
    INSERT INTO orders VALUES ('r', 'o', 'c', 'n', '{}', 'accepted', 0, NULL, 0);
    INSERT INTO channels (id, product, order_hash, offering, peer, deposit, access_template,
        access_serial, status, holds, reason, since, created_at, command_number, command_attempts,
        command_due, fault_count) VALUES (unhex(printf('%032x', 2)), unhex(printf('%032x', 1)), 'r',
        'o', 'c', 7, 't', 1, 'active', 0, '', 0, 0, 0, 0, 0, 0);
    INSERT INTO sessions (id, channel, usage, sequence, started_at, stopped_at) VALUES
        (unhex(printf('%032x', 3)), unhex(printf('%032x', 2)), 10, 0, 0, 5),
        (unhex(printf('%032x', 4)), unhex(printf('%032x', 2)), 20, 0, 5, 9),
        (unhex(printf('%032x', 5)), unhex(printf('%032x', 2)), 40, 0, 9, NULL);
";

/// A database of the first version with a channel in it.
async fn of_the_first_version(path: &Path) {
    let options = SqliteConnectOptions::new().filename(path).create_if_missing(true);
    let pool = SqlitePoolOptions::new().max_connections(1).connect_with(options).await;
    let pool = pool.expect("opened");
    let first: Vec<_> = MIGRATIONS.iter().take(1).cloned().collect();
    let first = Migrator { migrations: Cow::Owned(first), ..Migrator::DEFAULT };
    first.run(&pool).await.expect("the first version");
    sqlx::raw_sql(FILL).execute(&pool).await.expect("filled");
    pool.close().await;
}

#[tokio::test]
async fn usage_of_before_there_was_money_is_added_up() {
    let home = tempfile::tempdir().expect("a directory");
    let path = home.path().join("state.db");
    of_the_first_version(&path).await;
    for _ in 0..2 {
        let store = Store::open(&path).await.expect("brought up to date");
        let channel = ClientKey(Uuid::from_u128(2));
        let rows = store.billing_some(&[channel]).await.expect("read");
        assert_eq!((rows[0].usage, rows[0].paid, rows[0].deposit), (70, 0, 7));
        assert!(rows[0].in_session);
        store.close().await;
    }
}

/// Otherwise whatever has been in use for longer than it may be unused would end at once.
#[tokio::test]
async fn a_channel_of_before_there_was_money_was_used_until_now() {
    let home = tempfile::tempdir().expect("a directory");
    let path = home.path().join("state.db");
    of_the_first_version(&path).await;
    let before = clock::unix_now();
    let store = Store::open(&path).await.expect("brought up to date");
    let channel = ClientKey(Uuid::from_u128(2));
    let used_at = async || store.billing_some(&[channel]).await.expect("read")[0].used_at;
    assert!(used_at().await >= before, "its session is open");
    let mut txn = store.begin().await.expect("begun");
    txn.session_close_as_known(SessionId(Uuid::from_u128(5)), 0).await.expect("closed");
    txn.commit().await.expect("committed");
    assert!(used_at().await >= before, "it was, until a moment ago");
}

/// A long history: so many channels like one, each over on both sides since long ago.
const HISTORY: &str = "
    CREATE TEMPORARY TABLE numbers AS
        WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < COUNT) SELECT i FROM n;
    INSERT INTO orders (hash, offering, client, nonce, message, state, held, reply, created_at)
        SELECT printf('%064x', i), offering, client, printf('%032x', i), message, 'accepted', 0, '{}', i
        FROM numbers, (SELECT * FROM orders WHERE hash = (SELECT order_hash FROM channels LIMIT 1));
    INSERT INTO channels (id, product, order_hash, offering, peer, deposit, access_template,
        access_serial, access, status, holds, reason, since, created_at, command_number,
        command_attempts, command_due, fault_count, peer_ended, paid)
        SELECT unhex(printf('%032x', i)), product, printf('%064x', i), offering, peer, deposit,
        access_template, 1, access, 'terminated', 0, 'over', i, i, 2, 0, i, 0, 1, 0
        FROM numbers, (SELECT * FROM channels LIMIT 1);
    INSERT INTO accounts SELECT unhex(printf('%032x', i)), '{}', 'terminated', 0, 0, i, 0 FROM numbers;
    INSERT INTO sessions (id, channel, usage, sequence, started_at, stopped_at)
        SELECT unhex(printf('%032x', i)), unhex(printf('%032x', i)), 0, 0, i, i FROM numbers;
    DROP TABLE numbers;
";

impl Store {
    /// Makes a long history of what looks like the one channel that is there.
    pub(crate) async fn add_history(&self, count: u32) {
        let mut connection = self.pool.acquire().await.expect("a connection");
        let sql = HISTORY.replace("COUNT", &count.to_string());
        sqlx::raw_sql(sqlx::AssertSqlSafe(sql)).execute(&mut *connection).await.expect("seeded");
    }

    /// Counts the database's own steps from now on, of which every row that is looked at takes some.
    pub(crate) async fn count_steps(&self) -> Arc<AtomicU64> {
        let steps = Arc::new(AtomicU64::new(0));
        let mut all = Vec::new();
        for _ in 0..4 {
            let mut connection = self.pool.acquire().await.expect("a connection");
            let counter = Arc::clone(&steps);
            connection.lock_handle().await.expect("locked").set_progress_handler(1, move || {
                counter.fetch_add(1, Ordering::Relaxed);
                true
            });
            all.push(connection);
        }
        steps
    }
}
