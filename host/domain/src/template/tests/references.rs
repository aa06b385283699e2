//! Drafts and references: what stays inside the document, what does not, and what only looks so.

use serde_json::json;

use super::check;
use crate::template::SettingsSchema;

#[test]
fn drafts() {
    for (address, expected) in [
        (json!("http://json-schema.org/draft-04/schema#"), "ok"),
        (json!("http://json-schema.org/draft-06/schema#"), "ok"),
        (json!("http://json-schema.org/draft-07/schema#"), "ok"),
        (json!("http://json-schema.org/draft-07/schema"), "ok"),
        (json!("https://json-schema.org/draft-07/schema#"), "ok"),
        (json!("https://json-schema.org/draft/2019-09/schema"), "ok"),
        (json!("https://json-schema.org/draft/2020-12/schema"), "ok"),
        (json!("http://json-schema.org/draft-03/schema#"), "UnknownDraft"),
        (json!("http://json-schema.org/schema#"), "UnknownDraft"),
        (json!("http://json-schema.org/draft-07/schema##"), "UnknownDraft"),
        (json!("https://example.com/mine"), "UnknownDraft"),
        (json!("file:///etc/passwd"), "UnknownDraft"),
        (json!(""), "UnknownDraft"),
        (json!(7), "UnknownDraft"),
    ] {
        check(&json!({"$schema": address}), expected);
        let within = json!({"$schema": address, "not": {"$schema": address}});
        check(&within, expected);
    }
    let other = json!({"not": {"$schema": "https://json-schema.org/draft/2020-12/schema"}});
    check(&other, "UnknownDraft");
}

#[test]
fn the_draft_is_seven_where_none_is_named() {
    // `dependentRequired` came later, `if` is older.
    let later = json!({"dependentRequired": {"a": ["b"]}});
    let known = json!({"if": {"required": ["a"]}, "then": {"required": ["b"]}});
    let later = SettingsSchema::compile(&later).expect("good");
    let known = SettingsSchema::compile(&known).expect("good");
    assert!(later.validate(&json!({"a": 1})).is_ok());
    assert!(known.validate(&json!({"a": 1})).is_err());
}

#[test]
fn references_stay_inside() {
    let definitions = json!({"a": {}, "b c": {}, "d/e~f": {}, "list": [{}, 5], "yes": true});
    for (reference, expected) in [
        (json!("#/definitions/a"), "ok"),
        (json!("#/definitions/b%20c"), "ok"),
        (json!("#/definitions/d~1e~0f"), "ok"),
        (json!("#/x-more/list/0"), "ok"),
        (json!("#/definitions/yes"), "ok"),
        (json!("#/x-more"), "ok"),
        (json!("#/definitions/none"), "RemoteReference"),
        (json!("#/definitions/a/"), "RemoteReference"),
        (json!("#/x-more/list"), "RemoteReference"),
        (json!("#/x-more/list/1"), "RemoteReference"),
        (json!("#/x-more/list/00"), "RemoteReference"),
        (json!("#/definitions/b%2"), "RemoteReference"),
        (json!("#/definitions/%ff"), "RemoteReference"),
        (json!("#/title"), "RemoteReference"),
        (json!("#anchor"), "RemoteReference"),
        (json!(""), "RemoteReference"),
        (json!("definitions/a"), "RemoteReference"),
        (json!("/definitions/a"), "RemoteReference"),
        (json!("http://127.0.0.1:1/x#/definitions/a"), "RemoteReference"),
        (json!("//127.0.0.1/x"), "RemoteReference"),
        (json!("file:///etc/passwd"), "RemoteReference"),
        (json!("http://json-schema.org/draft-07/schema#"), "RemoteReference"),
        (json!("json-schema:///#/definitions/a"), "RemoteReference"),
        (json!("urn:uuid:0"), "RemoteReference"),
        (json!(5), "RemoteReference"),
        (json!({"type": "string"}), "RemoteReference"),
    ] {
        let mut named = definitions.clone();
        let more = json!({"list": named["list"].take()});
        named.as_object_mut().expect("an object").remove("list");
        let schema = json!({
            "title": "t", "definitions": named, "x-more": more, "not": {"$ref": reference},
        });
        check(&schema, expected);
    }
}

#[test]
fn what_looks_like_a_reference_and_is_none() {
    let remote = json!({"$ref": "http://127.0.0.1:1/", "$id": "http://127.0.0.1:1/"});
    for schema in [
        json!({"const": remote}),
        json!({"enum": [remote]}),
        json!({"default": remote}),
        json!({"examples": [remote]}),
        json!({"x-unknown": remote}),
        json!({"properties": {"$ref": {"type": "string"}, "$id": {}, "$dynamicRef": {}}}),
        json!({"properties": {"properties": {"properties": {"$ref": {"type": "string"}}}}}),
        json!({"definitions": {"$ref": {}, "pattern": {}, "$schema": {}}}),
        json!({"$ref": "#/definitions/a", "definitions": {"a": {}}}),
        json!({"$id": "http://127.0.0.1:1/", "not": {"$ref": "#/definitions/a"},
               "definitions": {"a": {}}}),
        json!({"$id": "http://json-schema.org/draft-07/schema#", "$ref": "#/definitions/mine",
               "definitions": {"mine": {}}}),
        json!({"properties": {"a": {"$id": "#a"}}}),
        json!({"$schema": "http://json-schema.org/draft-07/schema#",
               "properties": {"a": {"id": "http://127.0.0.1:1/"}}}),
    ] {
        check(&schema, "ok");
    }
}

#[test]
fn what_is_a_reference_in_disguise() {
    let modern = "https://json-schema.org/draft/2020-12/schema";
    for schema in [
        json!({"$dynamicRef": "#a"}),
        json!({"$schema": modern, "$dynamicRef": "#a", "$dynamicAnchor": "a"}),
        json!({"$schema": "https://json-schema.org/draft/2019-09/schema", "$recursiveRef": "#"}),
        json!({"items": [{}, {"$ref": "http://127.0.0.1:1/"}]}),
        json!({"dependencies": {"a": {"$ref": "http://127.0.0.1:1/"}}}),
        json!({"definitions": {"unused": {"$ref": "http://127.0.0.1:1/"}}}),
        // Data, until something refers to it.
        json!({"default": {"$ref": "http://127.0.0.1:1/"}, "not": {"$ref": "#/default"}}),
        json!({"properties": {"a": {"$id": "http://127.0.0.1:1/"}}}),
        json!({"properties": {"a": {"$id": "other.json"}}}),
        json!({"$schema": modern, "properties": {"a": {"$id": "#a"}}}),
        json!({"$schema": "http://json-schema.org/draft-04/schema#",
               "properties": {"a": {"id": "http://127.0.0.1:1/"}}}),
    ] {
        check(&schema, "RemoteReference");
    }
}

#[test]
fn a_root_with_its_own_address_keeps_its_own_definitions() {
    // Were the address used, `#` would be the meta-schema, whose definition this is.
    let schema = json!({
        "$id": "http://json-schema.org/draft-07/schema",
        "definitions": {"nonNegativeInteger": {"type": "string"}},
        "properties": {"a": {"$ref": "#/definitions/nonNegativeInteger"}},
    });
    let schema = SettingsSchema::compile(&schema).expect("good");
    assert!(schema.validate(&json!({"a": "text"})).is_ok());
    assert!(schema.validate(&json!({"a": 1})).is_err());
}
