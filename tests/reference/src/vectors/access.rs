//! Envelopes: an access message sealed to a client, and envelopes that a client must refuse.

use std::collections::BTreeMap;

use hpke::aead::ChaCha20Poly1305;
use hpke::kdf::HkdfSha256;
use hpke::kem::X25519HkdfSha256;
use hpke::{Deserializable, Kem, OpModeS, Serializable};
use privatix_plugin_api::json::{self, hex};
use serde_json::{Value, json};
use uuid::Uuid;

use super::templates::access_template as template;
use super::{CHANNEL, OTHER_CHANNEL, base64url, damaged, hash, messages, sign, with};
use crate::parties::{Fixed, digest, identity};
use privatix_domain::access::{AccessParts, Binding, Expect, compose, open, seal};
use privatix_domain::signed::Kind;

/// What keeps these envelopes apart from anything else that is sealed to the same key.
const INFO: &str = "privatix/access/v1";

const SERIAL: u64 = 2;

pub(super) fn file() -> Value {
    json!({
        "about": "Access messages in HPKE (RFC 9180, base mode: DHKEM(X25519, HKDF-SHA256), \
                  HKDF-SHA256, ChaCha20Poly1305). `ikmE` (hex) is the input of DeriveKeyPair for the \
                  ephemeral key; a sender takes it from a source of randomness. `associatedData` is \
                  the canonical form of order, channel, templateHash and serial.",
        "info": INFO,
        "sealed": [sealed()],
        "expect": expect(),
        "checks": checks(),
    })
}

fn message() -> Value {
    let channel = CHANNEL.parse().expect("a UUID");
    let password = identity("agent").password(channel, &messages::order_hash());
    let message = compose(&AccessParts {
        template_hash: template().hash(),
        nonce: Uuid::from_u128(0x2a57_9e04_5d1c_4f60_9c33_7b1e_0f5a_6d02),
        channel,
        password: &password,
        payment_receiver_address: "https://agent.example:8480/v1/payments",
        service_endpoint_address: "192.0.2.1",
        additional_params: &BTreeMap::from([("port".to_owned(), "1080".to_owned())]),
    });
    assert_eq!(template().validate(&message), Ok(()));
    message
}

fn binding() -> Binding {
    Binding {
        order_hash: messages::order_hash(),
        channel: CHANNEL.parse().expect("a UUID"),
        template_hash: template().hash().to_owned(),
        serial: SERIAL,
    }
}

fn entropy(of: &str) -> [u8; 32] {
    digest(&format!("privatix vectors: ephemeral key of {of}"))
}

/// The envelope of the deal that all vectors are about.
pub(super) fn envelope() -> Value {
    let to = identity("client").public().sealing;
    seal(&message(), &binding(), &to, &identity("agent"), &mut Fixed(entropy("the envelope")))
        .expect("sealed")
}

fn sealed() -> Value {
    let (message, binding, envelope) = (message(), json!(binding()), envelope());
    assert_eq!(checked(&envelope), Ok(()));
    json!({
        "sender": "agent",
        "recipient": "client",
        "ikmE": hex(&entropy("the envelope")),
        "message": message,
        "plaintext": text(&message),
        "associatedData": text(&binding),
        "envelope": envelope,
        "hash": hash(&envelope),
    })
}

fn text(value: &Value) -> String {
    String::from_utf8(json::canonical(value).expect("canonical")).expect("UTF-8")
}

/// What the client knows when it checks the envelopes.
fn expect() -> Value {
    json!({
        "client": "client",
        "agent": "agent",
        "order": messages::order_hash(),
        "channel": CHANNEL,
        "lastSerial": SERIAL,
        "accessTemplates": [template().hash()],
    })
}

