//! Arbitrary texts and schemas: compiled or refused, never a panic.

use proptest::prelude::*;
use serde_json::Value;

use super::access;
use crate::template::{SettingsSchema, Template, TemplateKind};

/// JSON that is often a schema, often nearly one.
fn schema_like() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        any::<bool>().prop_map(Value::Bool),
        (0..100u64).prop_map(Value::from),
        Just(Value::Null),
        proptest::sample::select(vec![
            "string",
            "object",
            "#",
            "#/not",
            "#/definitions/a",
            "#/properties/type",
            "#/items/0",
            "#/default",
            "#/x",
            "http://127.0.0.1:1/",
            "#a",
            "(",
            "^a+$",
            "(?=a)",
            r"(a)\1",
            "http://json-schema.org/draft-04/schema#",
            "https://json-schema.org/draft/2020-12/schema",
            "ipv4",
            "",
        ])
        .prop_map(Value::from),
    ];
    let key = proptest::sample::select(vec![
        "type",
        "properties",
        "required",
        "$ref",
        "$id",
        "id",
        "$schema",
        "$dynamicRef",
        "$anchor",
        "$dynamicAnchor",
        "definitions",
        "$defs",
        "items",
        "prefixItems",
        "allOf",
        "anyOf",
        "oneOf",
        "not",
        "if",
        "then",
        "pattern",
        "patternProperties",
        "additionalProperties",
        "unevaluatedProperties",
        "unevaluatedItems",
        "dependencies",
        "dependentSchemas",
        "propertyNames",
        "contains",
        "const",
        "enum",
        "default",
        "format",
        "minimum",
        "maxLength",
        "multipleOf",
        "uniqueItems",
        "a",
        "x",
        "schema",
        "uiSchema",
    ]);
    leaf.prop_recursive(5, 64, 6, move |inner| {
        let members = proptest::collection::vec((key.clone(), inner.clone()), 0..6);
        prop_oneof![
            3 => members.prop_map(|members| {
                Value::Object(members.into_iter().map(|(k, v)| (k.to_owned(), v)).collect())
            }),
            1 => proptest::collection::vec(inner, 0..3).prop_map(Value::Array),
        ]
    })
}

proptest! {
    #[test]
    fn any_text_is_a_template_or_refused(bytes: Vec<u8>) {
        let _ = Template::parse(TemplateKind::Access, &bytes);
    }

    #[test]
    fn anything_like_a_schema_is_compiled_or_refused(schema in schema_like(), value in schema_like()) {
        if let Ok(schema) = SettingsSchema::compile(&schema) {
            let _ = schema.validate(&value);
        }
        for kind in [TemplateKind::Access, TemplateKind::Offering] {
            let _ = Template::parse(kind, schema.to_string().as_bytes());
        }
    }

    #[test]
    fn additions_to_a_template_are_compiled_or_refused(
        addition in schema_like(),
        message in schema_like(),
    ) {
        let mut document = access();
        if let (Some(document), Value::Object(addition)) = (document.as_object_mut(), addition) {
            for (key, value) in addition {
                document.entry(key).or_insert(value);
            }
        }
        if let Ok(template) = Template::parse(TemplateKind::Access, document.to_string().as_bytes()) {
            let _ = template.validate(&message);
        }
    }
}
