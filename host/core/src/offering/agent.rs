//! Offerings as an agent makes, signs, publishes and withdraws them.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use uuid::Uuid;

use super::{OfferingView, view};
use crate::{AgentApi, Refused};
use privatix_base::clock;
use privatix_domain::code::Code;
use privatix_domain::offering::{self, ACCESS_TEMPLATE_HASH};
use privatix_domain::signed::{self, Kind};
use privatix_domain::template::Template;
use privatix_domain::time::AgentTime;
use privatix_store::ProductRow;

/// What an operator says of an offering; the rest is filled in.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Draft {
    /// The product, by its module's name.
    pub product: String,
    /// Fields of the offering template.
    pub fields: Map<String, Value>,
}

/// The most offerings in an answer, and the most bytes of them; a client reads twice as much.
const MAX_PAGE: u32 = 100;
const MAX_PAGE_BYTES: usize = 256 * 1024;

/// The largest offering, in bytes, so that some fit into a page.
const MAX_OFFERING: usize = 64 * 1024;

/// Some of an agent's offerings.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct OfferingPage {
    /// The signed messages.
    pub offerings: Vec<Value>,
    /// After which hash there are more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
    /// What the agent's clock says, signed, if it was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time: Option<Value>,
}

impl AgentApi {
    /// Makes, signs and publishes an offering.
    ///
    /// # Errors
    /// The first rule it breaks; `ProductNotReady` where no valid access message could be made.
    pub async fn offering_create(&self, draft: Draft) -> Result<OfferingView, Refused> {
        let product = self.core.product_named(&draft.product).await?;
        let template = self.core.offering_template(&product).await?;
        let message = self.fill(&product, &template, draft.fields)?;
        let offering = offering::parse(&message, Some(&template))
            .map_err(|error| Refused::because(error.code(), &error))?;
        if message.to_string().len() > MAX_OFFERING {
            let text = format!("an offering has at most {MAX_OFFERING} bytes");
            return Err(Refused::new(Code::OfferingTooLarge, text));
        }
        let access = self.core.template(&product.access_template).await?;
        let access = access.ok_or_else(|| Refused::not_found("its access template"))?;
        self.check_ready(&product, &access)?;
        let agent = self.core.inner.identity.public().signing;
        let row = self.core.keep(&message, &product, &agent, offering.supply).await?;
        tracing::info!(offering = row.hash, product = product.name, "offering published");
        Ok(view(row, &product.name))
    }

    /// Takes no more orders for an offering; its channels go on.
    ///
    /// # Errors
    /// `NotFound`.
    pub async fn offering_withdraw(&self, hash: &str) -> Result<OfferingView, Refused> {
        let row = self.core.offering_by(hash).await?;
        let mut txn = self.core.inner.store.begin().await?;
        txn.offering_withdraw(&row.hash, clock::unix_now()).await?;
        txn.commit().await?;
        self.core.offering_view(&row.hash).await
    }

    /// The offerings that orders are taken for, as signed: those behind a hash, and never
    /// more than fit into a message.
    ///
    /// # Errors
    /// A database that fails.
    pub async fn offerings_published(
        &self,
        after: &str,
        limit: u32,
    ) -> Result<OfferingPage, Refused> {
        let limit = limit.clamp(1, MAX_PAGE);
        let rows = self.core.inner.store.offering_page(after, limit + 1).await?;
        let mut page = OfferingPage { offerings: Vec::new(), next: None, time: None };
        let (mut last, mut bytes) = (None, 0);
        for row in rows {
            bytes += row.message.len();
            let full = page.offerings.len() >= limit as usize || bytes > MAX_PAGE_BYTES;
            if full && last.is_some() {
                page.next = last;
                break;
            }
            last = Some(row.hash);
            page.offerings.extend(serde_json::from_str::<Value>(&row.message).ok());
        }
        Ok(page)
    }

    /// What this host's clock says, signed.
    ///
    /// # Errors
    /// Only what no message can hold.
    pub fn time_signed(&self, nonce: Uuid) -> Result<Value, Refused> {
        let agent_public_key = self.core.inner.identity.public().signing;
        let time = AgentTime { agent_public_key, nonce, time: clock::wall_now() };
        signed::sign(Kind::Time, time, &self.core.inner.identity)
            .map_err(|error| Refused::because(error.code(), &error))
    }

    fn fill(
        &self,
        product: &ProductRow,
        template: &Template,
        mut fields: Map<String, Value>,
    ) -> Result<Value, Refused> {
        let key = self.core.inner.identity.public().signing.to_string();
        for (name, value) in [
            ("templateHash", template.hash().to_owned()),
            (ACCESS_TEMPLATE_HASH, product.access_template.clone()),
            ("nonce", Uuid::new_v4().to_string()),
            ("product", product.id.to_string()),
            ("agentPublicKey", key),
            ("exchange", self.own.settings.exchange.clone()),
        ] {
            if fields.insert(name.to_owned(), value.into()).is_some() {
                return Err(Refused::new(
                    Code::FieldNotYours,
                    format!("{name} is filled in by the host"),
                ));
            }
        }
        let message = Value::Object(fields);
        check_known(product, template, &message)?;
        signed::sign(Kind::Offering, message, &self.core.inner.identity)
            .map_err(|error| Refused::because(error.code(), &error))
    }
}

/// Refuses a field that would be signed and sold although nobody knows it.
fn check_known(product: &ProductRow, template: &Template, message: &Value) -> Result<(), Refused> {
    let mut known = message.clone();
    if let Some(members) = known.as_object_mut() {
        members.remove(ACCESS_TEMPLATE_HASH);
    }
    let Some(unknown) = template.unknown_field(&known) else { return Ok(()) };
    let text =
        format!("the offering was not made: {unknown} (offering template of {})", product.name);
    Err(Refused::new(Code::UnknownField, text))
}
