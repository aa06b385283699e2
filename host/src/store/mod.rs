//! The database: the only place that names sqlx. Functions are called noun first.
//!
//! Reads go through the pool; whatever reads and then writes does so in a [`Txn`], which takes the
//! write lock at its beginning. No rule is decided here.

mod billing;
mod channel;
mod cheque;
mod note;
mod offering;
mod product;
mod session;
mod template;
#[cfg(test)]
mod tests;
mod token;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use privatix_plugin_api::message::ClientKey;
use sqlx::migrate::Migrator;
use sqlx::sqlite::{
    SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteSynchronous,
};
use sqlx::{Sqlite, Transaction};
use tokio::sync::{Mutex, OwnedMutexGuard};

pub use self::billing::{AgentRow, BillingRow};
pub use self::channel::{ChannelRow, PendingCommand, StateChange};
pub use self::cheque::{ChequeRow, DueCheque};
pub use self::offering::{OfferingRow, OrderRow, OrderState};
pub use self::product::{ProductRow, ProductUpsert};
pub use self::session::{NewSession, ReportTarget, SessionRow};
pub use self::template::TemplateRow;

static MIGRATIONS: Migrator = sqlx::migrate!("../migrations");

/// A database that did not do what was asked.
#[derive(Debug, thiserror::Error)]
#[error("database: {step}")]
pub struct StoreError {
    step: &'static str,
    #[source]
    source: Box<dyn std::error::Error + Send + Sync>,
}

impl StoreError {
    fn at<E: std::error::Error + Send + Sync + 'static>(step: &'static str) -> impl Fn(E) -> Self {
        move |source| Self { step, source: Box::new(source) }
    }
}

/// The result of a database step.
pub type Result<T> = std::result::Result<T, StoreError>;

/// See the module's documentation. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Store {
    pool: SqlitePool,
    /// Writers of this process wait here in the order they came; the database itself would have
    /// them try again now and then.
    writer: Arc<Mutex<()>>,
}

/// A write transaction; rolled back when dropped.
pub struct Txn {
    // Dropped first: the transaction is over when the next writer's turn comes.
    inner: Transaction<'static, Sqlite>,
    _turn: OwnedMutexGuard<()>,
    /// Channels in which something changed that money may depend on.
    touched: Vec<ClientKey>,
}

impl Store {
    /// Opens the database, makes it if it is not there, and brings it up to date.
    ///
    /// # Errors
    /// A file that cannot be opened, is no database, or was written by a newer host.
    pub async fn open(path: &Path) -> Result<Self> {
        let options = SqliteConnectOptions::new()
            .filename(path)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .foreign_keys(true)
            .busy_timeout(Duration::from_secs(10));
        let pool = SqlitePoolOptions::new().max_connections(4).connect_with(options).await;
        let pool = pool.map_err(StoreError::at("opening"))?;
        let migrated = MIGRATIONS.run(&pool).await;
        migrated.map_err(StoreError::at("bringing the tables up to date"))?;
        Ok(Self { pool, writer: Arc::default() })
    }

    /// Begins a write.
    ///
    /// # Errors
    /// When the write lock is not to be had.
    pub async fn begin(&self) -> Result<Txn> {
        let turn = Arc::clone(&self.writer).lock_owned().await;
        let inner = self.pool.begin_with("BEGIN IMMEDIATE").await;
        let inner = inner.map_err(StoreError::at("beginning a write"))?;
        Ok(Txn { inner, _turn: turn, touched: Vec::new() })
    }

    /// Closes all connections; the write-ahead log is folded in.
    pub async fn close(&self) {
        self.pool.close().await;
    }
}

impl Txn {
    /// Puts everything on disk. Returns the channels in which something changed that money may
    /// depend on.
    ///
    /// # Errors
    /// When nothing was written.
    pub async fn commit(self) -> Result<Vec<ClientKey>> {
        self.inner.commit().await.map_err(StoreError::at("committing"))?;
        Ok(self.touched)
    }

    fn touch(&mut self, channel: ClientKey) {
        self.touched.push(channel);
    }
}

/// A group of rows as the one parameter of a statement.
fn json(rows: &impl serde::Serialize) -> String {
    // Strings and integers are always written; an empty text would be refused by the database.
    serde_json::to_string(rows).unwrap_or_default()
}

/// Integers of the domain end at 2⁵³−1, those of the database at 2⁶³−1.
fn to_db(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// Nothing negative is ever stored.
fn from_db(value: i64) -> u64 {
    u64::try_from(value).unwrap_or(0)
}
