//! Templates and what becomes of them. Most cases are about schemas alone and go through
//! [`SettingsSchema`], which has the same checks; those of core fields and forms go through
//! [`Template`]. Here are the helpers, and what is not about one part of the checks.

mod arbitrary;
mod bounds;
mod core_fields;
mod ecma262;
mod fields;
mod references;
mod repository;

use serde_json::{Value, json};

use super::{place::clip, *};

/// The outcome of a schema: `ok` or the code it is refused with.
fn check(schema: &Value, expected: &str) {
    let outcome = SettingsSchema::compile(schema);
    let code = outcome.as_ref().map_or_else(|error| error.code().code(), |_| "ok");
    assert_eq!(code, expected, "{}: {:?}", clip(&schema.to_string()), outcome.err());
}

/// The outcome of a template's text.
fn check_template(kind: TemplateKind, text: &str, expected: &str) {
    let outcome = Template::parse(kind, text.as_bytes());
    let code = outcome.as_ref().map_or_else(|error| error.code().code(), |_| "ok");
    assert_eq!(code, expected, "{}: {:?}", clip(text), outcome.err());
}

fn refusal(schema: &Value) -> String {
    SettingsSchema::compile(schema).expect_err("refused").to_string()
}

fn template(kind: TemplateKind, text: &str) -> Template {
    Template::parse(kind, text.as_bytes()).expect("a good template")
}

/// `value` with what is at `pointer` replaced, added or, with `None`, removed.
fn with(value: &Value, pointer: &str, new: Option<Value>) -> Value {
    let mut value = value.clone();
    let (parent, key) = pointer.rsplit_once('/').expect("a pointer");
    let parent = value.pointer_mut(parent).and_then(Value::as_object_mut).expect("an object");
    match new {
        Some(new) => parent.insert(key.to_owned(), new),
        None => parent.remove(key),
    };
    value
}

/// The least access template there is.
fn access() -> Value {
    let text = json!({"type": "string"});
    json!({
        "type": "object",
        "properties": {
            "templateHash": text, "nonce": text, "username": text, "password": text,
            "paymentReceiverAddress": text, "serviceEndpointAddress": text,
            "additionalParams": {"type": "object", "additionalProperties": text},
        },
        "required": ["templateHash", "paymentReceiverAddress", "serviceEndpointAddress",
                     "additionalParams"],
    })
}

