//! Orders: a client's signed acceptance of an offering, the agent's reply to it, and the small
//! requests that a client makes about the channel that came of it. An order is known by the hash
//! of the whole signed message. Absent here: whether the client may order at all, how many may,
//! and whether an order or a request was seen before.

mod cancel;
mod refusal;
mod request;
#[cfg(test)]
mod tests;

use privatix_plugin_api::message::ClientKey;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use uuid::Uuid;

use super::code::Code;
use super::identity::{PublicKey, SealingKey};
use super::offering::Offering;
use super::signed::{self, Kind, Malformed, SignatureError};
pub use cancel::{OrderCancel, read_cancel};
pub use refusal::{OrderRefusal, RefusalError, check_refusal};
pub use request::{ChannelRequest, RequestError, check_request};

/// The most bytes that a client's order, request, cancellation or cheque has. Each of them comes
/// from a stranger, and some are kept.
pub const MAX_BYTES: usize = 4096;

/// How far ahead an order may expire, in seconds.
pub const MAX_VALIDITY: u64 = 24 * 60 * 60;

/// A client's acceptance of an offering. It has no further fields: an agent keeps it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Order {
    /// Hash of the signed offering.
    #[cfg_attr(feature = "schema", schemars(regex(pattern = "^[0-9a-f]{64}$")))]
    pub offering: String,
    /// Who orders, and signs this.
    pub client_signing_key: PublicKey,
    /// To whom the access message is to be sealed.
    pub client_sealing_key: SealingKey,
    /// What the client promises to pay at most, in the smallest unit of money.
    pub deposit: u64,
    /// With the signing key, makes an order the same order.
    pub nonce: Uuid,
    /// Until when it may be accepted, in Unix seconds.
    pub expires: u64,
}

/// The agent's answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct OrderReply {
    /// Hash of the signed order.
    #[cfg_attr(feature = "schema", schemars(regex(pattern = "^[0-9a-f]{64}$")))]
    pub order: String,
    /// The channel that it became.
    pub channel: ClientKey,
}

/// Why an order is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OrderError {
    /// Not the form of an order.
    #[error("the order cannot be read")]
    Malformed(#[from] Malformed),
    /// Not signed by the client it names.
    #[error("the order is not signed by the client it names")]
    Signature(#[from] SignatureError),
    /// For something else.
    #[error("the order is for another offering")]
    WrongOffering,
    /// Too late.
    #[error("the order expired at {expires}; it is {now} now (Unix seconds)")]
    Expired {
        /// When it did.
        expires: u64,
        /// What time it is.
        now: u64,
    },
    /// Valid for too long.
    #[error(
        "the order expires at {expires} (Unix seconds), which is more than {MAX_VALIDITY} seconds \
         from now"
    )]
    ExpiryTooFar {
        /// When it does.
        expires: u64,
    },
    /// Too low a deposit.
    #[error("the deposit is {found}; the offering requires at least {required}")]
    DepositTooLow {
        /// What the client would deposit.
        found: u64,
        /// What it has to.
        required: u64,
    },
}

impl OrderError {
    /// The stable name of this error.
    pub fn code(&self) -> Code {
        match self {
            Self::Malformed(_) => Code::MalformedOrder,
            Self::Signature(_) => Code::BadOrderSignature,
            Self::WrongOffering => Code::WrongOffering,
            Self::Expired { .. } => Code::OrderExpired,
            Self::ExpiryTooFar { .. } => Code::OrderExpiryTooFar,
            Self::DepositTooLow { .. } => Code::DepositTooLow,
        }
    }
}

/// Why the agent's reply to an order is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReplyError {
    /// Not the form of a reply.
    #[error("the reply to the order cannot be read")]
    Malformed(#[from] Malformed),
    /// Not signed by the agent.
    #[error("the reply to the order is not signed by the agent")]
    Signature(#[from] SignatureError),
    /// A reply to something else.
    #[error("the reply is to another order")]
    Foreign,
    /// The channel's id is not one.
    #[error("the channel of the reply is not a UUID v4")]
    Channel,
}

impl ReplyError {
    /// The stable name of this error.
    pub fn code(&self) -> Code {
        match self {
            Self::Malformed(_) | Self::Channel => Code::MalformedReply,
            Self::Signature(_) => Code::BadReplySignature,
            Self::Foreign => Code::ForeignReply,
        }
    }
}

/// Reads an order, which has to be signed by the client it names. This tells which offering to
/// look for; nothing else of the order is checked.
///
/// # Errors
/// [`OrderError::Malformed`] and [`OrderError::Signature`].
pub fn read(message: &Value) -> Result<Order, OrderError> {
    let order: Order = signed::read_strict(message)?;
    signed::verify(Kind::Order, message, &order.client_signing_key)?;
    Ok(order)
}

/// Whether an order that was read may be accepted now (Unix seconds) for the offering with this hash.
///
/// # Errors
/// [`OrderError`] with the first fault found: offering, expiry, deposit.
pub fn check(
    order: &Order,
    now: u64,
    offering_hash: &str,
    offering: &Offering,
) -> Result<(), OrderError> {
    if order.offering != offering_hash {
        return Err(OrderError::WrongOffering);
    }
    let expires = order.expires;
    if expires <= now {
        return Err(OrderError::Expired { expires, now });
    }
    if expires - now > MAX_VALIDITY {
        return Err(OrderError::ExpiryTooFar { expires });
    }
    // No message can hold more than the least deposit of an offering that has none.
    let required = offering.min_deposit().unwrap_or(u64::MAX);
    if order.deposit < required {
        return Err(OrderError::DepositTooLow { found: order.deposit, required });
    }
    Ok(())
}

/// Whether a reply is the agent's to the order with this hash.
///
/// # Errors
/// [`ReplyError`] with the first fault found: form, signature, order, channel.
pub fn check_reply(
    reply: &Value,
    agent: &PublicKey,
    order_hash: &str,
) -> Result<OrderReply, ReplyError> {
    let read: OrderReply = signed::read(reply)?;
    signed::verify(Kind::OrderReply, reply, agent)?;
    if read.order != order_hash {
        return Err(ReplyError::Foreign);
    }
    if read.channel.0.get_version_num() != 4 {
        return Err(ReplyError::Channel);
    }
    Ok(read)
}
