//! Why an offering is refused. Every variant has a stable code and says what is required.

use privatix_plugin_api::json::JsonError;

use crate::code::Code;
use crate::signed::{Malformed, SignatureError};
use crate::template::Violation;

/// Why an offering is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OfferingError {
    /// Not the form of messages, or a field is missing or something else. The code of a fault of
    /// form is that of the source.
    #[error("the offering cannot be read")]
    Malformed(#[from] Malformed),
    /// Not signed by the agent it names.
    #[error("the offering is not signed by the agent it names")]
    Signature(#[from] SignatureError),
    /// `templateHash` is no hash.
    #[error("`templateHash` has to be the lowercase hex SHA-256 of an offering template")]
    TemplateHash,
    /// `accessTemplateHash` is no hash.
    #[error("`accessTemplateHash` has to be the lowercase hex SHA-256 of an access template")]
    AccessTemplateHash,
    /// `country` is no country code.
    #[error("`country` has to be two capital letters: a code of ISO 3166-1 alpha-2")]
    Country,
    /// Nothing is offered.
    #[error("`supply` has to be at least 1")]
    Supply,
    /// A unit of nothing.
    #[error("`unitSize` has to be at least 1")]
    UnitSize,
    /// No interval.
    #[error("`billingInterval` has to be at least 1")]
    BillingInterval,
    /// Suspended before the client has had a chance to pay.
    #[error(
        "`maxBillingUnitLag` is {found}; where billing is postpaid it has to be at least twice \
         `billingInterval`, {required}, or 0 for no limit"
    )]
    BillingLag {
        /// The lag.
        found: u64,
        /// The least one.
        required: u128,
    },
    /// Fewer units than have to be paid for.
    #[error("`maxUnits` is less than `minUnits`; it has to be at least as much, or 0 for no limit")]
    MaxUnits,
    /// The least deposit is more than any message can hold.
    #[error(
        "the least deposit, setupPrice + max(minUnits, billingInterval) · unitPrice, is above \
         9007199254740991"
    )]
    MinDeposit,
    /// `exchange` is not the URL of an agent.
    #[error("`exchange` {0}")]
    Exchange(&'static str),
    /// The template at hand is not the one that the offering names.
    #[error("the offering names another template than this one")]
    WrongTemplate,
    /// Not valid by its template.
    #[error(
        "the offering is not valid by its template: {}",
        .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
    )]
    Invalid(Vec<Violation>),
}

impl OfferingError {
    /// The stable name of this error.
    pub fn code(&self) -> Code {
        match self {
            // Not JSON at all has no code of its own among offerings.
            Self::Malformed(Malformed::Form(error)) if !matches!(error, JsonError::Invalid(_)) => {
                Code::from(error)
            }
            Self::Malformed(_) => Code::MalformedOffering,
            Self::Signature(_) => Code::BadOfferingSignature,
            Self::TemplateHash | Self::AccessTemplateHash => Code::BadTemplateHash,
            Self::Country => Code::BadCountry,
            Self::Supply => Code::BadSupply,
            Self::UnitSize => Code::BadUnitSize,
            Self::BillingInterval => Code::BadBillingInterval,
            Self::BillingLag { .. } => Code::BadBillingUnitLag,
            Self::MaxUnits => Code::BadMaxUnits,
            Self::MinDeposit => Code::MinDepositTooLarge,
            Self::Exchange(_) => Code::BadExchange,
            Self::WrongTemplate => Code::WrongTemplate,
            Self::Invalid(_) => Code::InvalidOffering,
        }
    }
}
