//! Orders, replies and requests: what each refusal takes, and that damage is noticed.

use std::sync::LazyLock;

use privatix_plugin_api::json;
use serde_json::json;

use super::*;
use crate::identity::testing::{CHANNEL, OTHER_CHANNEL, changed, check_damage, identity, with};

const NOW: u64 = 1_700_000_000;
const AGENT: u8 = 1;
const CLIENT: u8 = 2;
const MALLORY: u8 = 3;

/// A deposit of at least 26.
fn offering() -> &'static (String, Offering) {
    static MADE: LazyLock<(String, Offering)> = LazyLock::new(make_offering);
    &MADE
}

fn make_offering() -> (String, Offering) {
    let message = json!({
        "templateHash": "ab".repeat(32),
        "accessTemplateHash": "cd".repeat(32),
        "nonce": "5f0e8d1c-95b5-4f4e-8d57-9c0d40a0c2a1",
        "product": "8d1b3f5e-2c4a-4b6d-9e8f-7a6b5c4d3e2f",
        "agentPublicKey": identity(AGENT).public().signing,
        "serviceName": "VPN", "country": "DE", "supply": 10,
        "unitName": "MiB", "unitType": "units", "unitSize": 1,
        "billingType": "prepaid", "setupPrice": 5, "unitPrice": 3, "minUnits": 7,
        "billingInterval": 2, "exchange": "https://agent.example",
    });
    let message = with(Kind::Offering, &message, &json!({}), &identity(AGENT));
    let hash = json::hash(&message).expect("a hash");
    (hash, crate::offering::parse_signed(&message, None).expect("an offering"))
}

fn order() -> Value {
    let public = identity(CLIENT).public();
    let order = Order {
        offering: offering().0.clone(),
        client_signing_key: public.signing,
        client_sealing_key: public.sealing,
        deposit: 26,
        nonce: "b5f1a0a2-0d3e-4a5b-8c7d-6e5f4a3b2c1d".parse().expect("a UUID"),
        expires: NOW + 60,
    };
    signed::sign(Kind::Order, order, &identity(CLIENT)).expect("signed")
}

fn checked(message: &Value) -> Result<(), &'static str> {
    let (hash, offering) = offering();
    let checked = read(message).and_then(|order| check(&order, NOW, hash, offering));
    checked.map_err(|error| error.code().code())
}

#[test]
fn orders() {
    let foreign = identity(MALLORY).public();
    let weak = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";
    for (changes, signer, expected) in [
        (json!({}), CLIENT, Ok(())),
        (json!({"of a newer version": 1}), CLIENT, Err("MalformedOrder")),
        (json!({"padding": "x".repeat(60_000)}), CLIENT, Err("MalformedOrder")),
        (json!({"deposit": null}), CLIENT, Err("MalformedOrder")),
        (json!({"deposit": "26"}), CLIENT, Err("MalformedOrder")),
        (json!({"nonce": "x"}), CLIENT, Err("MalformedOrder")),
        (json!({"clientSigningKey": weak}), CLIENT, Err("MalformedOrder")),
        (json!({"clientSealingKey": weak}), CLIENT, Err("MalformedOrder")),
        (json!({}), MALLORY, Err("BadOrderSignature")),
        (json!({"clientSigningKey": foreign.signing}), CLIENT, Err("BadOrderSignature")),
        // To put himself between the two he needs to order in his own name.
        (json!({"clientSealingKey": foreign.sealing}), MALLORY, Err("BadOrderSignature")),
        (json!({"clientSigningKey": foreign.signing}), MALLORY, Ok(())),
        (json!({"offering": "cd".repeat(32)}), CLIENT, Err("WrongOffering")),
        (json!({"expires": NOW}), CLIENT, Err("OrderExpired")),
        (json!({"expires": 0}), CLIENT, Err("OrderExpired")),
        (json!({"expires": NOW + 1}), CLIENT, Ok(())),
        (json!({"expires": NOW + 86_400}), CLIENT, Ok(())),
        (json!({"expires": NOW + 86_401}), CLIENT, Err("OrderExpiryTooFar")),
        (json!({"deposit": 25}), CLIENT, Err("DepositTooLow")),
        (json!({"deposit": 0}), CLIENT, Err("DepositTooLow")),
        (json!({"deposit": 9_007_199_254_740_991_u64}), CLIENT, Ok(())),
    ] {
        let message = with(Kind::Order, &order(), &changes, &identity(signer));
        assert_eq!(checked(&message), expected, "{changes} by {signer}");
    }
    for message in [json!(null), json!({}), changed(&order(), &json!({"deposit": 0.5}))] {
        assert_eq!(checked(&message), Err("MalformedOrder"), "{message}");
    }
}

#[test]
fn no_damage_to_an_order_goes_unnoticed() {
    check_damage(&order(), ["MalformedOrder", "BadOrderSignature"], checked);
}

