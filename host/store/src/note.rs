//! What the host remembers of its last run.

use super::{Result, StoreError, Txn, to_db};
use privatix_base::clock::UnixSeconds;

impl Txn {
    /// Notes a value; returns whether another one was noted before.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn note_changed(&mut self, name: &str, value: &str) -> Result<bool> {
        let known: Option<String> = sqlx::query_scalar("SELECT value FROM notes WHERE name = $1")
            .bind(name)
            .fetch_optional(&mut *self.inner)
            .await
            .map_err(StoreError::at("reading a note"))?;
        if known.as_deref() == Some(value) {
            return Ok(false);
        }
        let sql = "INSERT INTO notes (name, value) VALUES ($1, $2) \
                   ON CONFLICT (name) DO UPDATE SET value = excluded.value";
        let done = sqlx::query(sql).bind(name).bind(value).execute(&mut *self.inner).await;
        done.map_err(StoreError::at("noting a value"))?;
        Ok(known.is_some())
    }

    /// Notes a value unless one is noted; returns the one that is.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn note_once(&mut self, name: &str, value: &str) -> Result<String> {
        // Without a change, nothing would be returned.
        let sql = "INSERT INTO notes (name, value) VALUES ($1, $2) \
                   ON CONFLICT (name) DO UPDATE SET value = value RETURNING value";
        let noted = sqlx::query_scalar(sql).bind(name).bind(value).fetch_one(&mut *self.inner);
        noted.await.map_err(StoreError::at("noting a value"))
    }

    /// Changes a row that means nothing.
    ///
    /// # Errors
    /// [`StoreError`].
    pub(super) async fn note_probe(&mut self) -> Result<()> {
        let sql = "INSERT INTO notes (name, value) VALUES ('probe', '0') ON CONFLICT (name) \
                   DO UPDATE SET value = CASE value WHEN '0' THEN '1' ELSE '0' END";
        let done = sqlx::query(sql).execute(&mut *self.inner).await;
        done.map_err(StoreError::at("writing to see whether that works")).map(drop)
    }

    /// The value of a note, which is forgotten.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn note_take(&mut self, name: &str) -> Result<Option<String>> {
        let sql = "DELETE FROM notes WHERE name = $1 RETURNING value";
        let taken = sqlx::query_scalar(sql).bind(name).fetch_optional(&mut *self.inner).await;
        taken.map_err(StoreError::at("taking a note"))
    }

    /// Moves all times from which spans are counted, up to one.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn clock_move(&mut self, by: i64, until: UnixSeconds) -> Result<()> {
        for (table, columns) in SPANS {
            let moved: Vec<_> = columns
                .iter()
                .map(|name| {
                    format!(
                        "{name} = CASE WHEN {name} BETWEEN 1 AND $2 \
                         THEN MAX({name} + $1, 1) ELSE {name} END"
                    )
                })
                .collect();
            // Table and columns are constants of this file.
            let sql = format!("UPDATE {table} SET {}", moved.join(", "));
            let query = sqlx::query(sqlx::AssertSqlSafe(sql)).bind(by).bind(to_db(until + AHEAD));
            query.execute(&mut *self.inner).await.map_err(StoreError::at("moving times"))?;
        }
        Ok(())
    }
}

/// How far ahead of its time a host writes a time: the longest time-out of its configuration.
const AHEAD: UnixSeconds = 86_400;

/// Times whose distance from now decides something; 0 and none stand for never.
const SPANS: &[(&str, &[&str])] = &[
    ("channels", &["since", "created_at", "used_at", "activate_by", "fault_until", "command_due"]),
    ("sessions", &["used_at", "stopped_at"]),
    ("cheques", &["due"]),
    ("orders", &["created_at"]),
];
