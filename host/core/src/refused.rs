//! A refused request of the operator or of the other party.

use std::borrow::Cow;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::channel::ChannelError;
use privatix_base::condition::Seldom;
use privatix_domain::present::clip;
use privatix_store::StoreError;

/// A stable code and a sentence.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Refused {
    /// Stable name.
    pub code: Cow<'static, str>,
    /// What is the matter, and where it helps, what to do.
    pub text: String,
}

impl Refused {
    /// A refusal.
    pub fn new(code: &'static str, text: impl fmt::Display) -> Self {
        Self { code: Cow::Borrowed(code), text: text.to_string() }
    }

    /// Something that is not there.
    pub fn not_found(text: impl fmt::Display) -> Self {
        Self::new("NotFound", text)
    }

    /// Whether the same order may be taken later.
    pub fn is_passing(&self) -> bool {
        matches!(
            self.code.as_ref(),
            "Internal"
                | "NotFound"
                | "TooManyRequests"
                | "TooSlow"
                | "TooManyOrders"
                | "TooManyChannels"
                | "TooManyWaiting"
                | "ProductNotReady"
                | "SupplyExhausted"
        )
    }

    /// As it comes from a stranger: no longer than there is room for.
    pub fn clipped(self) -> Self {
        Self { code: clip(&self.code).into(), text: clip(&self.text) }
    }

    /// A failure of this node's own; details are for the log alone.
    pub fn internal(error: &(dyn std::error::Error + 'static)) -> Self {
        tracing::error!(error = privatix_plugin_api::chain(error), "a request failed");
        Self::without_details()
    }

    fn without_details() -> Self {
        Self::new("Internal", "the node failed; its log says more")
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

impl From<ChannelError> for Refused {
    fn from(error: ChannelError) -> Self {
        match error {
            ChannelError::NotFound(_) => Self::new("ChannelNotFound", error),
            ChannelError::BadStatus(_) => Self::new("BadStatus", error),
            ChannelError::Store(error) => error.into(),
        }
    }
}
