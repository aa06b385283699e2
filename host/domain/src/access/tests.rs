//! Access messages on their way, with everything that may happen to them there.

use std::sync::{Arc, LazyLock};

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::identity::testing::{
    CHANNEL, Counter, OTHER_CHANNEL, changed, check_damage, identity, with,
};
use crate::template::{Template, TemplateKind};

const AGENT: u8 = 1;
const CLIENT: u8 = 2;
const MALLORY: u8 = 3;
const ORDER: &str = "abababababababababababababababababababababababababababababababab";

const TEMPLATE: &str = include_str!("../../../../templates/vpn.access.json");

/// Core fields and nothing else.
const MINIMAL: &str = r#"{"type": "object",
    "properties": {
        "templateHash": {"type": "string"}, "nonce": {"type": "string"},
        "username": {"type": "string"}, "password": {"type": "string"},
        "paymentReceiverAddress": {"type": "string"}, "serviceEndpointAddress": {"type": "string"},
        "additionalParams": {"type": "object", "additionalProperties": {"type": "string"}}
    },
    "required":
        ["templateHash", "paymentReceiverAddress", "serviceEndpointAddress", "additionalParams"]
}"#;

const CIPHERTEXT: &str = concat!(
    "0yt4eSu7Mg7539js8a2UuR9tQsJMp-bPHl3aBhJ4e_6AagGJL9ByoNXGkKa-I9IBSJGXngxQmpvW6KX4ZglIAHePME",
    "EmDs8wSA4sNnvpyeOvJyH60bUm2qdtrs5JOLAdE9l_hZuTZH-94sQoIHVVcGlgJSt69tAnRm3G9FXawULInFFbjx8E",
    "yC1DMm-wyQEWVXq-FeMvWK5zaqPCmacAWtlB35ClYuJW2oMd1YW1HvVafBevwaeZK0AV4ns54iBe32FPvTPFzZxLI1",
    "--edlXqO_W25-1S1fqrAGn74iDcR6wY7zicHw-NxxKe3XV40w4uR8HFyhPY-LBOqP_A377WY6VIPxvAoxwPxXi3IN2",
    "6bc8Z2x8yxbmupTm2Pul",
);

fn template() -> Arc<Template> {
    static PARSED: LazyLock<Arc<Template>> = LazyLock::new(|| {
        Arc::new(Template::parse(TemplateKind::Access, TEMPLATE.as_bytes()).expect("a template"))
    });
    PARSED.clone()
}

fn channel(text: &str) -> ClientKey {
    text.parse().expect("a UUID")
}

fn message() -> Value {
    compose(&AccessParts {
        template_hash: template().hash(),
        nonce: "5f0e8d1c-95b5-4f4e-8d57-9c0d40a0c2a1".parse().expect("a UUID"),
        channel: channel(CHANNEL),
        password: &identity(AGENT).password(channel(CHANNEL), ORDER),
        payment_receiver_address: "https://agent.example/v1/payments",
        service_endpoint_address: "192.0.2.1",
        additional_params: &[("port".to_owned(), "1194".to_owned())].into(),
    })
}

fn binding() -> Binding {
    Binding {
        order_hash: ORDER.to_owned(),
        channel: channel(CHANNEL),
        template_hash: template().hash().to_owned(),
        serial: 5,
    }
}

fn sealed_text(text: &[u8], binding: &Binding, to: u8, agent: u8) -> Value {
    let to = identity(to).public().sealing;
    seal_text(text, binding, &to, &identity(agent), &mut Counter::new(9)).expect("sealed")
}

fn envelope() -> Value {
    let to = identity(CLIENT).public().sealing;
    seal(&message(), &binding(), &to, &identity(AGENT), &mut Counter::new(9)).expect("sealed")
}

fn opened_by(
    envelope: &Value,
    client: u8,
    template: Option<Arc<Template>>,
) -> Result<Opened, AccessError> {
    let expect = Expect {
        agent: identity(AGENT).public().signing,
        order_hash: ORDER,
        channel: channel(CHANNEL),
        last_serial: 5,
    };
    open(envelope, &expect, &identity(client), |_| template)
}