#[test]
fn refusals() {
    let hash = json::hash(&order()).expect("a hash");
    let refusal = json!({"order": hash, "code": "OrderRejected", "text": "no"});
    let checked = |message: &Value| {
        let agent = identity(AGENT).public().signing;
        check_refusal(message, &agent, &hash).map(drop).map_err(|error| error.code().code())
    };
    for (kind, changes, signer, expected) in [
        (Kind::OrderRefusal, json!({}), AGENT, Ok(())),
        (Kind::OrderRefusal, json!({}), MALLORY, Err("BadRefusalSignature")),
        (Kind::OrderRefusal, json!({}), CLIENT, Err("BadRefusalSignature")),
        (Kind::OrderReply, json!({}), AGENT, Err("BadRefusalSignature")),
        (Kind::OrderRefusal, json!({"order": "cd".repeat(32)}), AGENT, Err("ForeignRefusal")),
        (Kind::OrderRefusal, json!({"order": null}), AGENT, Err("MalformedRefusal")),
        (Kind::OrderRefusal, json!({"code": 7}), AGENT, Err("MalformedRefusal")),
        (Kind::OrderRefusal, json!({"text": null}), AGENT, Err("MalformedRefusal")),
    ] {
        let message = with(kind, &refusal, &changes, &identity(signer));
        assert_eq!(checked(&message), expected, "{kind} {changes} by {signer}");
    }
    assert_eq!(checked(&refusal), Err("BadRefusalSignature"), "unsigned");
    let refusal = with(Kind::OrderRefusal, &refusal, &json!({}), &identity(AGENT));
    check_damage(&refusal, ["MalformedRefusal", "BadRefusalSignature"], checked);
}

#[test]
fn replies() {
    let hash = json::hash(&order()).expect("a hash");
    let reply = json!({"order": hash, "channel": CHANNEL});
    let checked = |message: &Value| {
        let agent = identity(AGENT).public().signing;
        check_reply(message, &agent, &hash).map(drop).map_err(|error| error.code().code())
    };
    for (kind, changes, signer, expected) in [
        (Kind::OrderReply, json!({}), AGENT, Ok(())),
        (Kind::OrderReply, json!({}), MALLORY, Err("BadReplySignature")),
        (Kind::Order, json!({}), AGENT, Err("BadReplySignature")),
        (Kind::OrderReply, json!({"order": "cd".repeat(32)}), AGENT, Err("ForeignReply")),
        (Kind::OrderReply, json!({"channel": null}), AGENT, Err("MalformedReply")),
        (Kind::OrderReply, json!({"channel": "x"}), AGENT, Err("MalformedReply")),
        (Kind::OrderReply, json!({"channel": Uuid::nil()}), AGENT, Err("MalformedReply")),
    ] {
        let message = with(kind, &reply, &changes, &identity(signer));
        assert_eq!(checked(&message), expected, "{kind} {changes} by {signer}");
    }
    let reply = with(Kind::OrderReply, &reply, &json!({}), &identity(AGENT));
    check_damage(&reply, ["MalformedReply", "BadReplySignature"], checked);
}

#[test]
fn requests() {
    let kinds = [Kind::AccessRequest, Kind::AccountRequest, Kind::TerminateRequest];
    let request =
        json!({"channel": CHANNEL, "time": NOW, "nonce": "b5f1a0a2-0d3e-4a5b-8c7d-6e5f4a3b2c1d"});
    let checked = |kind: Kind, message: &Value| {
        let client = identity(CLIENT).public().signing;
        let channel = CHANNEL.parse().expect("a UUID");
        let checked = check_request(kind, message, &client, channel, NOW);
        checked.map(drop).map_err(|error| error.code().code())
    };
    for (changes, signer, expected) in [
        (json!({}), CLIENT, Ok(())),
        (json!({}), AGENT, Err("BadRequestSignature")),
        (json!({"channel": OTHER_CHANNEL}), CLIENT, Err("ForeignRequest")),
        (json!({"nonce": null}), CLIENT, Err("MalformedRequest")),
        (json!({"time": NOW - 120}), CLIENT, Ok(())),
        (json!({"time": NOW + 120}), CLIENT, Ok(())),
        (json!({"time": NOW - 121}), CLIENT, Err("StaleRequest")),
        (json!({"time": NOW + 121}), CLIENT, Err("StaleRequest")),
        (json!({"time": 0}), CLIENT, Err("StaleRequest")),
    ] {
        for kind in kinds {
            let message = with(kind, &request, &changes, &identity(signer));
            assert_eq!(checked(kind, &message), expected, "{kind} {changes} by {signer}");
            for other in kinds.into_iter().filter(|other| *other != kind && expected.is_ok()) {
                assert_eq!(checked(other, &message), Err("BadRequestSignature"), "{kind}, {other}");
            }
        }
    }
    let request = with(Kind::AccessRequest, &request, &json!({}), &identity(CLIENT));
    check_damage(&request, ["MalformedRequest", "BadRequestSignature"], |message| {
        checked(Kind::AccessRequest, message)
    });
}
