//! Both parties' rules against each other, for generated terms: the agent's meter and the client's
//! differ by at most 2 %, the client keeps to its rules, and the agent to its own.

use privatix_plugin_api::message::Status;
use proptest::prelude::*;

use super::super::*;

/// Of a share alone, which is the harder one.
const TOLERANCE: Tolerance = Tolerance { percent: 3, bytes: 0, seconds: 0 };

/// Terms that a valid offering may have, with a deposit that an order may have.
pub(super) fn valid() -> impl Strategy<Value = (Terms, u64)> {
    let prices = (0..50u64, 0..20u64, 1..5_000u64);
    let units = (0..30u64, 1..10u64, 0..10u64, 0..40u64);
    (prices, units, any::<[bool; 2]>(), 0..3_000u64).prop_map(
        |(prices, units, [prepaid, lagging], more)| {
            let ((setup_price, unit_price, unit_size), (free_units, interval, lag, min)) =
                (prices, units);
            let terms = Terms {
                unit_type: UnitType::Units,
                unit_size,
                billing_type: if prepaid { BillingType::Prepaid } else { BillingType::Postpaid },
                setup_price,
                unit_price,
                free_units,
                billing_interval: interval,
                max_billing_unit_lag: lagging
                    .then(|| NonZeroU64::new(2 * interval + lag))
                    .flatten(),
                max_units: None,
                max_suspend_time: None,
                max_inactive_time: None,
            };
            (terms, setup_price + min.max(interval) * unit_price + more)
        },
    )
}

struct Deal {
    terms: Terms,
    deposit: u64,
    /// What the agent's meter says.
    usage: u64,
    /// The client's meter in percent of the agent's.
    meter: u64,
    paid: u64,
}

impl Deal {
    fn judged(&self) -> Judgement {
        let facts = AgentFacts {
            status: Status::Active,
            since: 0,
            used_at: 0,
            usage: self.usage,
            deposit: self.deposit,
            paid: self.paid,
            first_payment_by: u64::MAX,
        };
        judge(&self.terms, &facts, 0)
    }

    fn facts(&self) -> ClientFacts {
        ClientFacts {
            usage: (u128::from(self.usage) * u128::from(self.meter)).div_ceil(100) as u64,
            deposit: self.deposit,
            paid: self.paid,
            agent: Some(AgentSays {
                cost: self.terms.cost(self.usage, self.deposit),
                usage_then: 0,
            }),
            in_session: true,
            held_by_user: false,
            over: false,
            tolerance: TOLERANCE,
        }
    }

    /// The client looks, and pays.
    fn pay(&mut self) {
        if let Some(balance) = next_balance(&self.terms, &self.facts()) {
            self.paid = balance;
        }
    }

    /// The most that may be used between two looks of the client: what costs an interval.
    fn step(&self, part: u64) -> u64 {
        let interval = self.terms.billing_interval * self.terms.unit_size;
        (interval * part / 100).max(1)
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn a_client_that_keeps_to_the_rules_is_never_suspended(
        (terms, deposit) in valid(),
        meter in 98..=102u64,
        steps in proptest::collection::vec(1..=99u64, 1..300),
    ) {
        let mut deal = Deal { terms, deposit, usage: 0, meter, paid: 0 };
        deal.pay();
        for part in steps {
            prop_assert!(!deal.judged().hold, "held at {} with {} paid", deal.usage, deal.paid);
            if deal.judged().end.is_some() {
                return Ok(());
            }
            let before = deal.terms.cost(deal.usage, deposit);
            deal.usage += deal.step(part);
            // Rounding may make a whole interval of a part of one, never more.
            let grown = u128::from(deal.terms.cost(deal.usage, deposit) - before);
            prop_assert!(grown <= terms.interval_price().max(1));
            prop_assert!(!deal.judged().hold, "held at {} with {} paid", deal.usage, deal.paid);
            prop_assert_eq!(dispute(&terms, &deal.facts()), None);
            deal.pay();
        }
    }

    /// However far use has run ahead, one look and one cheque end the hold, or the channel is over.
    #[test]
    fn no_terms_deadlock(
        (terms, deposit) in valid(),
        meter in 98..=102u64,
        usage in prop_oneof![0..1_000u64, 0..10_000_000u64],
        paid in 0..3_000u64,
    ) {
        let mut deal = Deal { terms, deposit, usage, meter, paid: paid.min(deposit) };
        deal.pay();
        let judgement = deal.judged();
        prop_assert!(!judgement.hold || judgement.end.is_some(), "{:?}", deal.facts());
    }

    /// Once it is over, the client has paid what use has cost; beyond that only an advance that it
    /// had signed before.
    #[test]
    fn the_last_cheque_settles(
        (terms, deposit) in valid(), meter in 98..=102u64, usage in 0..100_000u64,
    ) {
        let mut deal = Deal { terms, deposit, usage, meter, paid: 0 };
        let facts = ClientFacts { over: true, in_session: false, ..deal.facts() };
        deal.paid = next_balance(&terms, &facts).unwrap_or(0);
        prop_assert_eq!(deal.paid, terms.cost(usage, deposit));
    }
}
