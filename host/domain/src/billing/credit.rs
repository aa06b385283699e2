//! Credit: how much of a channel may be used until the next report of it is acknowledged.
//!
//! An agent lets a channel be used up to the last unit that does not yet hold it. So use that is
//! paid for in advance waits for the next payment instead of being cut, and the client pays in
//! time: by the usage at which the credit ends, the client's rule ([`super::next_balance`]) has
//! asked for the next payment. Where no payment can follow, the limit is the usage that ends the
//! channel, and not the one before it: the last unit of the deposit or of `maxUnits` can be used,
//! and using it is what ends the channel. No remainder is left that nobody can use.
//!
//! What a client pays is bounded when it signs, whatever is used. So its credit only sees to it that
//! reports, and with them payments, keep up with use. It is never less than an honest agent grants,
//! and has no end of its own: the agent's meter decides when the deposit is used up, and one that is
//! a little below the client's must not leave a remainder that nobody can use.

use super::agent::{alarm, held_at, last_unit, usage_costing};
use super::{BillingType, Terms};
use crate::offering::UnitType;
use privatix_plugin_api::json::MAX_INTEGER;

/// The least that a client lets be used between two reports, in smallest units: what is on its way in
/// buffers at any time.
const CLIENT_STEP: u64 = 256 * 1024;

/// What bounds the use of a channel until something is paid.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Bounds {
    /// Usage up to which it may be used; `None`: no limit.
    pub limit: Option<u64>,
    /// The most that may be used between two acknowledged reports; `None`: only the setting
    /// `channels.max_unreported` counts.
    pub step: Option<u64>,
}

impl Bounds {
    /// An agent's, for what is paid.
    pub fn of_agent(terms: &Terms, deposit: u64, paid: u64) -> Self {
        if paid < terms.setup_price {
            return Self { limit: Some(0), step: None };
        }
        let unheld = held_at(terms, deposit, paid).map(|usage| usage.saturating_sub(1));
        let spent = usage_costing(terms, u128::from(deposit));
        let limits = [unheld, spent, last_unit(terms)].into_iter().flatten();
        Self { limit: limits.min().and_then(integer), step: None }
    }

    /// A client's.
    pub fn of_client(terms: &Terms) -> Self {
        let intervals = 2 * u128::from(terms.billing_interval);
        let lag = terms.max_billing_unit_lag.map_or(0, |lag| u128::from(lag.get()));
        // What is paid in advance is two intervals; what is borne is the lag.
        let units = match terms.billing_type {
            _ if terms.unit_price == 0 => None,
            BillingType::Prepaid => Some(intervals),
            BillingType::Postpaid => Some(intervals.max(lag)),
        };
        let step = units.map(|units| units.saturating_mul(u128::from(terms.unit_size)));
        let step = step.and_then(integer).map(|step| step.max(CLIENT_STEP));
        Self { limit: None, step }
    }

    /// What may be used beyond a usage until the next report is acknowledged.
    pub fn credit(self, usage: u64, max_unreported: u64) -> u64 {
        let most = self.step.map_or(max_unreported, |step| step.min(max_unreported));
        let left = self.limit.map_or(most, |limit| limit.saturating_sub(usage));
        left.min(most).min(MAX_INTEGER)
    }
}

/// What is kept beside a channel so that most reports of its use need nobody's attention. It follows
/// from the terms and from what is paid, and is kept anew whenever money changes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Thresholds {
    /// Usage from which on a report has the channel looked at at once; `None`: no usage does.
    pub alarm: Option<u64>,
    /// How far it may be used until something is paid or reported.
    pub bounds: Bounds,
}

impl Thresholds {
    /// An agent's, for what is paid.
    pub fn of_agent(terms: &Terms, deposit: u64, paid: u64) -> Self {
        let alarm = alarm(terms, deposit, paid).filter(|alarm| *alarm <= MAX_INTEGER);
        Self { alarm, bounds: Bounds::of_agent(terms, deposit, paid) }
    }

    /// A client's, who looks with every report at a channel that costs anything.
    pub fn of_client(terms: &Terms) -> Self {
        Self { alarm: terms.are_watched().then_some(0), bounds: Bounds::of_client(terms) }
    }
}

/// Whether a session's use is bounded by credit. Seconds are measured by the core itself and pass
/// whatever a module does: it is stopped by its status alone.
pub fn applies(terms: &Terms) -> bool {
    terms.unit_type != UnitType::Seconds
}

fn integer(usage: u128) -> Option<u64> {
    u64::try_from(usage).ok().filter(|usage| *usage <= MAX_INTEGER)
}
