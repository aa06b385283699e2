//! Known answers come from Python's `cryptography`, `hmac` and `hashlib`.

use proptest::prelude::*;

use super::testing::{CHANNEL, OTHER_CHANNEL, identity};
use super::*;

/// Signing key of 1s, sealing key of 2s, access secret of 3s.
fn known() -> Identity {
    let mut entropy = [3; 96];
    entropy[..32].fill(1);
    entropy[32..64].fill(2);
    Identity::from_entropy(entropy)
}

fn channel(text: &str) -> ClientKey {
    text.parse().expect("a UUID")
}

#[test]
fn public_keys_and_fingerprints() {
    let public = known().public();
    for (found, expected) in [
        (public.signing.to_string(), "iojj3XQJ8ZX9UtstPLpdcspnCb8dlBIb83SIAbQPb1w"),
        (public.sealing.to_string(), "zo060cy2M-x7cMF4FKXHbs0CloUFDTRHRboFhw5YfVk"),
        (
            public.signing.fingerprint(),
            "34750f98bd59fcfc946da45aaabe933be154a4b5094e1c4abf42866505f3c97e",
        ),
        (
            public.sealing.fingerprint(),
            "cfa570c653bd212b10a9cb551fd7a1b4789855ee17e99ef2b3a2037feb337a08",
        ),
    ] {
        assert_eq!(found, expected);
    }
    let wire = serde_json::to_value(public).expect("JSON");
    assert_eq!(wire["signing"], "iojj3XQJ8ZX9UtstPLpdcspnCb8dlBIb83SIAbQPb1w");
}

#[test]
fn a_password_belongs_to_one_channel_order_and_agent() {
    let (channel, order) = (self::channel(CHANNEL), "ab".repeat(32));
    let password = known().password(channel, &order);
    assert_eq!(password.0, "6V4-zS0aN8TFJBsjPVSQxA3TjrPXfMqiJT2rETS7IjI");
    assert!(known().is_password(channel, &order, &password));
    for (agent, channel, order) in [
        (known(), self::channel(OTHER_CHANNEL), order.clone()),
        (known(), channel, "ac".repeat(32)),
        (identity(1), channel, order),
    ] {
        assert!(!agent.is_password(channel, &order, &password), "{agent:?} {channel} {order}");
    }
    for wrong in ["", "6", "6V4-zS0aN8TFJBsjPVSQxA3TjrPXfMqiJT2rETS7IjJ"] {
        let wrong = Password(wrong.to_owned());
        assert!(!known().is_password(channel, &"ab".repeat(32), &wrong));
    }
}

#[test]
fn an_identity_survives_its_document() {
    let read = Identity::from_json(&known().to_json()).expect("an identity");
    assert_eq!(read.to_json(), known().to_json());
    assert_eq!(read.public(), known().public());
}

#[test]
fn a_document_that_is_no_identity() {
    let check = |changes: Value, expected: &IdentityError| {
        let document = testing::changed(&known().to_json(), &changes);
        let error = Identity::from_json(&document).expect_err("refused");
        assert_eq!(error, *expected, "{changes}");
    };
    let short = "AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQ";
    for (changes, expected) in [
        (json!({"version": null}), IdentityError::Form),
        (json!({"signing": null}), IdentityError::Form),
        (json!({"more": 1}), IdentityError::Form),
        (json!({"accessSecret": null, "secret": "x"}), IdentityError::Form),
        (json!({"version": 2}), IdentityError::Version),
        (json!({"version": "1"}), IdentityError::Version),
        (json!({"signing": 1}), IdentityError::Secret(SIGNING)),
        (json!({"sealing": ""}), IdentityError::Secret(SEALING)),
        (json!({"sealing": short}), IdentityError::Secret(SEALING)),
        (json!({"accessSecret": format!("{short}E=")}), IdentityError::Secret(ACCESS_SECRET)),
        // The last digit has bits that mean nothing; one spelling is enough.
        (json!({"accessSecret": format!("{short}F")}), IdentityError::Secret(ACCESS_SECRET)),
    ] {
        check(changes, &expected);
    }
    for document in [json!(null), json!([]), json!("x")] {
        assert_eq!(Identity::from_json(&document).expect_err("refused"), IdentityError::Form);
    }
}

#[test]
fn secrets_are_not_shown() {
    let shown = format!("{:?}", known());
    assert_eq!(shown, format!("Identity({})", known().public().signing.fingerprint()));
}

#[test]
fn keys_that_are_refused() {
    let text = |last: u8, first: u8| {
        let mut bytes = [0; 32];
        (bytes[0], bytes[31]) = (first, last);
        base64url::encode(&bytes)
    };
    // Of order 4, 1 and 4 as Edwards points; of 2, 4 and 2 as Montgomery points.
    for (signing, sealing, expected) in [
        (text(0, 0), text(0, 0), KeyError::Weak),
        (text(0, 1), text(0, 1), KeyError::Weak),
        (text(0x80, 0), text(0x80, 0), KeyError::Weak),
        (String::new(), String::new(), KeyError::Encoding),
        (text(0, 9) + "A", text(0, 9) + "A", KeyError::Encoding),
        (text(0, 9) + "=", text(0, 9) + "=", KeyError::Encoding),
        (format!(" {}", text(0, 9)), format!(" {}", text(0, 9)), KeyError::Encoding),
    ] {
        assert_eq!(signing.parse::<PublicKey>(), Err(expected), "{signing}");
        assert_eq!(sealing.parse::<SealingKey>(), Err(expected), "{sealing}");
    }
    assert_eq!(text(0, 2).parse::<PublicKey>(), Err(KeyError::Invalid));
    assert!(serde_json::from_value::<PublicKey>(json!(text(0, 0))).is_err());
}

proptest! {
    #[test]
    fn keys_survive_their_text(entropy in proptest::array::uniform32(any::<u8>())) {
        let mut bytes = [0; 96];
        bytes[..32].copy_from_slice(&entropy);
        bytes[32..64].copy_from_slice(&entropy);
        let public = Identity::from_entropy(bytes).public();
        prop_assert_eq!(public.signing.to_string().parse(), Ok(public.signing));
        prop_assert_eq!(public.sealing.to_string().parse(), Ok(public.sealing));
    }
}
