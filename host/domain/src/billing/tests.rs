//! Tables of the rules of money; what holds for all terms is in [`properties`].

mod both;
mod credit;
mod properties;

use privatix_plugin_api::json::MAX_INTEGER;
use privatix_plugin_api::message::Status;

use super::*;

/// Terms without any price or limit: each unit is of 10 smallest ones.
pub(super) fn terms(billing_type: BillingType, change: impl FnOnce(&mut Terms)) -> Terms {
    let mut terms = Terms {
        unit_type: UnitType::Units,
        unit_size: 10,
        billing_type,
        setup_price: 0,
        unit_price: 0,
        free_units: 0,
        billing_interval: 1,
        max_billing_unit_lag: None,
        max_units: None,
        max_suspend_time: None,
        max_inactive_time: None,
    };
    change(&mut terms);
    terms
}

fn prepaid(change: impl FnOnce(&mut Terms)) -> Terms {
    terms(BillingType::Prepaid, change)
}

fn postpaid(change: impl FnOnce(&mut Terms)) -> Terms {
    terms(BillingType::Postpaid, change)
}

#[test]
fn what_use_costs() {
    let priced = |setup_price, unit_price, free_units, unit_size| {
        prepaid(|terms| {
            *terms = Terms { setup_price, unit_price, free_units, unit_size, ..*terms };
        })
    };
    for (terms, usage, deposit, expected) in [
        (priced(0, 0, 0, 10), 1_000_000, 100, 0),
        (priced(5, 0, 0, 10), 0, 100, 5),
        (priced(5, 0, 0, 10), 1_000_000, 100, 5),
        (priced(0, 3, 0, 10), 0, 100, 0),
        (priced(0, 3, 0, 10), 3, 100, 0),
        (priced(0, 3, 0, 10), 4, 100, 1),
        (priced(0, 3, 0, 10), 10, 100, 3),
        (priced(5, 3, 2, 10), 20, 100, 5),
        (priced(5, 3, 2, 10), 23, 100, 5),
        (priced(5, 3, 2, 10), 24, 100, 6),
        (priced(5, 3, 2, 10), 30, 100, 8),
        (priced(5, 3, 0, 10), 1_000, 100, 100),
        (priced(200, 3, 0, 10), 0, 100, 100),
        (priced(0, 3, 0, 1), MAX_INTEGER, MAX_INTEGER, MAX_INTEGER),
        (priced(1, MAX_INTEGER, 0, MAX_INTEGER), MAX_INTEGER, MAX_INTEGER, MAX_INTEGER),
        (priced(0, MAX_INTEGER, 0, MAX_INTEGER), MAX_INTEGER - 1, MAX_INTEGER, MAX_INTEGER - 1),
        (priced(MAX_INTEGER, MAX_INTEGER, 0, 1), u64::MAX, MAX_INTEGER, MAX_INTEGER),
        (priced(0, MAX_INTEGER, MAX_INTEGER, MAX_INTEGER), u64::MAX, MAX_INTEGER, 0),
    ] {
        assert_eq!(terms.cost(usage, deposit), expected, "{terms:?} {usage} of {deposit}");
    }
}

fn facts(usage: u64, paid: u64) -> AgentFacts {
    AgentFacts {
        status: Status::Active,
        since: 0,
        used_at: 0,
        usage,
        deposit: 100,
        paid,
        first_payment_by: u64::MAX,
    }
}

#[test]
fn when_an_agent_holds_for_payment() {
    let lag = |units: u64| {
        move |terms: &mut Terms| {
            *terms =
                Terms { unit_price: 3, max_billing_unit_lag: NonZeroU64::new(units), ..*terms };
        }
    };
    for (name, terms, usage, paid, expected) in [
        ("the setup price first", postpaid(|t| t.setup_price = 5), 0, 0, true),
        ("not all of it", postpaid(|t| t.setup_price = 5), 0, 4, true),
        ("then no more", postpaid(|t| t.setup_price = 5), 1000, 5, false),
        ("setup price, prepaid", prepaid(|t| t.setup_price = 5), 0, 4, true),
        ("and no price of use", prepaid(|t| t.setup_price = 5), 1000, 5, false),
        ("nothing costs anything", prepaid(|_| {}), 1000, 0, false),
        ("below the lag", postpaid(lag(2)), 19, 0, false),
        ("exactly the lag", postpaid(lag(2)), 20, 0, false),
        ("above it by less than the smallest coin", postpaid(lag(2)), 23, 0, false),
        ("above it", postpaid(lag(2)), 24, 0, true),
        ("paid since", postpaid(lag(2)), 24, 1, false),
        ("no limit of the lag", postpaid(|t| t.unit_price = 3), 333, 0, false),
        ("prepaid: nothing yet", prepaid(|t| t.unit_price = 3), 0, 0, true),
        ("prepaid: ahead", prepaid(|t| t.unit_price = 3), 9, 3, false),
        ("prepaid: used up", prepaid(|t| t.unit_price = 3), 10, 3, true),
        ("prepaid: all of the deposit", prepaid(|t| t.unit_price = 3), 330, 100, false),
        ("free", prepaid(|t| (t.unit_price, t.free_units) = (3, 2)), 19, 0, false),
        ("free no more", prepaid(|t| (t.unit_price, t.free_units) = (3, 2)), 20, 0, true),
        ("free no more, paid", prepaid(|t| (t.unit_price, t.free_units) = (3, 2)), 20, 1, false),
    ] {
        assert_eq!(judge(&terms, &facts(usage, paid), 0).hold, expected, "{name}");
    }
}

