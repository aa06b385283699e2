//! For tests of the layers above: a long history, and what looking at it costs.

#![allow(clippy::expect_used, reason = "a test stands still where this fails")]

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::Store;

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
    pub async fn add_history(&self, count: u32) {
        let mut connection = self.pool.acquire().await.expect("a connection");
        let sql = HISTORY.replace("COUNT", &count.to_string());
        sqlx::raw_sql(sqlx::AssertSqlSafe(sql)).execute(&mut *connection).await.expect("seeded");
    }

    /// Counts the database's own steps from now on, of which every row that is looked at takes some.
    pub async fn count_steps(&self) -> Arc<AtomicU64> {
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
