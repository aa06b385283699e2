//! The schemas accept the messages that the code makes and accepts, and refuse what it refuses.

#![allow(clippy::expect_used)]

use std::fs;

use privatix_plugin_api::manifest::Manifest;
use privatix_plugin_api::message::{CoreRequest, ModuleRequest, decode};
use privatix_reference::{directory, repository};
use serde_json::{Value, json};

fn read(path: &str) -> Value {
    let text = fs::read(directory().join(path)).expect(path);
    serde_json::from_slice(&text).expect(path)
}

/// Whether a schema accepts a value.
fn accepts(schema: &str, value: &Value) -> bool {
    let schema = read(&format!("schemas/{schema}.json"));
    let validator = jsonschema::draft202012::options().should_validate_formats(true).build(&schema);
    validator.expect("a schema").is_valid(value)
}

#[test]
fn every_schema_is_one_of_draft_2020_12() {
    let mut count = 0;
    for part in fs::read_dir(directory().join("schemas")).expect("a directory") {
        for file in fs::read_dir(part.expect("an entry").path()).expect("a directory") {
            let path = file.expect("an entry").path();
            let schema: Value =
                serde_json::from_slice(&fs::read(&path).expect("text")).expect("JSON");
            assert_eq!(schema["$schema"], "https://json-schema.org/draft/2020-12/schema");
            assert!(jsonschema::meta::is_valid(&schema), "{}", path.display());
            count += 1;
        }
    }
    assert!(count > 50, "{count}");
}

/// The schema of the messages that are signed as this kind.
fn of_kind(kind: &str) -> String {
    let name = match kind {
        "access" => "envelope",
        "account" => "statement",
        "access-request" | "account-request" | "terminate-request" => "channel-request",
        other => other,
    };
    format!("exchange/{name}")
}

#[test]
fn signed_messages_of_each_kind_are_valid_and_damaged_ones_are_not() {
    let vectors = read("vectors/messages.json");
    let signed = vectors["signed"].as_array().expect("an array");
    for vector in signed {
        let schema = of_kind(vector["kind"].as_str().expect("a text"));
        let message = &vector["message"];
        assert!(accepts(&schema, message), "{schema}: {message}");
        // No field that it has can be left out or be something else; limits may be left out.
        for (name, value) in message.as_object().expect("an object") {
            let optional = [
                "minUnits",
                "maxUnits",
                "maxBillingUnitLag",
                "maxSuspendTime",
                "maxInactiveTime",
                "freeUnits",
                "additionalParams",
            ];
            let mut altered = message.clone();
            altered.as_object_mut().expect("an object").remove(name);
            assert_eq!(
                accepts(&schema, &altered),
                optional.contains(&name.as_str()),
                "{schema} without {name}"
            );
            let others = match value {
                Value::String(_) => vec![json!(1), json!(null)],
                Value::Number(_) => {
                    vec![
                        json!("1"),
                        json!(-1),
                        json!(0.5),
                        json!(9_007_199_254_740_992_u64),
                        json!(null),
                    ]
                }
                _ => vec![json!("x"), json!(null)],
            };
            for other in others {
                altered[name] = other;
                assert!(!accepts(&schema, &altered), "{schema}: {altered}");
            }
        }
    }
}

/// Which cases a schema can tell: those that are refused for their form alone.
#[test]
fn cases_that_are_malformed_are_refused_by_the_schema_and_no_accepted_one_is() {
    let (mut accepted, mut refused) = (0, 0);
    let of_one_field =
        ["BadSupply", "BadUnitSize", "BadBillingInterval", "BadCountry", "BadTemplateHash"];
    for (file, group, schema) in [
        ("orders", "offerings", "exchange/offering"),
        ("orders", "orders", "exchange/order"),
        ("orders", "replies", "exchange/order-reply"),
        ("orders", "cancellations", "exchange/order-cancel"),
        ("orders", "requests", "exchange/channel-request"),
        ("statements", "checks", "exchange/statement"),
        ("cheques", "cheques", "exchange/cheque"),
        ("cheques", "receipts", "exchange/receipt"),
        ("envelopes", "checks", "exchange/envelope"),
    ] {
        for case in read(&format!("vectors/{file}.json"))[group].as_array().expect("an array") {
            let message = case.get("message").unwrap_or(&case["envelope"]);
            let valid = accepts(schema, message);
            match case["code"].as_str() {
                None => {
                    assert!(valid, "{schema}: {}", case["why"]);
                    accepted += 1;
                }
                // No schema says which version a UUID has to have.
                Some(_) if case["why"] == "the channel is no UUID v4" => {}
                Some(code) if code.starts_with("Malformed") || of_one_field.contains(&code) => {
                    assert!(!valid, "{schema}: {}", case["why"]);
                    refused += 1;
                }
                Some(_) => {}
            }
        }
    }
    assert!(accepted >= 9 && refused >= 15, "{accepted} {refused}");
}

