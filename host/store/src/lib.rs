//! The database: the only place that names sqlx. Functions are called noun first.
//!
//! Reads go through the pool; whatever reads and then writes does so in a [`Txn`], which takes the
//! write lock at its beginning. No rule is decided here.

#![forbid(unsafe_code)]

mod billing;
mod channel;
mod cheque;
mod fault;
mod health;
mod library;
mod note;
mod offering;
mod page;
mod place;
mod product;
mod rules;
mod session;
mod template;
#[cfg(any(test, feature = "testing"))]
mod testing;
#[cfg(test)]
mod tests;
mod token;

use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use privatix_plugin_api::message::ClientKey;
use sqlx::migrate::Migrator;
use sqlx::sqlite::{
    SqliteConnectOptions, SqliteConnection, SqliteJournalMode, SqlitePool, SqlitePoolOptions,
    SqliteSynchronous,
};
use sqlx::{ConnectOptions, Connection, Sqlite, Transaction};
use tokio::sync::{Mutex, OwnedMutexGuard};

use self::fault::Replaced;
use self::health::Health;
use self::place::Place;

pub use self::billing::{AgentRow, BillingRow};
pub use self::channel::{ChangeRow, ChannelRow, PendingCommand, StateChange};
pub use self::cheque::{ChequeRow, DueCheque};
pub use self::fault::Fault;
pub use self::health::Trouble;
pub use self::library::{LibraryRow, QuarantineRow, StepRow};
pub use self::offering::{OfferingRow, OrderRow, OrderState};
pub use self::page::{Alike, Page};
pub use self::product::{ProductRow, ProductUpsert};
pub use self::session::{NewSession, ReportTarget, SessionRow};
pub use self::template::TemplateRow;

static MIGRATIONS: Migrator = sqlx::migrate!("../../migrations");

/// How long a write waits for another program that holds the lock.
const BUSY: Duration = Duration::from_secs(10);

/// How long a write waits for its turn among this host's own; a read for a connection.
const TURN: Duration = Duration::from_secs(20);

/// A database that did not do what was asked.
#[derive(Debug, thiserror::Error)]
#[error("database: {step}")]
pub struct StoreError {
    step: &'static str,
    fault: Fault,
    #[source]
    source: Box<dyn std::error::Error + Send + Sync>,
}

impl StoreError {
    fn at<E: std::error::Error + Send + Sync + 'static>(step: &'static str) -> impl Fn(E) -> Self {
        move |source| Self { step, fault: Fault::of(&source), source: Box::new(source) }
    }

    /// What is wrong.
    pub fn fault(&self) -> Fault {
        self.fault
    }
}

/// A write that did not get its turn.
#[derive(Debug, thiserror::Error)]
#[error("other writes of this host took longer than {} s", TURN.as_secs())]
struct NoTurn;

/// The result of a database step.
pub type Result<T> = std::result::Result<T, StoreError>;

/// See the module's documentation. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Store {
    pool: SqlitePool,
    /// One connection that does not wait for the disk.
    notes: SqlitePool,
    /// Writers of this process wait here in the order they came; the database itself would have
    /// them try again now and then.
    writer: Arc<Mutex<()>>,
    health: Arc<Health>,
    place: Arc<OnceLock<Place>>,
    /// Never used: as long as it is open, SQLite keeps the write-ahead log, whatever becomes of
    /// the other connections.
    anchor: Arc<Mutex<Option<SqliteConnection>>>,
}

/// A write transaction; rolled back when dropped.
pub struct Txn {
    // Dropped first: the transaction is over when the next writer's turn comes.
    inner: Transaction<'static, Sqlite>,
    _turn: OwnedMutexGuard<()>,
    store: Store,
    /// Channels in which something changed that money may depend on.
    touched: Vec<ClientKey>,
}

impl Store {
    /// Opens the database, makes it if it is not there, brings it up to date, and writes to it.
    ///
    /// # Errors
    /// A file that cannot be opened or written, is no database, or was written by a newer host.
    pub async fn open(path: &Path) -> Result<Self> {
        let options = SqliteConnectOptions::new()
            .filename(path)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .foreign_keys(true)
            .busy_timeout(BUSY);
        let (health, place) = (Arc::<Health>::default(), Arc::<OnceLock<Place>>::default());
        let pool = pool_options(&health, &place).connect_with(options.clone()).await;
        let pool = pool.map_err(StoreError::at("opening"))?;
        let migrated = MIGRATIONS.run(&pool).await;
        migrated.map_err(StoreError::at("bringing the tables up to date"))?;
        // One that has gone must not be made anew by a connection of later.
        let options = options.create_if_missing(false);
        let mut anchor = options.connect().await.map_err(StoreError::at("opening"))?;
        pool.set_connect_options(options.clone());
        let notes = options.synchronous(SqliteSynchronous::Normal);
        let notes = pool_options(&health, &place).max_connections(1).connect_with(notes).await;
        let notes = notes.map_err(StoreError::at("opening"))?;
        let read = sqlx::query("SELECT count(*) FROM notes").execute(&mut anchor).await;
        read.map_err(StoreError::at("reading"))?;
        let noted = Place::note(path).map_err(StoreError::at("looking at the file"))?;
        // It is set once; nobody else has it yet.
        let _ = place.set(noted);
        let anchor = Arc::new(Mutex::new(Some(anchor)));
        let store = Self { pool, notes, writer: Arc::default(), health, place, anchor };
        store.probe().await?;
        Ok(store)
    }

