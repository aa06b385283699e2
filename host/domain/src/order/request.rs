//! The small messages by which a client asks for the access message, the account or the end of a
//! channel. Each is good for a short time; that none is used twice is for the caller to see to,
//! by remembering nonces for that time.

use privatix_plugin_api::message::ClientKey;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use uuid::Uuid;

use crate::code::Code;
use crate::identity::PublicKey;
use crate::signed::{self, Kind, Malformed, SignatureError};

/// A client's request about a channel; what it asks for is in the kind of its signature.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct ChannelRequest {
    /// The channel.
    pub channel: ClientKey,
    /// When it was made, in Unix seconds.
    pub time: u64,
    /// Makes every request unique.
    pub nonce: Uuid,
}

impl ChannelRequest {
    /// How far the clocks of both sides may be apart, in seconds.
    pub const TOLERANCE: u64 = 120;
}

/// Why a request is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// Not the form of a request.
    #[error("the request cannot be read")]
    Malformed(#[from] Malformed),
    /// Not signed by the channel's client, or for something else.
    #[error("the request is not signed as such by the channel's client")]
    Signature(#[from] SignatureError),
    /// About something else.
    #[error("the request is about another channel")]
    Foreign,
    /// Made too long ago, or in the future.
    #[error(
        "the request was made at {time} and it is {now} now (Unix seconds); they may be {} apart",
        ChannelRequest::TOLERANCE
    )]
    Stale {
        /// When it was made.
        time: u64,
        /// What time it is.
        now: u64,
    },
}

impl RequestError {
    /// The stable name of this error.
    pub fn code(&self) -> Code {
        match self {
            Self::Malformed(_) => Code::MalformedRequest,
            Self::Signature(_) => Code::BadRequestSignature,
            Self::Foreign => Code::ForeignRequest,
            Self::Stale { .. } => Code::StaleRequest,
        }
    }
}

/// Whether a request is this client's, of this kind, about this channel, and made about now (Unix
/// seconds).
///
/// # Errors
/// [`RequestError`] with the first fault found: form, signature, channel, time.
pub fn check_request(
    kind: Kind,
    message: &Value,
    client: &PublicKey,
    channel: ClientKey,
    now: u64,
) -> Result<ChannelRequest, RequestError> {
    let request: ChannelRequest = signed::read(message)?;
    signed::verify(kind, message, client)?;
    if request.channel != channel {
        return Err(RequestError::Foreign);
    }
    if request.time.abs_diff(now) > ChannelRequest::TOLERANCE {
        return Err(RequestError::Stale { time: request.time, now });
    }
    Ok(request)
}
