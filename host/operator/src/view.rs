//! What the operator's API answers with, shared by both its ends.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use uuid::Uuid;

use privatix_base::clock::UnixSeconds;
use privatix_store::{ProductRow, TemplateRow};

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

/// To whom a product goes.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Transfer {
    /// The module's name.
    pub module: String,
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
