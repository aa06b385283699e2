//! A database of an older version, brought up to date.

mod faults;
mod rules;

use std::borrow::Cow;
use std::path::Path;

use privatix_plugin_api::message::{ClientKey, SessionId};
use sqlx::migrate::Migrator;
use sqlx::sqlite::{SqliteConnectOptions, SqlitePoolOptions};
use uuid::Uuid;

use super::{MIGRATIONS, Store};
use privatix_base::clock;

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
