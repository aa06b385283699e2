//! Who acts in the vectors: identities and randomness that are the same in every run.

use std::convert::Infallible;

use privatix_plugin_api::json::hex;
use rand_core::{TryCryptoRng, TryRng};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use privatix_domain::identity::Identity;

/// The names of the parties.
pub(crate) const NAMES: [&str; 3] = ["agent", "client", "stranger"];

/// The secrets of a party: signing, sealing, access.
fn secrets(name: &str) -> [[u8; 32]; 3] {
    ["signing", "sealing", "access"].map(|part| digest(&format!("privatix vectors: {name} {part}")))
}

/// The identity of a party.
pub(crate) fn identity(name: &str) -> Identity {
    assert!(NAMES.contains(&name), "{name} is no party");
    let mut entropy = [0; 96];
    entropy.copy_from_slice(secrets(name).as_flattened());
    Identity::from_entropy(entropy)
}

/// A party with its secrets, as a vector.
pub(crate) fn vector(name: &str) -> Value {
    let [signing, sealing, access] = secrets(name);
    let identity = identity(name);
    let public = identity.public();
    json!({
        "name": name,
        "signingSecret": hex(&signing),
        "sealingSecret": hex(&sealing),
        "accessSecret": hex(&access),
        "signingKey": public.signing,
        "sealingKey": public.sealing,
        "fingerprint": public.signing.fingerprint(),
        "identityFile": identity.to_json(),
    })
}

pub(crate) fn digest(text: &str) -> [u8; 32] {
    Sha256::digest(text).into()
}

/// Randomness that is none: these bytes, once.
pub(crate) struct Fixed(pub(crate) [u8; 32]);

impl TryRng for Fixed {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        unreachable!("keys are made of bytes")
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        unreachable!("keys are made of bytes")
    }

    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), Infallible> {
        bytes.copy_from_slice(&self.0);
        Ok(())
    }
}

impl TryCryptoRng for Fixed {}
