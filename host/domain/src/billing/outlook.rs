//! What will happen to a channel next, and at which usage or when, if nothing else does.

use privatix_plugin_api::message::Status;
use serde::{Deserialize, Serialize};

use super::agent::awaits_first_payment;
use super::agent::{held_at, last_unit, usage_costing};
use super::{AgentFacts, ClientFacts, End, Terms, due, judge};
use crate::offering::BillingType;

/// Something that will happen. Usage is in smallest units, times are Unix seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(tag = "what", rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum Outlook {
    /// It is held until that much is paid.
    HeldUntilPaid {
        /// A balance.
        balance: u64,
    },
    /// It is held from that usage on, unless more is paid.
    HoldsAtUsage {
        /// A usage.
        usage: u64,
    },
    /// The next cheque is signed at that usage.
    PaysAtUsage {
        /// A usage, by the client's own meter.
        usage: u64,
    },
    /// It is over at that usage.
    EndsAtUsage {
        /// A usage.
        usage: u64,
        /// Why.
        end: End,
    },
    /// It is over then.
    EndsAt {
        /// A time.
        time: u64,
        /// Why.
        end: End,
    },
}

/// What an agent will do.
pub fn agent_outlook(terms: &Terms, facts: &AgentFacts, now: u64) -> Vec<Outlook> {
    let mut outlook = Vec::new();
    if judge(terms, facts, now).hold {
        outlook.push(Outlook::HeldUntilPaid { balance: bearable(terms, facts) });
    } else if let Some(usage) = fits(held_at(terms, facts.deposit, facts.paid)) {
        outlook.push(Outlook::HoldsAtUsage { usage });
    }
    outlook.extend(ends_at_usage(terms, facts.deposit));
    let ends = [
        (Status::Suspended == facts.status).then_some((
            terms.max_suspend_time,
            facts.since,
            End::SuspendedTooLong,
        )),
        Some((terms.max_inactive_time, facts.since.max(facts.used_at), End::Inactive)),
    ];
    if facts.first_payment_by < u64::MAX && awaits_first_payment(terms, facts) {
        outlook.push(Outlook::EndsAt { time: facts.first_payment_by, end: End::NeverPaid });
    }
    outlook.extend(ends.into_iter().flatten().filter_map(|(limit, since, end)| {
        Some(Outlook::EndsAt { time: since.saturating_add(limit?.get()), end })
    }));
    outlook
}

/// What a client will do.
pub fn client_outlook(terms: &Terms, facts: &ClientFacts) -> Vec<Outlook> {
    if facts.over {
        return Vec::new();
    }
    let (paid, interval) = (u128::from(facts.paid), terms.interval_price());
    let behind = terms.cost(facts.usage, facts.deposit).saturating_sub(due(terms, facts));
    let cost = match terms.billing_type {
        BillingType::Prepaid => paid.saturating_sub(interval),
        BillingType::Postpaid => paid + interval,
    };
    // The agent's meter decides; as far as is known it is behind the own one by so much.
    let usage = usage_costing(terms, cost + u128::from(behind))
        .filter(|_| facts.paid < facts.deposit && cost <= u128::from(facts.deposit));
    let mut outlook: Vec<_> =
        fits(usage).map(|usage| Outlook::PaysAtUsage { usage }).into_iter().collect();
    outlook.extend(ends_at_usage(terms, facts.deposit));
    outlook
}

/// The least balance that ends a hold.
fn bearable(terms: &Terms, facts: &AgentFacts) -> u64 {
    let cost = terms.cost(facts.usage, facts.deposit);
    let for_use = match terms.billing_type {
        BillingType::Prepaid if terms.unit_price == 0 => 0,
        BillingType::Prepaid if u128::from(facts.usage) < terms.free() => 0,
        BillingType::Prepaid => cost.saturating_add(1),
        BillingType::Postpaid => {
            let lag = terms
                .max_billing_unit_lag
                .map_or(u128::MAX, |lag| u128::from(lag.get()) * u128::from(terms.unit_price));
            u64::try_from(u128::from(cost).saturating_sub(lag)).unwrap_or(u64::MAX)
        }
    };
    for_use.max(terms.setup_price).min(facts.deposit)
}

fn ends_at_usage(terms: &Terms, deposit: u64) -> Option<Outlook> {
    let ends = [
        (usage_costing(terms, u128::from(deposit)), End::DepositSpent),
        (last_unit(terms), End::UnitsUsed),
    ];
    let ends = ends.into_iter().filter_map(|(usage, end)| Some((fits(usage)?, end)));
    ends.min_by_key(|(usage, _)| *usage).map(|(usage, end)| Outlook::EndsAtUsage { usage, end })
}

fn fits(usage: Option<u128>) -> Option<u64> {
    u64::try_from(usage?).ok()
}
