//! Offerings: made by an agent, fetched by a client.

use privatix_plugin_api::json;
use privatix_plugin_api::manifest::Role;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use uuid::Uuid;

use super::list::ListQuery;
use super::{Refused, Service};
use privatix_base::clock::{self, UnixSeconds};
use privatix_domain::code::Code;
use privatix_domain::identity::PublicKey;
use privatix_domain::offering::{self, ACCESS_TEMPLATE_HASH, Candidate, Offering, matching};
use privatix_domain::signed::{self, Kind};
use privatix_domain::template::Template;
use privatix_domain::time::AgentTime;
use privatix_store::{OfferingRow, ProductRow};

/// What an operator says of an offering; the rest is filled in.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Draft {
    /// The product, by its module's name.
    pub product: String,
    /// Fields of the offering template.
    pub fields: Map<String, Value>,
}

/// Where an offering comes from.
#[derive(Debug, Clone, Copy)]
pub struct Source<'a> {
    /// The key of the agent that it must be of.
    pub agent: &'a PublicKey,
    /// The URL that it was fetched from.
    pub url: &'a str,
    /// The name of the module that the user wants it for; by its templates if absent.
    pub product: Option<&'a str>,
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

impl Service {
    /// Makes, signs and publishes an offering.
    ///
    /// # Errors
    /// The first rule it breaks; `ProductNotReady` where no valid access message could be made.
    pub async fn offering_create(&self, draft: Draft) -> Result<OfferingView, Refused> {
        self.only(Role::Agent)?;
        let product = self.product_named(&draft.product).await?;
        let template = self.offering_template(&product).await?;
        let message = self.fill(&product, &template, draft.fields)?;
        let offering = offering::parse(&message, Some(&template))
            .map_err(|error| Refused::because(error.code(), &error))?;
        if message.to_string().len() > MAX_OFFERING {
            let text = format!("an offering has at most {MAX_OFFERING} bytes");
            return Err(Refused::new(Code::OfferingTooLarge, text));
        }
        let access = self.template(&product.access_template).await?;
        let access = access.ok_or_else(|| Refused::not_found("its access template"))?;
        self.check_ready(&product, &access)?;
        let agent = self.inner.identity.public().signing;
        let row = self.keep(&message, &product, &agent, offering.supply).await?;
        tracing::info!(offering = row.hash, product = product.name, "offering published");
        Ok(view(row, &product.name))
    }

    /// Takes no more orders for an offering; its channels go on.
    ///
    /// # Errors
    /// `NotFound`.
    pub async fn offering_withdraw(&self, hash: &str) -> Result<OfferingView, Refused> {
        self.only(Role::Agent)?;
        let row = self.offering_by(hash).await?;
        let mut txn = self.inner.store.begin().await?;
        txn.offering_withdraw(&row.hash, clock::unix_now()).await?;
        txn.commit().await?;
        self.offering_view(&row.hash).await
    }

    /// Takes in an offering of a pinned agent, for the product that has its templates.
    ///
    /// # Errors
    /// `AgentNotPinned`; the first rule that the message breaks; `ForeignExchange` where orders
    /// would go elsewhere than to where it was fetched from; the codes of
    /// [`offering::MatchError`], such as `UnknownProduct` where no module for it is installed.
    pub async fn offering_fetched(
        &self,
        message: &Value,
        from: Source<'_>,
    ) -> Result<OfferingView, Refused> {
        let Source { agent, url, product: chosen } = from;
        self.only(Role::Client)?;
        if !self.inner.store.agent_is_pinned(&agent.to_string()).await? {
            return Err(Refused::new(Code::AgentNotPinned, "this agent's key is not accepted"));
        }
        let refused = |error: offering::OfferingError| Refused::because(error.code(), &error);
        let offering = offering::parse_signed(message, None).map_err(refused)?;
        if offering.agent_public_key != *agent {
            return Err(Refused::new(Code::BadOfferingSignature, "it names another agent's key"));
        }
        if !offering.is_of_exchange(url) {
            return Err(foreign_exchange(&offering, url));
        }
        let product = self.product_for(&offering, &hash(message)?, chosen).await?;
        let template = self.offering_template(&product).await?;
        offering::parse(message, Some(&template)).map_err(refused)?;
        let row = self.keep(message, &product, agent, offering.supply).await?;
        self.offering_view(&row.hash).await
    }

    /// The client's product for an offering that is fetched, perhaps not for the first time.
    async fn product_for(
        &self,
        offering: &Offering,
        hash: &str,
        chosen: Option<&str>,
    ) -> Result<ProductRow, Refused> {
        let mut products = self.inner.store.product_list().await?;
        let earlier = self.inner.store.offering_get(hash).await?.map(|row| row.product);
        let candidates: Vec<_> = products.iter().map(candidate).collect();
        let found = matching(offering, &candidates, chosen, earlier)
            .map_err(|error| Refused::new(error.code(), error))?;
        products.retain(|product| product.id == found);
        products.pop().ok_or_else(|| Refused::not_found("the offering's product"))
    }

    /// From now on offerings of this agent are accepted.
    ///
    /// # Errors
    /// A database that fails.
    pub async fn agent_pin(&self, agent: &PublicKey) -> Result<(), Refused> {
        self.only(Role::Client)?;
        let mut txn = self.inner.store.begin().await?;
        txn.agent_pin(&agent.to_string(), &agent.fingerprint(), clock::unix_now()).await?;
        Ok(txn.commit().await.map(drop)?)
    }

