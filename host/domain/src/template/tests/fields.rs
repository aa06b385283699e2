//! Fields that a template does not know.

use super::super::fields::{declares, unknown};
use super::*;

const CORE: &[&str] = &["supply", "maxUnits"];

#[test]
fn a_field_that_nobody_declares_is_found() {
    let of = |more: Value| {
        let mut schema = json!({"type": "object", "properties": {
            "supply": {"type": "integer"}, "maxUnits": {"type": "integer"},
            "additionalParams": {"type": "object"},
            "limits": {"type": "object", "properties": {"speed": {"type": "integer"}}},
        }});
        schema.as_object_mut().expect("an object").extend(more.as_object().expect("one").clone());
        schema
    };
    let plain = of(json!({}));
    let closed = of(json!({"additionalProperties": false}));
    let open = of(json!({"additionalProperties": true}));
    let patterns = of(json!({"patternProperties": {"^x-": {}}}));
    let composed = of(json!({
        "definitions": {"more": {"properties": {"colour": {"type": "string"}}}},
        "allOf": [{"$ref": "#/definitions/more"}],
        "if": {"properties": {"size": {}}}, "then": {"properties": {"weight": {}}},
    }));
    let list = of(json!({"properties": {"list": {"items": {"properties": {"name": {}}}}}}));
    for (schema, message, expected) in [
        (&plain, json!({"supply": 1, "maxUnits": 2}), None),
        (&plain, json!({"suply": 1}), Some(("suply", Some("supply")))),
        (&plain, json!({"Supply": 1}), Some(("Supply", Some("supply")))),
        (&plain, json!({"maxUnit": 1}), Some(("maxUnit", Some("maxUnits")))),
        (&plain, json!({"colour": 1}), Some(("colour", None))),
        (&plain, json!({"limits": {"sped": 1}}), Some(("limits.sped", Some("speed")))),
        // Nobody declares what may be in it.
        (&plain, json!({"additionalParams": {"supply": 1, "anything": {"at": "all"}}}), None),
        (&closed, json!({"suply": 1}), Some(("suply", Some("supply")))),
        (&open, json!({"colour": 1}), None),
        // Of the host's own fields a typing error is found all the same.
        (&open, json!({"maxUnit": 1}), Some(("maxUnit", Some("maxUnits")))),
        (&patterns, json!({"x-colour": 1}), None),
        (&composed, json!({"colour": 1, "size": 1, "weight": 1}), None),
        (&composed, json!({"color": 1}), Some(("color", Some("colour")))),
        (&list, json!({"list": [{"name": 1}, {"nam": 1}]}), Some(("list.nam", Some("name")))),
    ] {
        let found = unknown(schema, &message, CORE);
        let found = found.as_ref().map(|found| (found.field.as_str(), found.nearest.as_deref()));
        assert_eq!(found, expected, "{message}");
    }
    assert!(declares(&composed, "colour") && !declares(&plain, "colour"));
}

#[test]
fn a_schema_that_refers_to_itself_is_looked_at_once() {
    let schema = json!({"properties": {"inner": {"$ref": "#"}}, "allOf": [{"$ref": "#"}]});
    let message = json!({"inner": {"inner": {"iner": 1}}});
    let found = unknown(&schema, &message, CORE).expect("an unknown field");
    assert_eq!(
        found.to_string(),
        "the template does not know the field `inner.inner.iner`; did you \
        mean `inner`?"
    );
}
