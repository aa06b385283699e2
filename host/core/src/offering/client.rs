//! Offerings as a client fetches them from agents whose keys it has accepted.

use serde_json::Value;

use super::OfferingView;
use crate::stored::hash;
use crate::{ClientApi, Refused};
use privatix_base::clock;
use privatix_domain::code::Code;
use privatix_domain::identity::PublicKey;
use privatix_domain::offering::{self, Candidate, Offering, matching};
use privatix_store::ProductRow;

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

impl ClientApi {
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
        if !self.core.inner.store.agent_is_pinned(&agent.to_string()).await? {
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
        let template = self.core.offering_template(&product).await?;
        offering::parse(message, Some(&template)).map_err(refused)?;
        let row = self.core.keep(message, &product, agent, offering.supply).await?;
        self.core.offering_view(&row.hash).await
    }

    /// The product for an offering that is fetched, perhaps not for the first time.
    async fn product_for(
        &self,
        offering: &Offering,
        hash: &str,
        chosen: Option<&str>,
    ) -> Result<ProductRow, Refused> {
        let mut products = self.core.inner.store.product_list().await?;
        let earlier = self.core.inner.store.offering_get(hash).await?.map(|row| row.product);
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
        let mut txn = self.core.inner.store.begin().await?;
        txn.agent_pin(&agent.to_string(), &agent.fingerprint(), clock::unix_now()).await?;
        Ok(txn.commit().await.map(drop)?)
    }
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
