//! What holds for all terms, and for all usage.

use privatix_plugin_api::json::MAX_INTEGER;
use privatix_plugin_api::message::Status;
use proptest::prelude::*;

use super::super::*;

/// Integers of messages, small ones and the largest more often than chance has it.
fn integer() -> impl Strategy<Value = u64> {
    prop_oneof![0..4u64, 0..1_000u64, 0..=MAX_INTEGER, Just(MAX_INTEGER)]
}

fn limit() -> impl Strategy<Value = Option<NonZeroU64>> {
    integer().prop_map(NonZeroU64::new)
}

/// Any terms, also such as no valid offering has.
fn any_terms() -> impl Strategy<Value = Terms> {
    let prices = (integer(), integer(), integer(), integer());
    let counts = (integer(), any::<bool>(), limit(), limit());
    (prices, counts).prop_map(
        |((setup_price, unit_price, unit_size, free_units), (interval, prepaid, lag, units))| {
            Terms {
                unit_type: UnitType::Units,
                unit_size: unit_size.max(1),
                billing_type: if prepaid { BillingType::Prepaid } else { BillingType::Postpaid },
                setup_price,
                unit_price,
                free_units,
                billing_interval: interval.max(1),
                max_billing_unit_lag: lag,
                max_units: units,
                max_suspend_time: None,
                max_inactive_time: None,
            }
        },
    )
}

fn judged(terms: &Terms, usage: u64, deposit: u64, paid: u64) -> Judgement {
    let status = Status::Active;
    let first_payment_by = u64::MAX;
    let facts = AgentFacts { status, since: 0, used_at: 0, usage, deposit, paid, first_payment_by };
    judge(terms, &facts, 0)
}

fn any_facts() -> impl Strategy<Value = ClientFacts> {
    let amounts = (integer(), integer(), integer(), proptest::option::of(integer()));
    let tolerance = (0..=100u8, integer()).prop_map(|(percent, amount)| Tolerance {
        percent,
        bytes: amount,
        seconds: amount,
    });
    (amounts, any::<[bool; 3]>(), tolerance).prop_map(
        |((usage, deposit, paid, cost), [in_session, held_by_user, over], tolerance)| ClientFacts {
            usage,
            deposit,
            paid: paid.min(deposit),
            agent: cost.map(|cost| AgentSays { cost, usage_then: 0 }),
            in_session,
            held_by_user,
            over,
            tolerance,
        },
    )
}

proptest! {
    #[test]
    fn cost_never_falls_and_never_exceeds_the_deposit(
        terms in any_terms(), usage in any::<u64>(), more in any::<u64>(), deposit in integer(),
    ) {
        let (less, more) = (usage, usage.saturating_add(more));
        prop_assert!(terms.cost(less, deposit) <= terms.cost(more, deposit));
        prop_assert!(terms.cost(more, deposit) <= deposit);
    }

    /// Cost is one of the sum: reports and sessions may be cut anywhere.
    #[test]
    fn cost_does_not_depend_on_how_usage_was_split(
        terms in any_terms(),
        parts in proptest::collection::vec(0..=MAX_INTEGER, 1..20),
        cuts in proptest::collection::vec(any::<prop::sample::Index>(), 0..5),
        deposit in integer(),
    ) {
        let whole: u64 = parts.iter().fold(0, |sum, part| sum.saturating_add(*part));
        let mut sessions = vec![0u64; cuts.len() + 1];
        for (index, part) in parts.iter().enumerate() {
            let session = cuts.iter().filter(|cut| cut.index(parts.len()) <= index).count();
            sessions[session] = sessions[session].saturating_add(*part);
        }
        let sum = sessions.iter().fold(0, |sum: u64, session| sum.saturating_add(*session));
        prop_assert_eq!(terms.cost(sum, deposit), terms.cost(whole, deposit));
    }

    /// Nobody has to look at usage below the alarm.
    #[test]
    fn below_the_alarm_all_usage_is_judged_alike(
        terms in any_terms(), usage in integer(), deposit in integer(), paid in integer(),
    ) {
        let paid = paid.min(deposit);
        let first = judged(&terms, 0, deposit, paid);
        match alarm(&terms, deposit, paid) {
            Some(alarm) => {
                let below = usage.min(alarm.saturating_sub(1));
                if alarm > 0 {
                    prop_assert_eq!(judged(&terms, below, deposit, paid), first);
                }
            }
            None => prop_assert_eq!(judged(&terms, usage, deposit, paid), first),
        }
    }

    /// And from there on it matters, or has mattered since the beginning.
    #[test]
    fn the_alarm_is_not_early(terms in any_terms(), deposit in integer(), paid in integer()) {
        let paid = paid.min(deposit);
        if let Some(alarm) = alarm(&terms, deposit, paid) {
            let there = judged(&terms, alarm, deposit, paid);
            let bearable = paid >= terms.setup_price && terms.setup_price <= deposit;
            prop_assert!(!bearable || there.hold || there.end.is_some(), "{:?}", there);
        }
    }

    #[test]
    fn a_client_signs_only_upwards_and_within_bounds(terms in any_terms(), facts in any_facts()) {
        if let Some(balance) = next_balance(&terms, &facts) {
            prop_assert!(balance > facts.paid);
            prop_assert!(balance <= facts.deposit);
            let advance = match terms.billing_type {
                BillingType::Prepaid if !facts.over => 2 * terms.interval_price(),
                _ => 0,
            };
            let most = u128::from(bound(&terms, &facts).max(terms.setup_price)) + advance;
            prop_assert!(u128::from(balance) <= most, "{} above {}", balance, most);
            let after = ClientFacts { paid: balance, ..facts };
            prop_assert_eq!(next_balance(&terms, &after), None, "one cheque is enough");
        }
    }

    /// An agent cannot have more by saying more.
    #[test]
    fn what_an_agent_says_never_raises_what_is_due_above_the_bound(
        terms in any_terms(), facts in any_facts(), cost in any::<u64>(),
    ) {
        let facts = ClientFacts { agent: Some(AgentSays { cost, usage_then: 0 }), ..facts };
        prop_assert!(due(&terms, &facts) <= bound(&terms, &facts));
        prop_assert_eq!(dispute(&terms, &facts).is_some(), cost > bound(&terms, &facts));
    }
}
