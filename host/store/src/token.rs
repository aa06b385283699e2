//! Tokens of standalone modules: only what they hash to.

use sqlx::Row;
use uuid::Uuid;

use super::{Result, Store, StoreError, Txn, to_db};
use privatix_base::clock::UnixSeconds;

impl Store {
    /// The hashes of all tokens, in hex, with their products.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn token_list(&self) -> Result<Vec<(Uuid, String)>> {
        let rows = sqlx::query("SELECT product, hash FROM tokens").fetch_all(&self.pool).await;
        let rows = rows.map_err(StoreError::at("reading tokens"))?;
        let read = rows.iter().map(|row| Ok((row.try_get("product")?, row.try_get("hash")?)));
        read.collect::<std::result::Result<_, sqlx::Error>>()
            .map_err(StoreError::at("reading tokens"))
    }
}

impl Txn {
    /// Sets the hash of a product's token, in place of the one before.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn token_set(&mut self, product: Uuid, hash: &str, now: UnixSeconds) -> Result<()> {
        let sql = "INSERT INTO tokens (product, hash, made_at) VALUES ($1, $2, $3) \
                   ON CONFLICT (product) DO UPDATE \
                   SET hash = excluded.hash, made_at = excluded.made_at";
        let query = sqlx::query(sql).bind(product).bind(hash).bind(to_db(now));
        let done = query.execute(&mut *self.inner).await;
        done.map_err(StoreError::at("noting a token"))?;
        Ok(())
    }
}
