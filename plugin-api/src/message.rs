//! The Service API as plain messages: what crosses the ABI, and later the network, as JSON.
//!
//! A request is an object with its name in `call`; a reply is `{"ok": …}` or `{"error": …}`.
//! Messages grow by a new variant or a new optional field, never by a change of meaning: unknown
//! fields are ignored, and an unknown `call` is read as `Unknown`, which is answered
//! [`ErrorName::Unsupported`].
//!
//! Not here: any I/O, and any rule of the core.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value};
use uuid::Uuid;

pub use crate::error::{ApiError, ErrorName};
use crate::json::MAX_INTEGER;
use crate::manifest::Role;

macro_rules! id {
    ($(#[$meta:meta])* $name:ident) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
        #[serde(transparent)]
        pub struct $name(pub Uuid);

        impl fmt::Display for $name {
            fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(out)
            }
        }

        impl FromStr for $name {
            type Err = uuid::Error;

            fn from_str(text: &str) -> Result<Self, uuid::Error> {
                text.parse().map(Self)
            }
        }
    };
}

id! {
    /// A channel on both sides: chosen by the agent, a UUID v4, and the `username` of its access.
    ClientKey
}
id! {
    /// One stretch of use within a channel.
    SessionId
}

/// A password in transit. Never shown by `Debug`.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(transparent)]
pub struct Password(pub String);

impl fmt::Debug for Password {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("Password(…)")
    }
}

/// The state of a channel on one side.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// Ordered; no access message yet.
    Pending,
    /// The module was asked to start.
    Activating,
    /// The service may be used.
    Active,
    /// The module was asked to stop; use may be resumed later.
    Suspending,
    /// May not be used now.
    Suspended,
    /// The module was asked to stop for good.
    Terminating,
    /// Over.
    Terminated,
}

impl Status {
    /// All of them, in the order of a channel's life.
    pub const ALL: [Self; 7] = [
        Self::Pending,
        Self::Activating,
        Self::Active,
        Self::Suspending,
        Self::Suspended,
        Self::Terminating,
        Self::Terminated,
    ];

    /// The word used in JSON and tables.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Activating => "activating",
            Self::Active => "active",
            Self::Suspending => "suspending",
            Self::Suspended => "suspended",
            Self::Terminating => "terminating",
            Self::Terminated => "terminated",
        }
    }

    /// Whether a client may have the service in this status.
    pub fn allows_use(self) -> bool {
        matches!(self, Self::Activating | Self::Active)
    }
}

impl fmt::Display for Status {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.as_str())
    }
}

impl FromStr for Status {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|status| status.as_str() == text);
        found.ok_or_else(|| format!("{text:?} is no status"))
    }
}

/// Module → core. Each call reaches only channels of the calling product
/// ([`ErrorName::ChannelNotFound`] for any other) and may be repeated unchanged.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(tag = "call", rename_all = "camelCase", rename_all_fields = "camelCase")]
#[non_exhaustive]
pub enum CoreRequest {
    /// Agent: verifies a client's password. Answer: [`Done`].
    AuthClient {
        /// The channel, which is the username the client gave.
        client_key: ClientKey,
        /// The password the client gave.
        password: Password,
    },
    /// Agent: replaces what the product adds to its access messages. Answer: [`Done`].
    SetProductConfig {
        /// At least one entry, no empty key. `externalIP` becomes the service endpoint address.
        config: BTreeMap<String, String>,
    },
    /// Client: asks for a channel's access message. Answer: [`AccessMessage`].
    GetAccess {
        /// The channel.
        client_key: ClientKey,
    },
    /// The service of a channel can be used now. Answer: [`StatusReply`].
    ServiceReady {
        /// The channel.
        client_key: ClientKey,
    },
    /// Opens a session; an older open one of the channel is closed first. Answer: [`SessionStarted`].
    StartSession {
        /// The channel.
        client_key: ClientKey,
        /// Where the client comes from, if known.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        client_address: Option<IpAddr>,
        /// And its port, if known.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        client_port: Option<u16>,
    },
    /// Reports usage; acknowledged means on disk. Answer: [`StatusReply`].
    UpdateSession {
        /// The channel.
        client_key: ClientKey,
        /// The session.
        session: SessionId,
        /// What was used.
        usage: Usage,
    },
    /// Closes a session. Answer: [`StatusReply`].
    StopSession {
        /// The channel.
        client_key: ClientKey,
        /// The session.
        session: SessionId,
    },
    /// Client: what the agent now asks for is not what the user agreed to. Adds the hold `user`, so
    /// the channel is stopped; its user agrees by resuming it. Without effect on a channel that is
    /// over. Answer: [`StatusReply`].
    HoldChannel {
        /// The channel.
        client_key: ClientKey,
        /// What the user has to agree to, in words for a person.
        reason: String,
    },
    /// A log event of the module; sent by the SDK and answered at once. Answer: [`Done`].
    Log(LogEvent),
    /// A call of a newer Service API, answered [`ErrorName::Unsupported`].
    #[serde(other, skip_serializing)]
    #[cfg_attr(feature = "schema", schemars(skip))]
    Unknown,
}

