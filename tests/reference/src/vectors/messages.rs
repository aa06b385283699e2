//! One signed message of each kind, all of one deal, and signatures that are none.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use privatix_plugin_api::json::canonical;
use serde_json::{Value, json};
use uuid::Uuid;

use super::{CHANNEL, NOW, access, damaged, hash, key, sign, signed_bytes, templates};
use crate::parties::identity;
use privatix_domain::identity::PublicKey;
use privatix_domain::signed::{self, Kind};

pub(super) fn file() -> Value {
    json!({
        "about": "A signed message of each kind. `signedBytes` (hex) is what the signature covers: \
                  `privatix/KIND/v1`, a zero byte, and the canonical form without `signature`. `hash` \
                  is that of the whole message.",
        "signed": Kind::ALL.map(made),
        "refused": refused(),
    })
}

/// The party that signs messages of a kind.
fn signer(kind: Kind) -> &'static str {
    match kind {
        Kind::Order
        | Kind::OrderCancel
        | Kind::AccessRequest
        | Kind::AccountRequest
        | Kind::TerminateRequest
        | Kind::Cheque => "client",
        _ => "agent",
    }
}

fn made(kind: Kind) -> Value {
    let message = of(kind);
    let by = signer(kind);
    let key = identity(by).public().signing;
    assert_eq!(signed::verify(kind, &message, &key), Ok(()), "{kind}");
    json!({
        "kind": kind.as_str(),
        "signer": by,
        "signedBytes": signed_bytes(kind, &message),
        "hash": hash(&message),
        "message": message,
    })
}

/// The message of a kind, signed.
pub(super) fn of(kind: Kind) -> Value {
    match kind {
        Kind::Offering => sign(kind, offering(), "agent"),
        Kind::Order => sign(kind, order(), "client"),
        Kind::OrderReply => sign(kind, json!({"order": order_hash(), "channel": CHANNEL}), "agent"),
        Kind::OrderRefusal => sign(
            kind,
            json!({
                "order": order_hash(), "code": "ClientNotAllowed",
                "text": "this agent does not know the client's key",
            }),
            "agent",
        ),
        Kind::OrderCancel => {
            sign(kind, json!({"order": order_hash(), "clientSigningKey": key("client")}), "client")
        }
        Kind::Access => access::envelope(),
        Kind::AccessRequest | Kind::AccountRequest | Kind::TerminateRequest => {
            let nonce = Uuid::from_u128(0x4000_8000_0000_0000_0000 + kind as u128);
            sign(kind, json!({"channel": CHANNEL, "time": NOW, "nonce": nonce}), "client")
        }
        Kind::Account => sign(kind, statement(), "agent"),
        Kind::Cheque => sign(kind, cheque(), "client"),
        Kind::Receipt => {
            let mut receipt = statement();
            receipt["paid"] = 1500.into();
            receipt["cheque"] = hash(&of(Kind::Cheque)).into();
            sign(kind, receipt, "agent")
        }
        Kind::Time => {
            let nonce = "c6a86f3e-21a3-4f5d-a7de-6a0f4b0b7f11";
            sign(
                kind,
                json!({"agentPublicKey": key("agent"), "nonce": nonce, "time": NOW}),
                "agent",
            )
        }
    }
}

fn offering() -> Value {
    json!({
        "templateHash": hash(&templates::offering()),
        "accessTemplateHash": hash(&templates::access()),
        "nonce": "5e0b3d0c-8a55-4d6d-a8f2-4b9f1f0f2a01",
        "product": "0d2f6ed5-2c4b-4d6c-8c5e-2f1a9b3c7d10",
        "agentPublicKey": key("agent"),
        "serviceName": "Proxy “Zürich” 😀",
        "country": "CH",
        "supply": 10,
        "unitName": "MiB",
        "unitType": "units",
        "unitSize": 1_048_576,
        "billingType": "postpaid",
        "setupPrice": 100,
        "unitPrice": 7,
        "minUnits": 100,
        "maxUnits": 0,
        "billingInterval": 10,
        "maxBillingUnitLag": 50,
        "maxSuspendTime": 0,
        "maxInactiveTime": 86_400,
        "freeUnits": 3,
        "additionalParams": {},
        "exchange": "https://agent.example:8480",
    })
}