fn opened(envelope: &Value) -> Result<(), &'static str> {
    opened_by(envelope, CLIENT, Some(template())).map(drop).map_err(|error| error.code().code())
}

#[test]
fn what_is_sealed_is_opened() {
    let envelope = envelope();
    let opened = opened_by(&envelope, CLIENT, Some(template())).expect("opened");
    assert_eq!(opened.message, message());
    assert_eq!(opened.serial, 5);
    assert_eq!(opened.envelope_hash, json::hash(&envelope).expect("a hash"));
    assert_eq!(opened.template_hash, template().hash());
    let shown = format!("{envelope} {opened:?}");
    let password = identity(AGENT).password(channel(CHANNEL), ORDER).0;
    assert!(!shown.contains(&password), "{shown}");
}

/// Sealed by an implementation of RFC 9180's base mode in Python, with its `cryptography`: from
/// an agent with a signing key of 1s, to a client with a sealing key of 2s, by an ephemeral key
/// of 4s.
#[test]
fn what_others_have_sealed_is_opened() {
    let (text, hash) =
        (MINIMAL, "c68b7cad0ec7e83eaa669b539f6ad5114350fbcde69c50218c241d488db34d82");
    let envelope = json!({
        "order": ORDER, "channel": CHANNEL, "templateHash": hash, "serial": 5,
        "encapsulatedKey": "rAGyIJ6GNU-4UyN7XeD0-rE8f8v0M6YcAZNpYX_s8Qs",
        "ciphertext": CIPHERTEXT,
        "signature": "CCt2Gvb5zTWiwizTxb7y4ih1ZL1TU-HhVg9rM6rWOuCSdsmmSvaiMQsMBtdhS6bgrmiNNPeBNE6F1wNOeXAuBg",
    });
    let (agent, client) = (Identity::from_entropy([1; 96]), Identity::from_entropy([2; 96]));
    let agent = agent.public().signing;
    let channel = channel(CHANNEL);
    let expect = Expect { agent, order_hash: ORDER, channel, last_serial: 0 };
    let template = Template::parse(TemplateKind::Access, text.as_bytes()).expect("a template");
    let opened = open(&envelope, &expect, &client, |_| Some(Arc::new(template))).expect("opened");
    assert_eq!(opened.message["serviceEndpointAddress"], "192.0.2.1");
    assert_eq!(opened.message["password"], "p");
}

/// Headers altered and signed again: by the agent, who may replay his own envelopes, or by
/// somebody else.
#[test]
fn headers() {
    let other_order = "cd".repeat(32);
    let other_template = "ef".repeat(32);
    for (kind, changes, signer, expected) in [
        (Kind::Access, json!({}), AGENT, Ok(())),
        (Kind::Access, json!({}), MALLORY, Err("BadAccessSignature")),
        (Kind::Account, json!({}), AGENT, Err("BadAccessSignature")),
        (Kind::Access, json!({"channel": OTHER_CHANNEL}), AGENT, Err("ForeignAccess")),
        (Kind::Access, json!({"order": other_order}), AGENT, Err("ForeignAccess")),
        (Kind::Access, json!({"serial": 4}), AGENT, Err("StaleAccess")),
        (Kind::Access, json!({"serial": 0}), AGENT, Err("StaleAccess")),
        // In order, but not what the message was sealed with.
        (Kind::Access, json!({"serial": 6}), AGENT, Err("AccessNotOpened")),
        (Kind::Access, json!({"templateHash": other_template}), AGENT, Err("AccessNotOpened")),
        (Kind::Access, json!({"ciphertext": ""}), AGENT, Err("AccessNotOpened")),
        (Kind::Access, json!({"encapsulatedKey": "A".repeat(43)}), AGENT, Err("AccessNotOpened")),
        (Kind::Access, json!({"of a newer version": 1}), AGENT, Ok(())),
        (Kind::Access, json!({"serial": "5"}), AGENT, Err("MalformedAccess")),
        (Kind::Access, json!({"serial": null}), AGENT, Err("MalformedAccess")),
        (Kind::Access, json!({"ciphertext": "A="}), AGENT, Err("MalformedAccess")),
        (Kind::Access, json!({"encapsulatedKey": "AA"}), AGENT, Err("MalformedAccess")),
        (Kind::Access, json!({"templateHash": "\u{1b}"}), AGENT, Err("MalformedAccess")),
    ] {
        let envelope = with(kind, &envelope(), &changes, &identity(signer));
        assert_eq!(opened(&envelope), expected, "{kind} {changes} by {signer}");
    }
    for envelope in [json!(null), json!([]), json!({}), changed(&envelope(), &json!({"x": 0.5}))] {
        assert_eq!(opened(&envelope), Err("MalformedAccess"), "{envelope}");
    }
    let unsigned = changed(&envelope(), &json!({}));
    assert_eq!(opened(&unsigned), Err("BadAccessSignature"));
}

