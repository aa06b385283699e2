//! A client takes an order back that has no answer yet. To say it again has the same effect, so that
//! neither a time nor a nonce is needed.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::OrderError;
use crate::identity::PublicKey;
use crate::signed::{self, Kind};

/// The cancellation of an order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct OrderCancel {
    /// Hash of the signed order.
    #[cfg_attr(feature = "schema", schemars(regex(pattern = "^[0-9a-f]{64}$")))]
    pub order: String,
    /// The client's key, which signs both.
    pub client_signing_key: PublicKey,
}

/// Reads a cancellation, which has to be signed by the client it names. Whether the order is that
/// client's is for the caller to know.
///
/// # Errors
/// [`OrderError::Malformed`] and [`OrderError::Signature`].
pub fn read_cancel(message: &Value) -> Result<OrderCancel, OrderError> {
    let cancel: OrderCancel = signed::read_strict(message)?;
    signed::verify(Kind::OrderCancel, message, &cancel.client_signing_key)?;
    Ok(cancel)
}
