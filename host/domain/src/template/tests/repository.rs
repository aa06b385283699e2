//! The templates of this repository: that they pass, and what messages they let through.

use privatix_plugin_api::json::MAX_INTEGER;
use serde_json::{Map, Value, json};

use super::{template, with};
use crate::template::{MAX_VIOLATIONS, SettingsSchema, Template, TemplateKind};

const VPN_ACCESS: &str = include_str!("../../../../../templates/vpn.access.json");
const VPN_OFFERING: &str = include_str!("../../../../../templates/vpn.offering.json");

#[test]
fn the_seed_s_patterns_match_what_they_are_for() {
    let document: Value = serde_json::from_str(VPN_ACCESS).expect("JSON");
    for (name, text, valid) in [
        ("host", "vpn.example.com:443", true),
        ("host", "10.0.0.1:65535", true),
        ("host", "a-b:80", true),
        ("host", "-a.example.com:443", false),
        ("host", "vpn.example.com", false),
        ("host", "vpn.example.com:4", false),
        ("uuid", "9b1deb4d-3b7d-4bad-9bdd-2b0d7b3dcb6d", true),
        ("uuid", "9b1deb4d3b7d4bad9bdd2b0d7b3dcb6d", false),
        ("simple_url", "https://www.example.com/x", true),
        ("simple_url", "10.0.0.1:3000", true),
        ("simple_url", "", false),
    ] {
        let schema = SettingsSchema::compile(&document["schema"]["definitions"][name])
            .expect("a pattern that compiles as it is");
        assert_eq!(schema.validate(&json!(text)).is_ok(), valid, "{name} {text}");
    }
}

fn access_message() -> Value {
    json!({
        "templateHash": "0".repeat(64),
        "nonce": "6ecd8c99-4036-403d-bf84-cf8400f67836",
        "username": "9b1deb4d-3b7d-4bad-9bdd-2b0d7b3dcb6d",
        "password": "s3cr3t-of-the-channel",
        "paymentReceiverAddress": "https://agent.example.com:9000",
        "serviceEndpointAddress": "vpn.example.com:1194",
        "additionalParams": {"proto": "udp", "caData": "-----BEGIN CERTIFICATE-----"},
    })
}

fn offering_message() -> Value {
    json!({
        "templateHash": "0".repeat(64),
        "nonce": "6ecd8c99-4036-403d-bf84-cf8400f67836",
        "product": "9b1deb4d-3b7d-4bad-9bdd-2b0d7b3dcb6d",
        "agentPublicKey": "MCowBQYDK2VwAyEA",
        "serviceName": "VPN", "country": "DE", "supply": 30,
        "unitName": "MiB", "unitType": "units", "unitSize": 1_048_576,
        "billingType": "postpaid", "setupPrice": 0, "unitPrice": 10,
        "minUnits": 100, "maxUnits": 0, "billingInterval": 10, "maxBillingUnitLag": 30,
        "maxSuspendTime": 1800, "maxInactiveTime": 3600, "freeUnits": 0,
        "additionalParams": {"minDownloadSpeed": 1000, "maxDownloadSpeed": 100_000},
        "exchange": "https://agent.example.com:9000",
    })
}

/// Each change of a valid message, and where the first violation is.
fn check_changes(template: &Template, message: &Value, cases: &[(&str, Option<Value>, &str)]) {
    assert_eq!(template.validate(message), Ok(()));
    for (pointer, change, expected) in cases {
        let changed = with(message, pointer, change.clone());
        let violations = template.validate(&changed).map_or_else(|found| found, |()| Vec::new());
        let place = violations.first().map_or("valid", |violation| violation.place.as_str());
        assert_eq!(place, *expected, "{pointer} {change:?}: {violations:?}");
    }
}

#[test]
fn the_repository_s_access_template() {
    let template = template(TemplateKind::Access, VPN_ACCESS);
    assert_eq!(template.kind().to_string(), "access");
    assert_eq!(template.schema()["title"], "Privatix VPN access");
    let ui = template.ui_schema().expect("a UI schema");
    assert_eq!(ui["password"]["ui:widget"], "password");
    check_changes(
        &template,
        &access_message(),
        &[
            ("/templateHash", None, ""),
            ("/paymentReceiverAddress", None, ""),
            ("/serviceEndpointAddress", None, ""),
            ("/additionalParams", None, ""),
            ("/nonce", None, "valid"),
            ("/password", None, "valid"),
            ("/custom", Some(json!(1)), "valid"),
            ("/username", Some(json!("me")), "/username"),
            ("/password", Some(json!(1)), "/password"),
            ("/paymentReceiverAddress", Some(json!("")), "/paymentReceiverAddress"),
            ("/additionalParams", Some(json!({})), "/additionalParams"),
            ("/additionalParams/port", Some(json!(1194)), "/additionalParams/port"),
        ],
    );
}

