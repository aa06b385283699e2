//! The fields of SPEC §3 and §5, each left out and each declared wrongly.

use serde_json::{Value, json};

use super::{access, check_template, with};
use crate::template::{Template, TemplateKind};

/// The least offering template there is.
fn offering() -> Value {
    let (text, integer) = (json!({"type": "string"}), json!({"type": "integer"}));
    json!({
        "type": "object",
        "properties": {
            "templateHash": text, "nonce": text, "product": text, "agentPublicKey": text,
            "serviceName": text, "country": text, "supply": integer, "unitName": text,
            "unitType": text, "unitSize": integer, "billingType": text, "setupPrice": integer,
            "unitPrice": integer, "minUnits": integer, "maxUnits": integer,
            "billingInterval": integer, "maxBillingUnitLag": integer, "maxSuspendTime": integer,
            "maxInactiveTime": integer, "freeUnits": integer, "exchange": text,
            "additionalParams": {"type": "object"},
        },
    })
}

#[test]
fn every_core_field_is_needed_with_its_type() {
    for (kind, good) in [(TemplateKind::Access, access()), (TemplateKind::Offering, offering())] {
        check_template(kind, &good.to_string(), "ok");
        for (field, declared) in good["properties"].as_object().expect("an object") {
            let place = format!("/properties/{field}");
            let other = if declared["type"] == "string" { "integer" } else { "string" };
            for (change, expected) in [
                (None, "CoreFieldMissing"),
                (Some(json!({"type": other})), "CoreFieldType"),
                (Some(json!({"type": [declared["type"], "null"]})), "CoreFieldType"),
                (Some(json!({})), "CoreFieldType"),
                (Some(json!(true)), "CoreFieldType"),
                (Some(json!({"enum": ["a", "b"]})), "CoreFieldType"),
                (Some(json!({"allOf": [declared]})), "CoreFieldType"),
            ] {
                check_template(kind, &with(&good, &place, change).to_string(), expected);
            }
            let mut referring = with(&good, &place, Some(json!({"$ref": "#/definitions/x"})));
            referring["definitions"] = json!({"x": {"$ref": "#/definitions/y"}, "y": declared});
            check_template(kind, &referring.to_string(), "ok");
            referring["definitions"]["y"] = json!({"type": other});
            check_template(kind, &referring.to_string(), "CoreFieldType");
        }
    }
}

#[test]
fn the_root_is_an_object() {
    let good = access();
    let behind = |root: Value| {
        let mut schema = root;
        schema["definitions"] = json!({"all": access(), "any": {}});
        schema
    };
    let mut silenced = access();
    silenced["$ref"] = json!("#/definitions/any");
    let mut added = silenced.clone();
    added["$schema"] = json!("https://json-schema.org/draft/2020-12/schema");
    for (schema, expected) in [
        (with(&good, "/type", None), "CoreFieldType"),
        (with(&good, "/type", Some(json!("array"))), "CoreFieldType"),
        (with(&good, "/type", Some(json!(["object"]))), "CoreFieldType"),
        (with(&good, "/properties", None), "CoreFieldMissing"),
        (behind(json!({"$ref": "#/definitions/all"})), "ok"),
        (behind(json!({"$ref": "#/definitions/any"})), "CoreFieldType"),
        // A reference silences its neighbours up to draft-07, and only there.
        (behind(silenced), "CoreFieldType"),
        (behind(added), "ok"),
    ] {
        check_template(TemplateKind::Access, &schema.to_string(), expected);
    }
}

#[test]
fn what_the_seed_requires_is_required() {
    let all =
        ["templateHash", "paymentReceiverAddress", "serviceEndpointAddress", "additionalParams"];
    for left_out in all {
        let others: Vec<&str> = all.into_iter().filter(|field| *field != left_out).collect();
        let schema = with(&access(), "/required", Some(json!(others)));
        check_template(TemplateKind::Access, &schema.to_string(), "CoreFieldNotRequired");
    }
    let none = with(&access(), "/required", None);
    check_template(TemplateKind::Access, &none.to_string(), "CoreFieldNotRequired");
    let error = Template::parse(TemplateKind::Access, none.to_string().as_bytes());
    assert_eq!(
        error.expect_err("refused").to_string(),
        "the core field templateHash may be left out; add it to `required` of the schema's root"
    );
}

#[test]
fn access_parameters_are_strings() {
    let (text, number) = (json!({"type": "string"}), json!({"type": "integer"}));
    for (params, expected) in [
        (json!({"additionalProperties": text}), "ok"),
        (json!({"additionalProperties": {"type": "string", "maxLength": 10}}), "ok"),
        (json!({"additionalProperties": {"$ref": "#/properties/nonce"}}), "ok"),
        (json!({"additionalProperties": false}), "ok"),
        (json!({"additionalProperties": false, "properties": {"port": text}}), "ok"),
        (json!({"additionalProperties": text, "patternProperties": {"^x": text}}), "ok"),
        (json!({}), "CoreFieldType"),
        (json!({"properties": {"port": text}}), "CoreFieldType"),
        (json!({"additionalProperties": true}), "CoreFieldType"),
        (json!({"additionalProperties": {}}), "CoreFieldType"),
        (json!({"additionalProperties": number}), "CoreFieldType"),
        (json!({"additionalProperties": false, "properties": {"port": number}}), "CoreFieldType"),
        (json!({"additionalProperties": text, "properties": {"port": {}}}), "CoreFieldType"),
        (
            json!({"additionalProperties": text, "patternProperties": {"^x": number}}),
            "CoreFieldType",
        ),
    ] {
        let mut declared = params;
        declared["type"] = json!("object");
        let schema = with(&access(), "/properties/additionalParams", Some(declared));
        check_template(TemplateKind::Access, &schema.to_string(), expected);
    }
    let open = with(&access(), "/properties/additionalParams/additionalProperties", None);
    let error = Template::parse(TemplateKind::Access, open.to_string().as_bytes());
    assert_eq!(
        error.expect_err("refused").to_string(),
        "additionalParams is declared with type \"object\" but no additionalProperties; it has to \
         be {\"type\": \"object\", \"additionalProperties\": {\"type\": \"string\"}}, or with \
         \"additionalProperties\": false and string properties only"
    );
}
