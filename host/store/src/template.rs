//! Registered templates.

use sqlx::Row;

use super::{Result, Store, StoreError, Txn, from_db, to_db};
use privatix_base::clock::UnixSeconds;

/// A template.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TemplateRow {
    /// Lowercase hex SHA-256 of the canonical document.
    pub hash: String,
    /// `access` or `offering`.
    pub kind: String,
    /// The document as JSON.
    pub document: String,
    /// When it came here first.
    pub registered_at: UnixSeconds,
}

impl Store {
    /// All templates, oldest first.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn template_list(&self) -> Result<Vec<TemplateRow>> {
        let sql = "SELECT hash, kind, document, registered_at FROM templates \
                   ORDER BY registered_at, hash";
        let rows = sqlx::query(sql).fetch_all(&self.pool).await;
        let rows = rows.map_err(StoreError::at("listing templates"))?;
        rows.iter().map(row).collect()
    }

    /// One template.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn template_get(&self, hash: &str) -> Result<Option<TemplateRow>> {
        let sql = "SELECT hash, kind, document, registered_at FROM templates WHERE hash = $1";
        let found = sqlx::query(sql).bind(hash).fetch_optional(&self.pool).await;
        found.map_err(StoreError::at("reading a template"))?.as_ref().map(row).transpose()
    }
}

impl Txn {
    /// Keeps a template; one that is there already stays as it is.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn template_add(&mut self, template: &TemplateRow) -> Result<()> {
        let sql = "INSERT INTO templates (hash, kind, document, registered_at) \
                   VALUES ($1, $2, $3, $4) ON CONFLICT (hash) DO NOTHING";
        let query = sqlx::query(sql)
            .bind(&template.hash)
            .bind(&template.kind)
            .bind(&template.document)
            .bind(to_db(template.registered_at));
        query.execute(&mut *self.inner).await.map_err(StoreError::at("keeping a template"))?;
        Ok(())
    }
}

pub(super) fn row(row: &sqlx::sqlite::SqliteRow) -> Result<TemplateRow> {
    let read = || {
        Ok::<_, sqlx::Error>(TemplateRow {
            hash: row.try_get("hash")?,
            kind: row.try_get("kind")?,
            document: row.try_get("document")?,
            registered_at: from_db(row.try_get("registered_at")?),
        })
    };
    read().map_err(StoreError::at("reading a template"))
}