/// Each check comes before those below it: an envelope with several faults fails at the first.
#[test]
fn the_order_of_the_checks() {
    let text = b"not JSON";
    let faulty = |binding: &Binding, to, signer| sealed_text(text, binding, to, signer);
    let good = Binding { template_hash: "ef".repeat(32), ..binding() };
    let stale = Binding { serial: 4, ..good.clone() };
    let foreign = Binding { channel: channel(OTHER_CHANNEL), ..stale.clone() };
    let not_json = binding();
    for (envelope, expected) in [
        (faulty(&foreign, MALLORY, MALLORY), "BadAccessSignature"),
        (faulty(&foreign, MALLORY, AGENT), "ForeignAccess"),
        (faulty(&stale, MALLORY, AGENT), "StaleAccess"),
        (faulty(&good, MALLORY, AGENT), "AccessNotOpened"),
        (faulty(&good, CLIENT, AGENT), "TemplateNotFound"),
        (faulty(&not_json, CLIENT, AGENT), "InvalidAccess"),
    ] {
        assert_eq!(opened(&envelope), Err(expected));
    }
}

#[test]
fn a_man_in_the_middle_gets_nowhere() {
    // He cannot open what is meant for the client,
    let outcome = opened_by(&envelope(), MALLORY, Some(template()));
    assert_eq!(outcome.expect_err("sealed to another").code(), Code::AccessNotOpened);
    // nor send a message of his own under his or the agent's name,
    let text = json::canonical(&message()).expect("canonical");
    let own = changed(&message(), &json!({"serviceEndpointAddress": "198.51.100.1"}));
    let own = json::canonical(&own).expect("canonical");
    let forged = sealed_text(&own, &binding(), CLIENT, MALLORY);
    assert_eq!(opened(&forged), Err("BadAccessSignature"));
    let mut forged = forged;
    forged[signed::SIGNATURE] = envelope()[signed::SIGNATURE].clone();
    assert_eq!(opened(&forged), Err("BadAccessSignature"));
    // nor put the agent's ciphertext into another channel's envelope.
    let elsewhere = Binding { channel: channel(OTHER_CHANNEL), ..binding() };
    let mut mixed = sealed_text(&text, &elsewhere, CLIENT, AGENT);
    mixed["channel"] = json!(CHANNEL);
    assert_eq!(opened(&mixed), Err("BadAccessSignature"));
    let resigned = with(Kind::Access, &mixed, &json!({}), &identity(AGENT));
    assert_eq!(opened(&resigned), Err("AccessNotOpened"));
}