#[test]
fn when_a_channel_is_over() {
    use End::{DepositSpent, Inactive, SuspendedTooLong, UnitsUsed};
    let limit = NonZeroU64::new;
    let deposit = prepaid(|terms| terms.unit_price = 3);
    let setup_is_all = prepaid(|t| (t.setup_price, t.unit_price, t.free_units) = (100, 3, 2));
    let units = prepaid(|terms| terms.max_units = limit(7));
    let inactive = prepaid(|terms| terms.max_inactive_time = limit(60));
    let suspended = prepaid(|terms| terms.max_suspend_time = limit(60));
    let active = |usage, since, used_at| AgentFacts { since, used_at, ..facts(usage, 0) };
    let paused =
        |since, used_at| AgentFacts { status: Status::Suspended, ..active(0, since, used_at) };
    for (name, terms, facts, now, expected) in [
        ("a part of the deposit", deposit, active(333, 0, 0), 0, None),
        ("all of it", deposit, active(334, 0, 0), 0, Some(DepositSpent)),
        ("free units are left", setup_is_all, active(19, 0, 0), 0, None),
        ("none are", setup_is_all, active(20, 0, 0), 0, Some(DepositSpent)),
        ("use costs nothing", prepaid(|t| t.setup_price = 100), active(999, 0, 0), 0, None),
        ("a unit is left", units, active(69, 0, 0), 0, None),
        ("none is", units, active(70, 0, 0), 0, Some(UnitsUsed)),
        ("never used, not long", inactive, active(0, 1000, 0), 1059, None),
        ("never used", inactive, active(0, 1000, 0), 1060, Some(Inactive)),
        ("used since", inactive, active(5, 1000, 1030), 1089, None),
        ("and not used since", inactive, active(5, 1000, 1030), 1090, Some(Inactive)),
        ("changed since", inactive, active(5, 1050, 1030), 1100, None),
        ("the clock went back", inactive, active(5, 2000, 2000), 10, None),
        ("suspended, not long", suspended, paused(1000, 0), 1059, None),
        ("suspended", suspended, paused(1000, 0), 1060, Some(SuspendedTooLong)),
        ("active that long", suspended, active(0, 1000, 0), 9000, None),
        ("no limits", prepaid(|_| {}), active(u64::MAX, 0, 0), u64::MAX, None),
    ] {
        assert_eq!(judge(&terms, &facts, now).end, expected, "{name}");
    }
}

#[test]
fn a_channel_without_its_first_payment_ends() {
    let setup = |terms: &mut Terms| terms.setup_price = 5;
    let price = |terms: &mut Terms| terms.unit_price = 3;
    let free = |terms: &mut Terms| (terms.unit_price, terms.free_units) = (3, 2);
    let both = |terms: &mut Terms| (terms.unit_price, terms.setup_price) = (3, 5);
    let never = Some(End::NeverPaid);
    for (name, terms, usage, paid, now, expected) in [
        ("setup price, in time", postpaid(setup), 0, 0, 599, None),
        ("setup price", postpaid(setup), 0, 0, 600, never),
        ("a part of it", postpaid(setup), 0, 4, 600, never),
        ("paid", postpaid(setup), 0, 5, 600, None),
        ("setup price, prepaid", prepaid(setup), 0, 4, 600, never),
        ("prepaid units, in time", prepaid(price), 0, 0, 599, None),
        ("prepaid units", prepaid(price), 0, 0, 600, never),
        ("the first interval", prepaid(price), 0, 3, 600, None),
        ("used up, which is another matter", prepaid(price), 10, 3, 9000, None),
        ("used without any payment", prepaid(price), 1, 0, 600, never),
        ("setup price, but no interval", prepaid(both), 0, 5, 600, never),
        ("both", prepaid(both), 0, 8, 600, None),
        ("units that are free at first", prepaid(free), 0, 0, 9000, None),
        ("free no more", prepaid(free), 20, 0, 9000, None),
        ("paid afterwards", postpaid(price), 0, 0, 9000, None),
        ("nothing costs anything", prepaid(|_| {}), 0, 0, 9000, None),
    ] {
        let facts = AgentFacts { first_payment_by: 600, ..facts(usage, paid) };
        assert_eq!(judge(&terms, &facts, now).end, expected, "{name}");
    }
}

