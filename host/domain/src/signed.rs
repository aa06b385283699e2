//! Signed messages: how a message is signed, and how a signature is checked. A signature covers
//! every field, also those that this version does not know, and the kind of message, so that no
//! message can be passed off as another. Absent here: what a message has to contain, and whose
//! signature it should be.

mod read;
#[cfg(test)]
mod tests;

use std::fmt;

use privatix_plugin_api::json::{self, JsonError};
use serde::Serialize;
use serde_json::Value;

use super::code::Code;
use super::identity::{Identity, PublicKey, base64url};
pub use read::Malformed;
pub(super) use read::{check_form, read, read_strict};

/// The field that holds a message's signature.
pub const SIGNATURE: &str = "signature";

/// What a signed message is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// An agent's proposal.
    Offering,
    /// A client's acceptance of an offering.
    Order,
    /// The agent's answer to it.
    OrderReply,
    /// The agent's word that it will never take an order.
    OrderRefusal,
    /// A client takes an order back.
    OrderCancel,
    /// The envelope of an access message.
    Access,
    /// A client asks for the envelope.
    AccessRequest,
    /// A client asks for the account.
    AccountRequest,
    /// A client ends a channel.
    TerminateRequest,
    /// The state of a channel as the agent sees it.
    Account,
    /// A client's promise to pay.
    Cheque,
    /// The agent's answer to it.
    Receipt,
    /// What an agent's clock says.
    Time,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 13] = [
        Self::Offering,
        Self::Order,
        Self::OrderReply,
        Self::OrderRefusal,
        Self::OrderCancel,
        Self::Access,
        Self::AccessRequest,
        Self::AccountRequest,
        Self::TerminateRequest,
        Self::Account,
        Self::Cheque,
        Self::Receipt,
        Self::Time,
    ];

    /// The word that the signature covers.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Offering => "offering",
            Self::Order => "order",
            Self::OrderReply => "order-reply",
            Self::OrderRefusal => "order-refusal",
            Self::OrderCancel => "order-cancel",
            Self::Access => "access",
            Self::AccessRequest => "access-request",
            Self::AccountRequest => "account-request",
            Self::TerminateRequest => "terminate-request",
            Self::Account => "account",
            Self::Cheque => "cheque",
            Self::Receipt => "receipt",
            Self::Time => "time",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.as_str())
    }
}

/// Why a message cannot be signed.
#[derive(Debug, thiserror::Error)]
pub enum SignError {
    /// It cannot be written as JSON.
    #[error("writing the message as JSON")]
    Write(#[from] serde_json::Error),
    /// Its form is not that of messages.
    #[error("the message does not have the form of messages")]
    Form(#[from] Malformed),
    /// It already has the field that is to be added.
    #[error("the message already has the field `{SIGNATURE}`")]
    AlreadySigned,
}

impl SignError {
    /// The stable name of this error.
    pub fn code(&self) -> Code {
        Code::NotSignable
    }
}

/// Why a message is not taken as signed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SignatureError {
    /// Not a message at all, or one that nothing could have signed.
    #[error("the message does not have the form of messages")]
    Form(#[from] Malformed),
    /// No signature.
    #[error("the field `{SIGNATURE}` is missing")]
    Missing,
    /// Not the form of a signature.
    #[error("`{SIGNATURE}` has to be 64 bytes in base64url without padding")]
    Encoding,
    /// Another key, another kind or another message.
    #[error("the signature fits neither this message nor this key")]
    Wrong,
}

impl SignatureError {
    /// The stable name of this error.
    pub fn code(&self) -> Code {
        Code::BadSignature
    }
}

/// The message with the signature of an identity added.
///
/// # Errors
/// [`SignError`] if it is not an object in the form of messages, or already signed.
pub fn sign(kind: Kind, message: impl Serialize, identity: &Identity) -> Result<Value, SignError> {
    let mut message = serde_json::to_value(message)?;
    check_form(&message)?;
    if message.get(SIGNATURE).is_some() {
        return Err(SignError::AlreadySigned);
    }
    let signature = identity.sign(&signed_bytes(kind, &message).map_err(Malformed::Form)?);
    message[SIGNATURE] = base64url::encode(&signature).into();
    Ok(message)
}

/// Whether a message is signed as this kind by this key.
///
/// # Errors
/// [`SignatureError`] if it is not.
pub fn verify(kind: Kind, message: &Value, key: &PublicKey) -> Result<(), SignatureError> {
    check_form(message)?;
    let signature = message.get(SIGNATURE).ok_or(SignatureError::Missing)?.as_str();
    let signature = signature.and_then(base64url::decode).and_then(|bytes| bytes.try_into().ok());
    let signature = signature.ok_or(SignatureError::Encoding)?;
    let bytes = signed_bytes(kind, &unsigned(message)).map_err(Malformed::Form)?;
    if key.verifies(&bytes, &signature) { Ok(()) } else { Err(SignatureError::Wrong) }
}

/// The message without its signature.
pub(super) fn unsigned(message: &Value) -> Value {
    let mut message = message.clone();
    if let Some(members) = message.as_object_mut() {
        members.remove(SIGNATURE);
    }
    message
}

fn signed_bytes(kind: Kind, unsigned: &Value) -> Result<Vec<u8>, JsonError> {
    let mut bytes = format!("privatix/{kind}/v1\0").into_bytes();
    bytes.extend(json::canonical(unsigned)?);
    Ok(bytes)
}

/// Whether a text has the form of a hash.
pub(super) fn is_hash(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}
