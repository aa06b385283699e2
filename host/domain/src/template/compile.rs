//! From a schema that is JSON to a validator, and from a validator's errors to violations. The
//! validator is built without a way to fetch anything and with the linear-time pattern engine,
//! after [`bounds`](super::bounds) has passed the schema.

use std::borrow::Cow;

use jsonschema::{Draft, ValidationError, Validator, error::ValidationErrorKind};
use serde_json::Value;

use super::{
    MAX_VIOLATIONS, TemplateError, Violation, bounds, patterns,
    place::{MAX_POINTER_BYTES, Place, clip, pointer_bytes},
    rewrite::{Restored, rewrite},
};

/// The longest value of a schema that an error quotes, in bytes.
const MAX_QUOTED: usize = 60;

/// A schema, compiled.
#[derive(Debug)]
pub(super) struct Compiled {
    validator: Validator,
    restored: Restored,
    /// The most bytes a text of a value may have.
    longest_text: usize,
}

/// Checks and compiles a schema.
pub(super) fn compile(schema: &Value) -> Result<(Compiled, Draft), TemplateError> {
    let draft = match schema.get("$schema") {
        None => Draft::Draft7,
        Some(found) => draft_of(found).ok_or_else(|| unknown_draft(&Place::Root, found))?,
    };
    let schema = without_address(schema, draft);
    let found = bounds::check(&schema, draft)?;
    is_of_its_draft(&schema, draft).map_err(|error| invalid(&error))?;
    let longest_text = found.longest_text;
    let (written, restored) = rewrite(&schema, found)?;
    let validator = jsonschema::options()
        .with_draft(draft)
        .with_pattern_options(patterns::engine())
        .should_validate_formats(true)
        .should_ignore_unknown_formats(true)
        .offline()
        .build(&written)
        .map_err(|error| invalid(&error))?;
    Ok((Compiled { validator, restored, longest_text }, draft))
}

/// Whether the draft's own schema accepts a schema.
fn is_of_its_draft(schema: &Value, draft: Draft) -> Result<(), ValidationError<'_>> {
    match draft {
        Draft::Draft4 => jsonschema::draft4::meta::validate(schema),
        Draft::Draft6 => jsonschema::draft6::meta::validate(schema),
        Draft::Draft201909 => jsonschema::draft201909::meta::validate(schema),
        Draft::Draft202012 => jsonschema::draft202012::meta::validate(schema),
        _ => jsonschema::draft7::meta::validate(schema),
    }
}

/// The draft that a `$schema` names, if it is a known one.
///
/// The version-less address is not: what it names changes with time.
pub(super) fn draft_of(schema: &Value) -> Option<Draft> {
    let address = schema.as_str()?;
    let address = address.strip_suffix('#').unwrap_or(address);
    let path = ["http://json-schema.org/", "https://json-schema.org/"]
        .iter()
        .find_map(|origin| address.strip_prefix(origin))?;
    match path {
        "draft-04/schema" => Some(Draft::Draft4),
        "draft-06/schema" => Some(Draft::Draft6),
        "draft-07/schema" => Some(Draft::Draft7),
        "draft/2019-09/schema" => Some(Draft::Draft201909),
        "draft/2020-12/schema" => Some(Draft::Draft202012),
        _ => None,
    }
}

pub(super) fn unknown_draft(at: &Place<'_>, found: &Value) -> TemplateError {
    TemplateError::UnknownDraft { place: at.pointer(), found: clip(&found.to_string()) }
}

/// The schema without its own address, which could be that of a meta-schema and would then decide
/// what `#` means.
fn without_address(schema: &Value, draft: Draft) -> Cow<'_, Value> {
    let keyword = draft.id_keyword();
    if !schema.get(keyword).is_some_and(Value::is_string) {
        return Cow::Borrowed(schema);
    }
    let mut schema = schema.clone();
    if let Some(keywords) = schema.as_object_mut() {
        keywords.remove(keyword);
    }
    Cow::Owned(schema)
}

fn invalid(error: &jsonschema::ValidationError<'_>) -> TemplateError {
    let short = error.instance().to_string().len() <= MAX_QUOTED;
    let reason = if short { error.to_string() } else { error.masked_with("it").to_string() };
    TemplateError::InvalidSchema {
        place: clip(error.instance_path().as_str()),
        reason: clip(&reason),
    }
}

/// The first violations of a schema by a value, none of which quotes the value.
pub(super) fn validate(compiled: &Compiled, value: &Value) -> Result<(), Vec<Violation>> {
    let Compiled { validator, restored, longest_text } = compiled;
    if let Some(violation) = too_long(value, *longest_text, &Place::Root) {
        return Err(vec![violation]);
    }
    if validator.is_valid(value) {
        return Ok(());
    }
    if pointer_bytes(value) > MAX_POINTER_BYTES {
        // The iterator below holds every error with its pointer before it yields the first.
        return validator.validate(value).map_err(|error| vec![violation(&error, restored)]);
    }
    let errors = validator.iter_errors(value).take(MAX_VIOLATIONS);
    Err(errors.map(|error| violation(&error, restored)).collect())
}

/// A text, or a name, that would keep the patterns of the schema busy for too long.
fn too_long(value: &Value, longest: usize, at: &Place<'_>) -> Option<Violation> {
    let violation = |bytes: usize| {
        let message = format!(
            "a text of {bytes} bytes is too long for the patterns of this schema: at most \
             {longest} bytes are matched"
        );
        Some(Violation { place: at.pointer(), message })
    };
    match value {
        Value::String(text) if text.len() > longest => violation(text.len()),
        Value::Array(items) => items
            .iter()
            .enumerate()
            .find_map(|(index, item)| too_long(item, longest, &Place::Index(at, index))),
        Value::Object(members) => members.iter().find_map(|(name, inner)| {
            if name.len() > longest {
                return violation(name.len());
            }
            too_long(inner, longest, &Place::Key(at, name))
        }),
        _ => None,
    }
}

fn violation(error: &ValidationError<'_>, restored: &Restored) -> Violation {
    Violation {
        place: clip(error.instance_path().as_str()),
        message: clip(&message(error, restored)),
    }
}

/// What is wrong with a value, with the patterns as the schema's author wrote them.
fn message(error: &ValidationError<'_>, restored: &Restored) -> String {
    match error.kind() {
        ValidationErrorKind::Pattern { pattern } => {
            format!("the value does not match \"{}\"", restored.pattern(pattern))
        }
        ValidationErrorKind::Not { schema } => {
            format!("{} is not allowed for the value", restored.schema(schema))
        }
        ValidationErrorKind::PropertyNames { error } => {
            format!("a property's name is not allowed: {}", message(error, restored))
        }
        _ => error.masked_with("the value").to_string(),
    }
}
