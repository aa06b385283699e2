//! Offerings: made by an agent, fetched by a client.

mod agent;
mod client;

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use uuid::Uuid;

pub use self::agent::{Draft, OfferingPage};
pub use self::client::Source;
use super::list::{ListQuery, the_one};
use super::stored::{fingerprint, hash};
use super::{OperatorApi, Refused, Service};
use privatix_base::clock::{self, UnixSeconds};
use privatix_domain::code::Code;
use privatix_domain::identity::PublicKey;
use privatix_domain::template::Template;
use privatix_store::{OfferingRow, ProductRow};

/// An offering as the operator sees it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct OfferingView {
    /// Its hash.
    pub hash: String,
    /// The module's name.
    pub product: String,
    /// The fingerprint of the agent's key.
    pub agent: String,
    /// How many more orders are taken, as far as is known.
    pub supply_left: u64,
    /// When it was published or fetched, Unix time.
    pub made_at: UnixSeconds,
    /// When it was withdrawn, Unix time.
    pub withdrawn_at: Option<UnixSeconds>,
    /// The signed message.
    pub message: Value,
}

impl OperatorApi {
    /// Offerings, newest first.
    ///
    /// # Errors
    /// `BadRequest`, `NotFound` for what is asked for.
    pub async fn offering_views(&self, query: &ListQuery) -> Result<Vec<OfferingView>, Refused> {
        let products = self.core.inner.store.product_list().await?;
        let name = |id: Uuid| products.iter().find(|p| p.id == id).map_or("", |p| p.name.as_str());
        let page = query.by_hash(&["open", "withdrawn"])?;
        let rows = query.found(self.core.inner.store.offering_list_page(page).await?)?;
        Ok(rows.into_iter().map(|row| view(row.clone(), name(row.product))).collect())
    }

    /// One offering, by its hash or a beginning of it.
    ///
    /// # Errors
    /// `NotFound`.
    pub async fn offering_view(&self, hash: &str) -> Result<OfferingView, Refused> {
        self.core.offering_view(hash).await
    }
}

impl Service {
    pub(crate) async fn offering_view(&self, hash: &str) -> Result<OfferingView, Refused> {
        let row = self.offering_by(hash).await?;
        let product = self.inner.store.product_get(row.product).await?;
        Ok(view(row, product.as_ref().map_or("", |product| product.name.as_str())))
    }

    async fn keep(
        &self,
        message: &Value,
        product: &ProductRow,
        agent: &PublicKey,
        supply: u64,
    ) -> Result<OfferingRow, Refused> {
        let row = OfferingRow {
            hash: hash(message)?,
            product: product.id,
            agent: agent.to_string(),
            message: message.to_string(),
            supply_left: supply,
            made_at: clock::unix_now(),
            withdrawn_at: None,
        };
        let mut txn = self.inner.store.begin().await?;
        txn.offering_add(&row).await?;
        txn.commit().await?;
        Ok(row)
    }

    /// One offering, by its hash or a beginning of it.
    pub(crate) async fn offering_by(&self, hash: &str) -> Result<OfferingRow, Refused> {
        the_one("offering", hash, self.inner.store.offering_like(hash).await?)
    }

    pub(crate) async fn product_named(&self, name: &str) -> Result<ProductRow, Refused> {
        let products = self.inner.store.product_list().await?;
        // A module may have been replaced by one with another product id.
        let named = products.into_iter().filter(|product| product.name == name);
        let found = named.max_by_key(|product| product.updated_at);
        found.ok_or_else(|| Refused::not_found(format!("no product is called {name:?}")))
    }

    async fn offering_template(&self, product: &ProductRow) -> Result<Arc<Template>, Refused> {
        let missing = || {
            Refused::new(
                Code::TemplateNotFound,
                format!("{} has no offering template", product.name),
            )
        };
        let hash = product.offering_template.as_deref().ok_or_else(missing)?;
        self.template(hash).await?.ok_or_else(missing)
    }
}

fn view(row: OfferingRow, product: &str) -> OfferingView {
    OfferingView {
        hash: row.hash,
        product: product.to_owned(),
        agent: fingerprint(row.agent),
        supply_left: row.supply_left,
        made_at: row.made_at,
        withdrawn_at: row.withdrawn_at,
        message: serde_json::from_str(&row.message).unwrap_or(Value::Null),
    }
}
