//! Access messages: how the agent fills one and seals it to the client, so that nobody between the
//! two can read, alter or replay it. The envelope is HPKE (RFC 9180, base mode) to the client's
//! key and signed by the agent; what it is for is in the open, and bound to what is inside.
//! Absent here: whether a message may be sent at all, and how serials rise.

mod open;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use hpke::aead::ChaCha20Poly1305;
use hpke::kdf::HkdfSha256;
use hpke::kem::X25519HkdfSha256;
use hpke::{Deserializable, HpkeError, Kem, OpModeS, Serializable};
use privatix_plugin_api::json;
use privatix_plugin_api::message::{ClientKey, Password};
use rand_core::CryptoRng;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use uuid::Uuid;

use super::code::Code;
use super::identity::{Identity, SealingKey, base64url};
use super::signed::{self, Kind, Malformed, SignError};
pub use open::{AccessError, Expect, InvalidAccess, Opened, open};

/// Keeps what is sealed here apart from anything else ever sealed to the same key.
const INFO: &[u8] = b"privatix/access/v1";

/// What an access message consists of.
#[derive(Debug, Clone, Copy)]
pub struct AccessParts<'a> {
    /// Hash of the access template.
    pub template_hash: &'a str,
    /// Makes every message unique.
    pub nonce: Uuid,
    /// The channel, which is the `username`.
    pub channel: ClientKey,
    /// To authenticate with.
    pub password: &'a Password,
    /// The agent's payment receiver.
    pub payment_receiver_address: &'a str,
    /// Where the service is.
    pub service_endpoint_address: &'a str,
    /// What the agent's module set.
    pub additional_params: &'a BTreeMap<String, String>,
}

/// The access message made of its parts. Whether it is valid is for its template to say.
pub fn compose(parts: &AccessParts<'_>) -> Value {
    json!({
        "templateHash": parts.template_hash,
        "nonce": parts.nonce,
        "username": parts.channel,
        "password": parts.password,
        "paymentReceiverAddress": parts.payment_receiver_address,
        "serviceEndpointAddress": parts.service_endpoint_address,
        "additionalParams": parts.additional_params,
    })
}

/// What an envelope is for. All of it is in the open, and authenticated with what is sealed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct Binding {
    /// Hash of the order that the channel came of.
    #[serde(rename = "order")]
    #[cfg_attr(feature = "schema", schemars(regex(pattern = "^[0-9a-f]{64}$")))]
    pub order_hash: String,
    /// The channel.
    pub channel: ClientKey,
    /// Hash of the template that the message is valid by.
    #[cfg_attr(feature = "schema", schemars(regex(pattern = "^[0-9a-f]{64}$")))]
    pub template_hash: String,
    /// Rises with every new message of a channel.
    pub serial: u64,
}

impl Binding {
    /// What HPKE authenticates beside the message.
    fn associated_data(&self) -> Result<Vec<u8>, Malformed> {
        let value = json!(self);
        signed::check_form(&value)?;
        json::canonical(&value).map_err(Malformed::Form)
    }

    /// Whether a message is made for this binding.
    fn fits(&self, message: &Value) -> bool {
        message["templateHash"] == *self.template_hash
            && message["username"] == *self.channel.to_string()
    }
}

/// All of an envelope but its signature.
#[derive(Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
struct Envelope {
    #[serde(flatten)]
    binding: Binding,
    #[serde(flatten)]
    sealed: Sealed,
}

#[derive(Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
struct Sealed {
    #[serde(with = "base64url")]
    #[cfg_attr(
        feature = "schema",
        schemars(with = "String", regex(pattern = "^[A-Za-z0-9_-]{42}[AEIMQUYcgkosw048]$"))
    )]
    encapsulated_key: Vec<u8>,
    #[serde(with = "base64url")]
    #[cfg_attr(feature = "schema", schemars(with = "String", regex(pattern = "^[A-Za-z0-9_-]+$")))]
    ciphertext: Vec<u8>,
}

/// The JSON Schema of an envelope without its signature.
#[cfg(feature = "schema")]
pub fn envelope_schema(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
    <Envelope as schemars::JsonSchema>::json_schema(generator)
}

/// Why a message cannot be sealed.
#[derive(Debug, thiserror::Error)]
pub enum SealError {
    /// Not the form of messages.
    #[error("the access message does not have the form of messages")]
    Message(#[source] Malformed),
    /// A serial that no message can hold.
    #[error("the binding of the access message does not have the form of messages")]
    Binding(#[source] Malformed),
    /// Made for something else.
    #[error("the access message has another template hash or user name than its binding")]
    Mismatch,
    /// HPKE.
    #[error("sealing the access message")]
    Seal(#[source] HpkeError),
    /// The signature.
    #[error("signing the envelope of the access message")]
    Sign(#[source] SignError),
}

impl SealError {
    /// The stable name of this error.
    pub fn code(&self) -> Code {
        Code::NotSealable
    }
}

/// The signed envelope of an access message. `rng` has to be a source of randomness that nobody
/// can foresee.
///
/// # Errors
/// [`SealError`], all of them mistakes of the caller.
pub fn seal(
    message: &Value,
    binding: &Binding,
    to: &SealingKey,
    identity: &Identity,
    rng: &mut impl CryptoRng,
) -> Result<Value, SealError> {
    signed::check_form(message).map_err(SealError::Message)?;
    if !binding.fits(message) {
        return Err(SealError::Mismatch);
    }
    let text = json::canonical(message).map_err(Malformed::Form).map_err(SealError::Message)?;
    seal_text(&text, binding, to, identity, rng)
}

fn seal_text(
    text: &[u8],
    binding: &Binding,
    to: &SealingKey,
    identity: &Identity,
    rng: &mut impl CryptoRng,
) -> Result<Value, SealError> {
    let data = binding.associated_data().map_err(SealError::Binding)?;
    let to = <X25519HkdfSha256 as Kem>::PublicKey::from_bytes(to.as_bytes());
    let to = to.map_err(SealError::Seal)?;
    let sealed = hpke::single_shot_seal_with_rng::<ChaCha20Poly1305, HkdfSha256, X25519HkdfSha256>(
        &OpModeS::Base,
        &to,
        INFO,
        text,
        &data,
        rng,
    );
    let (key, ciphertext) = sealed.map_err(SealError::Seal)?;
    let sealed = Sealed { encapsulated_key: key.to_bytes().to_vec(), ciphertext };
    let envelope = Envelope { binding: binding.clone(), sealed };
    signed::sign(Kind::Access, &envelope, identity).map_err(SealError::Sign)
}
