//! Registered products.

use sqlx::Row;
use uuid::Uuid;

use super::{Result, Store, StoreError, Txn, from_db, to_db};
use privatix_base::clock::UnixSeconds;

/// A product.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProductRow {
    /// The id of its manifest.
    pub id: Uuid,
    /// The module's name.
    pub name: String,
    /// `agent` or `client`.
    pub role: String,
    /// The module's version.
    pub version: String,
    /// `total` or `incremental`.
    pub usage_reporting: String,
    /// Hash.
    pub access_template: String,
    /// Hash.
    pub offering_template: Option<String>,
    /// An object of strings, as JSON.
    pub config: String,
    /// The address the module said it has.
    pub external_ip: Option<String>,
    /// First registered.
    pub registered_at: UnixSeconds,
    /// Last changed.
    pub updated_at: UnixSeconds,
}

/// What a module brings; its config is not part of it.
#[derive(Debug, Clone)]
pub struct ProductUpsert<'a> {
    /// See [`ProductRow`].
    pub id: Uuid,
    /// See [`ProductRow`].
    pub name: &'a str,
    /// See [`ProductRow`].
    pub role: &'a str,
    /// See [`ProductRow`].
    pub version: &'a str,
    /// See [`ProductRow`].
    pub usage_reporting: &'a str,
    /// See [`ProductRow`].
    pub access_template: &'a str,
    /// See [`ProductRow`].
    pub offering_template: Option<&'a str>,
}

impl Store {
    /// One product.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn product_get(&self, id: Uuid) -> Result<Option<ProductRow>> {
        let found = sqlx::query(GET).bind(id).fetch_optional(&self.pool).await;
        found.map_err(StoreError::at("reading a product"))?.as_ref().map(row).transpose()
    }

    /// All products, by name.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn product_list(&self) -> Result<Vec<ProductRow>> {
        let rows = sqlx::query("SELECT * FROM products ORDER BY name, id").fetch_all(&self.pool);
        let rows = rows.await.map_err(StoreError::at("listing products"))?;
        rows.iter().map(row).collect()
    }
}

const GET: &str = "SELECT * FROM products WHERE id = $1";

impl Txn {
    /// One product.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn product_get(&mut self, id: Uuid) -> Result<Option<ProductRow>> {
        let found = sqlx::query(GET).bind(id).fetch_optional(&mut *self.inner).await;
        found.map_err(StoreError::at("reading a product"))?.as_ref().map(row).transpose()
    }

    /// Registers a product, or notes what changed; nothing is written where nothing did.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn product_upsert(
        &mut self,
        product: &ProductUpsert<'_>,
        now: UnixSeconds,
    ) -> Result<()> {
        let sql = "INSERT INTO products (id, name, role, version, usage_reporting, \
                   access_template, offering_template, config, registered_at, updated_at) \
                   VALUES ($1, $2, $3, $4, $5, $6, $7, '{}', $8, $8) \
                   ON CONFLICT (id) DO UPDATE SET name = excluded.name, role = excluded.role, \
                   version = excluded.version, usage_reporting = excluded.usage_reporting, \
                   access_template = excluded.access_template, \
                   offering_template = excluded.offering_template, \
                   updated_at = excluded.updated_at \
                   WHERE (products.name, products.role, products.version, \
                   products.usage_reporting, products.access_template) \
                   <> (excluded.name, excluded.role, excluded.version, excluded.usage_reporting, \
                   excluded.access_template) \
                   OR products.offering_template IS DISTINCT FROM excluded.offering_template";
        let query = sqlx::query(sql)
            .bind(product.id)
            .bind(product.name)
            .bind(product.role)
            .bind(product.version)
            .bind(product.usage_reporting)
            .bind(product.access_template)
            .bind(product.offering_template)
            .bind(to_db(now));
        query.execute(&mut *self.inner).await.map_err(StoreError::at("registering a product"))?;
        Ok(())
    }

    /// Replaces a product's config; returns whether that changed anything.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn product_set_config(
        &mut self,
        product: Uuid,
        config: &str,
        external_ip: Option<&str>,
        now: UnixSeconds,
    ) -> Result<bool> {
        let sql = "UPDATE products SET config = $2, external_ip = $3, updated_at = $4 \
                   WHERE id = $1 AND (config <> $2 OR external_ip IS DISTINCT FROM $3)";
        let query = sqlx::query(sql).bind(product).bind(config).bind(external_ip).bind(to_db(now));
        let done = query.execute(&mut *self.inner).await;
        Ok(done.map_err(StoreError::at("setting a product's config"))?.rows_affected() > 0)
    }
}

fn row(row: &sqlx::sqlite::SqliteRow) -> Result<ProductRow> {
    let read = || {
        Ok::<_, sqlx::Error>(ProductRow {
            id: row.try_get("id")?,
            name: row.try_get("name")?,
            role: row.try_get("role")?,
            version: row.try_get("version")?,
            usage_reporting: row.try_get("usage_reporting")?,
            access_template: row.try_get("access_template")?,
            offering_template: row.try_get("offering_template")?,
            config: row.try_get("config")?,
            external_ip: row.try_get("external_ip")?,
            registered_at: from_db(row.try_get("registered_at")?),
            updated_at: from_db(row.try_get("updated_at")?),
        })
    };
    read().map_err(StoreError::at("reading a product"))
}
