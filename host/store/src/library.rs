//! Libraries of modules by their hash: what they are being told, how they fared, which are set aside;
//! and which modules are switched off.

use sqlx::Row;
use sqlx::sqlite::SqliteRow;
use uuid::Uuid;

use super::{Result, Store, StoreError, Txn, from_db, to_db};
use privatix_base::clock::UnixSeconds;

/// What a library was being told to do when the host ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StepRow {
    /// The module.
    pub module: String,
    /// The library's hash.
    pub library: String,
    /// What it was.
    pub step: String,
    /// Whether it has ever come up.
    pub proven: bool,
    /// How often in a row the host had died before while it came up.
    pub deaths: u32,
}

/// How a library fared.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LibraryRow {
    /// Whether it has ever come up.
    pub proven: bool,
    /// How often in a row the host has died while it came up.
    pub deaths: u32,
}

/// A library that is set aside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QuarantineRow {
    /// What happened.
    pub reason: String,
    /// Which host set it aside.
    pub host_version: String,
    /// Since when.
    pub since: UnixSeconds,
}

impl Store {
    /// How a library fared.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn library_get(&self, hash: &str) -> Result<LibraryRow> {
        let sql = "SELECT up_at IS NOT NULL AS proven, deaths FROM libraries WHERE hash = $1";
        let found = sqlx::query(sql).bind(hash).fetch_optional(&self.pool).await;
        let found = found.map_err(StoreError::at("reading a library"))?;
        let read = |row: &SqliteRow| {
            Ok::<_, sqlx::Error>(LibraryRow {
                proven: row.try_get("proven")?,
                deaths: count(row.try_get("deaths")?),
            })
        };
        let row = found.as_ref().map(read).transpose();
        Ok(row.map_err(StoreError::at("reading a library"))?.unwrap_or_default())
    }

    /// A library, if it is set aside.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn quarantine_get(&self, library: &str) -> Result<Option<QuarantineRow>> {
        let sql = "SELECT reason, host_version, since FROM quarantine WHERE library = $1";
        let found = sqlx::query(sql).bind(library).fetch_optional(&self.pool).await;
        let found = found.map_err(StoreError::at("reading what is set aside"))?;
        let read = |row: &SqliteRow| {
            Ok::<_, sqlx::Error>(QuarantineRow {
                reason: row.try_get("reason")?,
                host_version: row.try_get("host_version")?,
                since: row.try_get("since").map(from_db)?,
            })
        };
        found.as_ref().map(read).transpose().map_err(StoreError::at("reading what is set aside"))
    }

    /// Since when a module is switched off, if it is.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn module_disabled(&self, module: &str) -> Result<Option<UnixSeconds>> {
        let sql = "SELECT since FROM modules_disabled WHERE module = $1";
        let found = sqlx::query_scalar(sql).bind(module).fetch_optional(&self.pool).await;
        let found: Option<i64> = found.map_err(StoreError::at("reading a module's switch"))?;
        Ok(found.map(from_db))
    }
}

