//! A refused request of the operator or of the other party.

use std::fmt;

use serde::{Deserialize, Serialize};

use privatix_base::condition::Seldom;
use privatix_domain::code::Code;
use privatix_domain::foreign::AnyCode;
use privatix_domain::present::clip;
use privatix_store::StoreError;

/// A stable code and a sentence.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Refused {
    /// Stable name.
    #[cfg_attr(feature = "schema", schemars(with = "String"))]
    pub code: AnyCode<Code>,
    /// What is the matter, and where it helps, what to do.
    pub text: String,
}

impl Refused {
    /// A refusal.
    pub fn new(code: Code, text: impl fmt::Display) -> Self {
        Self { code: code.into(), text: text.to_string() }
    }

    /// A message that is not taken, with the causes.
    pub fn because(code: Code, error: &(dyn std::error::Error + 'static)) -> Self {
        Self::new(code, privatix_plugin_api::chain(error))
    }

    /// Something that is not there.
    pub fn not_found(text: impl fmt::Display) -> Self {
        Self::new(Code::NotFound, text)
    }

    /// As it comes from a stranger: no longer than there is room for.
    pub fn clipped(self) -> Self {
        Self { text: clip(&self.text), ..self }
    }

    /// A failure of this node's own; details are for the log alone.
    pub fn internal(error: &(dyn std::error::Error + 'static)) -> Self {
        tracing::error!(error = privatix_plugin_api::chain(error), "a request failed");
        Self::without_details()
    }

    fn without_details() -> Self {
        Self::new(Code::Internal, "the node failed; its log says more")
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{} ({})", self.text, self.code)
    }
}

impl std::error::Error for Refused {}

impl From<StoreError> for Refused {
    fn from(error: StoreError) -> Self {
        static FAILED: Seldom = Seldom::new("requests fail");
        super::log(&error, &FAILED);
        Self::without_details()
    }
}
