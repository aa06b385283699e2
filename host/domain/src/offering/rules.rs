//! What has to hold of an offering whatever its template says.

use url::Url;

use super::{BillingType, Offering, OfferingError};
use crate::code::Code;
use crate::signed::is_hash;

/// Why an agent takes no order for an offering that it has made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Closed {
    /// It was withdrawn.
    #[error("no more orders are taken for it")]
    Withdrawn,
    /// Nothing of its supply is left.
    #[error("all of the supply is taken")]
    Exhausted,
}

impl Closed {
    /// Why it is closed, if it is.
    pub fn of(is_withdrawn: bool, supply_left: u64) -> Option<Self> {
        match (is_withdrawn, supply_left) {
            (true, _) => Some(Self::Withdrawn),
            (false, 0) => Some(Self::Exhausted),
            (false, _) => None,
        }
    }

    /// The stable name of the refusal.
    pub fn code(self) -> Code {
        match self {
            Self::Withdrawn => Code::OfferingWithdrawn,
            Self::Exhausted => Code::SupplyExhausted,
        }
    }
}

pub(super) fn check(offering: &Offering) -> Result<(), OfferingError> {
    if !is_hash(&offering.template_hash) {
        return Err(OfferingError::TemplateHash);
    }
    if !is_hash(&offering.access_template_hash) {
        return Err(OfferingError::AccessTemplateHash);
    }
    if offering.country.len() != 2 || !offering.country.bytes().all(|b| b.is_ascii_uppercase()) {
        return Err(OfferingError::Country);
    }
    if offering.supply == 0 {
        return Err(OfferingError::Supply);
    }
    if offering.unit_size == 0 {
        return Err(OfferingError::UnitSize);
    }
    if offering.billing_interval == 0 {
        return Err(OfferingError::BillingInterval);
    }
    check_lag(offering)?;
    if offering.max_units.is_some_and(|max| max.get() < offering.min_units) {
        return Err(OfferingError::MaxUnits);
    }
    if offering.min_deposit().is_none() {
        return Err(OfferingError::MinDeposit);
    }
    exchange(&offering.exchange).map(drop)
}

fn check_lag(offering: &Offering) -> Result<(), OfferingError> {
    let required = 2 * u128::from(offering.billing_interval);
    match (offering.billing_type, offering.max_billing_unit_lag) {
        (BillingType::Postpaid, Some(lag)) if u128::from(lag.get()) < required => {
            Err(OfferingError::BillingLag { found: lag.get(), required })
        }
        _ => Ok(()),
    }
}

pub(super) fn exchange(text: &str) -> Result<Url, OfferingError> {
    let refuse = |why| Err(OfferingError::Exchange(why));
    if !text.starts_with("http://") && !text.starts_with("https://") {
        return refuse("has to begin with http:// or https://");
    }
    // The URL standard repairs these in silence; what is signed should be what is meant.
    if text.contains(|c: char| c == '\\' || c.is_whitespace() || c.is_control()) {
        return refuse("has a space, a backslash or a control character in it");
    }
    let Ok(url) = Url::parse(text) else { return refuse("is not a valid URL") };
    if !url.has_host() {
        return refuse("names no host");
    }
    if !url.username().is_empty() || url.password().is_some() {
        return refuse("must not contain a user name or a password");
    }
    if url.query().is_some() || url.fragment().is_some() {
        return refuse("must not have a query or a fragment");
    }
    Ok(url)
}