impl Txn {
    /// Notes what a library is about to be told, in place of what its module was told before.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn library_step(
        &mut self,
        module: &str,
        library: &str,
        step: &str,
        now: UnixSeconds,
    ) -> Result<()> {
        let sql = "INSERT INTO library_steps (module, library, step, begun_at) \
                   VALUES ($1, $2, $3, $4) ON CONFLICT (module) DO UPDATE SET \
                   library = excluded.library, step = excluded.step, begun_at = excluded.begun_at";
        let query = sqlx::query(sql).bind(module).bind(library).bind(step).bind(to_db(now));
        query.execute(&mut *self.inner).await.map_err(StoreError::at("noting a library's step"))?;
        Ok(())
    }

    /// A module's library is told nothing any more.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn library_step_done(&mut self, module: &str) -> Result<()> {
        let query = sqlx::query("DELETE FROM library_steps WHERE module = $1").bind(module);
        let done = query.execute(&mut *self.inner).await;
        done.map_err(StoreError::at("noting the end of a library's step"))?;
        Ok(())
    }

    /// All that was under way, longest first; it is forgotten.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn library_steps_take(&mut self) -> Result<Vec<StepRow>> {
        let sql = "SELECT library_steps.module, library, step, up_at IS NOT NULL AS proven, \
                   COALESCE(deaths, 0) AS deaths FROM library_steps \
                   LEFT JOIN libraries ON libraries.hash = library \
                   ORDER BY begun_at, library_steps.module";
        let at = "reading what libraries were told";
        let rows =
            sqlx::query(sql).fetch_all(&mut *self.inner).await.map_err(StoreError::at(at))?;
        let read = |row: &SqliteRow| {
            Ok::<_, sqlx::Error>(StepRow {
                module: row.try_get("module")?,
                library: row.try_get("library")?,
                step: row.try_get("step")?,
                proven: row.try_get("proven")?,
                deaths: count(row.try_get("deaths")?),
            })
        };
        let steps: std::result::Result<Vec<_>, _> = rows.iter().map(read).collect();
        let done = sqlx::query("DELETE FROM library_steps").execute(&mut *self.inner).await;
        done.map_err(StoreError::at(at))?;
        steps.map_err(StoreError::at(at))
    }

    /// A library has come up; earlier deaths count no longer.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn library_up(
        &mut self,
        library: &str,
        module: &str,
        now: UnixSeconds,
    ) -> Result<()> {
        let sql = "INSERT INTO libraries (hash, module, up_at) VALUES ($1, $2, $3) \
                   ON CONFLICT (hash) DO UPDATE SET module = excluded.module, \
                   up_at = excluded.up_at, deaths = 0";
        let query = sqlx::query(sql).bind(library).bind(module).bind(to_db(now));
        query.execute(&mut *self.inner).await.map_err(StoreError::at("noting a library"))?;
        Ok(())
    }

    /// The host has died once more while a library came up.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn library_died(&mut self, library: &str, module: &str) -> Result<()> {
        let sql = "INSERT INTO libraries (hash, module, deaths) VALUES ($1, $2, 1) \
                   ON CONFLICT (hash) DO UPDATE SET deaths = libraries.deaths + 1";
        let query = sqlx::query(sql).bind(library).bind(module);
        query.execute(&mut *self.inner).await.map_err(StoreError::at("noting a library"))?;
        Ok(())
    }

    /// The names of modules with the library of each that came up last.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn library_newest(&mut self) -> Result<Vec<(String, String)>> {
        let sql = "SELECT module, hash, MAX(up_at) FROM libraries \
                   WHERE up_at IS NOT NULL GROUP BY module ORDER BY module";
        let at = "reading the libraries";
        let rows =
            sqlx::query(sql).fetch_all(&mut *self.inner).await.map_err(StoreError::at(at))?;
        let read =
            |row: &SqliteRow| Ok::<_, sqlx::Error>((row.try_get("module")?, row.try_get("hash")?));
        let all = rows.iter().map(read).collect::<std::result::Result<_, _>>();
        all.map_err(StoreError::at(at))
    }

    /// Counts a crash against a library; returns how many there are since a time.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn library_crashed(
        &mut self,
        library: &str,
        now: UnixSeconds,
        since: UnixSeconds,
    ) -> Result<usize> {
        let at = "counting a crash";
        let sql = "DELETE FROM library_crashes WHERE library = $1 AND at < $2";
        let done =
            sqlx::query(sql).bind(library).bind(to_db(since)).execute(&mut *self.inner).await;
        done.map_err(StoreError::at(at))?;
        let sql = "INSERT INTO library_crashes (library, at) VALUES ($1, $2)";
        let done = sqlx::query(sql).bind(library).bind(to_db(now)).execute(&mut *self.inner).await;
        done.map_err(StoreError::at(at))?;
        let sql = "SELECT COUNT(*) FROM library_crashes WHERE library = $1";
        let counted = sqlx::query_scalar(sql).bind(library).fetch_one(&mut *self.inner).await;
        let counted: i64 = counted.map_err(StoreError::at(at))?;
        Ok(usize::try_from(counted).unwrap_or(usize::MAX))
    }

    /// Sets a library aside.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn quarantine_add(
        &mut self,
        library: &str,
        module: &str,
        row: &QuarantineRow,
    ) -> Result<()> {
        let sql = "INSERT INTO quarantine (library, module, reason, host_version, since) \
                   VALUES ($1, $2, $3, $4, $5) ON CONFLICT (library) DO UPDATE SET \
                   reason = excluded.reason, host_version = excluded.host_version, \
                   since = excluded.since";
        let query = sqlx::query(sql)
            .bind(library)
            .bind(module)
            .bind(&row.reason)
            .bind(&row.host_version)
            .bind(to_db(row.since));
        query.execute(&mut *self.inner).await.map_err(StoreError::at("setting a library aside"))?;
        Ok(())
    }

    /// Lets all libraries of a module be tried again, as if nothing had happened; returns how many
    /// were set aside.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn quarantine_release(&mut self, module: &str) -> Result<u64> {
        let at = "releasing a module";
        let crashes = "DELETE FROM library_crashes WHERE library IN \
                       (SELECT library FROM quarantine WHERE module = $1)";
        let deaths = "UPDATE libraries SET deaths = 0 WHERE module = $1";
        for sql in [crashes, deaths] {
            let done = sqlx::query(sql).bind(module).execute(&mut *self.inner).await;
            done.map_err(StoreError::at(at))?;
        }
        let query = sqlx::query("DELETE FROM quarantine WHERE module = $1").bind(module);
        let done = query.execute(&mut *self.inner).await.map_err(StoreError::at(at))?;
        Ok(done.rows_affected())
    }

    /// Switches a module off, or on.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn module_switch(&mut self, module: &str, off: bool, now: UnixSeconds) -> Result<()> {
        let query = if off {
            let sql = "INSERT INTO modules_disabled (module, since) VALUES ($1, $2) \
                       ON CONFLICT (module) DO NOTHING";
            sqlx::query(sql).bind(module).bind(to_db(now))
        } else {
            sqlx::query("DELETE FROM modules_disabled WHERE module = $1").bind(module)
        };
        query.execute(&mut *self.inner).await.map_err(StoreError::at("switching a module"))?;
        Ok(())
    }

    /// Gives a product to a module; returns whether there is such a product.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn product_transfer(
        &mut self,
        product: Uuid,
        module: &str,
        now: UnixSeconds,
    ) -> Result<bool> {
        let sql = "UPDATE products SET name = $2, updated_at = $3 WHERE id = $1";
        let query = sqlx::query(sql).bind(product).bind(module).bind(to_db(now));
        let done = query.execute(&mut *self.inner).await;
        Ok(done.map_err(StoreError::at("transferring a product"))?.rows_affected() > 0)
    }
}

fn count(number: i64) -> u32 {
    u32::try_from(number).unwrap_or(0)
}