    /// The offerings that an agent takes orders for, as signed: those behind a hash, and never
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
        let rows = self.inner.store.offering_page(after, limit + 1).await?;
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

    /// The agent: what its clock says, signed.
    ///
    /// # Errors
    /// Only what no message can hold.
    pub fn time_signed(&self, nonce: Uuid) -> Result<Value, Refused> {
        let agent_public_key = self.inner.identity.public().signing;
        let time = AgentTime { agent_public_key, nonce, time: clock::wall_now() };
        signed::sign(Kind::Time, time, &self.inner.identity)
            .map_err(|error| Refused::because(error.code(), &error))
    }

    /// Offerings, newest first.
    ///
    /// # Errors
    /// `BadRequest`, `NotFound` for what is asked for.
    pub async fn offering_views(&self, query: &ListQuery) -> Result<Vec<OfferingView>, Refused> {
        let products = self.inner.store.product_list().await?;
        let name = |id: Uuid| products.iter().find(|p| p.id == id).map_or("", |p| p.name.as_str());
        let page = query.by_hash(&["open", "withdrawn"])?;
        let rows = query.found(self.inner.store.offering_list_page(page).await?)?;
        Ok(rows.into_iter().map(|row| view(row.clone(), name(row.product))).collect())
    }

    /// One offering, by its hash or a beginning of it.
    ///
    /// # Errors
    /// `NotFound`.
    pub async fn offering_view(&self, hash: &str) -> Result<OfferingView, Refused> {
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

    pub(super) async fn offering_by(&self, hash: &str) -> Result<OfferingRow, Refused> {
        let mut rows = self.inner.store.offering_like(hash).await?;
        // Whatever a text sorts before or after, it begins the hash.
        rows.retain(|row| row.hash.starts_with(hash));
        match (rows.pop(), rows.len()) {
            (Some(row), 0) => Ok(row),
            (None, _) => {
                Err(Refused::not_found(format!("no offering's hash begins with {hash:?}")))
            }
            (Some(_), more) => {
                Err(Refused::not_found(format!("{} offerings begin with {hash:?}", more + 1)))
            }
        }
    }

    pub(super) fn only(&self, role: Role) -> Result<(), Refused> {
        if self.inner.settings.role == role {
            return Ok(());
        }
        Err(Refused::new(
            Code::WrongRole,
            format!("only an {role} does that").replace("an client", "a client"),
        ))
    }

    pub(super) async fn product_named(&self, name: &str) -> Result<ProductRow, Refused> {
        let products = self.inner.store.product_list().await?;
        // A module may have been replaced by one with another product id.
        let named = products.into_iter().filter(|product| product.name == name);
        let found = named.max_by_key(|product| product.updated_at);
        found.ok_or_else(|| Refused::not_found(format!("no product is called {name:?}")))
    }

    async fn offering_template(
        &self,
        product: &ProductRow,
    ) -> Result<std::sync::Arc<Template>, Refused> {
        let missing = || {
            Refused::new(
                Code::TemplateNotFound,
                format!("{} has no offering template", product.name),
            )
        };
        let hash = product.offering_template.as_deref().ok_or_else(missing)?;
        self.template(hash).await?.ok_or_else(missing)
    }

    fn fill(
        &self,
        product: &ProductRow,
        template: &Template,
        mut fields: Map<String, Value>,
    ) -> Result<Value, Refused> {
        let key = self.inner.identity.public().signing.to_string();
        for (name, value) in [
            ("templateHash", template.hash().to_owned()),
            (ACCESS_TEMPLATE_HASH, product.access_template.clone()),
            ("nonce", Uuid::new_v4().to_string()),
            ("product", product.id.to_string()),
            ("agentPublicKey", key),
            ("exchange", self.inner.settings.exchange.clone()),
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
        signed::sign(Kind::Offering, message, &self.inner.identity)
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

/// The offering of a row, whose message was checked when it came.
pub(super) fn parsed(row: &OfferingRow) -> Result<Offering, Refused> {
    let message: Value =
        serde_json::from_str(&row.message).map_err(|error| Refused::internal(&error))?;
    offering::parse(&message, None).map_err(|error| Refused::internal(&error))
}

pub(super) fn hash(message: &Value) -> Result<String, Refused> {
    json::hash(message).map_err(|error| Refused::new(Code::from(&error), error))
}

/// Or an agent could have orders sent to any address that the client's host reaches.
fn foreign_exchange(offering: &Offering, url: &str) -> Refused {
    let exchange = &offering.exchange;
    Refused::new(
        Code::ForeignExchange,
        format!(
            "the offering was fetched from {url}, but it sends its orders to {exchange}. An order \
             goes only to the address that the offering was fetched from. If {exchange} is the \
             agent's address, fetch from there: privatix offering fetch {exchange}"
        ),
    )
}

fn candidate(product: &ProductRow) -> Candidate<'_> {
    Candidate {
        id: product.id,
        name: &product.name,
        access_template: &product.access_template,
        offering_template: product.offering_template.as_deref(),
        updated_at: product.updated_at,
    }
}

fn view(row: OfferingRow, product: &str) -> OfferingView {
    let fingerprint = row.agent.parse::<PublicKey>().map(|key| key.fingerprint());
    OfferingView {
        hash: row.hash,
        product: product.to_owned(),
        agent: fingerprint.unwrap_or(row.agent),
        supply_left: row.supply_left,
        made_at: row.made_at,
        withdrawn_at: row.withdrawn_at,
        message: serde_json::from_str(&row.message).unwrap_or(Value::Null),
    }
}
