//! Offerings: an agent's signed proposal, typed, and the rules that make one acceptable. They are
//! the same when an agent makes one and when a client receives it, except that the latter also
//! wants the signature. Absent here: whether the agent is trusted, and what use costs.

mod error;
mod matching;
mod rules;
#[cfg(test)]
mod tests;

use std::num::NonZeroU64;

use privatix_plugin_api::json::MAX_INTEGER;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value};
use url::Url;
use uuid::Uuid;

use super::identity::PublicKey;
use super::signed::{self, Kind};
use super::template::{Template, TemplateKind};
pub use error::OfferingError;
pub use matching::{Candidate, MatchError, matching};
pub use rules::Closed;

/// The field that names the access template.
pub const ACCESS_TEMPLATE_HASH: &str = "accessTemplateHash";

/// The unit that usage is counted in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum UnitType {
    /// What the module reports; bytes for data.
    Units,
    /// Time of open sessions, which the core measures.
    Seconds,
}

/// Whether use is paid for before or after it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum BillingType {
    /// Before.
    Prepaid,
    /// After.
    Postpaid,
}

/// An agent's proposal. Prices are in the smallest unit of money; of every limit, `None` is none.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct Offering {
    /// Hash of the offering template it was filled from.
    #[cfg_attr(feature = "schema", schemars(regex(pattern = "^[0-9a-f]{64}$")))]
    pub template_hash: String,
    /// Hash of the access template of the channels that come of it.
    #[cfg_attr(feature = "schema", schemars(regex(pattern = "^[0-9a-f]{64}$")))]
    pub access_template_hash: String,
    /// Makes two otherwise equal offerings differ.
    pub nonce: Uuid,
    /// The product that provides the service.
    pub product: Uuid,
    /// Who signs it.
    pub agent_public_key: PublicKey,
    /// What is offered, in a few words.
    pub service_name: String,
    /// Where: ISO 3166-1 alpha-2.
    #[cfg_attr(feature = "schema", schemars(regex(pattern = "^[A-Z]{2}$")))]
    pub country: String,
    /// How many channels there may be at the same time.
    #[cfg_attr(feature = "schema", schemars(range(min = 1)))]
    pub supply: u64,
    /// What a unit is called.
    pub unit_name: String,
    /// What is counted.
    pub unit_type: UnitType,
    /// Smallest units in one unit.
    #[cfg_attr(feature = "schema", schemars(range(min = 1)))]
    pub unit_size: u64,
    /// When is paid.
    pub billing_type: BillingType,
    /// Paid once, before the first use.
    pub setup_price: u64,
    /// Price of one unit.
    pub unit_price: u64,
    /// Units that a deposit has to cover.
    #[serde(default)]
    pub min_units: u64,
    /// Units after which a channel ends.
    #[serde(default, deserialize_with = "limit", skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schemars(with = "u64"))]
    pub max_units: Option<NonZeroU64>,
    /// Units between two payments.
    #[cfg_attr(feature = "schema", schemars(range(min = 1)))]
    pub billing_interval: u64,
    /// Unpaid units after which service is suspended.
    #[serde(default, deserialize_with = "limit", skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schemars(with = "u64"))]
    pub max_billing_unit_lag: Option<NonZeroU64>,
    /// Seconds of suspension after which a channel ends.
    #[serde(default, deserialize_with = "limit", skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schemars(with = "u64"))]
    pub max_suspend_time: Option<NonZeroU64>,
    /// Seconds without use after which a channel ends.
    #[serde(default, deserialize_with = "limit", skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schemars(with = "u64"))]
    pub max_inactive_time: Option<NonZeroU64>,
    /// Units at the beginning that cost nothing.
    #[serde(default)]
    pub free_units: u64,
    /// Further fields of the service.
    #[serde(default)]
    pub additional_params: Map<String, Value>,
    /// The agent's URL; see [`Offering::exchange_url`].
    #[cfg_attr(feature = "schema", schemars(regex(pattern = r"^https?://[^?#\\\s]+$")))]
    pub exchange: String,
}

/// Reads an offering, signed or not yet, and checks its rules and, where the template is at hand,
/// that it is valid by it.
///
/// # Errors
/// [`OfferingError`] with the first fault found: form, fields, rules, template.
pub fn parse(message: &Value, template: Option<&Template>) -> Result<Offering, OfferingError> {
    let offering: Offering = signed::read(message)?;
    check(&offering, message, template)?;
    Ok(offering)
}

/// As [`parse`], for an offering that comes from elsewhere: it also has to be signed by the key
/// that it names. Whether that key may be trusted is for the caller to know.
///
/// # Errors
/// [`OfferingError`] with the first fault found: form, fields, signature, rules, template.
pub fn parse_signed(
    message: &Value,
    template: Option<&Template>,
) -> Result<Offering, OfferingError> {
    let offering: Offering = signed::read(message)?;
    signed::verify(Kind::Offering, message, &offering.agent_public_key)?;
    check(&offering, message, template)?;
    Ok(offering)
}

fn check(
    offering: &Offering,
    message: &Value,
    template: Option<&Template>,
) -> Result<(), OfferingError> {
    rules::check(offering)?;
    let Some(template) = template else { return Ok(()) };
    if template.kind() != TemplateKind::Offering || template.hash() != offering.template_hash {
        return Err(OfferingError::WrongTemplate);
    }
    template.validate(&filled(message, template)).map_err(OfferingError::Invalid)
}

/// What of a message the template is about. The signature and the access template's hash are about the
/// message; a template need not know them, and may well allow no further fields.
fn filled(message: &Value, template: &Template) -> Value {
    let mut filled = signed::unsigned(message);
    if !template.declares(ACCESS_TEMPLATE_HASH)
        && let Some(members) = filled.as_object_mut()
    {
        members.remove(ACCESS_TEMPLATE_HASH);
    }
    filled
}

impl Offering {
    /// The least deposit that an order may have, or `None` if no message could hold it, which no
    /// parsed offering has.
    pub fn min_deposit(&self) -> Option<u64> {
        let units = u128::from(self.min_units.max(self.billing_interval));
        let deposit = u128::from(self.setup_price) + units * u128::from(self.unit_price);
        u64::try_from(deposit).ok().filter(|deposit| *deposit <= MAX_INTEGER)
    }

    /// Whether using it costs anything at all.
    pub fn is_priced(&self) -> bool {
        self.setup_price > 0 || self.unit_price > 0
    }

    /// Where the agent answers: an `http` or `https` URL, without credentials, query or fragment.
    ///
    /// # Errors
    /// [`OfferingError::Exchange`] if it is anything else.
    pub fn exchange_url(&self) -> Result<Url, OfferingError> {
        rules::exchange(&self.exchange)
    }

    /// Whether an address is one of the exchange: a URL with the same scheme, host and port. The
    /// payment receiver must be, and so must the URL from which a client fetches the offering.
    pub fn is_of_exchange(&self, address: &str) -> bool {
        let urls = rules::exchange(address).ok().zip(self.exchange_url().ok());
        urls.is_some_and(|(address, exchange)| address.origin() == exchange.origin())
    }
}

/// A text as an offering's `exchange`, if it may be that.
///
/// # Errors
/// [`OfferingError::Exchange`].
pub fn check_exchange(url: &str) -> Result<Url, OfferingError> {
    rules::exchange(url)
}

/// A limit on the wire: 0 is none.
fn limit<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<NonZeroU64>, D::Error> {
    u64::deserialize(deserializer).map(NonZeroU64::new)
}