fn order() -> Value {
    json!({
        "offering": hash(&of(Kind::Offering)),
        "clientSigningKey": key("client"),
        "clientSealingKey": identity("client").public().sealing,
        "deposit": 100_000,
        "nonce": "8f6f3a0e-9d0c-4b8e-9a6d-d1b1d8f6a202",
        "expires": NOW + 3600,
    })
}

/// The hash of the order that all is about.
pub(super) fn order_hash() -> String {
    hash(&of(Kind::Order))
}

/// The agent's statement, without its signature.
pub(super) fn statement() -> Value {
    json!({
        "channel": CHANNEL, "status": "active", "holds": [], "usage": 210_000_000, "cost": 1480,
        "paid": 1000, "serial": 2, "time": NOW,
    })
}

/// The cheque, without its signature.
pub(super) fn cheque() -> Value {
    json!({
        "agent": key("agent"), "client": key("client"), "channel": CHANNEL,
        "offering": hash(&of(Kind::Offering)), "balance": 1500,
    })
}

fn refused() -> Vec<Value> {
    let message = of(Kind::Cheque);
    let unsigned = super::changed(&message, &json!({}));
    let with_signature = |signature: Value| {
        let mut message = unsigned.clone();
        message["signature"] = signature;
        message
    };
    let text = message["signature"].as_str().expect("signed");
    let mut altered = message.clone();
    altered["balance"] = 1501.into();
    let mut added = message.clone();
    added["unknown"] = true.into();
    let cases = [
        ("another kind", Kind::Order, "client", message.clone()),
        ("another key", Kind::Cheque, "agent", message.clone()),
        ("a field was altered", Kind::Cheque, "client", altered),
        ("a field was added", Kind::Cheque, "client", added),
        ("a bit of the signature was altered", Kind::Cheque, "client", damaged(&message)),
        (
            "the other form of the signature: S + L",
            Kind::Cheque,
            "client",
            with_signature(second_form(text).into()),
        ),
        ("R has small order", Kind::Cheque, "client", json!({"a": 1, "signature": SMALL_R})),
        ("no signature", Kind::Cheque, "client", unsigned.clone()),
        ("no text", Kind::Cheque, "client", with_signature(json!(7))),
        ("too short", Kind::Cheque, "client", with_signature(text[..85].into())),
        ("padding", Kind::Cheque, "client", with_signature(format!("{text}==").into())),
        (
            "bits that are left over are set",
            Kind::Cheque,
            "client",
            with_signature(format!("{}B", &text[..85]).into()),
        ),
    ];
    let made = |(why, kind, by, message): (&str, Kind, &str, Value)| {
        let key: PublicKey = identity(by).public().signing;
        assert!(signed::verify(kind, &message, &key).is_err(), "{why}");
        assert!(canonical(&message).is_ok(), "{why}");
        json!({ "why": why, "kind": kind.as_str(), "signer": by, "message": message })
    };
    cases.into_iter().map(made).collect()
}

/// A signature of the client's over `{"a":1}` as a cheque, of which `R` is the neutral element: only
/// the client could make it, and lax verifiers take it.
const SMALL_R: &str =
    "AQAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA7PMrw4r9rHOavNNoxLLiA0V7o97O0SI5sUzc_-8T_Dw";

/// The signature with the order of the group added to its second half, which lax verifiers take.
fn second_form(signature: &str) -> String {
    const ORDER: [u8; 32] = [
        0xed, 0xd3, 0xf5, 0x5c, 0x1a, 0x63, 0x12, 0x58, 0xd6, 0x9c, 0xf7, 0xa2, 0xde, 0xf9, 0xde,
        0x14, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10,
    ];
    let mut bytes = URL_SAFE_NO_PAD.decode(signature).expect("base64url");
    let mut carry = 0;
    for (byte, order) in bytes[32..].iter_mut().zip(ORDER) {
        let sum = u16::from(*byte) + u16::from(order) + carry;
        (*byte, carry) = (sum.to_le_bytes()[0], sum >> 8);
    }
    super::base64url(bytes)
}
