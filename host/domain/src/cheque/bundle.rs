//! A cheque with the messages it rests on, each signed, so that the party who settles it needs nothing
//! else: neither a host nor anybody's word.

use privatix_plugin_api::json::{self, JsonError};
use privatix_plugin_api::message::ClientKey;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Cheque, ChequeError, read};
use crate::code::Code;
use crate::identity::PublicKey;
use crate::offering::{self, OfferingError};
use crate::order::{self, OrderError, ReplyError};
use crate::signed::{self, Kind};

/// A cheque and what it rests on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Bundle {
    /// The cheque, signed by the client.
    pub cheque: Value,
    /// The offering that it names, signed by the agent.
    pub offering: Value,
    /// The order, signed by the client: it promises the deposit.
    pub order: Value,
    /// The reply to it, signed by the agent: it names the channel.
    pub order_reply: Value,
}

/// What a bundle proves.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Verified {
    /// The channel.
    pub channel: ClientKey,
    /// Who is paid.
    pub agent: PublicKey,
    /// Who pays.
    pub client: PublicKey,
    /// How much, in the smallest unit of money.
    pub balance: u64,
    /// How much was promised at most.
    pub deposit: u64,
}

/// Why a bundle proves nothing.
#[derive(Debug, thiserror::Error)]
pub enum BundleError {
    /// The cheque is none.
    #[error("the cheque")]
    Cheque(#[from] ChequeError),
    /// The offering is none.
    #[error("the offering")]
    Offering(#[from] OfferingError),
    /// The order is none.
    #[error("the order")]
    Order(#[from] OrderError),
    /// The reply is none.
    #[error("the order's reply")]
    Reply(#[from] ReplyError),
    /// A message that has no hash.
    #[error("a message that cannot be hashed")]
    Form(#[from] JsonError),
    /// The messages do not belong together.
    #[error("{0}")]
    Mismatch(&'static str),
}

impl BundleError {
    /// The stable name of this error.
    pub fn code(&self) -> Code {
        match self {
            Self::Cheque(error) => error.code(),
            Self::Offering(error) => error.code(),
            Self::Order(error) => error.code(),
            Self::Reply(error) => error.code(),
            Self::Form(error) => Code::from(error),
            Self::Mismatch(_) => Code::BundleMismatch,
        }
    }
}

/// Whether a bundle proves that its client owes its agent the cheque's balance.
///
/// # Errors
/// [`BundleError`] with the first fault found: cheque, offering, order, reply; of each its form and
/// signature first, and then whether it is the one that the cheque rests on.
pub fn verify(bundle: &Bundle) -> Result<Verified, BundleError> {
    let Cheque { agent, client, channel, offering, balance } = read(&bundle.cheque)?;
    signed::verify(Kind::Cheque, &bundle.cheque, &client).map_err(ChequeError::from)?;
    let terms = offering::parse_signed(&bundle.offering, None)?;
    if terms.agent_public_key != agent || json::hash(&bundle.offering)? != offering {
        return Err(BundleError::Mismatch("the offering is not the one that the cheque names"));
    }
    let order = order::read(&bundle.order)?;
    if order.client_signing_key != client || order.offering != offering {
        return Err(BundleError::Mismatch("the order is not the client's for this offering"));
    }
    let reply = order::check_reply(&bundle.order_reply, &agent, &json::hash(&bundle.order)?)?;
    if reply.channel != channel {
        return Err(BundleError::Mismatch("the order became another channel"));
    }
    let deposit = order.deposit;
    if balance > deposit {
        return Err(ChequeError::AboveDeposit { found: balance, deposit }.into());
    }
    Ok(Verified { channel, agent, client, balance, deposit })
}
