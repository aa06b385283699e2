//! Accounts: what the agent says, signed, of a channel's state. A client learns from them of
//! holds, costs, new access messages and the end of a channel. Absent here: what the client makes
//! of it.

#[cfg(test)]
mod tests;

use privatix_plugin_api::message::{ClientKey, Status};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::code::Code;
use super::identity::PublicKey;
use super::signed::{self, Kind, Malformed, SignatureError};
use super::status::{Hold, Holds};

/// The state of a channel as its agent sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct Account {
    /// The channel.
    pub channel: ClientKey,
    /// Its status.
    pub status: Status,
    /// Why it may not be active; see [`Account::known_holds`].
    pub holds: Vec<String>,
    /// Smallest units used so far.
    pub usage: u64,
    /// What they cost, in the smallest unit of money.
    pub cost: u64,
    /// The balance of the best cheque.
    pub paid: u64,
    /// Serial of the latest access message; 0 before the first.
    pub serial: u64,
    /// When it was made, in Unix seconds.
    pub time: u64,
    /// The best cheque, as its client has signed it: a client that was restored from an old copy
    /// has forgotten it, and believes nothing but its own signature.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub best_cheque: Option<Value>,
}

/// Why an account is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AccountError {
    /// Not the form of an account.
    #[error("the account cannot be read")]
    Malformed(#[from] Malformed),
    /// Not signed by the channel's agent.
    #[error("the account is not signed by the channel's agent")]
    Signature(#[from] SignatureError),
    /// Of another channel.
    #[error("the account is of another channel")]
    Foreign,
    /// An older one than is known.
    #[error("the account was made at {time}; one of {last} is known (Unix seconds)")]
    Stale {
        /// When it was made.
        time: u64,
        /// When the known one was.
        last: u64,
    },
}

impl AccountError {
    /// The stable name of this error.
    pub fn code(&self) -> Code {
        match self {
            Self::Malformed(_) => Code::MalformedAccount,
            Self::Signature(_) => Code::BadAccountSignature,
            Self::Foreign => Code::ForeignAccount,
            Self::Stale { .. } => Code::StaleAccount,
        }
    }
}

impl Account {
    /// Why the agent has ended the channel, as far as an account tells.
    pub fn end(&self, deposit: u64) -> &'static str {
        if deposit > 0 && self.cost >= deposit {
            return "ended by the agent; all of the deposit is used";
        }
        "ended by the agent"
    }

    /// The words for some holds.
    pub fn words(holds: Holds) -> Vec<String> {
        let held = Hold::ALL.into_iter().filter(|hold| holds.contains(*hold));
        held.map(|hold| hold.as_str().to_owned()).collect()
    }

    /// The holds among the words; a newer agent may have others.
    pub fn known_holds(&self) -> Holds {
        let held = Hold::ALL.into_iter();
        held.filter(|hold| self.holds.iter().any(|word| word == hold.as_str()))
            .fold(Holds::NONE, Holds::with)
    }
}

/// Whether a message is the agent's account of this channel, not older than the last known one;
/// `last` is that one's `time` in Unix seconds, 0 before the first.
///
/// # Errors
/// [`AccountError`] with the first fault found: form, signature, channel, time.
pub fn check(
    message: &Value,
    agent: &PublicKey,
    channel: ClientKey,
    last: u64,
) -> Result<Account, AccountError> {
    let account: Account = signed::read(message)?;
    signed::verify(Kind::Account, message, agent)?;
    if account.channel != channel {
        return Err(AccountError::Foreign);
    }
    check_time(&account, last)?;
    Ok(account)
}

/// Whether an account is not older than the last known one, made at `last`.
///
/// # Errors
/// [`AccountError::Stale`].
pub fn check_time(account: &Account, last: u64) -> Result<(), AccountError> {
    if account.time < last {
        return Err(AccountError::Stale { time: account.time, last });
    }
    Ok(())
}
