//! Cheques: a client's signed balance for a channel, which replaces every lower one, and the agent's
//! receipt for it. Absent here: what a client should sign, and how cheques are settled outside.

mod bundle;
#[cfg(test)]
mod tests;

use privatix_plugin_api::message::ClientKey;
use serde::{Deserialize, Serialize};
use serde_json::Value;

pub use bundle::{Bundle, BundleError, Verified, verify};

use super::account::Account;
use super::code::Code;
use super::identity::PublicKey;
use super::signed::{self, Kind, Malformed, SignatureError};

/// A client's promise to pay.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct Cheque {
    /// Who is paid: the agent's signing key.
    pub agent: PublicKey,
    /// Who pays, and signs this: the client's signing key.
    pub client: PublicKey,
    /// For which channel.
    pub channel: ClientKey,
    /// Hash of the channel's offering.
    #[cfg_attr(feature = "schema", schemars(regex(pattern = "^[0-9a-f]{64}$")))]
    pub offering: String,
    /// All that is paid for the channel so far, in the smallest unit of money.
    #[cfg_attr(feature = "schema", schemars(range(min = 1)))]
    pub balance: u64,
}

/// An agent's answer to a cheque: its account of the channel with the cheque in it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct Receipt {
    /// Hash of the signed cheque.
    #[cfg_attr(feature = "schema", schemars(regex(pattern = "^[0-9a-f]{64}$")))]
    pub cheque: String,
    /// The account, whose `paid` is the balance of the best cheque.
    #[serde(flatten)]
    pub account: Account,
}

/// The channel as its agent knows it, for the check of a cheque.
#[derive(Debug, Clone, Copy)]
pub struct Expect<'a> {
    /// The agent's signing key.
    pub agent: &'a PublicKey,
    /// The client's signing key.
    pub client: &'a PublicKey,
    /// The channel.
    pub channel: ClientKey,
    /// Hash of its offering.
    pub offering: &'a str,
    /// What the client promised to spend at most.
    pub deposit: u64,
    /// Balance of the best cheque.
    pub paid: u64,
}

/// Why a cheque is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ChequeError {
    /// Not the form of a cheque.
    #[error("the cheque cannot be read")]
    Malformed(#[from] Malformed),
    /// Of other parties.
    #[error("the cheque is not from this channel's client to its agent")]
    Parties,
    /// For another channel.
    #[error("the cheque is for another channel")]
    Foreign,
    /// For another offering.
    #[error("the cheque is for another offering than the channel's")]
    Offering,
    /// Not signed by the client.
    #[error("the cheque is not signed by the channel's client")]
    Signature(#[from] SignatureError),
    /// A lower one than the best.
    #[error("the cheque's balance is {found}; one of {paid} is here already")]
    Stale {
        /// Its balance.
        found: u64,
        /// The best one's.
        paid: u64,
    },
    /// More than was promised.
    #[error("the cheque's balance is {found}; the deposit is {deposit}")]
    AboveDeposit {
        /// Its balance.
        found: u64,
        /// The deposit.
        deposit: u64,
    },
}

impl ChequeError {
    /// The stable name of this error.
    pub fn code(&self) -> Code {
        match self {
            Self::Malformed(_) => Code::MalformedCheque,
            Self::Parties => Code::WrongChequeParties,
            Self::Foreign => Code::ForeignCheque,
            Self::Offering => Code::WrongChequeOffering,
            Self::Signature(_) => Code::BadChequeSignature,
            Self::Stale { .. } => Code::StaleCheque,
            Self::AboveDeposit { .. } => Code::AboveDeposit,
        }
    }
}

/// Why a receipt is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReceiptError {
    /// Not the form of a receipt.
    #[error("the receipt cannot be read")]
    Malformed(#[from] Malformed),
    /// Not signed by the agent.
    #[error("the receipt is not signed by the channel's agent")]
    Signature(#[from] SignatureError),
    /// For something else.
    #[error("the receipt is for another cheque or channel")]
    Foreign,
    /// It does not say that the cheque is there.
    #[error("the receipt says that {paid} is paid; the cheque was of {balance}")]
    TooLow {
        /// What it says.
        paid: u64,
        /// What the cheque says.
        balance: u64,
    },
}

impl ReceiptError {
    /// The stable name of this error.
    pub fn code(&self) -> Code {
        match self {
            Self::Malformed(_) => Code::MalformedReceipt,
            Self::Signature(_) => Code::BadReceiptSignature,
            Self::Foreign => Code::ForeignReceipt,
            Self::TooLow { .. } => Code::ReceiptTooLow,
        }
    }
}

/// Reads a cheque. This tells which channel to look for; nothing of it is checked.
///
/// # Errors
/// [`ChequeError::Malformed`].
pub fn read(message: &Value) -> Result<Cheque, ChequeError> {
    Ok(signed::read(message)?)
}

/// Whether a cheque may be taken, or was taken before.
///
/// # Errors
/// [`ChequeError`] with the first fault found: form, parties, channel, offering, signature, balance.
pub fn check(message: &Value, expect: &Expect<'_>) -> Result<Cheque, ChequeError> {
    let cheque = read(message)?;
    if cheque.agent != *expect.agent || cheque.client != *expect.client {
        return Err(ChequeError::Parties);
    }
    if cheque.channel != expect.channel {
        return Err(ChequeError::Foreign);
    }
    if cheque.offering != expect.offering {
        return Err(ChequeError::Offering);
    }
    signed::verify(Kind::Cheque, message, expect.client)?;
    let (found, paid, deposit) = (cheque.balance, expect.paid, expect.deposit);
    // A cheque of nothing is worth nothing, also before the first.
    if found < paid || found == 0 {
        return Err(ChequeError::Stale { found, paid });
    }
    if found > deposit {
        return Err(ChequeError::AboveDeposit { found, deposit });
    }
    Ok(cheque)
}

/// Whether a message is the agent's receipt for the cheque with this hash and balance.
///
/// # Errors
/// [`ReceiptError`] with the first fault found: form, signature, channel and cheque, amount.
pub fn check_receipt(
    message: &Value,
    agent: &PublicKey,
    channel: ClientKey,
    cheque_hash: &str,
    balance: u64,
) -> Result<Receipt, ReceiptError> {
    let receipt: Receipt = signed::read(message)?;
    signed::verify(Kind::Receipt, message, agent)?;
    if receipt.account.channel != channel || receipt.cheque != cheque_hash {
        return Err(ReceiptError::Foreign);
    }
    let paid = receipt.account.paid;
    if paid < balance {
        return Err(ReceiptError::TooLow { paid, balance });
    }
    Ok(receipt)
}
