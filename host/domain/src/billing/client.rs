//! The client: what it signs, which is never above the deposit, and never above what its own meter
//! says, some tolerance, and the advance of prepaid terms. The bound of what is paid is also where a
//! dispute begins: between the two, an agent would be neither paid nor disputed.

use super::agent::usage_costing;
use super::{Terms, capped};
use crate::offering::{BillingType, UnitType};

/// The least smallest units of a unit of data. A unit of fewer is one of requests or the like, of
/// which nothing is on its way between two meters.
const DATA_UNIT: u64 = 1024;

/// What an agent has signed of a channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AgentSays {
    /// What use has cost so far.
    pub cost: u64,
    /// What the client's own meter said when this came.
    pub usage_then: u64,
}

/// What a client knows of a channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClientFacts {
    /// What was used, by its own meter.
    pub usage: u64,
    /// What it promised to spend at most.
    pub deposit: u64,
    /// The highest balance that it has signed.
    pub paid: u64,
    /// What the agent says, as far as is known.
    pub agent: Option<AgentSays>,
    /// Whether a session is open.
    pub in_session: bool,
    /// Whether its user wants no use now.
    pub held_by_user: bool,
    /// Whether it is over on either side.
    pub over: bool,
    /// By how much the agent's meter may be above the own one.
    pub tolerance: Tolerance,
}

/// By how much an agent's meter may be above the client's: by the larger of a share of the usage and
/// an amount, because two meters of one short transfer differ by what was on its way between them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tolerance {
    /// Percent of the usage.
    pub percent: u8,
    /// Bytes, where a unit is one of data.
    pub bytes: u64,
    /// Seconds, where a unit is one of time.
    pub seconds: u64,
}

impl Default for Tolerance {
    fn default() -> Self {
        Self { percent: 3, bytes: 16 << 20, seconds: 10 }
    }
}

impl Tolerance {
    /// In smallest units.
    fn of(self, terms: &Terms, usage: u64) -> u64 {
        let share = (u128::from(usage) * u128::from(self.percent)).div_ceil(100);
        let amount = match terms.unit_type {
            UnitType::Seconds => self.seconds,
            UnitType::Units if terms.unit_size >= DATA_UNIT => self.bytes,
            UnitType::Units => 0,
        };
        u64::try_from(share).unwrap_or(u64::MAX).max(amount)
    }
}

/// The usage that a client admits once its agent has shown a cheque, signed by the client itself, that
/// the client has forgotten: its meter has forgotten as much. What was signed is the most that can be
/// claimed by it; of postpaid terms an interval more, which is not signed for before it is used.
pub fn admitted_usage(terms: &Terms, said_cost: u64, said_usage: u64, signed: u64) -> u64 {
    let ahead = match terms.billing_type {
        BillingType::Prepaid => 0,
        BillingType::Postpaid => terms.interval_price(),
    };
    let cost = u128::from(said_cost).min(u128::from(signed) + ahead);
    if signed <= terms.setup_price || cost <= u128::from(terms.setup_price) {
        // Nothing was signed for use.
        return 0;
    }
    let usage = usage_costing(terms, cost).and_then(|usage| u64::try_from(usage).ok());
    usage.unwrap_or(0).min(said_usage)
}

/// An agent asks for more than the own meter allows for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Dispute {
    /// What it says that use has cost.
    pub asked: u64,
    /// What the client pays at most.
    pub bound: u64,
}

/// The most that use may have cost: by the own meter, with the tolerance. The tolerance is one of
/// usage: of the cost it would be too little where most of the usage was free.
pub fn bound(terms: &Terms, facts: &ClientFacts) -> u64 {
    terms.cost(tolerated(terms, facts), facts.deposit)
}

fn tolerated(terms: &Terms, facts: &ClientFacts) -> u64 {
    facts.usage.saturating_add(facts.tolerance.of(terms, facts.usage))
}

/// What use has cost, as far as the client is concerned: what the agent says up to the bound; the own
/// measure where the agent has said nothing yet.
pub fn due(terms: &Terms, facts: &ClientFacts) -> u64 {
    match facts.agent {
        Some(agent) => agent.cost.min(bound(terms, facts)),
        None => terms.cost(facts.usage, facts.deposit),
    }
}

/// Whether the agent asks for more than the client pays.
pub fn dispute(terms: &Terms, facts: &ClientFacts) -> Option<Dispute> {
    let (asked, bound) = (facts.agent?.cost, bound(terms, facts));
    (asked > bound).then_some(Dispute { asked, bound })
}

/// Whether nothing is left to be done about a channel's money: it has ended here and with its agent,
/// and neither a cheque nor a question is due.
pub fn is_settled(terms: &Terms, facts: &ClientFacts, ended_on_both_sides: bool) -> bool {
    ended_on_both_sides
        && !facts.in_session
        && next_balance(terms, facts).is_none()
        && !may_owe_more(terms, facts)
}

/// The balance to sign now, or `None` while nothing more is to be paid.
pub fn next_balance(terms: &Terms, facts: &ClientFacts) -> Option<u64> {
    let (due, interval) = (u128::from(due(terms, facts)), terms.interval_price());
    let mut balance = u128::from(facts.paid.max(terms.setup_price));
    match terms.billing_type {
        BillingType::Postpaid if interval > 0 && due >= balance + interval => balance = due,
        // At the boundary too: what is left then has to bear a whole interval until the next look.
        BillingType::Prepaid
            if pays_in_advance(terms, facts) && interval > 0 && balance <= due + interval =>
        {
            balance = due + 2 * interval;
        }
        _ => {}
    }
    if facts.over || !facts.in_session {
        balance = balance.max(due);
    }
    let balance = capped(balance, facts.deposit);
    (balance > facts.paid).then_some(balance)
}

/// Whether the next interval may be used at all, and is not free.
fn pays_in_advance(terms: &Terms, facts: &ClientFacts) -> bool {
    let interval = u128::from(terms.billing_interval) * u128::from(terms.unit_size);
    let soon = u128::from(tolerated(terms, facts)) + interval;
    !facts.over && !facts.held_by_user && soon >= terms.free()
}

/// Whether more would be signed if the agent's cost had grown, since it last said it, as the own one
/// has, or were the own one: then it has to be asked anew. What it last said may be from before its
/// own last report, and an agent whose credit is used up waits for what is signed.
pub fn may_owe_more(terms: &Terms, facts: &ClientFacts) -> bool {
    let Some(agent) = facts.agent else { return facts.usage > 0 };
    let own = |usage| terms.cost(usage, facts.deposit);
    let grown = own(facts.usage).saturating_sub(own(agent.usage_then));
    let expected = agent.cost.saturating_add(grown).max(own(facts.usage));
    let expected = AgentSays { cost: expected, ..agent };
    grown > 0 && next_balance(terms, &ClientFacts { agent: Some(expected), ..*facts }).is_some()
}