/// The calls of modules, as the golden test of the messages has them.
#[test]
fn calls_and_commands_are_valid_exactly_where_they_can_be_read() {
    let key = "6f1c1f0e-3b5c-4c5e-8f7a-0c1d2e3f4a5b";
    let session = "0191f0e0-3b5c-7c5e-8f7a-0c1d2e3f4a5b";
    for (call, readable) in [
        (json!({"call": "authClient", "clientKey": key, "password": "secret"}), true),
        (json!({"call": "authClient", "clientKey": key}), false),
        (json!({"call": "authClient", "clientKey": "no UUID", "password": "secret"}), false),
        (json!({"call": "setProductConfig", "config": {"externalIP": "192.0.2.1"}}), true),
        (json!({"call": "setProductConfig", "config": {"externalIP": 1}}), false),
        (json!({"call": "getAccess", "clientKey": key}), true),
        (json!({"call": "serviceReady", "clientKey": key}), true),
        (json!({"call": "startSession", "clientKey": key}), true),
        (
            json!({"call": "startSession", "clientKey": key, "clientAddress": "2001:db8::1", "clientPort": 1}),
            true,
        ),
        (json!({"call": "startSession", "clientKey": key, "clientAddress": "nowhere"}), false),
        (json!({"call": "startSession", "clientKey": key, "clientPort": 65_536}), false),
        (
            json!({"call": "updateSession", "clientKey": key, "session": session, "usage": {"total": 1}}),
            true,
        ),
        (
            json!({"call": "updateSession", "clientKey": key, "session": session,
            "usage": {"incremental": {"sequence": 1, "amount": 2}}}),
            true,
        ),
        (json!({"call": "updateSession", "clientKey": key, "session": session, "usage": 1}), false),
        (
            json!({"call": "updateSession", "clientKey": key, "session": session,
            "usage": {"total": 9_007_199_254_740_992_u64}}),
            false,
        ),
        (
            json!({"call": "updateSession", "clientKey": key, "session": session, "usage": {"total": -1}}),
            false,
        ),
        (json!({"call": "stopSession", "clientKey": key, "session": session}), true),
        (json!({"call": "holdChannel", "clientKey": key, "reason": "routes"}), true),
        (json!({"call": "log", "level": "info", "target": "t", "message": "m"}), true),
        (json!({"call": "log", "level": "loud", "target": "t", "message": "m"}), false),
        (json!({"clientKey": key}), false),
    ] {
        let read = decode::<CoreRequest>(call.to_string().as_bytes()).is_ok();
        assert_eq!(
            (read, accepts("service-api/core-request", &call)),
            (readable, readable),
            "{call}"
        );
    }
    for (call, readable) in [
        (json!({"call": "configure", "config": {}}), true),
        (json!({"call": "start", "clientKey": key}), true),
        (json!({"call": "stop", "clientKey": key, "reason": "terminated"}), true),
        (json!({"call": "stop", "clientKey": key}), false),
        (json!({"call": "sessions"}), true),
        (json!({"call": "health"}), true),
        (json!({"call": "describe", "clientKey": key}), true),
        (json!({"call": "cleanup"}), true),
        (json!({"call": "handOver"}), true),
        (json!({"call": "exercise", "clientKey": key, "amount": 7}), true),
        (json!({"call": "exercise", "clientKey": key, "amount": 0.5}), false),
    ] {
        let read = decode::<ModuleRequest>(call.to_string().as_bytes()).is_ok();
        assert_eq!(
            (read, accepts("service-api/module-request", &call)),
            (readable, readable),
            "{call}"
        );
    }
}

#[test]
fn manifests_are_valid_exactly_where_they_can_be_read() {
    let hash = "0".repeat(64);
    let manifest = json!({
        "name": "vpn", "version": "1.2.3", "productId": "5c1e1f0e-3d0a-4c55-9d4b-6a1c2f7b8e90",
        "serviceApi": {"min": 1, "max": 1}, "roles": ["agent"], "usageReporting": "total",
        "templates": {"access": hash, "offering": hash}, "panic": "unwind", "seal": hash,
    });
    assert!(accepts("package/manifest", &manifest));
    for (field, value) in [
        ("name", json!("VPN")),
        ("name", json!("a".repeat(33))),
        ("version", json!("")),
        ("version", json!("1".repeat(65))),
        ("productId", json!("vpn")),
        ("serviceApi", json!({"min": 1})),
        ("roles", json!([])),
        ("roles", json!(["seller"])),
        ("usageReporting", json!("sometimes")),
        ("templates", json!({"access": "0"})),
        ("panic", json!("never")),
        ("seal", json!(null)),
    ] {
        let mut altered = manifest.clone();
        altered[field] = value;
        let read = Manifest::from_bytes(altered.to_string().as_bytes()).is_ok();
        assert_eq!((read, accepts("package/manifest", &altered)), (false, false), "{altered}");
    }
    let text =
        fs::read(repository().join("docs/standalone/parrot.module.json")).expect("a manifest");
    let written: Value = serde_json::from_slice(&text).expect("JSON");
    assert!(accepts("package/module-file", &written));
    let mut altered = written;
    altered["panic"] = "unwind".into();
    assert!(!accepts("package/module-file", &altered), "a field that a file does not have");
}

#[test]
fn what_a_program_is_told_and_says_is_valid() {
    let key = "6f1c1f0e-3b5c-4c5e-8f7a-0c1d2e3f4a5b";
    for (schema, value, valid) in [
        ("command", json!({"id": 1, "command": "start", "clientKey": key}), true),
        (
            "command",
            json!({"id": 1, "command": "stop", "clientKey": key, "reason": "suspended"}),
            true,
        ),
        ("command", json!({"id": 1, "command": "stop", "clientKey": key}), false),
        ("command", json!({"id": 1, "command": "sessions"}), true),
        ("subscribe", json!({}), true),
        ("subscribe", json!({"serving": [key]}), true),
        ("subscribe", json!({"serves": [key]}), false),
        ("commands", json!({"subscription": "s", "after": 3, "waitSeconds": 50}), true),
        ("commands", json!({"after": 3}), false),
        (
            "acknowledge",
            json!({"subscription": "s", "id": 1, "answer": "ready", "service": {"port": "1"}}),
            true,
        ),
        ("acknowledge", json!({"subscription": "s", "id": 1, "answer": "fine"}), false),
        ("unsubscribe", json!({"subscription": "s"}), true),
    ] {
        assert_eq!(accepts(&format!("json-rpc/{schema}"), &value), valid, "{schema}: {value}");
    }
}
