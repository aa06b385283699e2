//! What the tests of signed messages share: identities, randomness that repeats itself, sample
//! messages, and every way to damage one.

use std::convert::Infallible;

use privatix_plugin_api::json;
use rand_core::{TryCryptoRng, TryRng};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::Identity;
use crate::signed::{self, Kind};

/// The channel of the samples, and another.
pub(crate) const CHANNEL: &str = "6f1c1f0e-3b5c-4c5e-8f7a-0c1d2e3f4a5b";
pub(crate) const OTHER_CHANNEL: &str = "0d7a3f52-93d5-4d3c-9a34-5f0b8b1f6c11";

/// An identity known by a number.
pub(crate) fn identity(number: u8) -> Identity {
    let mut entropy = [0; 96];
    Counter::new(number).try_fill_bytes(&mut entropy).expect("infallible");
    Identity::from_entropy(entropy)
}

/// Hashes of a counter: as good as random, and the same in every run.
pub(crate) struct Counter([u8; 9]);

impl Counter {
    pub(crate) fn new(number: u8) -> Self {
        Self([number, 0, 0, 0, 0, 0, 0, 0, 0])
    }
}

impl TryRng for Counter {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        let mut bytes = [0; 4];
        self.try_fill_bytes(&mut bytes)?;
        Ok(u32::from_le_bytes(bytes))
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        let mut bytes = [0; 8];
        self.try_fill_bytes(&mut bytes)?;
        Ok(u64::from_le_bytes(bytes))
    }

    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), Infallible> {
        for chunk in bytes.chunks_mut(32) {
            self.0[1] += 1;
            let size = chunk.len();
            chunk.copy_from_slice(&Sha256::digest(self.0)[..size]);
        }
        Ok(())
    }
}

impl TryCryptoRng for Counter {}

/// A message with some members replaced; null removes one. A signature is made anew.
pub(crate) fn with(kind: Kind, message: &Value, changes: &Value, signer: &Identity) -> Value {
    signed::sign(kind, changed(message, changes), signer).expect("signable")
}

/// A message without its signature and with some members replaced; null removes one.
pub(crate) fn changed(message: &Value, changes: &Value) -> Value {
    let mut message = signed::unsigned(message);
    let members = message.as_object_mut().expect("an object");
    for (key, value) in changes.as_object().expect("an object") {
        if value.is_null() {
            members.remove(key);
        } else {
            members.insert(key.clone(), value.clone());
        }
    }
    message
}

/// What every signed message has in common: whatever is done to its text by somebody without the
/// signer's key is refused, as malformed or as badly signed.
pub(crate) fn check_damage(
    message: &Value,
    [malformed, bad_signature]: [&str; 2],
    open: impl Fn(&Value) -> Result<(), &'static str>,
) {
    assert_eq!(open(message), Ok(()), "untouched");
    let refused = |text: &[u8]| match json::parse(text) {
        Ok(value) if value == *message => {}
        Ok(value) => {
            let code = open(&value).expect_err("damaged");
            let shown = String::from_utf8_lossy(text);
            assert!(code == malformed || code == bad_signature, "{code}: {shown}");
        }
        Err(_) => {}
    };
    let text = serde_json::to_vec(message).expect("JSON");
    for place in 0..text.len() {
        refused(&text[..place]);
        for bit in [0x01, 0x20, 0x80] {
            let mut text = text.clone();
            text[place] ^= bit;
            refused(&text);
        }
    }
    for key in message.as_object().expect("an object").keys() {
        let mut without = message.clone();
        without.as_object_mut().expect("an object").remove(key);
        refused(&serde_json::to_vec(&without).expect("JSON"));
    }
    let mut extended = message.clone();
    extended["unknown"] = json!(true);
    let code = open(&extended).expect_err("an unsigned addition");
    assert!(code == malformed || code == bad_signature, "an unsigned addition: {code}");
}
