//! The fields that a template knows. JSON Schema allows every field that nobody mentions, so a
//! typing error in the name of an optional field goes unnoticed: here it is found, with the name
//! that was probably meant. Not covered: whether the value of a field is valid.

use std::collections::BTreeMap;

use serde_json::Value;

use super::place::clip;
use super::reference;

/// How deep applicators (`allOf`, `$ref`, …) are followed at one place.
const DEPTH: usize = 32;

/// A field of a message that its template does not know.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the template does not know the field `{field}`{}", hint(.nearest.as_deref()))]
pub struct UnknownField {
    /// Where it is, the names of the objects around it before it.
    pub field: String,
    /// The known field that was probably meant.
    pub nearest: Option<String>,
}

fn hint(nearest: Option<&str>) -> String {
    nearest.map(|name| format!("; did you mean `{name}`?")).unwrap_or_default()
}

/// What a schema says of the members of an object.
#[derive(Default)]
struct Known<'a> {
    /// The schemas of each declared member.
    named: BTreeMap<&'a str, Vec<&'a Value>>,
    /// Whether the author has allowed others explicitly.
    open: bool,
    /// The schemas of a list's items.
    items: Vec<&'a Value>,
}

/// Whether a schema declares a member of the message.
pub(super) fn declares(schema: &Value, field: &str) -> bool {
    known(schema, &[schema]).named.contains_key(field)
}

/// The first field of a message that its schema does not know. Of the names of `core` fields,
/// typing errors are found also where the schema allows any other field.
pub(super) fn unknown(schema: &Value, message: &Value, core: &[&str]) -> Option<UnknownField> {
    look(schema, &[schema], message, &[], Some(core))
}

/// `core` is there at the root alone.
fn look(
    root: &Value,
    schemas: &[&Value],
    value: &Value,
    place: &[&str],
    core: Option<&[&str]>,
) -> Option<UnknownField> {
    let known = known(root, schemas);
    match value {
        Value::Object(members) => members.iter().find_map(|(name, value)| {
            let inner = [place, &[name.as_str()]].concat();
            match known.named.get(name.as_str()) {
                Some(schemas) => look(root, schemas, value, &inner, None),
                None => fault(&known, name, core)
                    .map(|nearest| UnknownField { field: clip(&inner.join(".")), nearest }),
            }
        }),
        Value::Array(items) => {
            items.iter().find_map(|item| look(root, &known.items, item, place, None))
        }
        _ => None,
    }
}

/// Whether a name that is not declared is a fault, and the declared name that was probably meant.
fn fault(known: &Known<'_>, name: &str, core: Option<&[&str]>) -> Option<Option<String>> {
    let free = known.open || (core.is_none() && known.named.is_empty());
    if free {
        // Nearer than a name that was chosen with care would be.
        let meant = core?.iter().find(|core| strsim::damerau_levenshtein(name, core) <= 1);
        return meant.map(|core| Some((*core).to_owned()));
    }
    Some(nearest(known.named.keys().copied(), name))
}

fn nearest<'a>(known: impl Iterator<Item = &'a str>, name: &str) -> Option<String> {
    let lower = name.to_lowercase();
    let near = known.filter_map(|known| {
        let distance = strsim::damerau_levenshtein(&known.to_lowercase(), &lower);
        (distance * 3 <= known.len().max(lower.len())).then_some((distance, known))
    });
    near.min().map(|(_, known)| known.to_owned())
}

fn known<'a>(root: &'a Value, schemas: &[&'a Value]) -> Known<'a> {
    let mut known = Known::default();
    for schema in schemas {
        gather(root, schema, DEPTH, &mut known);
    }
    known
}

/// Adds what a schema says, and what it applies says, to the same value.
fn gather<'a>(root: &'a Value, schema: &'a Value, depth: usize, known: &mut Known<'a>) {
    let (Some(members), Some(depth)) = (schema.as_object(), depth.checked_sub(1)) else { return };
    for (keyword, said) in members {
        match (keyword.as_str(), said) {
            ("properties", Value::Object(named)) => {
                for (name, schema) in named {
                    known.named.entry(name).or_default().push(schema);
                }
            }
            ("patternProperties", Value::Object(patterns)) => known.open |= !patterns.is_empty(),
            ("additionalProperties" | "unevaluatedProperties", allowed) => {
                known.open |= *allowed != Value::Bool(false);
            }
            ("items" | "additionalItems" | "prefixItems" | "contains", Value::Array(schemas)) => {
                known.items.extend(schemas);
            }
            ("items" | "additionalItems" | "contains", schema) => known.items.push(schema),
            ("allOf" | "anyOf" | "oneOf", Value::Array(schemas)) => {
                schemas.iter().for_each(|schema| gather(root, schema, depth, known));
            }
            ("if" | "then" | "else", schema) => gather(root, schema, depth, known),
            ("dependentSchemas" | "dependencies", Value::Object(schemas)) => {
                schemas.values().for_each(|schema| gather(root, schema, depth, known));
            }
            ("$ref", Value::String(place)) => {
                if let Ok(target) = reference::target(root, place) {
                    gather(root, target, depth, known);
                }
            }
            _ => {}
        }
    }
}