/// Usage in the smallest unit: bytes for data.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum Usage {
    /// All of the session so far; never less than reported before.
    Total(#[serde(deserialize_with = "integer")] u64),
    /// Since the previous report.
    Incremental {
        /// From 1, rises by any amount from report to report of one session; a repeated one is
        /// acknowledged and not added again.
        #[serde(deserialize_with = "integer")]
        #[cfg_attr(feature = "schema", schemars(range(min = 1)))]
        sequence: u64,
        /// Smallest units.
        #[serde(deserialize_with = "integer")]
        amount: u64,
    },
}

/// One log event of a module.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct LogEvent {
    /// How important.
    pub level: LogLevel,
    /// Where in the module's code.
    pub target: String,
    /// The sentence.
    pub message: String,
    /// Named values beside it.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub fields: BTreeMap<String, String>,
}

/// Importance of a log event, most important first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum LogLevel {
    /// Somebody has to act.
    Error,
    /// Somebody should look.
    Warn,
    /// What happens.
    Info,
    /// What a person needs to correct the fault.
    Debug,
    /// Everything.
    Trace,
}

/// An answer without content.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Done {}

/// The channel's status after the call, which tells the module whether to go on serving.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct StatusReply {
    /// See [`Status`].
    pub status: Status,
    /// How many smallest units the channel may use beyond the usage that this reply acknowledges,
    /// until the next report is acknowledged. Absent: the core states no limit. That is the case for
    /// a core that does not know credit, for a session that the core measures itself, and in the
    /// answer to `StopSession`.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "optional_integer"
    )]
    pub credit: Option<u64>,
}

impl StatusReply {
    /// A reply that states no limit.
    pub fn new(status: Status) -> Self {
        Self { status, credit: None }
    }
}

/// Answer to `StartSession`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct SessionStarted {
    /// The session to report usage for.
    pub session: SessionId,
    /// The channel's offering, as signed by the agent.
    #[serde(default)]
    pub offering: Value,
    /// See [`Status`].
    pub status: Status,
    /// How many smallest units may be used until a report is acknowledged; see
    /// [`StatusReply::credit`].
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "optional_integer"
    )]
    pub credit: Option<u64>,
}

/// All that a client needs to use the service.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct AccessMessage {
    /// Hash of the access template this message is valid by.
    #[cfg_attr(feature = "schema", schemars(regex(pattern = "^[0-9a-f]{64}$")))]
    pub template_hash: String,
    /// Makes every message unique.
    pub nonce: String,
    /// The channel.
    pub username: ClientKey,
    /// To authenticate with at the agent's module.
    pub password: Password,
    /// The agent's payment receiver.
    pub payment_receiver_address: String,
    /// Where the service is.
    pub service_endpoint_address: String,
    /// What the agent's module set with `SetProductConfig`.
    #[serde(default)]
    pub additional_params: BTreeMap<String, String>,
    /// Further fields of the template.
    #[serde(flatten)]
    pub custom: Map<String, Value>,
}

/// Core → module. `Start` and `Stop` come in order per channel, are sent again after a restart
/// and have to be safe to repeat.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(tag = "call", rename_all = "camelCase", rename_all_fields = "camelCase")]
#[non_exhaustive]
pub enum ModuleRequest {
    /// The settings of `[modules.<name>]`, valid by the manifest's schema; once, before anything
    /// else. Answer: [`Done`].
    Configure {
        /// An object.
        config: Value,
    },
    /// Serve this channel, or look at its access message again. Answer: [`Started`].
    Start {
        /// The channel.
        client_key: ClientKey,
    },
    /// Serve this channel no longer; answered once its client is really gone. Answer: [`Done`].
    Stop {
        /// The channel.
        client_key: ClientKey,
        /// Why.
        reason: StopReason,
    },
    /// Which channels are being served now? Answer: [`Sessions`].
    Sessions,
    /// Is the module well? Answer: [`Health`].
    Health,
    /// What should the user know of a channel? Answer: [`Description`].
    Describe {
        /// The channel.
        client_key: ClientKey,
    },
    /// Undo whatever an earlier run has left behind on this machine; instead of `Configure` and of
    /// all other commands, while no host runs. Answer: [`Cleaned`]; `unsupported` by a module that
    /// leaves nothing behind.
    Cleanup,
    /// Another generation of this module is to take over: what protects users meanwhile, such as a
    /// kill switch, is to be left in place by the `shutdown` that follows, for the next one to adopt.
    /// Answer: [`Done`].
    HandOver,
    /// For tests alone: have the service itself carry about so much through a channel. Answer:
    /// [`Exercised`].
    Exercise {
        /// The channel.
        client_key: ClientKey,
        /// In smallest units.
        #[serde(deserialize_with = "integer")]
        amount: u64,
    },
    /// A command of a newer Service API, answered `unsupported`.
    #[serde(other, skip_serializing)]
    #[cfg_attr(feature = "schema", schemars(skip))]
    Unknown,
}

