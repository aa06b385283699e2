//! Patterns mean what ECMA 262 says. The table was made with another engine, V8 of Node 20, by
//! `ecma262.mjs` beside it.

use serde_json::{Value, json};

use super::{check, refusal};
use crate::template::SettingsSchema;

#[test]
fn patterns_match_what_another_engine_of_ecma_262_matches() {
    let table: Value = serde_json::from_str(include_str!("ecma262.json")).expect("a table");
    let texts = table["texts"].as_array().expect("texts");
    let mut wrong = Vec::new();
    for row in table["patterns"].as_array().expect("patterns") {
        let pattern = row["pattern"].as_str().expect("a pattern");
        let Some(matches) = row["matches"].as_str() else {
            check(&json!({ "pattern": pattern }), "UnsupportedPattern");
            continue;
        };
        let compiled = |schema: Value| match SettingsSchema::compile(&schema) {
            Ok(compiled) => compiled,
            Err(error) => panic!("{error}"),
        };
        let as_value = compiled(json!({ "pattern": pattern }));
        let as_name = compiled(json!({
            "patternProperties": { pattern: true }, "additionalProperties": false,
        }));
        assert_eq!(matches.len(), texts.len());
        for (text, expected) in texts.iter().zip(matches.bytes()) {
            let name = text.as_str().expect("a text");
            for found in [as_value.validate(text), as_name.validate(&json!({ name: 1 }))] {
                if found.is_ok() != (expected == b'1') {
                    wrong.push((pattern, name, expected == b'1'));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{} differ, (pattern, text, expected): {wrong:?}", wrong.len());
}

#[test]
fn what_takes_more_than_linear_time_is_refused_by_name() {
    let table: Value = serde_json::from_str(include_str!("ecma262.json")).expect("a table");
    for pattern in table["refused"].as_array().expect("patterns") {
        check(&json!({ "pattern": pattern }), "UnsupportedPattern");
        let text = refusal(&json!({ "pattern": pattern }));
        assert!(text.contains("cannot be matched in linear time"), "{text}");
    }
    for (pattern, expected) in [
        ("(?i:a)", "sets flags for a group; write both cases, as in [Aa]"),
        (r"\p{Greek}", "names a Unicode property that is not known"),
        (r"\a", "is not a regular expression (ECMA 262 with the flag u, as JSON Schema says)"),
    ] {
        let text = refusal(&json!({ "pattern": pattern }));
        assert!(text.contains(expected), "{text}");
    }
}

#[test]
fn violations_show_the_pattern_as_it_was_written() {
    for (schema, value, expected) in [
        (json!({"pattern": r"^\d+$"}), json!("x"), r#"the value does not match "^\d+$""#),
        (
            json!({"definitions": {"a": {"pattern": r"^\d$"}}, "not": {"$ref": "#/definitions/a"}}),
            json!("1"),
            r##"{"$ref":"#/definitions/a"} is not allowed for the value"##,
        ),
        (
            json!({"not": {"patternProperties": {r"\d": {"pattern": r"\s"}}, "minProperties": 1}}),
            json!({"1": " "}),
            r#"{"minProperties":1,"patternProperties":{"\\d":{"pattern":"\\s"}}} is not allowed for the value"#,
        ),
        (
            json!({"propertyNames": {"pattern": r"^\d$"}}),
            json!({"x": 1}),
            r#"a property's name is not allowed: the value does not match "^\d$""#,
        ),
    ] {
        let schema = SettingsSchema::compile(&schema).expect("a good schema");
        let violations = schema.validate(&value).expect_err("not valid");
        assert_eq!(violations[0].message, expected);
    }
}

#[test]
fn only_patterns_are_rewritten() {
    let schema = json!({
        "properties": {
            "pattern": {"const": r"\d"},
            "$ref": {"enum": ["#/x"]},
            "two": {
                "patternProperties": {r"^\d$": {"const": 1}, "^[0-9]$": {"type": "integer"}},
                "additionalProperties": false,
            },
            "data": {"const": {"pattern": r"\d", "patternProperties": {r"\d": 1}, "$ref": "#"}},
            "whole": {"$ref": "#/unknown/of"},
            "self": {"type": "object", "properties": {"of": {"$ref": "#/properties/two"}}},
        },
        "unknown": {"of": {"pattern": r"^\d$"}},
    });
    let schema = SettingsSchema::compile(&schema).expect("a good schema");
    for (value, valid) in [
        (json!({"pattern": r"\d", "$ref": "#/x"}), true),
        (json!({"pattern": "1"}), false),
        (json!({"$ref": "#/of/schema/x"}), false),
        (json!({"two": {"1": 1}}), true),
        (json!({"two": {"1": 2}}), false),
        (json!({"two": {"a": 1}}), false),
        (json!({"data": {"pattern": r"\d", "patternProperties": {r"\d": 1}, "$ref": "#"}}), true),
        (json!({"whole": "1"}), true),
        (json!({"whole": "x"}), false),
        (json!({"self": {"of": {"1": 1}}}), true),
        (json!({"self": {"of": {"x": 1}}}), false),
    ] {
        assert_eq!(schema.validate(&value).is_ok(), valid, "{value}");
    }
    // A value and a schema at once cannot be rewritten.
    let both = json!({
        "properties": {"a": {"const": {"pattern": r"\d"}}, "b": {"$ref": "#/properties/a/const"}},
    });
    check(&both, "TemplateTooComplex");
}

/// The engine has no backtracking, so a text of a megabyte takes as many steps as it has bytes
/// times what the pattern compiles to. Where that were not so, these would not end.
#[test]
fn hostile_patterns_end_on_long_texts() {
    let text = format!("{}!", "a".repeat(1 << 20));
    for pattern in ["(a+)+$", "^(a|a)*$", "^(a|aa)+$"] {
        let schema = SettingsSchema::compile(&json!({ "pattern": pattern })).expect("linear");
        let violations = schema.validate(&json!(text)).expect_err("not matched");
        assert!(violations[0].message.starts_with("the value does not match"), "{pattern}");
    }
}

#[test]
fn texts_are_bounded_by_what_the_patterns_compile_to() {
    for pattern in [r"(.*a){28}[c-f]", r"(\S*a){28}[c-f]", "[ab].{150}[c-f]", "(a?){1000}[c-f]"] {
        let schema = SettingsSchema::compile(&json!({
            "propertyNames": { "pattern": pattern }, "properties": { "b": {} },
        }));
        let schema = schema.expect("small enough");
        let long = "a".repeat(1 << 20);
        for value in [json!({ "b": [[long]] }), json!({ long: 1 })] {
            let violations = schema.validate(&value).expect_err("too long");
            assert!(violations[0].message.contains("too long for the patterns"), "{pattern}");
            assert!(violations[0].place.len() < 300);
        }
        assert!(schema.validate(&json!({ format!("{}c", "a".repeat(2000)): "" })).is_ok());
    }
    // Where there are no patterns, nothing is too long.
    let schema = SettingsSchema::compile(&json!({ "minLength": 5 })).expect("good");
    assert!(schema.validate(&json!("a".repeat(1 << 20))).is_ok());
}