#[test]
fn messages_that_are_not_valid() {
    let of_other = json!({"templateHash": "ef".repeat(32)});
    for (changes, expected) in [
        (json!({}), Ok(())),
        (json!({"of the template": {"x": 1}}), Ok(())),
        (json!({"additionalParams": {}}), Err("by its template: ")),
        (json!({"additionalParams": {"port": 1194}}), Err("by its template: ")),
        (json!({"serviceEndpointAddress": null}), Err("by its template: ")),
        (json!({"username": null}), Err("the field `username` is missing")),
        (json!({"password": null}), Err("the field `password` is missing")),
        (json!({"nonce": null}), Err("the field `nonce` is missing")),
        (json!({"username": OTHER_CHANNEL}), Err("its `templateHash` or `username`")),
        (json!({"username": format!("x{CHANNEL}")}), Err("its `templateHash` or `username`")),
        (of_other, Err("its `templateHash` or `username`")),
        (json!({"more": 0.5}), Err("its text is not acceptable JSON")),
    ] {
        let text = serde_json::to_vec(&changed(&message(), &changes)).expect("JSON");
        let envelope = sealed_text(&text, &binding(), CLIENT, AGENT);
        match (opened_by(&envelope, CLIENT, Some(template())), expected) {
            (Ok(_), Ok(())) => {}
            (Err(AccessError::Invalid(why)), Err(expected)) => {
                assert!(why.to_string().starts_with(expected), "{changes}: {why}");
            }
            (outcome, _) => panic!("{changes}: {outcome:?}"),
        }
    }
}

#[test]
fn templates_that_are_not_the_noted_one() {
    let other = TEMPLATE.replace("VPN server", "Server");
    let other = Template::parse(TemplateKind::Access, other.as_bytes()).expect("a template");
    for template in [None, Some(Arc::new(other))] {
        let outcome = opened_by(&envelope(), CLIENT, template);
        assert_eq!(outcome.expect_err("no template").code(), Code::TemplateNotFound);
    }
}

#[test]
fn what_cannot_be_sealed() {
    let to = identity(CLIENT).public().sealing;
    let refused = |message: &Value, binding: &Binding| {
        let agent = identity(AGENT);
        seal(message, binding, &to, &agent, &mut Counter::new(9)).expect_err("refused").to_string()
    };
    let elsewhere = Binding { channel: channel(OTHER_CHANNEL), ..binding() };
    assert!(refused(&message(), &elsewhere).contains("another"));
    let endless = Binding { serial: u64::MAX, ..binding() };
    assert!(refused(&message(), &endless).contains("binding"));
    assert!(refused(&changed(&message(), &json!({"x": 0.5})), &binding()).contains("form"));
    assert!(refused(&json!([]), &binding()).contains("form"));
}

#[test]
fn no_damage_goes_unnoticed() {
    check_damage(&envelope(), ["MalformedAccess", "BadAccessSignature"], opened);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// With the signature made anew, so that HPKE alone has to notice.
    #[test]
    fn no_damage_to_what_is_sealed_goes_unnoticed(place in any::<prop::sample::Index>(), bit in 0..8) {
        let envelope = envelope();
        for field in ["ciphertext", "encapsulatedKey"] {
            let text = envelope[field].as_str().expect("a text");
            let mut bytes = base64url::decode(text).expect("base64url");
            let place = place.index(bytes.len());
            // X25519 ignores the highest bit of a key, but HPKE's key schedule does not.
            bytes[place] ^= 1_u8 << bit;
            let changes = json!({field: base64url::encode(&bytes)});
            let damaged = with(Kind::Access, &envelope, &changes, &identity(AGENT));
            prop_assert_eq!(opened(&damaged), Err("AccessNotOpened"));
        }
    }

    #[test]
    fn any_parameters_arrive(params in prop::collection::btree_map(".*", ".*", 1..4)) {
        let message = changed(&message(), &json!({"additionalParams": params}));
        let to = identity(CLIENT).public().sealing;
        let agent = identity(AGENT);
        let envelope = seal(&message, &binding(), &to, &agent, &mut Counter::new(9));
        let text = serde_json::to_vec(&envelope.expect("sealed")).expect("JSON");
        let received = json::parse(&text).expect("strict");
        let opened = opened_by(&received, CLIENT, Some(template())).expect("opened");
        prop_assert_eq!(opened.message, message);
    }
}
