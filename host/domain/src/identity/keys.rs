//! The public keys that others know a core by. A [`PublicKey`] and a [`SealingKey`] are always
//! safe to use: points of small order, for which anybody can make signatures or guess
//! shared secrets, are refused on the way in. Absent here: anything secret.

use std::fmt;
use std::str::FromStr;

use ed25519_dalek::{Signature, SigningKey, VerifyingKey};
use privatix_plugin_api::json;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::{Digest, Sha256};
use x25519_dalek::{X25519_BASEPOINT_BYTES, x25519};

use super::base64url;
use crate::code::Code;

/// Why a key is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// Not 32 bytes, or not spelt as keys are.
    #[error("a key is 32 bytes in base64url without padding")]
    Encoding,
    /// No point of the curve.
    #[error("these bytes are no key")]
    Invalid,
    /// A point of small order.
    #[error("this key is weak")]
    Weak,
}

impl KeyError {
    /// The stable name of this error.
    pub fn code(&self) -> Code {
        Code::BadKey
    }
}

/// An Ed25519 key that verifies signatures.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct PublicKey([u8; 32]);

/// An X25519 key to seal to.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct SealingKey([u8; 32]);

impl PublicKey {
    /// From its bytes.
    ///
    /// # Errors
    /// [`KeyError::Invalid`] and [`KeyError::Weak`].
    pub fn from_bytes(bytes: [u8; 32]) -> Result<Self, KeyError> {
        let key = VerifyingKey::from_bytes(&bytes).map_err(|_| KeyError::Invalid)?;
        if key.is_weak() { Err(KeyError::Weak) } else { Ok(Self(bytes)) }
    }

    pub(super) fn of(key: &SigningKey) -> Self {
        Self(key.verifying_key().to_bytes())
    }

    /// Whether a signature over some bytes is this key's and of the only form it can have.
    pub(crate) fn verifies(&self, bytes: &[u8], signature: &[u8; 64]) -> bool {
        let signature = Signature::from_bytes(signature);
        VerifyingKey::from_bytes(&self.0)
            .is_ok_and(|key| key.verify_strict(bytes, &signature).is_ok())
    }
}

impl SealingKey {
    /// From its bytes.
    ///
    /// # Errors
    /// [`KeyError::Weak`].
    pub fn from_bytes(bytes: [u8; 32]) -> Result<Self, KeyError> {
        // Scalars are clamped to multiples of the cofactor: one maps a small point to zero, and so
        // does every other.
        if x25519([1; 32], bytes) == [0; 32] { Err(KeyError::Weak) } else { Ok(Self(bytes)) }
    }

    pub(super) fn of(secret: &[u8; 32]) -> Self {
        Self(x25519(*secret, X25519_BASEPOINT_BYTES))
    }
}

macro_rules! text_of_key {
    ($name:ident, $meaning:literal) => {
        impl $name {
            /// The 32 bytes.
            pub fn as_bytes(&self) -> &[u8; 32] {
                &self.0
            }

            /// What people compare: lowercase hex SHA-256 of the 32 bytes.
            pub fn fingerprint(&self) -> String {
                json::hex(&Sha256::digest(self.0))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                out.write_str(&base64url::encode(&self.0))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(out, "{}({self})", stringify!($name))
            }
        }

        impl FromStr for $name {
            type Err = KeyError;

            fn from_str(text: &str) -> Result<Self, KeyError> {
                let bytes = base64url::decode(text).and_then(|bytes| bytes.try_into().ok());
                Self::from_bytes(bytes.ok_or(KeyError::Encoding)?)
            }
        }

        #[cfg(feature = "schema")]
        impl schemars::JsonSchema for $name {
            fn schema_name() -> std::borrow::Cow<'static, str> {
                stringify!($name).into()
            }

            fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
                schemars::json_schema!({
                    "description": $meaning,
                    "type": "string",
                    "pattern": "^[A-Za-z0-9_-]{42}[AEIMQUYcgkosw048]$",
                })
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}

text_of_key!(PublicKey, "An Ed25519 public key: 32 bytes in base64url without padding.");
text_of_key!(SealingKey, "An X25519 public key: 32 bytes in base64url without padding.");
