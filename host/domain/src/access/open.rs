//! How the client opens an envelope: seven checks in a fixed order, each with its own error, so
//! that a reader of an error knows that all checks before it have passed. Nothing is returned, and so
//! nothing can be stored, before the last.

use std::sync::Arc;

use hpke::aead::ChaCha20Poly1305;
use hpke::kdf::HkdfSha256;
use hpke::kem::X25519HkdfSha256;
use hpke::{Deserializable, HpkeError, Kem, OpModeR};
use privatix_plugin_api::json::{self, JsonError};
use privatix_plugin_api::message::ClientKey;
use serde_json::Value;

use super::{Binding, Envelope, INFO, Sealed};
use crate::code::Code;
use crate::identity::{Identity, PublicKey};
use crate::signed::{self, Kind, Malformed, SignatureError, is_hash};
use crate::template::{Template, TemplateKind, Violation};

/// What the client knows of the channel.
#[derive(Debug, Clone, Copy)]
pub struct Expect<'a> {
    /// Its agent.
    pub agent: PublicKey,
    /// Hash of its order.
    pub order_hash: &'a str,
    /// The channel.
    pub channel: ClientKey,
    /// The serial of the last message that was accepted; 0 before the first.
    pub last_serial: u64,
}

/// An access message that passed every check.
#[derive(Clone, PartialEq)]
pub struct Opened {
    /// Its serial, at least the last one.
    pub serial: u64,
    /// What identifies it.
    pub envelope_hash: String,
    /// The template that it is valid by.
    pub template_hash: String,
    /// The message; it holds a password.
    pub message: Value,
}

impl std::fmt::Debug for Opened {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "Opened({}, serial {})", self.envelope_hash, self.serial)
    }
}

/// Why an access message is refused; in the order of the checks.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AccessError {
    /// Not the form of an envelope.
    #[error("the access message cannot be read")]
    Malformed(#[from] Malformed),
    /// Not signed by the channel's agent.
    #[error("the access message is not signed by the channel's agent")]
    Signature(#[source] SignatureError),
    /// Of another channel or order.
    #[error("the access message is of another channel or another order")]
    Foreign,
    /// An older one than is known.
    #[error("the access message has the serial {found}; one with {last} is known")]
    Stale {
        /// Its serial.
        found: u64,
        /// The known one.
        last: u64,
    },
    /// Sealed to another key, or to this one for something else.
    #[error("the access message cannot be opened with this core's key")]
    NotOpened(#[source] HpkeError),
    /// The template is not known.
    #[error("there is no access template with the hash {hash}")]
    TemplateNotFound {
        /// The noted hash.
        hash: String,
    },
    /// Not valid by its template.
    #[error("the access message is not valid")]
    Invalid(#[source] InvalidAccess),
}

impl AccessError {
    /// The stable name of this error.
    pub fn code(&self) -> Code {
        match self {
            Self::Malformed(_) => Code::MalformedAccess,
            Self::Signature(_) => Code::BadAccessSignature,
            Self::Foreign => Code::ForeignAccess,
            Self::Stale { .. } => Code::StaleAccess,
            Self::NotOpened(_) => Code::AccessNotOpened,
            Self::TemplateNotFound { .. } => Code::TemplateNotFound,
            Self::Invalid(_) => Code::InvalidAccess,
        }
    }
}

/// What is wrong inside an envelope that opened. No value of the message is repeated.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidAccess {
    /// Not JSON in the form of messages.
    #[error("its text is not acceptable JSON")]
    Form(#[source] JsonError),
    /// Not valid by the template.
    #[error(
        "by its template: {}",
        .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
    )]
    Violations(Vec<Violation>),
    /// Nothing can be done without it, whatever the template says.
    #[error("the field `{0}` is missing")]
    Missing(&'static str),
    /// What is inside was made for something else than what is outside.
    #[error("its `templateHash` or `username` is not that of its envelope")]
    Mismatch,
}

/// Opens the envelope of an access message; `template` finds an access template by its hash.
///
/// # Errors
/// [`AccessError`] with the first check that fails.
pub fn open(
    envelope: &Value,
    expect: &Expect<'_>,
    identity: &Identity,
    template: impl FnOnce(&str) -> Option<Arc<Template>>,
) -> Result<Opened, AccessError> {
    let read = read(envelope)?;
    signed::verify(Kind::Access, envelope, &expect.agent).map_err(AccessError::Signature)?;
    let binding = &read.binding;
    if binding.channel != expect.channel || binding.order_hash != expect.order_hash {
        return Err(AccessError::Foreign);
    }
    if binding.serial < expect.last_serial {
        return Err(AccessError::Stale { found: binding.serial, last: expect.last_serial });
    }
    let text = decrypt(&read, identity)?;
    let hash = &binding.template_hash;
    let template = template(hash)
        .filter(|found| found.kind() == TemplateKind::Access && found.hash() == hash)
        .ok_or_else(|| AccessError::TemplateNotFound { hash: hash.clone() })?;
    let message = check_message(&text, &read, &template).map_err(AccessError::Invalid)?;
    let envelope_hash = json::hash(envelope).map_err(Malformed::Form)?;
    Ok(Opened { serial: binding.serial, envelope_hash, template_hash: hash.clone(), message })
}

fn read(envelope: &Value) -> Result<Envelope, Malformed> {
    // One after the other, because what is wrong in a flattened field has no place.
    let (binding, sealed): (Binding, Sealed) = (signed::read(envelope)?, signed::read(envelope)?);
    let wrong = |place: &str, reason: &str| {
        Err(Malformed::Field { place: place.to_owned(), reason: reason.to_owned() })
    };
    // It ends up in messages for people.
    if !is_hash(&binding.template_hash) {
        return wrong("templateHash", "not a lowercase hex SHA-256");
    }
    if sealed.encapsulated_key.len() != 32 {
        return wrong("encapsulatedKey", "not 32 bytes");
    }
    Ok(Envelope { binding, sealed })
}

fn decrypt(envelope: &Envelope, identity: &Identity) -> Result<Vec<u8>, AccessError> {
    let open = |data: &[u8]| {
        let key = <X25519HkdfSha256 as Kem>::PrivateKey::from_bytes(identity.sealing_secret())?;
        let encapsulated =
            <X25519HkdfSha256 as Kem>::EncappedKey::from_bytes(&envelope.sealed.encapsulated_key)?;
        hpke::single_shot_open::<ChaCha20Poly1305, HkdfSha256, X25519HkdfSha256>(
            &OpModeR::Base,
            &key,
            &encapsulated,
            INFO,
            &envelope.sealed.ciphertext,
            data,
        )
    };
    open(&envelope.binding.associated_data()?).map_err(AccessError::NotOpened)
}

fn check_message(
    text: &[u8],
    envelope: &Envelope,
    template: &Template,
) -> Result<Value, InvalidAccess> {
    let message = json::parse(text).map_err(InvalidAccess::Form)?;
    template.validate(&message).map_err(InvalidAccess::Violations)?;
    let missing = ["templateHash", "nonce", "username", "password"];
    if let Some(field) = missing.into_iter().find(|field| !message[*field].is_string()) {
        return Err(InvalidAccess::Missing(field));
    }
    if envelope.binding.fits(&message) { Ok(message) } else { Err(InvalidAccess::Mismatch) }
}