    /// Begins a write.
    ///
    /// # Errors
    /// When the write lock is not to be had.
    pub async fn begin(&self) -> Result<Txn> {
        let begun = self.try_begin(&self.pool).await;
        begun.inspect_err(|error| self.health.failure(error))
    }

    /// Begins a write that outlives the process and, until the next [`begin`](Self::begin) is committed, not
    /// the machine: for what says nothing once the machine was down.
    ///
    /// # Errors
    /// When the write lock is not to be had.
    pub async fn begin_note(&self) -> Result<Txn> {
        let begun = self.try_begin(&self.notes).await;
        begun.inspect_err(|error| self.health.failure(error))
    }

    async fn try_begin(&self, pool: &SqlitePool) -> Result<Txn> {
        const STEP: &str = "beginning a write";
        let turn = tokio::time::timeout(TURN, Arc::clone(&self.writer).lock_owned()).await;
        let turn = turn.map_err(|_| StoreError {
            step: STEP,
            fault: Fault::Busy,
            source: Box::new(NoTurn),
        })?;
        self.still_there()?;
        let inner = pool.begin_with("BEGIN IMMEDIATE").await.map_err(StoreError::at(STEP))?;
        Ok(Txn { inner, _turn: turn, store: self.clone(), touched: Vec::new() })
    }

    /// Writes and has it put on disk, to find out whether that works.
    ///
    /// # Errors
    /// When it does not.
    pub async fn probe(&self) -> Result<()> {
        let mut txn = self.begin().await?;
        let written = txn.note_probe().await;
        written.inspect_err(|error| self.health.failure(error))?;
        txn.commit().await?;
        self.health.success();
        Ok(())
    }

    /// What is the matter, where the last write that was made to find out failed.
    pub fn trouble(&self) -> Option<Trouble> {
        self.health.trouble()
    }

    /// Writes that failed since this database was opened.
    pub fn failures(&self) -> u64 {
        self.health.failures()
    }

    /// Returns when a write has failed after all was well.
    pub async fn failed(&self) {
        self.health.failed().await;
    }

    fn still_there(&self) -> Result<()> {
        let check = self.place.get().map_or(Ok(()), Place::check);
        check.map_err(StoreError::at("looking at the file"))
    }

    /// Closes all connections; the write-ahead log is folded in.
    pub async fn close(&self) {
        self.notes.close().await;
        self.pool.close().await;
        if let Some(anchor) = self.anchor.lock().await.take() {
            // What cannot be folded in now is at the next start.
            let _ = anchor.close().await;
        }
    }
}

/// Connections, of which none is used on after something went wrong with it: SQLite may have ended
/// its transaction without sqlx's knowledge, which then never begins another one on it.
fn pool_options(health: &Arc<Health>, place: &Arc<OnceLock<Place>>) -> SqlitePoolOptions {
    let (acquiring, releasing) = (Arc::clone(health), Arc::clone(health));
    let place = Arc::clone(place);
    SqlitePoolOptions::new()
        .max_connections(4)
        .acquire_timeout(TURN)
        // They are tested when they come back instead.
        .test_before_acquire(false)
        .after_connect(move |_, _| {
            let check = place.get().map_or(Ok(()), Place::check);
            let check = check
                .map_err(|Replaced(path)| sqlx::Error::Io(std::io::Error::other(Replaced(path))));
            Box::pin(std::future::ready(check))
        })
        .before_acquire(move |_, about| {
            let trusted = acquiring.trusts(about.age);
            Box::pin(std::future::ready(Ok(trusted)))
        })
        .after_release(move |connection, about| {
            let health = Arc::clone(&releasing);
            Box::pin(async move {
                // A rollback may be under way still.
                connection.ping().await?;
                if connection.is_in_transaction() {
                    health.broken_off();
                    return Ok(false);
                }
                Ok(health.trusts(about.age))
            })
        })
}

impl Txn {
    /// Puts everything on disk. Returns the channels in which something changed that money may
    /// depend on.
    ///
    /// # Errors
    /// When it is not known to be on disk.
    pub async fn commit(self) -> Result<Vec<ClientKey>> {
        let Self { inner, _turn, store, touched } = self;
        let done = inner.commit().await.map_err(StoreError::at("committing"));
        // In a file without a name it is as good as not written.
        let done = done.and_then(|()| store.still_there());
        done.inspect_err(|error| store.health.failure(error))?;
        Ok(touched)
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