#[test]
fn the_repository_s_offering_template() {
    let template = template(TemplateKind::Offering, VPN_OFFERING);
    assert_eq!(template.kind().to_string(), "offering");
    check_changes(
        &template,
        &offering_message(),
        &[
            ("/maxUnits", None, "valid"),
            ("/maxBillingUnitLag", None, "valid"),
            ("/maxSuspendTime", None, "valid"),
            ("/maxInactiveTime", None, "valid"),
            ("/signature", Some(json!("x")), "valid"),
            ("/additionalParams", Some(json!({})), "valid"),
            ("/supply", Some(json!(MAX_INTEGER)), "valid"),
            ("/unitType", Some(json!("seconds")), "valid"),
            ("/supply", None, ""),
            ("/exchange", None, ""),
            ("/additionalParams", None, ""),
            ("/supply", Some(json!(MAX_INTEGER + 1)), "/supply"),
            ("/unitPrice", Some(json!("10")), "/unitPrice"),
            ("/country", Some(json!("de")), "/country"),
            ("/country", Some(json!("DEU")), "/country"),
            ("/unitType", Some(json!("bytes")), "/unitType"),
            ("/billingType", Some(json!("free")), "/billingType"),
            ("/billingInterval", Some(json!(0)), "/billingInterval"),
            ("/unitSize", Some(json!(0)), "/unitSize"),
            ("/templateHash", Some(json!("ABC")), "/templateHash"),
            ("/product", Some(json!("vpn")), "/product"),
            ("/exchange", Some(json!("agent.example.com")), "/exchange"),
            (
                "/additionalParams/maxUploadSpeed",
                Some(json!("1")),
                "/additionalParams/maxUploadSpeed",
            ),
            ("/additionalParams/maxSpeed", Some(json!(1)), "/additionalParams"),
        ],
    );
}

#[test]
fn the_ui_schemas_name_fields_that_exist() {
    for (kind, text) in [(TemplateKind::Access, VPN_ACCESS), (TemplateKind::Offering, VPN_OFFERING)]
    {
        let template = template(kind, text);
        let fields = template.schema()["properties"].as_object().expect("an object");
        let ui = template.ui_schema().and_then(Value::as_object).expect("an object");
        for name in ui.keys().filter(|name| !name.starts_with("ui:")) {
            // The host adds it to an offering, whatever the template says.
            let added = kind == TemplateKind::Offering && name == "accessTemplateHash";
            assert!(added || fields.contains_key(name), "{kind} {name}");
        }
        let order: Vec<&str> =
            ui["ui:order"].as_array().expect("a list").iter().filter_map(Value::as_str).collect();
        assert!(fields.keys().all(|name| order.contains(&name.as_str())), "{kind} {order:?}");
        assert!(order.iter().all(|name| *name == "*" || fields.contains_key(*name)));
    }
}

#[test]
fn violations_are_few_short_and_silent_about_values() {
    let template = template(TemplateKind::Access, VPN_ACCESS);
    let params: Map<String, Value> =
        (0..1000).map(|n| (format!("{n}{}", "k".repeat(1000)), json!(n))).collect();
    let message = with(&access_message(), "/additionalParams", Some(Value::Object(params)));
    let violations = template.validate(&message).expect_err("1000 violations");
    assert_eq!(violations.len(), MAX_VIOLATIONS);
    assert!(violations.iter().all(|violation| violation.to_string().len() < 1000));

    let message = with(&access_message(), "/username", Some(json!("s3cr3t\u{1b}")));
    let [violation] = &template.validate(&message).expect_err("invalid")[..] else {
        panic!("one violation");
    };
    assert_eq!(
        violation.to_string(),
        "/username: the value does not match \
         \"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\""
    );
    let missing = with(&access_message(), "/templateHash", None);
    let violations = template.validate(&missing).expect_err("invalid");
    assert_eq!(violations[0].to_string(), "(root): \"templateHash\" is a required property");
}
