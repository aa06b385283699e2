//! What use costs, when an agent suspends or ends a channel for it, and what its client pays.
//!
//! Integers only: prices are in the smallest unit of money, usage is in the smallest unit of use,
//! and products are made in 128 bits, where the largest of both still fit. Absent here: who measures
//! usage, and how a payment gets to the other side.

mod agent;
mod client;
mod credit;
mod outlook;
#[cfg(test)]
mod tests;

use std::num::NonZeroU64;

pub use agent::{AgentFacts, End, Judgement, alarm, is_settled as is_settled_for_agent, judge};
pub use client::{
    AgentSays, ClientFacts, Dispute, Tolerance, admitted_usage, bound, dispute, due,
    is_settled as is_settled_for_client, may_owe_more, next_balance,
};

pub use credit::{Bounds, Thresholds, applies as credit_applies};
pub use outlook::{Outlook, agent_outlook, client_outlook};

use super::offering::{BillingType, Offering, UnitType};

/// What of an offering decides on money. Units are those of the offering, each of `unit_size`
/// smallest units; of every limit, `None` is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Terms {
    /// What is counted.
    pub unit_type: UnitType,
    /// Smallest units in one unit, 1 at least.
    pub unit_size: u64,
    /// When is paid.
    pub billing_type: BillingType,
    /// Paid once, before the first use.
    pub setup_price: u64,
    /// Price of one unit.
    pub unit_price: u64,
    /// Units that cost nothing.
    pub free_units: u64,
    /// Units between two payments.
    pub billing_interval: u64,
    /// Unpaid units that an agent bears.
    pub max_billing_unit_lag: Option<NonZeroU64>,
    /// Units after which a channel ends.
    pub max_units: Option<NonZeroU64>,
    /// Seconds of suspension after which it does.
    pub max_suspend_time: Option<NonZeroU64>,
    /// Seconds without use after which it does.
    pub max_inactive_time: Option<NonZeroU64>,
}

impl From<&Offering> for Terms {
    fn from(offering: &Offering) -> Self {
        Self {
            unit_type: offering.unit_type,
            unit_size: offering.unit_size,
            billing_type: offering.billing_type,
            setup_price: offering.setup_price,
            unit_price: offering.unit_price,
            free_units: offering.free_units,
            billing_interval: offering.billing_interval,
            max_billing_unit_lag: offering.max_billing_unit_lag,
            max_units: offering.max_units,
            max_suspend_time: offering.max_suspend_time,
            max_inactive_time: offering.max_inactive_time,
        }
    }
}

impl Terms {
    /// What that much use costs, never more than the deposit:
    /// `min(deposit, setupPrice + ⌊unitPrice · max(0, usage − free) / unitSize⌋)`.
    pub fn cost(&self, usage: u64, deposit: u64) -> u64 {
        let metered = u128::from(usage).saturating_sub(self.free());
        let use_cost = u128::from(self.unit_price) * metered / u128::from(self.unit_size.max(1));
        capped(u128::from(self.setup_price) + use_cost, deposit)
    }

    /// Smallest units that cost nothing.
    pub fn free(&self) -> u128 {
        u128::from(self.free_units) * u128::from(self.unit_size)
    }

    /// What one billing interval costs.
    pub fn interval_price(&self) -> u128 {
        u128::from(self.billing_interval) * u128::from(self.unit_price)
    }

    /// Whether it has a price or a limit, so that somebody has to look at what is used.
    pub fn are_watched(&self) -> bool {
        self.setup_price > 0
            || self.unit_price > 0
            || self.max_units.is_some()
            || self.max_suspend_time.is_some()
            || self.max_inactive_time.is_some()
    }
}

/// An amount, but no more than the deposit.
fn capped(amount: u128, deposit: u64) -> u64 {
    u64::try_from(amount).map_or(deposit, |amount| amount.min(deposit))
}
