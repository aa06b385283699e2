//! Templates: the JSON Schemas that access messages and offerings are filled by.
//!
//! A [`Template`] exists only after every check of its registration has passed, and holds its
//! schema compiled, so that its owner can validate messages at once. A schema is the text of
//! a stranger: it cannot make the host fetch anything, nor spend more than a bounded amount of
//! time or memory on it. Absent here: files, the database, and what a field means.

mod bounds;
mod compile;
mod core_fields;
mod error;
mod fields;
mod patterns;
mod place;
mod reference;
mod rewrite;
#[cfg(test)]
mod tests;

use std::fmt;

use privatix_plugin_api::json;
use serde_json::Value;

pub use error::TemplateError;
pub use fields::UnknownField;

/// The largest text of a template or settings schema, in bytes.
pub const MAX_BYTES: usize = 256 * 1024;

/// How many violations one validation reports.
pub const MAX_VIOLATIONS: usize = 8;

/// Which messages a template is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TemplateKind {
    /// Access messages.
    Access,
    /// Offerings.
    Offering,
}

impl TemplateKind {
    /// The word used in file names, tables and JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Access => "access",
            Self::Offering => "offering",
        }
    }
}

impl fmt::Display for TemplateKind {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.as_str())
    }
}

/// A template that passed every check.
#[derive(Debug)]
pub struct Template {
    kind: TemplateKind,
    hash: String,
    document: Value,
    wrapped: bool,
    validator: compile::Compiled,
}

impl Template {
    /// Reads and checks the text of a template, and compiles its schema.
    ///
    /// # Errors
    /// [`TemplateError`] with the first fault found.
    pub fn parse(kind: TemplateKind, text: &[u8]) -> Result<Self, TemplateError> {
        check_size(text)?;
        let document = json::parse(text)?;
        let wrapped = is_wrapped(&document)?;
        let schema = schema_of(&document, wrapped);
        let (validator, draft) = compile::compile(schema)?;
        core_fields::check(kind, schema, draft)?;
        let hash = json::hash(&document)?;
        Ok(Self { kind, hash, document, wrapped, validator })
    }

    /// Which messages it is for.
    pub fn kind(&self) -> TemplateKind {
        self.kind
    }

    /// The hash by which messages name it; it covers the UI schema too.
    pub fn hash(&self) -> &str {
        &self.hash
    }

    /// The whole of it, as it was read.
    pub fn document(&self) -> &Value {
        &self.document
    }

    /// Its JSON Schema.
    pub fn schema(&self) -> &Value {
        schema_of(&self.document, self.wrapped)
    }

    /// How a message is shown to a person, if the template says so.
    pub fn ui_schema(&self) -> Option<&Value> {
        if self.wrapped { self.document.get(UI_SCHEMA) } else { None }
    }

    /// Whether its schema mentions a field of the message.
    pub fn declares(&self, field: &str) -> bool {
        fields::declares(self.schema(), field)
    }

    /// The first field of a message that the template does not know, which the schema alone would
    /// often allow.
    pub fn unknown_field(&self, message: &Value) -> Option<UnknownField> {
        fields::unknown(self.schema(), message, &core_fields::names(self.kind))
    }

    /// Whether a message is valid by this template.
    ///
    /// # Errors
    /// The first [`MAX_VIOLATIONS`] violations. They never quote the message's values, which may
    /// be secrets.
    pub fn validate(&self, message: &Value) -> Result<(), Vec<Violation>> {
        compile::validate(&self.validator, message)
    }
}

/// The JSON Schema of a module's settings: bounded like a template, without core fields.
#[derive(Debug)]
pub struct SettingsSchema {
    validator: compile::Compiled,
}

impl SettingsSchema {
    /// Checks and compiles a manifest's `configSchema`.
    ///
    /// # Errors
    /// [`TemplateError`] with the first fault found.
    pub fn compile(schema: &Value) -> Result<Self, TemplateError> {
        let text = json::canonical(schema)?;
        check_size(&text)?;
        // The value may come from elsewhere than the strict parser; from here on it does not.
        let schema = json::parse(&text)?;
        if !schema.is_object() {
            return Err(TemplateError::Form("a settings schema has to be a JSON object"));
        }
        let (validator, _) = compile::compile(&schema)?;
        Ok(Self { validator })
    }

    /// Whether settings are valid by this schema.
    ///
    /// # Errors
    /// As [`Template::validate`].
    pub fn validate(&self, settings: &Value) -> Result<(), Vec<Violation>> {
        compile::validate(&self.validator, settings)
    }
}

/// One thing that is wrong with a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// JSON pointer to the place in the message; empty for the message as a whole.
    pub place: String,
    /// What is wrong there.
    pub message: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}: {}", place::shown(&self.place), self.message)
    }
}

const SCHEMA: &str = "schema";
const UI_SCHEMA: &str = "uiSchema";

fn check_size(text: &[u8]) -> Result<(), TemplateError> {
    if text.len() > MAX_BYTES {
        return Err(TemplateError::TooLarge { bytes: text.len() });
    }
    Ok(())
}

/// Whether a document has the form `{"schema": …, "uiSchema": …}`.
fn is_wrapped(document: &Value) -> Result<bool, TemplateError> {
    let Some(members) = document.as_object() else {
        return Err(TemplateError::Form("a template has to be a JSON object"));
    };
    let Some(schema) = members.get(SCHEMA) else {
        if members.contains_key(UI_SCHEMA) {
            return Err(TemplateError::Form("there is a `uiSchema` but no `schema` beside it"));
        }
        return Ok(false);
    };
    if !schema.is_object() {
        return Err(TemplateError::Form("`schema` has to be a JSON object"));
    }
    if members.get(UI_SCHEMA).is_some_and(|ui| !ui.is_object()) {
        return Err(TemplateError::Form("`uiSchema` has to be a JSON object"));
    }
    if members.keys().any(|key| key != SCHEMA && key != UI_SCHEMA) {
        return Err(TemplateError::Form("only `uiSchema` may stand beside `schema`"));
    }
    Ok(true)
}

fn schema_of(document: &Value, wrapped: bool) -> &Value {
    if wrapped { &document[SCHEMA] } else { document }
}
