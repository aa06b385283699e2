//! What is spelled in SQL says what the domain says.

use privatix_domain::back_off::{due, is_due as domain_is_due};
use privatix_domain::offering::Closed;
use privatix_domain::status::has_ended;
use privatix_domain::usage::{MOST_BETWEEN_MARKS, measured as domain_measured, of_channel as sum};
use privatix_plugin_api::json::MAX_INTEGER;
use privatix_plugin_api::message::Status;
use sqlx::Row;
use sqlx::sqlite::SqlitePool;

use crate::rules::{is_due, is_open, measured, not_ended, of_channel, statuses};
use crate::{Store, to_db};

async fn number(pool: &SqlitePool, sql: &'static str, values: &[Option<i64>]) -> i64 {
    let query = values.iter().fold(sqlx::query_scalar(sql), |query, value| query.bind(*value));
    query.fetch_one(pool).await.expect("a number")
}

#[tokio::test]
async fn conditions_in_sql_agree_with_the_domain() {
    let pool = SqlitePool::connect("sqlite::memory:").await.expect("a database");

    for status in Status::ALL {
        let sql = concat!("SELECT ", not_ended!(), " FROM (SELECT $1 AS status)");
        let live: bool =
            sqlx::query_scalar(sql).bind(status.as_str()).fetch_one(&pool).await.expect("read");
        assert_eq!(live, !has_ended(status), "{status}");
        let sql = "SELECT $1 IN (SELECT value FROM json_each($2))";
        let query = sqlx::query_scalar(sql).bind(status.as_str());
        let listed: bool =
            query.bind(statuses(Status::allows_use)).fetch_one(&pool).await.expect("read");
        assert_eq!(listed, status.allows_use(), "{status}");
    }

    let sql =
        concat!("SELECT ", is_open!(), " FROM (SELECT $1 AS withdrawn_at, $2 AS supply_left)");
    for (withdrawn, left) in [None, Some(7)].into_iter().flat_map(|at| [(at, 0), (at, 1), (at, 9)])
    {
        let open = number(&pool, sql, &[withdrawn, Some(left)]).await == 1;
        let closed = Closed::of(withdrawn.is_some(), left.unsigned_abs());
        assert_eq!(open, closed.is_none(), "{withdrawn:?} {left}");
    }

    let sql =
        concat!("SELECT ", of_channel!(), " FROM (SELECT $1 AS used) c, (SELECT $2 AS usage) s");
    for closed in [0, 1, MAX_INTEGER - 1, MAX_INTEGER] {
        for open in [None, Some(0), Some(1), Some(MAX_INTEGER)] {
            let found = number(&pool, sql, &[Some(to_db(closed)), open.map(to_db)]).await;
            assert_eq!(found, to_db(sum(closed, open.unwrap_or(0))), "{closed} {open:?}");
        }
    }

    let sql = concat!("SELECT ", measured!(), " FROM (SELECT $3 AS usage, $4 AS used_at)");
    for now in 90..=125 {
        let values = [now, MOST_BETWEEN_MARKS, 50, 100].map(|value| Some(to_db(value)));
        let found = number(&pool, sql, &values).await;
        assert_eq!(found, to_db(domain_measured(50, 100, now)), "{now}");
    }

    let sql = concat!("SELECT ", is_due!(), " FROM (SELECT $3 AS due)");
    let now = 1_000_000;
    let (by, beyond) = due(now);
    for at in [0, by - 1, by, by + 1, beyond - 1, beyond, beyond + 1, MAX_INTEGER] {
        let values = [by, beyond, at].map(|value| Some(to_db(value)));
        let found = number(&pool, sql, &values).await == 1;
        assert_eq!(found, domain_is_due(at, now), "{at}");
    }
}

/// With the condition bound as a parameter alone, the database would look at every channel there ever was.
#[tokio::test]
async fn live_channels_are_found_by_their_index() {
    let home = tempfile::tempdir().expect("a directory");
    let store = Store::open(&home.path().join("state.db")).await.expect("opened");
    for sql in [
        concat!("EXPLAIN QUERY PLAN ", crate::channel::of_product!()),
        concat!("EXPLAIN QUERY PLAN ", crate::channel::replay!()),
    ] {
        let plan = sqlx::query(sql).fetch_all(&store.pool).await.expect("a plan");
        let plan: Vec<String> = plan.iter().map(|row| row.get("detail")).collect();
        assert!(plan.iter().any(|step| step.contains("channels_live")), "{plan:?}");
    }
}

#[tokio::test]
async fn a_beginning_of_a_hash_finds_what_begins_with_it_and_nothing_else() {
    let home = tempfile::tempdir().expect("a directory");
    let store = Store::open(&home.path().join("state.db")).await.expect("opened");
    for hash in ["0a1", "0a2", "0b", "f", "ff"] {
        let sql = "INSERT INTO templates VALUES ($1, 'access', '{}', 0)";
        sqlx::query(sql).bind(hash).execute(&store.pool).await.expect("added");
    }
    for (beginning, number) in [
        ("", 5),
        ("0", 3),
        ("0a", 2),
        ("0a1", 1),
        ("0a11", 0),
        ("0b", 1),
        ("f", 2),
        ("ff", 1),
        ("g", 0),
        ("0A", 0),
        ("0:", 0),
        ("%", 0),
        ("0_", 0),
        ("é", 0),
    ] {
        let found = store.template_like(beginning).await.expect("looked for");
        assert_eq!(found.number, number, "{beginning:?}");
        let begins = found.first.is_some_and(|row| row.hash.starts_with(beginning));
        assert_eq!(begins, number > 0, "{beginning:?}");
    }
}
