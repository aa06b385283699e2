//! Who a core is: an Ed25519 key that signs, an X25519 key that opens what is sealed to it, and a
//! secret from which the passwords of its channels follow. The secrets leave an [`Identity`] only
//! through [`Identity::to_json`], are never shown by `Debug` and are wiped when it is dropped.
//! Absent here: files and their modes, and where randomness comes from.

pub(super) mod base64url;
mod keys;
#[cfg(test)]
pub(super) mod testing;
#[cfg(test)]
mod tests;

use std::fmt;

use ed25519_dalek::{Signer, SigningKey};
use hmac::{Hmac, KeyInit, Mac};
use privatix_plugin_api::message::{ClientKey, Password};
use serde::Serialize;
use serde_json::{Value, json};
use sha2::Sha256;
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use crate::code::Code;

pub use keys::{KeyError, PublicKey, SealingKey};

/// The version of the form that [`Identity::to_json`] writes.
const VERSION: u64 = 1;

const SIGNING: &str = "signing";
const SEALING: &str = "sealing";
const ACCESS_SECRET: &str = "accessSecret";

/// The keys and secrets of one core.
pub struct Identity {
    signing: SigningKey,
    sealing: Zeroizing<[u8; 32]>,
    access_secret: Zeroizing<[u8; 32]>,
}

/// What others may know of an identity.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
pub struct PublicIdentity {
    /// Verifies what it signed.
    pub signing: PublicKey,
    /// Seals what only it can open.
    pub sealing: SealingKey,
}

/// Why a document is no identity. No part of the document is repeated.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdentityError {
    /// Other members than the four.
    #[error(
        "an identity is a JSON object with the members `version`, `{SIGNING}`, `{SEALING}` and \
         `{ACCESS_SECRET}`, and no others"
    )]
    Form,
    /// Written by another version.
    #[error("`version` has to be {VERSION}")]
    Version,
    /// A secret that is none.
    #[error("`{0}` has to be 32 bytes in base64url without padding")]
    Secret(&'static str),
}

impl IdentityError {
    /// The stable name of this error.
    pub fn code(&self) -> Code {
        Code::BadIdentity
    }
}

impl Identity {
    /// A new identity from 96 bytes that nobody else can know.
    pub fn from_entropy(bytes: [u8; 96]) -> Self {
        let bytes = Zeroizing::new(bytes);
        let part = |from: usize| {
            let mut part = Zeroizing::new([0; 32]);
            part.copy_from_slice(&bytes[from..from + 32]);
            part
        };
        Self {
            signing: SigningKey::from_bytes(&part(0)),
            sealing: part(32),
            access_secret: part(64),
        }
    }

    /// The identity as a document, secrets included.
    pub fn to_json(&self) -> Value {
        json!({
            "version": VERSION,
            SIGNING: base64url::encode(self.signing.as_bytes()),
            SEALING: base64url::encode(self.sealing.as_slice()),
            ACCESS_SECRET: base64url::encode(self.access_secret.as_slice()),
        })
    }

    /// Reads a document written by [`Identity::to_json`].
    ///
    /// # Errors
    /// [`IdentityError`] if it is anything else.
    pub fn from_json(document: &Value) -> Result<Self, IdentityError> {
        let members = document.as_object().filter(|members| members.len() == 4);
        let members = members.ok_or(IdentityError::Form)?;
        if members.get("version").ok_or(IdentityError::Form)?.as_u64() != Some(VERSION) {
            return Err(IdentityError::Version);
        }
        let secret = |name: &'static str| {
            let text = members.get(name).ok_or(IdentityError::Form)?.as_str();
            let bytes = text.and_then(base64url::decode).map(Zeroizing::new);
            let bytes = bytes.and_then(|bytes| bytes.as_slice().try_into().ok());
            bytes.map(Zeroizing::<[u8; 32]>::new).ok_or(IdentityError::Secret(name))
        };
        Ok(Self {
            signing: SigningKey::from_bytes(&*secret(SIGNING)?),
            sealing: secret(SEALING)?,
            access_secret: secret(ACCESS_SECRET)?,
        })
    }

    /// Its public keys.
    pub fn public(&self) -> PublicIdentity {
        PublicIdentity {
            signing: PublicKey::of(&self.signing),
            sealing: SealingKey::of(&self.sealing),
        }
    }

    /// The password of a channel made by an order: the same whenever it is asked for, so that it
    /// need not be stored.
    pub fn password(&self, channel: ClientKey, order_hash: &str) -> Password {
        // HMAC takes a key of any length.
        #[allow(clippy::expect_used)]
        let mut mac = Hmac::<Sha256>::new_from_slice(self.access_secret.as_slice())
            .expect("HMAC takes any key");
        mac.update(channel.to_string().as_bytes());
        mac.update(order_hash.as_bytes());
        Password(base64url::encode(&mac.finalize().into_bytes()))
    }

    /// Whether a password is that of a channel, in a time that does not tell how much of it is
    /// right.
    pub fn is_password(&self, channel: ClientKey, order_hash: &str, given: &Password) -> bool {
        let own = self.password(channel, order_hash);
        own.0.as_bytes().ct_eq(given.0.as_bytes()).into()
    }

    /// The Ed25519 signature over some bytes.
    pub(super) fn sign(&self, bytes: &[u8]) -> [u8; 64] {
        self.signing.sign(bytes).to_bytes()
    }

    /// The X25519 secret that opens what was sealed to this identity.
    pub(super) fn sealing_secret(&self) -> &[u8; 32] {
        &self.sealing
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "Identity({})", self.public().signing.fingerprint())
    }
}
