//! A schema as the validator gets it: with its patterns written for the engine, one level down.
//!
//! The validator holds each pattern of a schema against the syntax of ECMA 262, which what is
//! written for the engine does not have. Where the validator looks for no schema, it does not; so the
//! schema stands under a name of no meaning, and the references in it are longer by that.
//! [`Restored`] is the way back, for errors.

use std::collections::{HashMap, HashSet};

use serde_json::{Map, Value, json};

use super::TemplateError;

/// Where the schema stands.
const HERE: &str = "#/of/schema";

/// What is written for the engine, and what stood there.
#[derive(Debug, Default)]
pub(super) struct Restored(HashMap<String, String>);

/// What the walk over a schema has found.
pub(super) struct Found<'a> {
    /// The addresses of all schemas in the document.
    pub(super) schemas: HashSet<*const Value>,
    /// What each pattern is for the engine.
    pub(super) translations: HashMap<&'a str, String>,
    /// The most bytes that a text may have, for the cost of the patterns.
    pub(super) longest_text: usize,
}

/// The document for the validator.
pub(super) fn rewrite(
    document: &Value,
    found: Found<'_>,
) -> Result<(Value, Restored), TemplateError> {
    let schema = found.value(document, false)?;
    let original = |(pattern, written): (&str, String)| (written, pattern.to_owned());
    let restored = found.translations.into_iter().map(original).collect();
    Ok((json!({ "$ref": HERE, "of": { "schema": schema } }), Restored(restored)))
}

impl Found<'_> {
    fn value(&self, value: &Value, data: bool) -> Result<Value, TemplateError> {
        Ok(match value {
            Value::Object(members) if self.schemas.contains(&std::ptr::from_ref(value)) => {
                self.schema(members, data)?
            }
            Value::Object(members) => {
                let mut written = Map::new();
                for (key, inner) in members {
                    written.insert(key.clone(), self.value(inner, data)?);
                }
                Value::Object(written)
            }
            Value::Array(items) => Value::Array(
                items.iter().map(|item| self.value(item, data)).collect::<Result<_, _>>()?,
            ),
            plain => plain.clone(),
        })
    }

    /// A schema. Within `const` and `enum` it is one only because a reference points at it, and a
    /// value as well: it cannot be rewritten.
    fn schema(&self, members: &Map<String, Value>, data: bool) -> Result<Value, TemplateError> {
        let changes = ["pattern", "patternProperties", "$ref"];
        if data && changes.iter().any(|keyword| members.contains_key(*keyword)) {
            return Err(TemplateError::TooComplex {
                place: String::new(),
                reason:
                    "a $ref points into `const` or `enum`, where the schema has a pattern or a \
                         reference of its own; move that schema to `definitions`"
                        .to_owned(),
            });
        }
        let mut written = Map::new();
        for (keyword, value) in members {
            let value = match (keyword.as_str(), value) {
                ("pattern", Value::String(pattern)) => Value::String(self.pattern(pattern)),
                ("patternProperties", Value::Object(named)) => {
                    let mut renamed = Map::new();
                    for (pattern, inner) in named {
                        renamed.insert(self.pattern(pattern), self.value(inner, data)?);
                    }
                    Value::Object(renamed)
                }
                ("$ref", Value::String(reference)) => {
                    Value::String(format!("{HERE}{}", reference.trim_start_matches('#')))
                }
                ("const" | "enum", value) => self.value(value, true)?,
                (_, value) => self.value(value, data)?,
            };
            written.insert(keyword.clone(), value);
        }
        Ok(Value::Object(written))
    }

    fn pattern(&self, pattern: &str) -> String {
        self.translations.get(pattern).cloned().unwrap_or_else(|| pattern.to_owned())
    }
}

impl Restored {
    /// The pattern as its author wrote it.
    pub(super) fn pattern<'a>(&'a self, written: &'a str) -> &'a str {
        self.0.get(written).map_or(written, String::as_str)
    }

    /// A part of the schema as its author wrote it.
    pub(super) fn schema(&self, written: &Value) -> Value {
        match written {
            Value::String(text) => {
                let text = self.pattern(text);
                let reference = text.strip_prefix(HERE).map(|rest| format!("#{rest}"));
                Value::String(reference.unwrap_or_else(|| text.to_owned()))
            }
            Value::Array(items) => items.iter().map(|item| self.schema(item)).collect(),
            Value::Object(members) => members
                .iter()
                .map(|(key, inner)| (self.pattern(key).to_owned(), self.schema(inner)))
                .collect(),
            plain => plain.clone(),
        }
    }
}
