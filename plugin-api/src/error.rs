//! The errors of the Service API: a stable name, a stable number, a sentence.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The stable name of an error. The first eight have the numbers that existing adapters know.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[non_exhaustive]
pub enum ErrorName {
    /// The caller is not, or no longer, the product's module.
    AccessDenied,
    /// No such channel of this product.
    ChannelNotFound,
    /// The password is not the channel's.
    BadClientPassword,
    /// The core failed; details are in its log.
    Internal,
    /// The channel's status does not allow it.
    NonActiveChannel,
    /// No such session, or it ended too long ago.
    SessionNotFound,
    /// The access message is not here yet.
    AccessNotFound,
    /// The product configuration is empty or has an empty key.
    BadProductConfig,
    /// The command makes no sense in the channel's status.
    BadStatus,
    /// The call is unknown, or not for this role.
    Unsupported,
    /// A report is below what was reported before; nothing was changed.
    UsageWentBackwards,
    /// The request cannot be read.
    BadRequest,
    /// A standalone module's subscription that is over.
    SubscriptionNotFound,
    /// So much of the product's waits already; later there is room again.
    TooManyWaiting,
    /// An error of a newer Service API.
    #[serde(other)]
    #[cfg_attr(feature = "schema", schemars(skip))]
    Unknown,
}

impl ErrorName {
    /// All of this version, in the order of their numbers.
    pub const ALL: [Self; 14] = [
        Self::AccessDenied,
        Self::ChannelNotFound,
        Self::BadClientPassword,
        Self::Internal,
        Self::NonActiveChannel,
        Self::SessionNotFound,
        Self::AccessNotFound,
        Self::BadProductConfig,
        Self::BadStatus,
        Self::Unsupported,
        Self::UsageWentBackwards,
        Self::BadRequest,
        Self::SubscriptionNotFound,
        Self::TooManyWaiting,
    ];

    /// The stable number.
    pub fn number(self) -> u32 {
        1_236_224 + self as u32
    }

    /// The stable text.
    pub fn text(self) -> &'static str {
        match self {
            Self::AccessDenied => "access denied",
            Self::ChannelNotFound => "channel not found",
            Self::BadClientPassword => "bad client password",
            Self::Internal => "internal server error",
            Self::NonActiveChannel => "non-active channel",
            Self::SessionNotFound => "session not found",
            Self::AccessNotFound => "endpoint not found",
            Self::BadProductConfig => "bad product config",
            Self::BadStatus => "bad status",
            Self::Unsupported => "unsupported call",
            Self::UsageWentBackwards => "usage went backwards",
            Self::BadRequest => "bad request",
            Self::SubscriptionNotFound => "subscription not found",
            Self::TooManyWaiting => "too many waiting",
            Self::Unknown => "unknown error",
        }
    }
}

impl fmt::Display for ErrorName {
    /// The name on the wire.
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.serialize(out)
    }
}

/// A refused call to the core.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ApiError {
    /// Stable name.
    pub name: ErrorName,
    /// Stable number.
    pub number: u32,
    /// Stable text, and after a colon what this case is about.
    pub text: String,
}

impl ApiError {
    /// An error with its stable text alone.
    pub fn new(name: ErrorName) -> Self {
        Self { name, number: name.number(), text: name.text().to_owned() }
    }

    /// An error that says more than its stable text.
    pub fn with(name: ErrorName, detail: impl fmt::Display) -> Self {
        Self { name, number: name.number(), text: format!("{}: {detail}", name.text()) }
    }
}

impl From<ErrorName> for ApiError {
    fn from(name: ErrorName) -> Self {
        Self::new(name)
    }
}

impl fmt::Display for ApiError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{} ({})", self.text, self.number)
    }
}

impl std::error::Error for ApiError {}

/// A command that a module did not carry out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Fault {
    /// What kind of failure.
    pub kind: FaultKind,
    /// The module's account of it, with its causes.
    pub text: String,
}

/// How a command failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum FaultKind {
    /// The module returned an error.
    Failed,
    /// The module panicked; the panic was caught.
    Panicked,
    /// The module does not know the command.
    Unsupported,
    /// The module is shut down.
    Stopped,
    /// A kind of a newer Service API.
    #[serde(other)]
    #[cfg_attr(feature = "schema", schemars(skip))]
    Unknown,
}

impl FaultKind {
    /// All of this version.
    pub const ALL: [Self; 4] = [Self::Failed, Self::Panicked, Self::Unsupported, Self::Stopped];
}

impl fmt::Display for FaultKind {
    /// The word on the wire.
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.serialize(out)
    }
}

impl Fault {
    /// A fault of a kind with its account.
    pub fn new(kind: FaultKind, text: impl Into<String>) -> Self {
        Self { kind, text: text.into() }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind {
            FaultKind::Failed => out.write_str(&self.text),
            FaultKind::Panicked => write!(out, "panicked: {}", self.text),
            FaultKind::Unsupported => write!(out, "unsupported: {}", self.text),
            FaultKind::Stopped => write!(out, "stopped: {}", self.text),
            FaultKind::Unknown => write!(out, "failed: {}", self.text),
        }
    }
}

impl std::error::Error for Fault {}

/// An error and its causes in one line.
pub fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    std::iter::successors(error.source(), |cause| cause.source())
        .fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_are_numbered_without_a_gap_and_only_that_of_a_newer_api_is_not_among_them() {
        for (at, name) in (0..).zip(ErrorName::ALL) {
            assert_eq!(name.number(), 1_236_224 + at, "{name:?}");
        }
        assert_eq!(ErrorName::Unknown as usize, ErrorName::ALL.len());
        assert_eq!(FaultKind::Unknown as usize, FaultKind::ALL.len());
    }

    #[test]
    fn numbers_and_texts_are_those_that_existing_adapters_know() {
        for (name, number, text) in [
            (ErrorName::AccessDenied, 1_236_224, "access denied"),
            (ErrorName::ChannelNotFound, 1_236_225, "channel not found"),
            (ErrorName::BadClientPassword, 1_236_226, "bad client password"),
            (ErrorName::Internal, 1_236_227, "internal server error"),
            (ErrorName::NonActiveChannel, 1_236_228, "non-active channel"),
            (ErrorName::SessionNotFound, 1_236_229, "session not found"),
            (ErrorName::AccessNotFound, 1_236_230, "endpoint not found"),
            (ErrorName::BadProductConfig, 1_236_231, "bad product config"),
            (ErrorName::BadStatus, 1_236_232, "bad status"),
            (ErrorName::Unsupported, 1_236_233, "unsupported call"),
            (ErrorName::UsageWentBackwards, 1_236_234, "usage went backwards"),
            (ErrorName::BadRequest, 1_236_235, "bad request"),
            (ErrorName::SubscriptionNotFound, 1_236_236, "subscription not found"),
            (ErrorName::TooManyWaiting, 1_236_237, "too many waiting"),
        ] {
            assert_eq!((name.number(), name.text()), (number, text));
        }
        assert_eq!(
            ApiError::new(ErrorName::NonActiveChannel).to_string(),
            "non-active channel (1236228)"
        );
    }

    #[test]
    fn an_error_of_a_newer_core_is_unknown_but_keeps_its_text() {
        let wire = br#"{"name":"OutOfTea","number":1236299,"text":"out of tea"}"#;
        let error: ApiError = serde_json::from_slice(wire).expect("readable");
        assert_eq!(
            (error.name, error.to_string().as_str()),
            (ErrorName::Unknown, "out of tea (1236299)")
        );
    }
}
