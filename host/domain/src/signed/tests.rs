//! The known answer comes from Python's `cryptography`.

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::identity::testing::{check_damage, identity};

fn verified(kind: Kind, message: &Value, by: u8) -> Result<(), &'static str> {
    let key = identity(by).public().signing;
    verify(kind, message, &key).map_err(|error| match error {
        SignatureError::Form(_) => "Form",
        SignatureError::Missing => "Missing",
        SignatureError::Encoding => "Encoding",
        SignatureError::Wrong => "Wrong",
    })
}

#[test]
fn a_known_signature() {
    let message = json!({
        "€": {"z": 0, "y": ""}, "b": 9_007_199_254_740_991_u64, "a": [true, null, "é\n"]
    });
    let signed =
        sign(Kind::OrderReply, &message, &Identity::from_entropy([1; 96])).expect("signed");
    let expected =
        "iomaEJEAWkymAn9KDCD2JZ0I4dahIotQy8YIuBA3D0Ted8ia3Yyp7kP5Tdg9YsBIqgaoiZB5eWvng5HEcsCyCw";
    assert_eq!(signed[SIGNATURE], expected);
    assert_eq!(unsigned(&signed), message);
}

#[test]
fn a_signature_is_of_one_kind_key_and_message() {
    for kind in Kind::ALL {
        let message = sign(kind, json!({"a": 1}), &identity(1)).expect("signed");
        for other in Kind::ALL {
            let expected = if kind == other { Ok(()) } else { Err("Wrong") };
            assert_eq!(verified(other, &message, 1), expected, "{kind} as {other}");
        }
        assert_eq!(verified(kind, &message, 2), Err("Wrong"), "another's key");
        let again = sign(kind, json!({"a": 1}), &identity(2)).expect("signed");
        assert_eq!(verified(kind, &again, 1), Err("Wrong"), "signed by another");
    }
}

#[test]
fn what_is_no_signed_message() {
    for (message, expected) in [
        (json!({}), "Missing"),
        (json!({"signature": null}), "Encoding"),
        (json!({"signature": 1}), "Encoding"),
        (json!({"signature": ""}), "Encoding"),
        (json!({"signature": "A".repeat(85)}), "Encoding"),
        (json!({"signature": "A".repeat(86) + "=="}), "Encoding"),
        (json!({"signature": "A".repeat(85) + "B"}), "Encoding"),
        (json!({"signature": "A".repeat(86)}), "Wrong"),
        (json!([]), "Form"),
        (json!("x"), "Form"),
        (json!({"signature": "A".repeat(86), "a": 1.0}), "Form"),
        (json!({"signature": "A".repeat(86), "a": -1}), "Form"),
        (json!({"signature": "A".repeat(86), "a": u64::MAX}), "Form"),
    ] {
        assert_eq!(verified(Kind::Order, &message, 1), Err(expected), "{message}");
    }
}

/// Ed25519 signatures have a second form that lax verifiers take; with it a message would have
/// two hashes.
#[test]
fn the_other_form_of_a_signature_is_refused() {
    // The order of the group, little endian.
    const ORDER: [u8; 32] = [
        0xed, 0xd3, 0xf5, 0x5c, 0x1a, 0x63, 0x12, 0x58, 0xd6, 0x9c, 0xf7, 0xa2, 0xde, 0xf9, 0xde,
        0x14, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10,
    ];
    let mut message = sign(Kind::Order, json!({"a": 1}), &identity(1)).expect("signed");
    let text = message[SIGNATURE].as_str().expect("a text");
    let mut signature = base64url::decode(text).expect("base64url");
    let mut carry = 0;
    for (byte, order) in signature[32..].iter_mut().zip(ORDER) {
        let sum = u16::from(*byte) + u16::from(order) + carry;
        (*byte, carry) = (sum.to_le_bytes()[0], sum >> 8);
    }
    message[SIGNATURE] = base64url::encode(&signature).into();
    assert_eq!(verified(Kind::Order, &message, 1), Err("Wrong"));
}

#[test]
fn what_cannot_be_signed() {
    for message in [
        json!([]),
        json!(null),
        json!({"a": 0.5}),
        json!({"a": -1}),
        json!({"a": 9_007_199_254_740_992_u64}),
        json!({"signature": "x"}),
    ] {
        assert!(sign(Kind::Order, &message, &identity(1)).is_err(), "{message}");
    }
}

#[test]
fn no_damage_goes_unnoticed_and_unknown_fields_are_covered() {
    let message = json!({"known": {"x": ["y", 1]}, "of a newer version": "\u{1f}ä\u{10000}"});
    let message = sign(Kind::Cheque, message, &identity(1)).expect("signed");
    let open = |message: &Value| verified(Kind::Cheque, message, 1).map_err(|_| "Refused");
    check_damage(&message, ["Refused"; 2], open);
}

#[test]
fn what_is_said_of_a_field_is_harmless() {
    #[derive(Debug, serde::Deserialize)]
    #[allow(dead_code)]
    struct Message {
        status: privatix_plugin_api::message::Status,
    }
    let text = format!("\u{1b}[2J{}", "x".repeat(1000));
    let error = read::<Message>(&json!({"status": text})).expect_err("no status").to_string();
    assert!(error.starts_with("status: unknown variant `\\u{1b}[2Jxxx"), "{error}");
    assert!(error.chars().count() < 250, "{error}");
}

proptest! {
    #[test]
    fn whatever_is_signed_is_verified(
        members in proptest::collection::btree_map(".*", (".*", 0..=json::MAX_INTEGER), 0..5)
    ) {
        prop_assume!(!members.contains_key(SIGNATURE));
        let message = sign(Kind::Receipt, &members, &identity(1)).expect("signed");
        let text = serde_json::to_vec(&message).expect("JSON");
        let message = json::parse(&text).expect("strict");
        prop_assert_eq!(verified(Kind::Receipt, &message, 1), Ok(()));
    }
}
