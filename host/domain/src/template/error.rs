//! Why a template or settings schema is refused. Every variant has a stable code and says what
//! was found, what is required and, where that is not the same, how to mend it. Quoted parts of
//! the schema are bounded and free of control characters before they get here.

use privatix_plugin_api::json::JsonError;

use super::{MAX_BYTES, place::shown};
use crate::code::Code;

/// Why a template is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TemplateError {
    /// Not JSON in the accepted form; the code is that of the source.
    #[error("the text is not acceptable JSON")]
    Json(
        #[from]
        #[source]
        JsonError,
    ),
    /// More than [`MAX_BYTES`].
    #[error("the text has {bytes} bytes; at most {MAX_BYTES} are allowed")]
    TooLarge {
        /// Its size in bytes.
        bytes: usize,
    },
    /// Neither a JSON Schema nor the wrapped form.
    #[error(
        "{0}; a template is a JSON Schema object, or {{\"schema\": {{…}}, \"uiSchema\": {{…}}}} \
         where only the latter may be left out"
    )]
    Form(&'static str),
    /// `$schema` names no draft that is known, or a second one inside the document.
    #[error(
        "{}: $schema is {found}; it has to be the address of draft-04, draft-06, draft-07, \
         2019-09 or 2020-12, the same in the whole document (draft-07 where it is absent)",
        shown(.place)
    )]
    UnknownDraft {
        /// JSON pointer into the schema.
        place: String,
        /// The value of `$schema`.
        found: String,
    },
    /// Something that refers, or could refer, outside the document.
    #[error("{}: {found} {reason}", shown(.place))]
    RemoteReference {
        /// JSON pointer into the schema.
        place: String,
        /// The keyword with its value.
        found: String,
        /// Why that is refused.
        reason: &'static str,
    },
    /// References in a circle, or more work than a template may cause.
    #[error("{}: {reason}", shown(.place))]
    TooComplex {
        /// JSON pointer into the schema.
        place: String,
        /// What was found and what is allowed.
        reason: String,
    },
    /// A pattern that the linear-time engine does not take.
    #[error("{}: the pattern {pattern} {reason}", shown(.place))]
    UnsupportedPattern {
        /// JSON pointer into the schema.
        place: String,
        /// The pattern, quoted.
        pattern: String,
        /// Why it is refused and what to write instead.
        reason: &'static str,
    },
    /// Not a schema of its draft.
    #[error("{}: not a valid JSON Schema: {reason}", shown(.place))]
    InvalidSchema {
        /// JSON pointer into the schema.
        place: String,
        /// What is wrong there.
        reason: String,
    },
    /// A core field is not declared.
    #[error("the core field {field} is missing; declare it in `properties` as {required}")]
    CoreFieldMissing {
        /// The field.
        field: &'static str,
        /// What it has to be.
        required: &'static str,
    },
    /// A core field, or the message itself, is declared as something else.
    #[error("{field} is declared with {found}; it has to be {required}")]
    CoreFieldType {
        /// The field, or `(root)` for the message itself.
        field: &'static str,
        /// What its declaration says.
        found: String,
        /// What it has to be.
        required: &'static str,
    },
    /// A core field that every message needs may be left out.
    #[error("the core field {field} may be left out; add it to `required` of the schema's root")]
    CoreFieldNotRequired {
        /// The field.
        field: &'static str,
    },
}

impl TemplateError {
    /// The stable name of this error.
    pub fn code(&self) -> Code {
        match self {
            Self::Json(error) => Code::from(error),
            Self::TooLarge { .. } => Code::TemplateTooLarge,
            Self::Form(_) => Code::BadTemplateForm,
            Self::UnknownDraft { .. } => Code::UnknownDraft,
            Self::RemoteReference { .. } => Code::RemoteReference,
            Self::TooComplex { .. } => Code::TemplateTooComplex,
            Self::UnsupportedPattern { .. } => Code::UnsupportedPattern,
            Self::InvalidSchema { .. } => Code::InvalidSchema,
            Self::CoreFieldMissing { .. } => Code::CoreFieldMissing,
            Self::CoreFieldType { .. } => Code::CoreFieldType,
            Self::CoreFieldNotRequired { .. } => Code::CoreFieldNotRequired,
        }
    }
}
