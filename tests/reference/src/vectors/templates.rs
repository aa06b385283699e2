//! The two templates of the vectors. They are not those of a module, which may change.

use std::sync::Arc;

use serde_json::{Value, json};

use super::hash;
use privatix_domain::template::{Template, TemplateKind};

/// The access template's document.
pub(super) fn access() -> Value {
    let text = json!({"type": "string"});
    json!({
        "schema": {
            "title": "Access to an example",
            "type": "object",
            "properties": {
                "templateHash": text, "nonce": text, "username": text, "password": text,
                "paymentReceiverAddress": text, "serviceEndpointAddress": text,
                "additionalParams": {
                    "type": "object",
                    "properties": {"port": {"type": "string", "pattern": "^[0-9]{1,5}$"}},
                    "additionalProperties": text,
                    "required": ["port"],
                },
            },
            "required": [
                "templateHash", "nonce", "username", "password", "paymentReceiverAddress",
                "serviceEndpointAddress", "additionalParams",
            ],
        },
        "uiSchema": {"password": {"ui:widget": "password"}},
    })
}

/// The offering template's document: a bare JSON Schema.
pub(super) fn offering() -> Value {
    let (text, integer) = (json!({"type": "string"}), json!({"type": "integer"}));
    let texts = [
        "templateHash",
        "nonce",
        "product",
        "agentPublicKey",
        "serviceName",
        "country",
        "unitName",
        "unitType",
        "billingType",
        "exchange",
    ];
    let integers = [
        "supply",
        "unitSize",
        "setupPrice",
        "unitPrice",
        "minUnits",
        "maxUnits",
        "billingInterval",
        "maxBillingUnitLag",
        "maxSuspendTime",
        "maxInactiveTime",
        "freeUnits",
    ];
    let mut template = json!({
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "An example",
        "type": "object",
        "properties": {"additionalParams": {"type": "object"}},
    });
    for name in texts {
        template["properties"][name] = text.clone();
    }
    for name in integers {
        template["properties"][name] = integer.clone();
    }
    template
}

/// The access template as the host reads it.
pub(super) fn access_template() -> Arc<Template> {
    let text = access().to_string();
    Arc::new(Template::parse(TemplateKind::Access, text.as_bytes()).expect("a template"))
}

/// Both with their hashes.
pub(super) fn vectors() -> Value {
    let text = offering().to_string();
    let read = Template::parse(TemplateKind::Offering, text.as_bytes()).expect("a template");
    assert_eq!(read.hash(), hash(&offering()));
    assert_eq!(access_template().hash(), hash(&access()));
    let made = |kind: &str, document: Value| json!({ "kind": kind, "sha256": hash(&document), "document": document });
    json!([made("access", access()), made("offering", offering())])
}
