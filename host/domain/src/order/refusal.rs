//! An agent's word that it will never take an order. Who stands between the two may keep messages
//! back, but cannot make a client give up: only what the agent has signed over this very order
//! counts.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::code::Code;
use crate::foreign::AnyCode;
use crate::identity::PublicKey;
use crate::signed::{self, Kind, Malformed, SignatureError};

/// The refusal of an order for good.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct OrderRefusal {
    /// Hash of the signed order.
    #[cfg_attr(feature = "schema", schemars(regex(pattern = "^[0-9a-f]{64}$")))]
    pub order: String,
    /// The stable name of the reason.
    #[cfg_attr(feature = "schema", schemars(with = "String"))]
    pub code: AnyCode<Code>,
    /// The reason in words.
    pub text: String,
}

/// Why a refusal is not taken for one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RefusalError {
    /// Not the form of a refusal; most often one that is not signed.
    #[error("the refusal of the order cannot be read")]
    Malformed(#[from] Malformed),
    /// Not signed by the agent.
    #[error("the refusal of the order is not signed by the agent")]
    Signature(#[from] SignatureError),
    /// Of something else.
    #[error("the refusal is of another order")]
    Foreign,
}

impl RefusalError {
    /// The stable name of this error.
    pub fn code(&self) -> Code {
        match self {
            Self::Malformed(_) => Code::MalformedRefusal,
            Self::Signature(_) => Code::BadRefusalSignature,
            Self::Foreign => Code::ForeignRefusal,
        }
    }
}

/// Whether a message is the agent's refusal of the order with this hash.
///
/// # Errors
/// [`RefusalError`] with the first fault found: form, signature, order.
pub fn check_refusal(
    message: &Value,
    agent: &PublicKey,
    order_hash: &str,
) -> Result<OrderRefusal, RefusalError> {
    let refusal: OrderRefusal = signed::read(message)?;
    signed::verify(Kind::OrderRefusal, message, agent)?;
    if refusal.order == order_hash { Ok(refusal) } else { Err(RefusalError::Foreign) }
}
