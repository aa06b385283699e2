//! The fields that the core itself reads and writes, and the types a template has to give them.
//! A declaration counts only where every message meets it: among `properties` of the root, or of
//! what the root refers to. What else a template asks of a core field is its own affair.

use jsonschema::Draft;
use serde_json::{Map, Value};

use super::{TemplateError, TemplateKind, place::clip, reference};

/// What a core field holds.
#[derive(Clone, Copy)]
enum Type {
    String,
    Integer,
    Object,
    /// An object none of whose values is anything but a string.
    Strings,
}

impl Type {
    fn name(self) -> &'static str {
        match self {
            Self::String => "string",
            Self::Integer => "integer",
            Self::Object | Self::Strings => "object",
        }
    }

    fn required(self) -> &'static str {
        match self {
            Self::String => r#"{"type": "string"}"#,
            Self::Integer => r#"{"type": "integer"}"#,
            Self::Object => r#"{"type": "object"}"#,
            Self::Strings => concat!(
                r#"{"type": "object", "additionalProperties": {"type": "string"}}, or with "#,
                r#""additionalProperties": false and string properties only"#,
            ),
        }
    }
}

const ACCESS: &[(&str, Type)] = &[
    ("templateHash", Type::String),
    ("nonce", Type::String),
    ("username", Type::String),
    ("password", Type::String),
    ("paymentReceiverAddress", Type::String),
    ("serviceEndpointAddress", Type::String),
    ("additionalParams", Type::Strings),
];

const ACCESS_REQUIRED: &[&str] =
    &["templateHash", "paymentReceiverAddress", "serviceEndpointAddress", "additionalParams"];

const OFFERING: &[(&str, Type)] = &[
    ("templateHash", Type::String),
    ("nonce", Type::String),
    ("product", Type::String),
    ("agentPublicKey", Type::String),
    ("serviceName", Type::String),
    ("country", Type::String),
    ("supply", Type::Integer),
    ("unitName", Type::String),
    ("unitType", Type::String),
    ("unitSize", Type::Integer),
    ("billingType", Type::String),
    ("setupPrice", Type::Integer),
    ("unitPrice", Type::Integer),
    ("minUnits", Type::Integer),
    ("maxUnits", Type::Integer),
    ("billingInterval", Type::Integer),
    ("maxBillingUnitLag", Type::Integer),
    ("maxSuspendTime", Type::Integer),
    ("maxInactiveTime", Type::Integer),
    ("freeUnits", Type::Integer),
    ("additionalParams", Type::Object),
    ("exchange", Type::String),
];

/// The names of the core fields.
pub(super) fn names(kind: TemplateKind) -> Vec<&'static str> {
    let fields = match kind {
        TemplateKind::Access => ACCESS,
        TemplateKind::Offering => OFFERING,
    };
    fields.iter().map(|(name, _)| *name).collect()
}

const ROOT: &str = "(root)";

/// Checks the core fields of a schema whose references are known to be sound.
pub(super) fn check(kind: TemplateKind, schema: &Value, draft: Draft) -> Result<(), TemplateError> {
    let document = Document { schema, draft };
    let (fields, required) = match kind {
        TemplateKind::Access => (ACCESS, ACCESS_REQUIRED),
        TemplateKind::Offering => (OFFERING, &[][..]),
    };
    let root = document.declared(schema);
    document.check_type(ROOT, root, Type::Object)?;
    for &(field, kind) in fields {
        let Some(declaration) = root.get("properties").and_then(|named| named.get(field)) else {
            return Err(TemplateError::CoreFieldMissing { field, required: kind.required() });
        };
        document.check_type(field, declaration, kind)?;
    }
    let listed = |field: &str| {
        let names = root.get("required").and_then(Value::as_array);
        names.is_some_and(|names| names.iter().any(|name| name == field))
    };
    match required.iter().find(|field| !listed(field)) {
        Some(field) => Err(TemplateError::CoreFieldNotRequired { field }),
        None => Ok(()),
    }
}

struct Document<'a> {
    schema: &'a Value,
    draft: Draft,
}

impl<'a> Document<'a> {
    /// The schema that says what a value is: this one, or the one it refers to. Up to draft-07 a
    /// reference silences what stands beside it; later ones add to it.
    fn declared(&self, schema: &'a Value) -> &'a Value {
        let mut schema = schema;
        while let Some(Value::String(reference)) = schema.get("$ref") {
            if self.draft > Draft::Draft7 && schema.get("type").is_some() {
                break;
            }
            match reference::target(self.schema, reference) {
                Ok(target) => schema = target,
                Err(_) => break,
            }
        }
        schema
    }

    fn check_type(
        &self,
        field: &'static str,
        declaration: &'a Value,
        kind: Type,
    ) -> Result<(), TemplateError> {
        let declared = self.declared(declaration);
        let fault = match declared.as_object() {
            Some(object) if is_type(declared, kind.name()) => match kind {
                Type::Strings => self.other_than_strings(object),
                _ => None,
            },
            _ => Some(described(declared)),
        };
        match fault {
            Some(found) => {
                Err(TemplateError::CoreFieldType { field, found, required: kind.required() })
            }
            None => Ok(()),
        }
    }

    /// What lets an object hold anything but strings.
    fn other_than_strings(&self, object: &'a Map<String, Value>) -> Option<String> {
        match object.get("additionalProperties") {
            None => return Some("type \"object\" but no additionalProperties".into()),
            Some(Value::Bool(false)) => {}
            Some(schema) => {
                if let Some(found) = self.not_string(schema) {
                    return Some(format!("additionalProperties with {found}"));
                }
            }
        }
        let named = ["properties", "patternProperties"].iter().filter_map(|key| object.get(*key));
        named.filter_map(Value::as_object).flatten().find_map(|(name, schema)| {
            let found = self.not_string(schema)?;
            Some(format!("{:?} in it with {found}", clip(name)))
        })
    }

    fn not_string(&self, schema: &'a Value) -> Option<String> {
        let declared = self.declared(schema);
        if is_type(declared, Type::String.name()) { None } else { Some(described(declared)) }
    }
}

fn is_type(schema: &Value, name: &str) -> bool {
    schema.get("type").is_some_and(|found| found == name)
}

fn described(schema: &Value) -> String {
    match (schema, schema.get("type")) {
        (Value::Bool(schema), _) => format!("the schema `{schema}`"),
        (_, None) => "no type".to_owned(),
        (_, Some(found)) => format!("type {}", clip(&found.to_string())),
    }
}
