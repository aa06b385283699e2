//! Rules, signatures and deposits of offerings, on a sample of the repository's VPN template.

mod matching;

use std::sync::LazyLock;

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::identity::testing::{changed, check_damage, identity, with};

const TEMPLATE: &str = include_str!("../../../../templates/vpn.offering.json");

fn template() -> &'static Template {
    static PARSED: LazyLock<Template> = LazyLock::new(|| {
        Template::parse(TemplateKind::Offering, TEMPLATE.as_bytes()).expect("a template")
    });
    &PARSED
}

/// An offering by agent 1, not yet signed.
fn draft() -> Value {
    json!({
        "templateHash": template().hash(),
        "accessTemplateHash": "cd".repeat(32),
        "nonce": "5f0e8d1c-95b5-4f4e-8d57-9c0d40a0c2a1",
        "product": "8d1b3f5e-2c4a-4b6d-9e8f-7a6b5c4d3e2f",
        "agentPublicKey": identity(1).public().signing,
        "serviceName": "VPN",
        "country": "DE",
        "supply": 10,
        "unitName": "MiB",
        "unitType": "units",
        "unitSize": 1_048_576,
        "billingType": "postpaid",
        "setupPrice": 5,
        "unitPrice": 3,
        "minUnits": 7,
        "maxUnits": 100,
        "billingInterval": 2,
        "maxBillingUnitLag": 4,
        "maxSuspendTime": 0,
        "freeUnits": 1,
        "additionalParams": {"minUploadSpeed": 100},
        "exchange": "https://agent.example:8443/x",
    })
}

fn code(outcome: Result<Offering, OfferingError>) -> &'static str {
    outcome.map_or_else(|error| error.code().code(), |_| "ok")
}

#[test]
fn all_fields_are_read() {
    let offering = parse(&draft(), Some(template())).expect("an offering");
    assert_eq!(offering.agent_public_key, identity(1).public().signing);
    assert_eq!(offering.unit_type, UnitType::Units);
    assert_eq!(offering.billing_type, BillingType::Postpaid);
    assert_eq!(offering.max_units.map(NonZeroU64::get), Some(100));
    assert_eq!(offering.max_suspend_time, None, "0 is no limit");
    assert_eq!(offering.max_inactive_time, None, "and so is none");
    // Written again it is the same, but for limits that are none.
    let written = serde_json::to_value(&offering).expect("JSON");
    assert_eq!(written, changed(&draft(), &json!({"maxSuspendTime": null})));
}

#[test]
fn rules() {
    let max = 9_007_199_254_740_991_u64;
    for (changes, expected) in [
        (json!({}), "ok"),
        (json!({"nonce": null}), "MalformedOffering"),
        (json!({"nonce": "x"}), "MalformedOffering"),
        (
            json!({"agentPublicKey": "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"}),
            "MalformedOffering",
        ),
        (json!({"unitType": "metres"}), "MalformedOffering"),
        (json!({"billingType": "Prepaid"}), "MalformedOffering"),
        (json!({"unitPrice": "3"}), "MalformedOffering"),
        (json!({"unitPrice": 0.5}), "NumberNotInteger"),
        (json!({"unitPrice": -1}), "NumberNotInteger"),
        (json!({"additionalParams": {"minUploadSpeed": max + 1}}), "NumberTooLarge"),
        (json!({"additionalParams": 1}), "MalformedOffering"),
        (json!({"templateHash": "AB"}), "BadTemplateHash"),
        (json!({"templateHash": "AB".repeat(32)}), "BadTemplateHash"),
        (json!({"templateHash": "ab".repeat(32)}), "WrongTemplate"),
        (json!({"accessTemplateHash": "CD".repeat(32)}), "BadTemplateHash"),
        (json!({"accessTemplateHash": null}), "MalformedOffering"),
        (json!({"country": "De"}), "BadCountry"),
        (json!({"country": "DEU"}), "BadCountry"),
        (json!({"country": "Ä"}), "BadCountry"),
        (json!({"supply": 0}), "BadSupply"),
        (json!({"unitSize": 0}), "BadUnitSize"),
        (json!({"billingInterval": 0}), "BadBillingInterval"),
        (json!({"maxBillingUnitLag": 3}), "BadBillingUnitLag"),
        (json!({"maxBillingUnitLag": 3, "billingType": "prepaid"}), "ok"),
        (json!({"maxBillingUnitLag": 0}), "ok"),
        (json!({"maxBillingUnitLag": null}), "ok"),
        (json!({"maxUnits": 6}), "BadMaxUnits"),
        (json!({"maxUnits": 7}), "ok"),
        (json!({"maxUnits": 0}), "ok"),
        (json!({"unitPrice": 0, "setupPrice": 0}), "ok"),
        (json!({"unitPrice": 0, "setupPrice": max}), "ok"),
        (json!({"unitPrice": 1, "setupPrice": max}), "MinDepositTooLarge"),
        (json!({"unitPrice": max, "minUnits": max, "maxUnits": 0}), "MinDepositTooLarge"),
        (json!({"serviceName": ""}), "InvalidOffering"),
        (json!({"additionalParams": {"colour": "red"}}), "InvalidOffering"),
        (json!({"freeUnits": null}), "InvalidOffering"),
        (json!({"of a newer version": 1}), "ok"),
    ] {
        let message = changed(&draft(), &changes);
        assert_eq!(code(parse(&message, Some(template()))), expected, "{changes}");
    }
    for message in [json!(null), json!([]), json!("x"), json!({})] {
        assert_eq!(code(parse(&message, None)), "MalformedOffering", "{message}");
    }
}