fn client(usage: u64, paid: u64, agent: Option<u64>) -> ClientFacts {
    ClientFacts {
        usage,
        deposit: 100,
        paid,
        agent: agent.map(|cost| AgentSays { cost, usage_then: 20 }),
        in_session: true,
        held_by_user: false,
        over: false,
        tolerance: Tolerance::default(),
    }
}

#[test]
fn what_a_client_signs() {
    let pre = prepaid(|t| (t.unit_price, t.billing_interval) = (3, 2));
    let post = postpaid(|t| (t.unit_price, t.billing_interval) = (3, 2));
    let setup = |terms: Terms| Terms { setup_price: 5, ..terms };
    let idle = |facts| ClientFacts { in_session: false, ..facts };
    let held = |facts| ClientFacts { held_by_user: true, ..facts };
    let over = |facts| ClientFacts { over: true, ..facts };
    let free = Terms { free_units: 10, ..pre };
    for (name, terms, facts, expected) in [
        ("nothing costs anything", prepaid(|_| {}), client(1000, 0, Some(0)), None),
        ("the setup price", prepaid(|t| t.setup_price = 5), client(0, 0, None), Some(5)),
        ("once", prepaid(|t| t.setup_price = 5), client(0, 5, Some(5)), None),
        ("the setup price, held", held_setup(), held(client(0, 0, None)), Some(5)),
        ("postpaid: nothing used", post, client(0, 0, Some(0)), None),
        ("postpaid: less than an interval", post, client(19, 0, Some(5)), None),
        ("postpaid: an interval", post, client(20, 0, Some(6)), Some(6)),
        ("postpaid: and paid", post, client(20, 6, Some(6)), None),
        ("postpaid: more", post, client(50, 6, Some(15)), Some(15)),
        ("postpaid: after the setup price", setup(post), client(19, 5, Some(10)), None),
        ("postpaid: setup price alone", setup(post), client(19, 0, Some(10)), Some(5)),
        ("postpaid: both", setup(post), client(20, 0, Some(11)), Some(11)),
        ("postpaid: the session is over", post, idle(client(4, 0, Some(1))), Some(1)),
        ("postpaid: the channel is over", post, over(client(4, 0, Some(1))), Some(1)),
        ("postpaid: held", post, held(client(20, 0, Some(6))), Some(6)),
        ("postpaid: the agent knows less", post, client(30, 0, Some(6)), Some(6)),
        ("postpaid: it says nothing yet", post, client(20, 0, None), Some(6)),
        ("postpaid: within tolerance", post, client(200, 50, Some(61)), Some(61)),
        ("postpaid: beyond it", post, client(200, 50, Some(70)), Some(61)),
        ("prepaid: in advance", pre, client(0, 0, None), Some(12)),
        ("prepaid: above the boundary", pre, client(20, 13, Some(6)), None),
        ("prepaid: at the boundary", pre, client(20, 12, Some(6)), Some(18)),
        ("prepaid: held", pre, held(client(20, 7, Some(6))), None),
        ("prepaid: held in debt", pre, held(client(20, 5, Some(6))), None),
        ("prepaid: held and at rest", pre, held(idle(client(20, 5, Some(6)))), Some(6)),
        ("prepaid: over", pre, over(client(20, 0, Some(6))), Some(6)),
        ("prepaid: over and ahead", pre, over(client(20, 12, Some(6))), None),
        ("prepaid: up to the deposit", pre, client(320, 90, Some(96)), Some(100)),
        ("prepaid: not beyond", pre, client(400, 100, Some(100)), None),
        ("prepaid: far from the end of what is free", free, client(70, 0, Some(0)), None),
        ("prepaid: close to it", free, client(80, 0, Some(0)), Some(12)),
        ("the agent lies", pre, client(20, 0, Some(90)), Some(18)),
        ("and gets no more", pre, client(20, 18, Some(90)), None),
        ("paid more than is due", pre, client(0, 50, Some(0)), None),
    ] {
        assert_eq!(next_balance(&terms, &facts), expected, "{name}");
    }
}

