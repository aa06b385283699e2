//! Schemas that would take minutes, the stack or the memory of the process if they were compiled
//! or used, and their harmless relatives. Only the refusal is asserted, never the time.

use serde_json::{Map, Value, json};

use super::{check, with};
use crate::template::{MAX_VIOLATIONS, SettingsSchema};

/// Definitions `d0` … `d<last>`, each made from the next one's reference, the last one empty.
fn chain(last: usize, link: impl Fn(Value) -> Value) -> Map<String, Value> {
    let reference = |number: usize| json!({"$ref": format!("#/definitions/d{number}")});
    let mut all: Map<String, Value> =
        (0..last).map(|number| (format!("d{number}"), link(reference(number + 1)))).collect();
    all.insert(format!("d{last}"), json!({}));
    all
}

#[test]
fn circles_and_explosions() {
    let twice = |next: Value| json!({"allOf": [next, next]});
    let nested = |next: Value| json!({"properties": {"a": next}});
    let wide: Map<String, Value> = (0..12_000).map(|n| (format!("p{n}"), json!({}))).collect();
    let broad: Map<String, Value> = (0..9_000).map(|n| (format!("p{n}"), json!({}))).collect();
    let first = json!({"$ref": "#/definitions/d0"});
    for (schema, expected) in [
        (json!({"$ref": "#"}), "TemplateTooComplex"),
        (json!({"properties": {"next": {"$ref": "#"}}}), "TemplateTooComplex"),
        (
            json!({"definitions": {"a": {"$ref": "#/definitions/b"},
                                   "b": {"not": {"$ref": "#/definitions/a"}}}}),
            "TemplateTooComplex",
        ),
        (json!({"definitions": chain(9, twice), "not": first}), "ok"),
        (json!({"definitions": chain(60, twice), "not": first}), "TemplateTooComplex"),
        (json!({"definitions": chain(3000, twice), "not": first}), "TemplateTooComplex"),
        (json!({"definitions": chain(30, nested), "not": first}), "ok"),
        (json!({"definitions": chain(2000, nested), "not": first}), "TemplateTooComplex"),
        (json!({"definitions": chain(2000, |next| next), "not": first}), "TemplateTooComplex"),
        (json!({"properties": broad}), "ok"),
        (json!({"properties": wide}), "TemplateTooComplex"),
        // A place used twice is no circle.
        (
            json!({"definitions": {"a": {}}, "allOf": [{"$ref": "#/definitions/a"},
                                                       {"$ref": "#/definitions/a"}]}),
            "ok",
        ),
    ] {
        check(&schema, expected);
    }
}

#[test]
fn names_are_bounded_by_how_often_they_are_repeated() {
    let many: Map<String, Value> = (0..9_000).map(|n| (format!("p{n}"), json!({}))).collect();
    let under = |key: String| {
        let within: Map<String, Value> = [(key, json!({"properties": many}))].into_iter().collect();
        json!({"properties": within})
    };
    check(&under("k".repeat(100)), "ok");
    check(&under("k".repeat(100_000)), "TemplateTooComplex");

    let two = json!({"additionalProperties": {"additionalProperties": {"type": "string"}}});
    let two = SettingsSchema::compile(&two).expect("good");
    let values: Map<String, Value> = (0..9_000).map(|n| (format!("p{n}"), json!(n))).collect();
    let below = |key: String| {
        let all: Map<String, Value> = [(key, json!(values))].into_iter().collect();
        two.validate(&Value::Object(all)).expect_err("9000 violations").len()
    };
    assert_eq!((below("k".into()), below("k".repeat(100_000))), (MAX_VIOLATIONS, 1));
}

#[test]
fn the_deepest_schema_compiles_and_validates() {
    for draft in
        ["http://json-schema.org/draft-07/schema#", "https://json-schema.org/draft/2020-12/schema"]
    {
        let deep = (0..62).fold(json!({"type": "string"}), |inner, _| json!({"not": inner}));
        let schema = with(&deep, "/$schema", Some(json!(draft)));
        let schema = SettingsSchema::compile(&schema).expect("just deep enough");
        assert!(schema.validate(&json!("text")).is_ok());
        assert!(schema.validate(&json!(1)).is_err());
    }
    let links = chain(30, |next| json!({"properties": {"a": next}}));
    let mut links = json!({"definitions": links, "$ref": "#/definitions/d0"});
    links["definitions"]["d30"] = json!({"type": "string"});
    let schema = SettingsSchema::compile(&links).expect("just deep enough");
    let nested = |inner| (0..30).fold(inner, |inner, _| json!({"a": inner}));
    assert!(schema.validate(&nested(json!("text"))).is_ok());
    assert!(schema.validate(&nested(json!(1))).is_err());
}

#[test]
fn patterns() {
    let escapes = r"\cA".repeat(30_000);
    let groups = "(".repeat(100_000);
    for (pattern, expected) in [
        (r"^[a-z0-9\-\.\/]+$", "ok"),
        (r"^\d{1,3}(\.\d{1,3}){3}$", "ok"),
        (r"^\p{L}+$", "ok"),
        ("", "ok"),
        ("(a+)+$", "ok"),
        (&r"\d".repeat(500), "ok"),
        (r"\\1", "ok"),
        (r"^\(\?=$", "ok"),
        ("^(?:a|b)$", "ok"),
        ("^(?!www)", "UnsupportedPattern"),
        ("(?=a)", "UnsupportedPattern"),
        ("(?<=a)b", "UnsupportedPattern"),
        ("(?<!a)b", "UnsupportedPattern"),
        (r"(a)\1", "UnsupportedPattern"),
        (r"(?<x>a)\k<x>", "UnsupportedPattern"),
        ("(a{1000}){1000}", "UnsupportedPattern"),
        ("((a{100}){100}){100}", "UnsupportedPattern"),
        (r"(\p{L}{500}){500}", "UnsupportedPattern"),
        ("(", "UnsupportedPattern"),
        ("[z-a]", "UnsupportedPattern"),
        ("*", "UnsupportedPattern"),
        (&escapes, "UnsupportedPattern"),
        (&groups, "UnsupportedPattern"),
    ] {
        check(&json!({"pattern": pattern}), expected);
        check(&json!({"patternProperties": {pattern: {}}}), expected);
        check(&json!({"items": {"propertyNames": {"pattern": pattern}}}), expected);
        // Only a name here.
        check(&json!({"properties": {"pattern": {"const": pattern}}}), "ok");
    }
}

#[test]
fn patterns_are_bounded_in_number() {
    let some = |count: usize| {
        let all: Vec<Value> =
            (0..count).map(|n| json!({"pattern": format!("^a{{{n}}}[bc]")})).collect();
        json!({"allOf": all})
    };
    check(&some(64), "ok");
    check(&some(65), "TemplateTooComplex");
    let escapes: Vec<Value> =
        (0..40).map(|n| json!({"pattern": format!("{}{n}", r"\S".repeat(60))})).collect();
    check(&json!({"allOf": escapes}), "TemplateTooComplex");
    let same: Vec<Value> = (0..1000).map(|_| json!({"pattern": "^[ab]+$"})).collect();
    check(&json!({"allOf": same}), "ok");
}
