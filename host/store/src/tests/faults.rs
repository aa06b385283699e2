//! A database that fails for a while, and works again afterwards on every connection.

use std::fs;
use std::path::{Path, PathBuf};

use tokio::task::JoinSet;

use super::super::{Fault, Result, Store, TemplateRow};

/// As many as the pool has.
const CONNECTIONS: usize = 4;

async fn opened() -> (tempfile::TempDir, PathBuf, Store) {
    let home = tempfile::tempdir().expect("a directory");
    let path = home.path().join("state.db");
    let store = Store::open(&path).await.expect("opened");
    (home, path, store)
}

/// Takes all connections at once, so that each is met.
async fn on_every_connection(store: &Store, sql: &'static str) {
    let mut all = Vec::new();
    for _ in 0..CONNECTIONS {
        all.push(store.pool.acquire().await.expect("a connection"));
    }
    for connection in &mut all {
        sqlx::raw_sql(sql).execute(&mut **connection).await.expect("executed");
    }
}

async fn write(store: &Store, name: &str, bytes: usize) -> Result<()> {
    let mut txn = store.begin().await?;
    let row = TemplateRow {
        hash: name.to_owned(),
        kind: "access".into(),
        document: "x".repeat(bytes),
        registered_at: 0,
    };
    txn.template_add(&row).await?;
    txn.commit().await.map(drop)
}

async fn check_all_works(store: &Store) {
    store.probe().await.expect("written");
    assert_eq!(store.trouble(), None);
    let mut tasks = JoinSet::new();
    for number in 0..8 * CONNECTIONS {
        let store = store.clone();
        tasks.spawn(async move {
            write(&store, &format!("after {number}"), 10_000).await.expect("written");
            store.template_list().await.expect("read");
        });
    }
    tasks.join_all().await;
    on_every_connection(store, "BEGIN IMMEDIATE; ROLLBACK").await;
    assert_eq!(store.template_list().await.expect("read").len(), 8 * CONNECTIONS);
}

#[tokio::test]
async fn after_a_full_database_every_connection_works_again() {
    let (_home, _path, store) = opened().await;
    // As on a full disk, SQLite ends the transaction by itself.
    on_every_connection(&store, "PRAGMA max_page_count = 1").await;
    for number in 0..3 * CONNECTIONS {
        let failed = write(&store, &format!("before {number}"), 100_000).await;
        match failed {
            Err(error) => assert_eq!(error.fault(), Fault::Full, "{error:?}"),
            // On a connection that is new, the database is not full any more.
            Ok(()) => {
                let mut txn = store.begin().await.expect("begun");
                sqlx::query("DELETE FROM templates").execute(&mut *txn.inner).await.expect("gone");
                txn.commit().await.expect("committed");
            }
        }
    }
    check_all_works(&store).await;
}

#[tokio::test]
async fn after_a_failed_commit_every_connection_works_again() {
    let (_home, _path, store) = opened().await;
    for _ in 0..3 * CONNECTIONS {
        let mut txn = store.begin().await.expect("begun");
        let orphan = "PRAGMA defer_foreign_keys = ON; INSERT INTO channel_changes VALUES \
                      (x'00', 0, 'active', 0, '')";
        sqlx::raw_sql(orphan).execute(&mut *txn.inner).await.expect("not checked yet");
        let error = txn.commit().await.expect_err("checked now");
        assert_eq!(error.fault(), Fault::Other, "{error:?}");
        assert!(store.trouble().expect("noted").text.contains("committing"));
    }
    assert_eq!(store.failures(), 3 * CONNECTIONS as u64);
    check_all_works(&store).await;
}

/// What the pool would do with one that its transaction left in disorder.
#[tokio::test]
async fn a_connection_in_disorder_is_not_used_again() {
    let (_home, _path, store) = opened().await;
    for _ in 0..CONNECTIONS {
        let txn = store.begin().await.expect("begun");
        let mut inner = txn.inner;
        // SQLite is outside of the transaction, and sqlx thinks that it is inside.
        sqlx::raw_sql("ROLLBACK").execute(&mut *inner).await.expect("rolled back");
        drop(inner);
    }
    check_all_works(&store).await;
}

/// Does something to the database's files and says what a write and a read find; then puts all back.
async fn check_replaced(harm: fn(&Path)) {
    let (home, path, store) = opened().await;
    write(&store, "before", 10).await.expect("written");
    let kept = home.path().join("kept");
    fs::create_dir(&kept).expect("made");
    let names = ["state.db", "state.db-wal"];
    for name in names {
        fs::hard_link(home.path().join(name), kept.join(name)).expect("linked");
    }
    let under_way = store.begin().await.expect("begun");
    harm(&path);
    let error = under_way.commit().await.expect_err("nobody would ever find it");
    assert_eq!(error.fault(), Fault::Replaced, "{error:?}");
    let error = store.begin().await.err().expect("refused");
    assert_eq!(error.fault(), Fault::Replaced, "{error:?}");
    assert_eq!(store.trouble().expect("noted").fault, Fault::Replaced);
    for name in names {
        fs::rename(kept.join(name), home.path().join(name)).expect("put back");
    }
    store.probe().await.expect("all is as it was");
    assert_eq!(store.trouble(), None);
    let known = store.template_list().await.expect("read");
    assert_eq!(known.iter().map(|row| &*row.hash).collect::<Vec<_>>(), ["before"]);
}

#[tokio::test]
async fn a_database_that_was_removed_acknowledges_nothing() {
    check_replaced(|path| fs::remove_file(path).expect("removed")).await;
}

#[tokio::test]
async fn a_database_that_was_replaced_acknowledges_nothing() {
    check_replaced(|path| {
        let other = path.with_extension("other");
        fs::copy(path, &other).expect("copied");
        fs::rename(other, path).expect("renamed");
    })
    .await;
}

#[tokio::test]
async fn a_database_whose_log_was_removed_acknowledges_nothing() {
    check_replaced(|path| fs::remove_file(path.with_extension("db-wal")).expect("removed")).await;
}

#[tokio::test]
async fn a_database_that_was_removed_is_not_made_anew() {
    let (_home, path, store) = opened().await;
    for name in ["db", "db-wal", "db-shm"] {
        fs::remove_file(path.with_extension(name)).expect("removed");
    }
    // All are used up, so that new ones have to be opened; one that was used last may still be on its
    // way back.
    while store.template_list().await.is_ok() {
        while let Ok(connection) = store.pool.acquire().await {
            connection.close().await.expect("closed");
        }
        assert!(!path.exists(), "another one was made under its name");
    }
    assert!(!path.exists());
}

#[tokio::test]
async fn what_is_no_database_is_refused_as_damaged() {
    let home = tempfile::tempdir().expect("a directory");
    let path = home.path().join("state.db");
    fs::write(&path, "x".repeat(10_000)).expect("written");
    let error = Store::open(&path).await.expect_err("no database");
    assert_eq!(error.fault(), Fault::Corrupt, "{error:?}");
    let nowhere = home.path().join("missing").join("state.db");
    let error = Store::open(&nowhere).await.expect_err("no directory");
    assert_eq!(error.fault(), Fault::Unopenable, "{error:?}");
}

#[tokio::test]
async fn a_note_that_is_made_once_keeps_its_first_value() {
    let (_home, path, store) = opened().await;
    for (value, expected) in [("a", "a"), ("b", "a")] {
        let mut txn = store.begin().await.expect("begun");
        assert_eq!(txn.note_once("role", value).await.expect("noted"), expected);
        txn.commit().await.expect("committed");
    }
    store.close().await;
    assert!(!path.with_extension("db-wal").exists(), "the log is folded in");
}
