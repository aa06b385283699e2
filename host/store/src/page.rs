//! Lists as people ask for them: pages, which are some rows after one of them, so that nobody reads a
//! whole history at once; and rows by a beginning of their hash.

use privatix_plugin_api::message::{ClientKey, SessionId};
use sqlx::Row;
use sqlx::sqlite::SqliteRow;
use uuid::Uuid;

use super::{ChannelRow, ChequeRow, OfferingRow, OrderRow, Result, SessionRow, Store, StoreError};
use super::{TemplateRow, channel, cheque, from_db, offering, session, template};

/// Which rows of a list.
#[derive(Debug, Clone, Copy)]
pub struct Page<'a, I> {
    /// After this one; from the beginning where absent.
    pub after: Option<I>,
    /// Only those of a status; all where empty.
    pub status: &'a str,
    /// So many at most.
    pub limit: u32,
}

/// The statements of a list with the newest rows first: when a row was made, and the page.
macro_rules! newest {
    ($table:literal, $time:literal, $id:literal, $filter:literal) => {
        (
            concat!("SELECT ", $time, " FROM ", $table, " WHERE ", $id, " = $1"),
            concat!(
                "SELECT * FROM ",
                $table,
                " WHERE (",
                $time,
                ", ",
                $id,
                ") < ($1, $2) AND ($4 = '' \
                 OR ",
                $filter,
                ") ORDER BY ",
                $time,
                " DESC, ",
                $id,
                " DESC LIMIT $3"
            ),
        )
    };
}

/// Reads one page; the type of the ids and the reader of a row differ.
macro_rules! page {
    ($store:expr, $page:expr, $statements:expr, $nothing:expr, $row:path, $step:literal) => {{
        let (made, rows) = $statements;
        let before = match &$page.after {
            // Later than anything.
            None => Some(i64::MAX),
            Some(id) => {
                let found = sqlx::query_scalar(made).bind(id).fetch_optional(&$store.pool).await;
                found.map_err(StoreError::at($step))?
            }
        };
        let Some(before) = before else { return Ok(None) };
        let after = $page.after.unwrap_or($nothing);
        let query = sqlx::query(rows).bind(before).bind(after).bind($page.limit).bind($page.status);
        let rows = query.fetch_all(&$store.pool).await.map_err(StoreError::at($step))?;
        rows.iter().map($row).collect::<Result<Vec<_>>>().map(Some)
    }};
}

/// What of a table has a hash that begins with a text, as a person writes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Alike<T> {
    /// One of them, if there is any.
    pub first: Option<T>,
    /// How many there are.
    pub number: u64,
}

/// The statement for it. `g` comes after the digits of a hash, so that the end of the range is behind
/// every hash with this beginning.
macro_rules! alike {
    ($table:literal) => {
        concat!(
            "SELECT *, COUNT(*) OVER () AS alike FROM ",
            $table,
            " WHERE hash >= $1 AND hash < $1 || 'g' ORDER BY hash LIMIT 1"
        )
    };
}

impl Store {
    /// The orders whose hash begins with a text.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn order_like(&self, beginning: &str) -> Result<Alike<OrderRow>> {
        self.alike(alike!("orders"), beginning, offering::order).await
    }

    /// The offerings whose hash begins with a text.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn offering_like(&self, beginning: &str) -> Result<Alike<OfferingRow>> {
        self.alike(alike!("offerings"), beginning, offering::offering).await
    }

    /// The templates whose hash begins with a text.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn template_like(&self, beginning: &str) -> Result<Alike<TemplateRow>> {
        self.alike(alike!("templates"), beginning, template::row).await
    }

    async fn alike<T>(
        &self,
        statement: &'static str,
        beginning: &str,
        row: impl Fn(&SqliteRow) -> Result<T>,
    ) -> Result<Alike<T>> {
        const STEP: &str = "looking for the beginning of a hash";
        let found = sqlx::query(statement).bind(beginning).fetch_optional(&self.pool).await;
        let Some(found) = found.map_err(StoreError::at(STEP))? else {
            return Ok(Alike { first: None, number: 0 });
        };
        let number = found.try_get("alike").map_err(StoreError::at(STEP))?;
        Ok(Alike { first: Some(row(&found)?), number: from_db(number) })
    }
}

/// A page is `None` where the row to go on after does not exist.
impl Store {
    /// Channels, newest first; a status is one of channels.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn channel_page(&self, page: Page<'_, ClientKey>) -> Result<Option<Vec<ChannelRow>>> {
        let page =
            Page { after: page.after.map(|id| id.0), status: page.status, limit: page.limit };
        let statements = newest!("channels", "created_at", "id", "status = $4");
        page!(self, page, statements, Uuid::nil(), channel::row, "listing channels")
    }

    /// Orders, newest first; a status is `waiting`, `accepted` or `rejected`.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn order_page(&self, page: Page<'_, &str>) -> Result<Option<Vec<OrderRow>>> {
        let statements = newest!("orders", "created_at", "hash", "state = $4");
        page!(self, page, statements, "", offering::order, "listing orders")
    }

    /// Offerings, newest first; a status is `open` or `withdrawn`.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn offering_list_page(
        &self,
        page: Page<'_, &str>,
    ) -> Result<Option<Vec<OfferingRow>>> {
        let statements =
            newest!("offerings", "made_at", "hash", "(withdrawn_at IS NULL) = ($4 = 'open')");
        page!(self, page, statements, "", offering::offering, "listing offerings")
    }

    /// Cheques, newest first; a status is `unsent` or `acknowledged`.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn cheque_page(&self, page: Page<'_, ClientKey>) -> Result<Option<Vec<ChequeRow>>> {
        let page =
            Page { after: page.after.map(|id| id.0), status: page.status, limit: page.limit };
        let statements =
            newest!("cheques", "made_at", "channel", "(due IS NOT NULL) = ($4 = 'unsent')");
        page!(self, page, statements, Uuid::nil(), cheque::row, "listing cheques")
    }

    /// All sessions of a channel, oldest first.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn session_list(&self, of: ClientKey) -> Result<Vec<SessionRow>> {
        self.session_page(of, Page { after: None, status: "", limit: u32::MAX }).await
    }

    /// The sessions of a channel, oldest first; a status is `open` or `closed`. Their ids rise with
    /// time, so any id may be gone on after.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn session_page(
        &self,
        of: ClientKey,
        page: Page<'_, SessionId>,
    ) -> Result<Vec<SessionRow>> {
        let sql = "SELECT * FROM sessions WHERE channel = $1 AND id > $2 \
                   AND ($4 = '' OR (stopped_at IS NULL) = ($4 = 'open')) ORDER BY id LIMIT $3";
        let after = page.after.map_or(Uuid::nil(), |id| id.0);
        let query = sqlx::query(sql).bind(of.0).bind(after).bind(page.limit).bind(page.status);
        let rows = query.fetch_all(&self.pool).await.map_err(StoreError::at("listing sessions"))?;
        rows.iter().map(session::row).collect()
    }
}
