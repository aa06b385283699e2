//! The agent: whether a channel is held for payment, and whether it is over.

use privatix_plugin_api::message::Status;
use serde::{Deserialize, Serialize};

use super::Terms;
use crate::offering::BillingType;
use crate::status::has_ended;

/// What an agent knows of a channel. Times are Unix seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AgentFacts {
    /// Its status.
    pub status: Status,
    /// Since when it has that status.
    pub since: u64,
    /// When usage last grew; 0 if it never did.
    pub used_at: u64,
    /// What was used.
    pub usage: u64,
    /// What the client promised to spend at most.
    pub deposit: u64,
    /// Balance of the best cheque.
    pub paid: u64,
    /// By when the first payment has to be there, where one is due before any use.
    pub first_payment_by: u64,
}

impl AgentFacts {
    /// Those of a channel that was ordered at a time, and nothing else.
    pub fn ordered(since: u64, deposit: u64) -> Self {
        Self {
            status: Status::Pending,
            since,
            used_at: 0,
            usage: 0,
            deposit,
            paid: 0,
            first_payment_by: u64::MAX,
        }
    }
}

/// Why a channel is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub enum End {
    /// Use has cost all of the deposit.
    DepositSpent,
    /// All units were used.
    UnitsUsed,
    /// It was not used for too long.
    Inactive,
    /// It was suspended for too long.
    SuspendedTooLong,
    /// The first payment did not come in time.
    NeverPaid,
}

impl End {
    /// As a channel's reason.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::DepositSpent => "the deposit is used up",
            Self::UnitsUsed => "all units are used up",
            Self::Inactive => "not used for too long",
            Self::SuspendedTooLong => "suspended for too long",
            Self::NeverPaid => "the first payment did not come in time",
        }
    }
}

/// What an agent does about a channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Judgement {
    /// Whether it has the hold `payment`.
    pub hold: bool,
    /// Whether it is over, and why.
    pub end: Option<End>,
}

/// Whether a channel is never judged again.
pub fn is_settled(facts: &AgentFacts) -> bool {
    has_ended(facts.status)
}

/// Judges a channel at a time.
pub fn judge(terms: &Terms, facts: &AgentFacts, now: u64) -> Judgement {
    Judgement { hold: is_held(terms, facts), end: end(terms, facts, now) }
}

fn is_held(terms: &Terms, facts: &AgentFacts) -> bool {
    let AgentFacts { usage, deposit, paid, .. } = *facts;
    if paid < terms.setup_price {
        return true;
    }
    let cost = terms.cost(usage, deposit);
    match terms.billing_type {
        BillingType::Postpaid => terms.max_billing_unit_lag.is_some_and(|lag| {
            u128::from(cost.saturating_sub(paid))
                > u128::from(lag.get()) * u128::from(terms.unit_price)
        }),
        BillingType::Prepaid => {
            terms.unit_price > 0
                && u128::from(usage) >= terms.free()
                && cost >= paid
                && paid < deposit
        }
    }
}

fn end(terms: &Terms, facts: &AgentFacts, now: u64) -> Option<End> {
    let AgentFacts { status, since, used_at, usage, deposit, .. } = *facts;
    let spent = terms.unit_price > 0
        && u128::from(usage) >= terms.free()
        && terms.cost(usage, deposit) >= deposit;
    let passed = |since: u64, limit: u64| now.saturating_sub(since) >= limit;
    if spent {
        Some(End::DepositSpent)
    } else if last_unit(terms).is_some_and(|last| u128::from(usage) >= last) {
        Some(End::UnitsUsed)
    } else if now >= facts.first_payment_by && awaits_first_payment(terms, facts) {
        Some(End::NeverPaid)
    } else if status == Status::Suspended
        && terms.max_suspend_time.is_some_and(|limit| passed(since, limit.get()))
    {
        Some(End::SuspendedTooLong)
    } else if terms.max_inactive_time.is_some_and(|limit| passed(since.max(used_at), limit.get())) {
        Some(End::Inactive)
    } else {
        None
    }
}

/// Whether a payment is due that nobody has to use anything for, and is not there: the setup price,
/// or the first interval of prepaid units that are not free. Until then a channel costs its client
/// nothing, and takes a place that others would pay for.
pub(super) fn awaits_first_payment(terms: &Terms, facts: &AgentFacts) -> bool {
    is_held(terms, &AgentFacts { usage: 0, ..*facts })
}

pub(super) fn last_unit(terms: &Terms) -> Option<u128> {
    terms.max_units.map(|max| u128::from(max.get()) * u128::from(terms.unit_size))
}

/// The usage from which on a channel has to be judged anew, as long as no more is paid; `None` if no
/// usage changes anything. Below it every usage is judged alike, so that a report that stays below
/// needs nobody's attention.
pub fn alarm(terms: &Terms, deposit: u64, paid: u64) -> Option<u64> {
    let spent = usage_costing(terms, u128::from(deposit));
    let first = [held_at(terms, deposit, paid), spent, last_unit(terms)].into_iter().flatten();
    u64::try_from(first.min()?).ok()
}

/// The least usage for which a channel is held while no more is paid, if there is one.
pub(super) fn held_at(terms: &Terms, deposit: u64, paid: u64) -> Option<u128> {
    let (paid, deposit) = (u128::from(paid), u128::from(deposit));
    match terms.billing_type {
        BillingType::Prepaid => usage_costing(terms, paid).filter(|_| paid < deposit),
        BillingType::Postpaid => {
            let lag = terms.max_billing_unit_lag?;
            let cost = paid + u128::from(lag.get()) * u128::from(terms.unit_price) + 1;
            usage_costing(terms, cost).filter(|_| cost <= deposit)
        }
    }
}

/// The least usage, beyond what is free, that costs at least so much.
pub(super) fn usage_costing(terms: &Terms, cost: u128) -> Option<u128> {
    if terms.unit_price == 0 {
        return None;
    }
    let metered = cost.saturating_sub(u128::from(terms.setup_price));
    let units = metered.checked_mul(u128::from(terms.unit_size))?;
    Some(terms.free() + units.div_ceil(u128::from(terms.unit_price)))
}