#[test]
fn a_template_need_not_know_the_access_template_s_hash() {
    let mut closed: Value = serde_json::from_str(TEMPLATE).expect("JSON");
    closed["schema"]["additionalProperties"] = false.into();
    let closed = Template::parse(TemplateKind::Offering, closed.to_string().as_bytes());
    let closed = closed.expect("a template");
    let message = changed(&draft(), &json!({"templateHash": closed.hash()}));
    assert_eq!(code(parse(&message, Some(&closed))), "ok");
    let message = changed(&message, &json!({"suply": 1}));
    assert_eq!(code(parse(&message, Some(&closed))), "InvalidOffering");
}

#[test]
fn exchanges() {
    for (exchange, ok) in [
        ("http://a", true),
        ("https://[2001:db8::1]:1/", true),
        ("http://192.0.2.1:8080/base/", true),
        ("", false),
        ("a", false),
        ("ftp://a", false),
        ("HTTP://a", false),
        ("http://", false),
        ("http:///a", true),
        ("http:a", false),
        ("http://a:99999", false),
        ("http://a b", false),
        (" http://a", false),
        ("http://a\\b", false),
        ("http://a/\n", false),
        ("http://user@a", false),
        ("http://:secret@a", false),
        ("http://a?x", false),
        ("http://a#x", false),
    ] {
        let message = changed(&draft(), &json!({"exchange": exchange}));
        let expected = if ok { "ok" } else { "BadExchange" };
        assert_eq!(code(parse(&message, None)), expected, "{exchange:?}");
    }
}

#[test]
fn addresses_of_the_exchange() {
    let offering = parse(&draft(), None).expect("an offering");
    for (address, expected) in [
        ("https://agent.example:8443", true),
        ("https://AGENT.example:8443/v1/payments", true),
        ("https://agent.example/v1/payments", false),
        ("http://agent.example:8443/v1/payments", false),
        ("https://agent.example.org:8443", false),
        ("https://agent.example:8443@192.0.2.1", false),
        ("https://x@agent.example:8443", false),
        ("agent.example:8443", false),
        ("", false),
    ] {
        assert_eq!(offering.is_of_exchange(address), expected, "{address}");
    }
}

#[test]
fn the_least_deposit() {
    for (changes, deposit, priced) in [
        (json!({}), 5 + 7 * 3, true),
        (json!({"minUnits": 1}), 5 + 2 * 3, true),
        (json!({"minUnits": null}), 5 + 2 * 3, true),
        (json!({"unitPrice": 0}), 5, true),
        (json!({"setupPrice": 0}), 21, true),
        (json!({"unitPrice": 0, "setupPrice": 0}), 0, false),
    ] {
        let offering = parse(&changed(&draft(), &changes), None).expect("an offering");
        assert_eq!((offering.min_deposit(), offering.is_priced()), (Some(deposit), priced));
    }
}

#[test]
fn a_received_offering_has_to_be_signed_by_the_agent_it_names() {
    let open = |message: &Value| match parse_signed(message, Some(template())) {
        Ok(_) => Ok(()),
        Err(error) => Err(error.code().code()),
    };
    assert_eq!(open(&draft()), Err("BadOfferingSignature"));
    assert_eq!(open(&with(Kind::Offering, &draft(), &json!({}), &identity(1))), Ok(()));
    for (kind, changes, signer, expected) in [
        (Kind::Offering, json!({}), 2, "BadOfferingSignature"),
        (Kind::Order, json!({}), 1, "BadOfferingSignature"),
        (
            Kind::Offering,
            json!({"agentPublicKey": identity(2).public().signing}),
            1,
            "BadOfferingSignature",
        ),
        // Signed, but not allowed.
        (Kind::Offering, json!({"supply": 0}), 1, "BadSupply"),
    ] {
        let message = with(kind, &draft(), &changes, &identity(signer));
        assert_eq!(open(&message), Err(expected), "{kind} {changes} {signer}");
    }
}

#[test]
fn no_damage_goes_unnoticed() {
    let message = with(Kind::Offering, &draft(), &json!({}), &identity(1));
    check_damage(&message, ["MalformedOffering", "BadOfferingSignature"], |message| {
        parse_signed(message, None).map(drop).map_err(|error| error.code().code())
    });
}

#[test]
fn a_template_of_another_kind_is_another_template() {
    let text = include_str!("../../../../templates/vpn.access.json");
    let access = Template::parse(TemplateKind::Access, text.as_bytes()).expect("a template");
    let message = changed(&draft(), &json!({"templateHash": access.hash()}));
    assert_eq!(code(parse(&message, Some(&access))), "WrongTemplate");
}

proptest! {
    #[test]
    fn the_least_deposit_is_exact_or_refused(
        setup in any::<u64>(), price in any::<u64>(), units in any::<u64>(), shift in 0_u32..64,
    ) {
        let mut offering = parse(&draft(), None).expect("an offering");
        offering.setup_price = setup >> 11;
        offering.unit_price = price >> shift;
        offering.min_units = units >> (63 - shift);
        let units = u128::from(offering.min_units.max(offering.billing_interval));
        let exact = u128::from(offering.setup_price) + units * u128::from(offering.unit_price);
        match offering.min_deposit() {
            Some(deposit) => prop_assert_eq!(u128::from(deposit), exact),
            None => prop_assert!(exact > u128::from(MAX_INTEGER)),
        }
    }
}