/// Why a channel is stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum StopReason {
    /// It may be started again.
    Suspended,
    /// It is over.
    Terminated,
    /// A reason of a newer Service API; to be treated as `Suspended`.
    #[serde(other)]
    #[cfg_attr(feature = "schema", schemars(skip))]
    Unknown,
}

/// Answer to `Start`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum Started {
    /// The service can be used now.
    Ready,
    /// It will be; the module calls `ServiceReady` or `StartSession` then.
    Later,
}

/// Answer to `Sessions`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct Sessions {
    /// Channels being served.
    pub client_keys: Vec<ClientKey>,
}

/// Answer to `Exercise`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Exercised {
    /// What was really carried, in smallest units, as the module itself measures it.
    pub moved: u64,
}

/// Answer to `Describe`: what a user needs to use a channel, by name, such as a local port.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(transparent)]
pub struct Description(pub BTreeMap<String, String>);

/// Answer to `Cleanup`: what was undone, a sentence each.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(transparent)]
pub struct Cleaned(pub Vec<String>);

/// How a module is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(tag = "health", content = "detail", rename_all = "lowercase")]
pub enum Health {
    /// Serves.
    Healthy,
    /// Serves, but somebody should look; says what.
    Degraded(String),
    /// Does not serve; says why.
    Unhealthy(String),
}

/// What a module is told when it is created.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct HostInfo {
    /// The Service API version host and module agreed on.
    pub api_version: u32,
    /// The host's own version.
    pub host_version: String,
    /// The module's name.
    pub name: String,
    /// The side it takes here.
    pub role: Role,
    /// A directory of the module's own, mode 0700, that survives restarts and replacements.
    pub data_dir: std::path::PathBuf,
    /// Events less important than this need not be sent.
    pub log_level: LogLevel,
}

/// The outcome of a call, as it crosses: `{"ok": …}` or `{"error": …}`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub enum Reply<T, E> {
    /// Done.
    Ok(T),
    /// Refused.
    Error(E),
}

impl<T, E> From<Result<T, E>> for Reply<T, E> {
    fn from(result: Result<T, E>) -> Self {
        match result {
            Ok(value) => Self::Ok(value),
            Err(error) => Self::Error(error),
        }
    }
}

impl<T, E> From<Reply<T, E>> for Result<T, E> {
    fn from(reply: Reply<T, E>) -> Self {
        match reply {
            Reply::Ok(value) => Ok(value),
            Reply::Error(error) => Err(error),
        }
    }
}

/// A message that is not what it should be.
#[derive(Debug, thiserror::Error)]
#[error("the message cannot be read")]
pub struct Unreadable(#[from] serde_json::Error);

/// Writes a message for the other side.
pub fn encode<T: Serialize>(message: &T) -> Vec<u8> {
    // All messages are maps with string keys and plain values, which serde_json always writes;
    // an empty text is read by nobody as a message.
    serde_json::to_vec(message).unwrap_or_default()
}

/// Reads a message of the other side.
///
/// # Errors
/// [`Unreadable`] with serde's account of what is missing or wrong.
pub fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Unreadable> {
    serde_json::from_slice(bytes).map_err(Unreadable)
}

/// Integers of messages end at 2⁵³−1 ([`MAX_INTEGER`]).
fn integer<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    let value = u64::deserialize(deserializer)?;
    if value > MAX_INTEGER {
        return Err(serde::de::Error::custom("NumberTooLarge: above 9007199254740991"));
    }
    Ok(value)
}

fn optional_integer<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
    match Option::<u64>::deserialize(deserializer)? {
        Some(value) if value > MAX_INTEGER => {
            Err(serde::de::Error::custom("NumberTooLarge: above 9007199254740991"))
        }
        value => Ok(value),
    }
}

#[cfg(test)]
mod tests;
