//! Credit: its table, what holds for all terms, and that two parties that keep to their rules always
//! get on, however the use is cut.

use privatix_plugin_api::json::MAX_INTEGER;
use proptest::prelude::*;

use super::both::valid;
use super::*;

/// More than any limit in these tests.
const PLENTY: u64 = 1_000_000_000;

#[test]
fn what_an_agent_lets_be_used() {
    let lag = |units: u64| {
        move |terms: &mut Terms| {
            *terms =
                Terms { unit_price: 3, max_billing_unit_lag: NonZeroU64::new(units), ..*terms };
        }
    };
    let units = |max| move |t: &mut Terms| t.max_units = NonZeroU64::new(max);
    let both = |t: &mut Terms| (t.unit_price, t.max_units) = (3, NonZeroU64::new(2));
    for (name, terms, usage, paid, expected) in [
        ("no price, no limit", prepaid(|_| {}), 7, 0, PLENTY),
        ("no price, units left", prepaid(units(7)), 60, 0, 10),
        ("no price, no units left", prepaid(units(7)), 70, 0, 0),
        ("setup price not paid", prepaid(|t| t.setup_price = 5), 0, 4, 0),
        ("setup price not paid, postpaid", postpaid(|t| t.setup_price = 5), 0, 4, 0),
        ("setup price paid", prepaid(|t| t.setup_price = 5), 9, 5, PLENTY),
        ("nothing paid", prepaid(|t| t.unit_price = 3), 0, 0, 0),
        // 6 pay for 20; with the 20th it would be held.
        ("paid in advance", prepaid(|t| t.unit_price = 3), 0, 6, 19),
        ("a part of it used", prepaid(|t| t.unit_price = 3), 15, 6, 4),
        ("the last before the hold", prepaid(|t| t.unit_price = 3), 19, 6, 0),
        ("held", prepaid(|t| t.unit_price = 3), 25, 6, 0),
        ("setup price and use", prepaid(|t| (t.setup_price, t.unit_price) = (5, 3)), 0, 8, 9),
        ("free units", prepaid(|t| (t.unit_price, t.free_units) = (3, 2)), 5, 0, 14),
        ("free units and use", prepaid(|t| (t.unit_price, t.free_units) = (3, 2)), 5, 3, 24),
        // Nothing more can be paid: the last unit ends it.
        ("all of the deposit paid", prepaid(|t| t.unit_price = 3), 0, 100, 334),
        ("all of the deposit used", prepaid(|t| t.unit_price = 3), 334, 100, 0),
        ("no more than all units", prepaid(both), 0, 100, 20),
        ("what is paid is less than all units", prepaid(both), 0, 5, 16),
        // A lag of 2 units bears a cost of 6, which 23 are the last to have.
        ("the lag", postpaid(lag(2)), 0, 0, 23),
        ("the lag beyond what is paid", postpaid(lag(2)), 0, 6, 43),
        ("a lag beyond the deposit", postpaid(lag(50)), 300, 0, 34),
        ("no lag", postpaid(|t| t.unit_price = 3), 0, 0, 334),
    ] {
        let bounds = Bounds::of_agent(&terms, 100, paid);
        assert_eq!(bounds.credit(usage, PLENTY), expected, "{name}");
        assert_eq!(bounds.credit(usage, 2), expected.min(2), "{name}, at most two unreported");
    }
}

#[test]
fn what_a_client_lets_be_used() {
    const KIB: u64 = 1024;
    let mib = |change: fn(&mut Terms)| {
        prepaid(|t| {
            (t.unit_size, t.unit_price, t.billing_interval) = (1024 * KIB, 3, 8);
            change(t);
        })
    };
    let lag = |t: &mut Terms| {
        (t.billing_type, t.max_billing_unit_lag) = (BillingType::Postpaid, NonZeroU64::new(40));
    };
    for (name, terms, usage, expected) in [
        ("no price", prepaid(|_| {}), 5, PLENTY),
        ("two intervals", mib(|_| {}), 0, 16 * 1024 * KIB),
        ("whatever was used before", mib(|_| {}), 20 * 1024 * KIB, 16 * 1024 * KIB),
        ("the lag", mib(lag), 0, 40 * 1024 * KIB),
        ("no less than what buffers hold", prepaid(|t| t.unit_price = 1), 0, 256 * KIB),
        (
            "beyond the deposit, of which the agent decides",
            prepaid(|t| t.unit_price = 1),
            5_000,
            256 * KIB,
        ),
    ] {
        let bounds = Bounds::of_client(&terms);
        assert_eq!(bounds.credit(usage, PLENTY), expected, "{name}");
    }
}

