//! From a JSON value to the fields of a message. The form is checked here again, although a text
//! that [`json::parse`] read has it already: a hash or a signature over a value that only
//! looks like its canonical form would be one over something else.

use privatix_plugin_api::json::{self, JsonError};
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::present::clip;

/// Why a value is not the message it should be. What is quoted of it is short and free of control
/// characters.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// Not JSON in the form of messages.
    #[error("not acceptable JSON")]
    Form(#[source] JsonError),
    /// Not an object.
    #[error("a message has to be a JSON object")]
    NotAnObject,
    /// A field is missing, or is something else.
    #[error("{place}: {reason}")]
    Field {
        /// Where in the message.
        place: String,
        /// What is wrong there.
        reason: String,
    },
}

/// Whether a value is an object in the form of messages.
pub(crate) fn check_form(message: &Value) -> Result<(), Malformed> {
    if !message.is_object() {
        return Err(Malformed::NotAnObject);
    }
    let canonical = json::canonical(message).map_err(Malformed::Form)?;
    let strict = json::parse(&canonical).map_err(Malformed::Form)?;
    if strict == *message {
        Ok(())
    } else {
        // Canonical writing makes an integer of 1.0, so only the comparison shows it.
        let reason = "a number has a fraction or an exponent; write a whole one from 0 to \
                      9007199254740991, such as 10 for 10.0";
        Err(Malformed::Form(JsonError::Invalid(reason.to_owned())))
    }
}

/// The fields of a message. Unknown ones are ignored.
pub(crate) fn read<T: DeserializeOwned>(message: &Value) -> Result<T, Malformed> {
    check_form(message)?;
    fields(message)
}

/// The same for a type that refuses unknown fields, of which the signature is none.
pub(crate) fn read_strict<T: DeserializeOwned>(message: &Value) -> Result<T, Malformed> {
    check_form(message)?;
    fields(&super::unsigned(message))
}

fn fields<T: DeserializeOwned>(message: &Value) -> Result<T, Malformed> {
    serde_path_to_error::deserialize(message).map_err(|error| Malformed::Field {
        place: match error.path().to_string() {
            root if root == "." => "(root)".to_owned(),
            place => clip(&place),
        },
        reason: clip(&error.into_inner().to_string()),
    })
}