fn checked(envelope: &Value) -> Result<(), &'static str> {
    let order_hash = messages::order_hash();
    let expect = Expect {
        agent: identity("agent").public().signing,
        order_hash: &order_hash,
        channel: CHANNEL.parse().expect("a UUID"),
        last_serial: SERIAL,
    };
    let known = |hash: &str| Some(template()).filter(|template| template.hash() == hash);
    let opened = open(envelope, &expect, &identity("client"), known);
    opened.map(drop).map_err(|error| error.code().code())
}

/// An envelope around any text, as an agent could make one that keeps to nothing.
fn around(plaintext: &str, binding: &Value, data: &Value, to: &str) -> Value {
    type Kem_ = X25519HkdfSha256;
    let to = identity(to).public().sealing;
    let to = <Kem_ as Kem>::PublicKey::from_bytes(to.as_bytes()).expect("a key");
    let (key, ciphertext) = hpke::single_shot_seal_with_rng::<ChaCha20Poly1305, HkdfSha256, Kem_>(
        &OpModeS::Base,
        &to,
        INFO.as_bytes(),
        plaintext.as_bytes(),
        text(data).as_bytes(),
        &mut Fixed(entropy(plaintext)),
    )
    .expect("sealed");
    let mut envelope = binding.clone();
    envelope["encapsulatedKey"] = base64url(key.to_bytes()).into();
    envelope["ciphertext"] = base64url(ciphertext).into();
    sign(Kind::Access, envelope, "agent")
}

fn checks() -> Vec<Value> {
    let (good, bound, message) = (envelope(), json!(binding()), message());
    let again = |changes: Value| with(Kind::Access, &good, &changes, "agent");
    let inside = |plaintext: &str| around(plaintext, &bound, &bound, "client");
    let mut other_user = message.clone();
    other_user["username"] = OTHER_CHANNEL.into();
    let mut other_serial = bound.clone();
    other_serial["serial"] = 3.into();
    let unknown = hash(&json!({"an unknown": "template"}));
    let mut unknown_template = bound.clone();
    unknown_template["templateHash"] = unknown.clone().into();
    let doubled = text(&message).replacen("{", "{\"username\":\"x\",", 1);
    let short = text(&super::changed(&message, &json!({"password": null})));
    let cases = [
        ("the envelope", good.clone()),
        ("sealed by this file's way", inside(&text(&message))),
        ("no serial", again(json!({"serial": null}))),
        (
            "the encapsulated key has 31 bytes",
            again(json!({"encapsulatedKey": base64url([9; 31])})),
        ),
        ("padding in the ciphertext", again(json!({"ciphertext": "AAAA=="}))),
        (
            "the template's hash is in upper case",
            again(json!({"templateHash": template().hash().to_uppercase()})),
        ),
        ("a bit of the signature was altered", damaged(&good)),
        ("signed by a stranger", with(Kind::Access, &good, &json!({}), "stranger")),
        ("signed as an account", with(Kind::Account, &good, &json!({}), "agent")),
        ("of another channel", again(json!({"channel": OTHER_CHANNEL}))),
        ("of another order", again(json!({"order": unknown}))),
        ("of an older serial", again(json!({"serial": 1}))),
        ("the serial was altered, and signed again", again(json!({"serial": 3}))),
        ("sealed to another client", around(&text(&message), &bound, &bound, "stranger")),
        (
            "sealed with other associated data",
            around(&text(&message), &bound, &other_serial, "client"),
        ),
        (
            "the encapsulated key has small order",
            again(json!({"encapsulatedKey": base64url([0; 32])})),
        ),
        ("the ciphertext is cut", again(json!({"ciphertext": base64url([1; 15])}))),
        (
            "an unknown template",
            around(&text(&message), &unknown_template, &unknown_template, "client"),
        ),
        ("a key twice inside", inside(&doubled)),
        ("no JSON inside", inside("access")),
        ("made for another channel", inside(&text(&other_user))),
        ("no password inside", inside(&short)),
    ];
    let made = |(why, envelope): (&str, Value)| json!({ "why": why, "envelope": envelope, "code": checked(&envelope).err() });
    cases.into_iter().map(made).collect()
}