#[test]
fn a_forgotten_cheque_admits_no_more_usage_than_was_signed_for() {
    let post = postpaid(|t| (t.unit_price, t.billing_interval, t.setup_price) = (10, 2, 5));
    let pre = prepaid(|t| (t.unit_price, t.billing_interval, t.setup_price) = (10, 2, 5));
    let free = Terms { free_units: 3, ..post };
    for (name, terms, cost, usage, signed, expected) in [
        ("what was signed for", post, 405, 400, 405, 400),
        ("an interval that is not yet", post, 425, 420, 405, 420),
        ("and no more", post, 805, 800, 405, 420),
        ("prepaid: what was signed", pre, 405, 400, 405, 400),
        ("prepaid: and no more", pre, 805, 800, 405, 400),
        ("prepaid: the agent has counted less", pre, 385, 380, 405, 380),
        ("the setup price is not for use", post, 805, 800, 5, 0),
        ("nothing was used yet", post, 5, 0, 405, 0),
        ("free units before", free, 405, 430, 405, 430),
        ("use costs nothing", postpaid(|t| t.setup_price = 5), 5, 900, 5, 0),
    ] {
        assert_eq!(admitted_usage(&terms, cost, usage, signed), expected, "{name}");
    }
}

fn held_setup() -> Terms {
    prepaid(|terms| terms.setup_price = 5)
}

#[test]
fn disputes_and_questions() {
    let post = postpaid(|t| (t.unit_price, t.billing_interval) = (30, 1));
    for (usage, agent, paid, disputed, ask) in [
        (20, Some(60), 60, false, false),
        (20, Some(63), 0, false, false),
        (20, Some(64), 0, true, false),
        // Nothing was used since the agent said so.
        (20, Some(30), 30, false, false),
        // Less than an interval was.
        (29, Some(60), 60, false, false),
        (30, Some(60), 60, false, true),
        // It is behind, and may be further behind by now.
        (30, Some(30), 30, false, true),
        // By the own meter more is owed than what the agent said some time ago.
        (30, Some(30), 60, false, true),
        (30, Some(30), 90, false, false),
        (20, None, 0, false, true),
        (0, None, 0, false, false),
    ] {
        let facts = ClientFacts { deposit: 1_000, ..client(usage, paid, agent) };
        assert_eq!(dispute(&post, &facts).is_some(), disputed, "{usage} {agent:?}");
        assert_eq!(may_owe_more(&post, &facts), ask, "{usage} {agent:?} {paid}");
    }
}

#[test]
fn dispute_needs_more_than_both_tolerances() {
    const MIB: u64 = 1 << 20;
    let mib = postpaid(|t| (t.unit_price, t.unit_size) = (1, MIB));
    let bytes = Terms { unit_price: 1, unit_size: 1024, ..mib };
    let seconds = Terms { unit_type: UnitType::Seconds, unit_size: 1, ..mib };
    let requests = Terms { unit_size: 1, ..mib };
    let thousands = Terms { unit_size: 1000, ..mib };
    let none = Tolerance { percent: 0, bytes: 0, seconds: 0 };
    let default = Tolerance::default();
    for (name, terms, tolerance, usage, bound) in [
        ("nothing was delivered, some is on its way", mib, default, 0, 16),
        ("the amount is the larger one", mib, default, 200 * MIB, 216),
        ("neither is", mib, default, 534 * MIB, 550),
        ("the share is", mib, default, 1000 * MIB, 1030),
        ("a small unit of data", bytes, default, 0, 16 * 1024),
        ("time at its beginning", seconds, default, 5, 15),
        ("time", seconds, default, 1000, 1030),
        ("requests: only a share", requests, default, 50, 52),
        ("thousands of requests", thousands, default, 50_000, 51),
        ("no tolerance", mib, none, 200 * MIB, 200),
        ("only an amount", mib, Tolerance { bytes: MIB, ..none }, 200 * MIB, 201),
        ("only a share", mib, Tolerance { percent: 3, ..none }, 200 * MIB, 206),
    ] {
        let facts = ClientFacts { deposit: MAX_INTEGER, tolerance, ..client(usage, 0, None) };
        let asked = |cost| {
            let agent = Some(AgentSays { cost, usage_then: 0 });
            ClientFacts { agent, ..facts }
        };
        assert_eq!(super::bound(&terms, &facts), bound, "{name}");
        assert_eq!(dispute(&terms, &asked(bound)), None, "{name}");
        assert_eq!(due(&terms, &asked(bound)), bound, "{name}: all of it is paid");
        let asked_too_much = dispute(&terms, &asked(bound + 1));
        assert_eq!(asked_too_much, Some(Dispute { asked: bound + 1, bound }), "{name}");
        assert_eq!(due(&terms, &asked(bound + 1)), bound, "{name}: and no more");
    }
}
