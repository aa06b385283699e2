//! The test vectors: inputs, and what the host's own functions make of them. Everything is made of
//! fixed seeds, so that each run writes the same.

mod access;
mod canonical;
mod deals;
mod keys;
mod messages;
mod money;
mod orders;
mod templates;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use privatix_plugin_api::json::{canonical, hex};
use serde_json::{Value, json};

use crate::parties::identity;
use privatix_domain::signed::{self, Kind};

/// Every vector file by its name.
pub(crate) fn all() -> Vec<(String, Value)> {
    let files = [
        ("canonical", canonical::file()),
        ("keys", keys::file()),
        ("messages", messages::file()),
        ("orders", orders::file()),
        ("envelopes", access::file()),
        ("statements", deals::statements()),
        ("cheques", deals::cheques()),
        ("money", money::file()),
    ];
    files.into_iter().map(|(name, file)| (name.to_owned(), file)).collect()
}

/// A moment that everything happens around, in Unix seconds.
const NOW: u64 = 1_800_000_000;

const CHANNEL: &str = "6f1c1f0e-3b5c-4c5e-8f7a-0c1d2e3f4a5b";
const OTHER_CHANNEL: &str = "0d7a3f52-93d5-4d3c-9a34-5f0b8b1f6c11";

/// A signed message.
fn sign(kind: Kind, message: Value, by: &str) -> Value {
    signed::sign(kind, message, &identity(by)).expect("a message that can be signed")
}

/// A message with some members replaced and signed anew; null removes a member.
fn with(kind: Kind, message: &Value, changes: &Value, by: &str) -> Value {
    sign(kind, changed(message, changes), by)
}

/// The same without a signature.
fn changed(message: &Value, changes: &Value) -> Value {
    let mut message = message.as_object().expect("an object").clone();
    message.remove(signed::SIGNATURE);
    for (name, value) in changes.as_object().expect("an object") {
        match value {
            Value::Null => drop(message.remove(name)),
            value => drop(message.insert(name.clone(), value.clone())),
        }
    }
    message.into()
}

/// A message of which the signature was altered after it was made: one bit, which leaves the form.
fn damaged(message: &Value) -> Value {
    let mut message = message.clone();
    let text = message["signature"].as_str().expect("signed").to_owned();
    let other = if text.starts_with('A') { "B" } else { "A" };
    message["signature"] = format!("{other}{}", &text[1..]).into();
    message
}

fn hash(message: &Value) -> String {
    privatix_plugin_api::json::hash(message).expect("a message has a hash")
}

/// The bytes that a signature covers.
fn signed_bytes(kind: Kind, message: &Value) -> String {
    let mut bytes = format!("privatix/{kind}/v1").into_bytes();
    bytes.push(0);
    bytes.extend(canonical(&changed(message, &json!({}))).expect("it has a canonical form"));
    hex(&bytes)
}

/// A signing key of a party, as text.
fn key(name: &str) -> String {
    identity(name).public().signing.to_string()
}

/// Bytes as messages have them.
fn base64url(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}