#[test]
fn texts_and_forms() {
    let good = access();
    let wrapped = |members: &str| format!(r#"{{"schema": {good}{members}}}"#);
    let large = format!(r#"{{"title": "{}"}}"#, "x".repeat(MAX_BYTES));
    let deep = format!("{{\"x\": {}{}}}", "[".repeat(100_000), "]".repeat(100_000));
    for (text, expected) in [
        (good.to_string(), "ok"),
        (wrapped(""), "ok"),
        (wrapped(r#", "uiSchema": {}"#), "ok"),
        (wrapped(r#", "uiSchema": {"schema": {"$ref": "http://x/"}}"#), "ok"),
        (wrapped(r#", "uiSchema": []"#), "BadTemplateForm"),
        (wrapped(r#", "uiSchema": null"#), "BadTemplateForm"),
        (wrapped(r#", "title": "x""#), "BadTemplateForm"),
        (r#"{"schema": true}"#.into(), "BadTemplateForm"),
        (r#"{"uiSchema": {}}"#.into(), "BadTemplateForm"),
        ("[]".into(), "BadTemplateForm"),
        ("true".into(), "BadTemplateForm"),
        (wrapped(r#", "schema": {}"#), "DuplicateKey"),
        (wrapped(r#", "uiSchema": {"a": 1.5}"#), "NumberNotInteger"),
        (r#"{"minimum": -1}"#.into(), "NumberNotInteger"),
        (r#"{"maximum": 9007199254740992}"#.into(), "NumberTooLarge"),
        ("{".into(), "InvalidJson"),
        (String::new(), "InvalidJson"),
        (deep, "TooDeep"),
        (large, "TemplateTooLarge"),
    ] {
        check_template(TemplateKind::Access, &text, expected);
    }
}

#[test]
fn settings_schemas_have_the_form_of_templates() {
    for (schema, expected) in [
        (json!({}), "ok"),
        (json!({"schema": {}, "type": "object"}), "ok"),
        (json!(true), "BadTemplateForm"),
        (json!({"minimum": 0.5}), "NumberNotInteger"),
        (json!({"title": "x".repeat(MAX_BYTES)}), "TemplateTooLarge"),
    ] {
        check(&schema, expected);
    }
}

#[test]
fn schemas_that_are_none() {
    let modern = "https://json-schema.org/draft/2020-12/schema";
    for schema in [
        json!({"type": "text"}),
        json!({"type": 5}),
        json!({"properties": []}),
        json!({"properties": {"a": 5}}),
        json!({"required": "a"}),
        json!({"minLength": "1"}),
        json!({"pattern": 5}),
        json!({"multipleOf": 0}),
        json!({"$id": 5}),
        json!({"items": "x"}),
        json!({"$schema": "http://json-schema.org/draft-04/schema#", "exclusiveMinimum": 5}),
        json!({"$schema": modern, "items": [{}]}),
        json!({"$schema": modern, "$defs": {"a": {"type": "text"}}}),
    ] {
        check(&schema, "InvalidSchema");
    }
}

#[test]
fn formats_are_checked_if_known() {
    for (draft, format, text, valid) in [
        ("http://json-schema.org/draft-07/schema#", "uuid-of-mine", "x", true),
        ("http://json-schema.org/draft-07/schema#", "ipv4", "10.0.0.1", true),
        ("http://json-schema.org/draft-07/schema#", "ipv4", "10.0.0.256", false),
        ("https://json-schema.org/draft/2020-12/schema", "ipv4", "10.0.0.256", false),
    ] {
        let schema = json!({"$schema": draft, "format": format});
        let schema = SettingsSchema::compile(&schema).expect("good");
        assert_eq!(schema.validate(&json!(text)).is_ok(), valid, "{draft} {format} {text}");
    }
}

#[test]
fn refusals_name_the_place_and_the_remedy() {
    for (schema, expected) in [
        (
            json!({"properties": {"a/b": {"items": [{"$ref": "http://x/\u{1b}"}]}}}),
            "/properties/a~1b/items/0: $ref \"http://x/\\u001b\" does not begin with #; a template \
             may refer only to places in itself",
        ),
        (
            json!({"definitions": {"a": {"pattern": "(?=x)"}}, "not": {"$ref": "#/definitions/a"}}),
            "/definitions/a/pattern: the pattern \"(?=x)\" uses look-around, which cannot be \
             matched in linear time; write it without",
        ),
        (
            json!({"properties": {"a": {"type": "text"}}}),
            "/properties/a/type: not a valid JSON Schema: \"text\" is not valid under any of the \
             schemas listed in the 'anyOf' keyword",
        ),
        (
            json!({"$schema": "x"}),
            "(root): $schema is \"x\"; it has to be the address of draft-04, draft-06, draft-07, \
             2019-09 or 2020-12, the same in the whole document (draft-07 where it is absent)",
        ),
        (json!({"not": {"$ref": "#"}}), "(root): this reference leads back to itself"),
    ] {
        assert_eq!(refusal(&schema), expected);
    }
    let long = json!({"properties": {"k".repeat(100_000): {"$ref": "r".repeat(100_000)}}});
    assert!(refusal(&long).len() < 1000);
}

#[test]
fn the_hash_covers_the_whole_document_and_not_its_spelling() {
    let bare = template(TemplateKind::Access, &access().to_string());
    let pretty = serde_json::to_string_pretty(&access()).expect("JSON");
    assert_eq!(template(TemplateKind::Access, &pretty).hash(), bare.hash());
    let wrapped = json!({"schema": access()});
    let with_ui = json!({"schema": access(), "uiSchema": {"ui:order": ["*"]}});
    let hash = |document: &Value| template(TemplateKind::Access, &document.to_string()).hash;
    assert_eq!(bare.hash().len(), 64);
    assert_ne!(hash(&wrapped), bare.hash());
    assert_ne!(hash(&with_ui), hash(&wrapped));
    assert_eq!(bare.ui_schema(), None);
    assert_eq!(bare.document(), bare.schema());
}
