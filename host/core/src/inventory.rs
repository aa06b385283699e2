//! What the database knows of modules, products and templates, and what the operator changes there.
//! All of it works beside a running host and without one.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use uuid::Uuid;

use super::list::the_one;
use super::{OperatorApi, Refused};
use privatix_base::clock::{self, UnixSeconds};
use privatix_store::{ProductRow, Store, TemplateRow, Trouble};

/// See the top of this file.
#[derive(Clone)]
pub struct Inventory {
    store: Store,
}

impl OperatorApi {
    /// The inventory of this host's database.
    pub fn inventory(&self) -> Inventory {
        Inventory::new(self.core.inner.store.clone())
    }
}

impl Inventory {
    /// That of a database.
    pub fn new(store: Store) -> Self {
        Self { store }
    }

    /// Closes the database.
    pub async fn close(self) {
        self.store.close().await;
    }

    /// What is the matter with the database now.
    pub fn trouble(&self) -> Option<Trouble> {
        self.store.trouble()
    }

    /// All products.
    ///
    /// # Errors
    /// A database that fails.
    pub async fn products(&self) -> Result<Vec<ProductView>, Refused> {
        Ok(self.store.product_list().await?.into_iter().map(ProductView::from).collect())
    }

    /// All templates, without their documents.
    ///
    /// # Errors
    /// A database that fails.
    pub async fn templates(&self) -> Result<Vec<TemplateView>, Refused> {
        let rows = self.store.template_list().await?.into_iter();
        let views = rows.map(|row| TemplateView { document: None, ..TemplateView::from(row) });
        Ok(views.collect())
    }

    /// A template by its hash, or by a beginning of it that only one template has.
    ///
    /// # Errors
    /// `NotFound` where none or several begin with it.
    pub async fn template(&self, hash: &str) -> Result<TemplateView, Refused> {
        the_one("template", hash, self.store.template_like(hash).await?).map(TemplateView::from)
    }

    /// Switches a module off or on.
    ///
    /// # Errors
    /// A database that fails.
    pub async fn module_switch(&self, module: &str, off: bool) -> Result<(), Refused> {
        let mut txn = self.store.begin().await?;
        txn.module_switch(module, off, clock::unix_now()).await?;
        Ok(txn.commit().await.map(drop)?)
    }

    /// Lets the libraries of a module be tried again that were set aside.
    ///
    /// # Errors
    /// `NotFound` where none was.
    pub async fn module_release(&self, module: &str) -> Result<(), Refused> {
        let mut txn = self.store.begin().await?;
        if txn.quarantine_release(module).await? == 0 {
            return Err(Refused::not_found(format!("no library of {module:?} is set aside")));
        }
        Ok(txn.commit().await.map(drop)?)
    }

    /// Gives a product, with its channels, to a module.
    ///
    /// # Errors
    /// `NotFound` where there is no such product.
    pub async fn product_transfer(&self, product: Uuid, module: &str) -> Result<(), Refused> {
        let mut txn = self.store.begin().await?;
        if !txn.product_transfer(product, module, clock::unix_now()).await? {
            return Err(Refused::not_found(format!("no product has the id {product}")));
        }
        Ok(txn.commit().await.map(drop)?)
    }
}

/// A product.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct ProductView {
    /// Its id.
    pub id: Uuid,
    /// The module's name.
    pub name: String,
    /// `agent` or `client`.
    pub role: String,
    /// The module's version.
    pub version: String,
    /// `total` or `incremental`.
    pub usage_reporting: String,
    /// Hash of its access template.
    pub access_template: String,
    /// Hash of its offering template.
    pub offering_template: Option<String>,
    /// What the module set with `SetProductConfig`.
    pub config: Value,
    /// The address the module said it has.
    pub external_ip: Option<String>,
    /// First registered, Unix time.
    pub registered_at: UnixSeconds,
    /// Last changed, Unix time.
    pub updated_at: UnixSeconds,
}

impl From<ProductRow> for ProductView {
    fn from(row: ProductRow) -> Self {
        Self {
            id: row.id,
            name: row.name,
            role: row.role,
            version: row.version,
            usage_reporting: row.usage_reporting,
            access_template: row.access_template,
            offering_template: row.offering_template,
            config: serde_json::from_str(&row.config).unwrap_or(Value::Null),
            external_ip: row.external_ip,
            registered_at: row.registered_at,
            updated_at: row.updated_at,
        }
    }
}

/// A template.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct TemplateView {
    /// Its hash.
    pub hash: String,
    /// `access` or `offering`.
    pub kind: String,
    /// The schema's title, if it has one.
    pub title: Option<String>,
    /// First registered, Unix time.
    pub registered_at: UnixSeconds,
    /// All of it; only when one template is asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub document: Option<Value>,
}

impl From<TemplateRow> for TemplateView {
    fn from(row: TemplateRow) -> Self {
        let document: Option<Value> = serde_json::from_str(&row.document).ok();
        let schema = document.as_ref().map(|document| document.get("schema").unwrap_or(document));
        let title = schema.and_then(|schema| schema.get("title")).and_then(Value::as_str);
        let title = title.map(str::to_owned);
        let TemplateRow { hash, kind, registered_at, .. } = row;
        Self { hash, kind, title, registered_at, document }
    }
}