/// Where and how an agent judges.
fn judged(terms: &Terms, usage: u64, deposit: u64, paid: u64) -> Judgement {
    let (status, first_payment_by) = (Status::Active, u64::MAX);
    let facts = AgentFacts { status, since: 0, used_at: 0, usage, deposit, paid, first_payment_by };
    judge(terms, &facts, 0)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    /// What was granted is paid for, and using all of it does not hold the channel. One unit more
    /// would, unless a setting is what bounds it.
    #[test]
    fn credit_goes_as_far_as_the_hold_and_no_further(
        (mut terms, deposit) in valid(),
        max_units in proptest::option::of(1..400u64),
        paid in 0..4_000u64, usage in 0..200_000u64, most in prop_oneof![Just(MAX_INTEGER), 1..1_000u64],
    ) {
        terms.max_units = max_units.and_then(NonZeroU64::new);
        let paid = paid.min(deposit);
        let before = judged(&terms, usage, deposit, paid);
        let credit = Bounds::of_agent(&terms, deposit, paid).credit(usage, most);
        prop_assert!(credit <= most);
        let all = judged(&terms, usage + credit, deposit, paid);
        if before.hold || before.end.is_some() {
            prop_assert_eq!(credit, 0);
            return Ok(());
        }
        prop_assert!(!all.hold);
        if terms.billing_type == BillingType::Prepaid && terms.unit_price > 0 {
            prop_assert!(terms.cost(usage + credit, deposit) <= paid);
        }
        if credit < most && all.end.is_none() {
            let more = judged(&terms, usage + credit + 1, deposit, paid);
            prop_assert!(more.hold || more.end.is_some(), "credit ends at {}", usage + credit);
        }
    }

    /// Whatever is offered: at the end of the credit the client has a next payment to make, and
    /// payments go on until the channel ends. No remainder is left that nobody may use.
    #[test]
    fn a_channel_is_used_to_its_end_without_ever_being_held(
        (mut terms, deposit) in valid(),
        max_units in proptest::option::of(1..400u64),
        meter in 98..=102u64,
        most in prop_oneof![Just(PLENTY), 1_000..5_000u64],
        parts in proptest::collection::vec(1..=100u64, 1..20),
    ) {
        terms.max_units = max_units.and_then(NonZeroU64::new);
        prop_assume!(terms.unit_price > 0 || terms.max_units.is_some());
        // An agent that bears any lag without a limit need not be paid before the end.
        let (mut usage, mut paid) = (0u64, 0u64);
        let mut parts = parts.iter().cycle();
        for _ in 0..200_000 {
            let facts = ClientFacts {
                usage: (u128::from(usage) * u128::from(meter)).div_ceil(100) as u64,
                deposit,
                paid,
                agent: Some(AgentSays { cost: terms.cost(usage, deposit), usage_then: 0 }),
                in_session: true,
                held_by_user: false,
                over: false,
                tolerance: Tolerance { percent: 3, bytes: 0, seconds: 0 },
            };
            prop_assert_eq!(dispute(&terms, &facts), None);
            if let Some(balance) = next_balance(&terms, &facts) {
                paid = balance;
            }
            let judgement = judged(&terms, usage, deposit, paid);
            if judgement.end.is_some() {
                return Ok(());
            }
            prop_assert!(!judgement.hold, "held at {} with {} paid", usage, paid);
            let credit = Bounds::of_agent(&terms, deposit, paid).credit(usage, most);
            prop_assert!(credit > 0, "stuck at {} with {} of {} paid", usage, paid, deposit);
            let part = *parts.next().expect("a part");
            usage += (u128::from(credit) * u128::from(part) / 100).max(1) as u64;
        }
        prop_assert!(false, "no end at {} with {} paid", usage, paid);
    }

    /// A client that measures what the agent does is never what holds the use up.
    #[test]
    fn a_client_grants_what_an_honest_agent_grants(
        (terms, deposit) in valid(), usage in 0..100_000u64,
    ) {
        let facts = ClientFacts {
            usage,
            deposit,
            paid: 0,
            agent: Some(AgentSays { cost: terms.cost(usage, deposit), usage_then: 0 }),
            in_session: true,
            held_by_user: false,
            over: false,
            tolerance: Tolerance::default(),
        };
        let paid = next_balance(&terms, &facts).unwrap_or(0);
        // What is owed without a limit of the lag, nobody bounds.
        prop_assume!(
            terms.billing_type == BillingType::Prepaid || terms.max_billing_unit_lag.is_some()
        );
        prop_assume!(terms.unit_price > 0);
        let agent = Bounds::of_agent(&terms, deposit, paid).credit(usage, 64 << 20);
        let client = Bounds::of_client(&terms).credit(usage, 64 << 20);
        // At the very end an agent's free units may go beyond the client's step, which is renewed.
        let free = u64::try_from(terms.free()).expect("small").saturating_sub(usage);
        prop_assert!(client + free >= agent, "{client} of {agent}");
    }
}
