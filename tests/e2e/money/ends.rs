//! How channels end: each of a row of terms, side by side, with a clock of seconds.

use privatix_core::ChannelView;
use privatix_plugin_api::message::{ClientKey, Status};
use serde_json::{Value, json};

use super::deal::order;
use crate::support::{Package, Pair, wait_for};

/// How a channel ends.
struct Case {
    name: &'static str,
    /// Whether it is of the module that uses something.
    used: bool,
    terms: Value,
    deposit: u64,
    /// What the reason says; empty where the channel goes on.
    reason: &'static str,
    /// What it has cost and what is paid, at the end; an advance may be more.
    cost: u64,
    paid: std::ops::RangeInclusive<u64>,
}

/// Usage grows by a unit of ten every 50 ms, or never.
fn cases() -> Vec<Case> {
    let case = |name, used, terms: Value, deposit, reason, cost, paid| {
        let mut all = json!({ "unitSize": 10, "maxBillingUnitLag": 20 });
        for (field, value) in terms.as_object().expect("an object") {
            all[field] = value.clone();
        }
        Case { name, used, terms: all, deposit, reason, cost, paid }
    };
    let (spent, units) = ("the deposit is used up", "all units are used up");
    vec![
        case(
            "prepaid",
            true,
            json!({"billingType": "prepaid", "unitPrice": 3}),
            30,
            spent,
            30,
            30..=30,
        ),
        case("postpaid", true, json!({"unitPrice": 3}), 30, spent, 30, 30..=30),
        case(
            "setup price and use",
            true,
            json!({"billingType": "prepaid", "setupPrice": 7, "unitPrice": 3}),
            30,
            spent,
            30,
            30..=30,
        ),
        case(
            "setup price alone",
            true,
            json!({"setupPrice": 7, "maxUnits": 20}),
            7,
            units,
            7,
            7..=7,
        ),
        case("zero price", true, json!({"maxUnits": 20}), 0, units, 0, 0..=0),
        case(
            "free units alone",
            true,
            json!({"unitPrice": 3, "freeUnits": 100, "maxUnits": 20}),
            30,
            units,
            0,
            0..=0,
        ),
        case(
            "free units first",
            true,
            json!({"billingType": "prepaid", "unitPrice": 3, "freeUnits": 10}),
            30,
            spent,
            30,
            30..=30,
        ),
        case(
            "never used",
            false,
            json!({"billingType": "prepaid", "unitPrice": 3, "maxInactiveTime": 3}),
            30,
            "not used for too long",
            0,
            0..=6,
        ),
        case("unlimited", true, json!({}), 0, "", 0, 0..=0),
    ]
}

const AGENT: &str = "[agent]\norders = \"open\"\nmax_channels_per_client = 99\n\
                     service_endpoint_address = \"192.0.2.1\"\n\
                     [modules.good]\ntick_ms = 50\namount = 10\n[modules.idle]\namount = 0\n";
/// The client's module counts more, so that what its agent asks for is never disputed.
const CLIENT: &str = "[modules.good]\ntick_ms = 50\namount = 20\n[modules.idle]\namount = 0\n";

#[test]
fn every_way_a_channel_ends() {
    let (good, idle) = (Package::faulty("good"), Package::faulty("idle"));
    let pair = Pair::configured(&good, AGENT, CLIENT);
    for node in [&pair.agent, &pair.client] {
        node.run(&idle);
    }
    let ordered: Vec<_> = cases()
        .into_iter()
        .map(|case| {
            let package = if case.used { &good } else { &idle };
            (order(&pair, package, &case.terms, case.deposit), case)
        })
        .collect();
    for (channel, case) in &ordered {
        if case.reason.is_empty() {
            wait_for("usage on both sides", || {
                let used = |view: ChannelView| view.usage > 300 && view.status == Status::Active;
                let both = [&pair.agent, &pair.client].map(|node| used(node.channel(*channel)));
                (both == [true, true]).then_some(())
            });
            continue;
        }
        ended(&pair, *channel, case);
    }
}

fn ended(pair: &Pair, channel: ClientKey, case: &Case) {
    let name = case.name;
    pair.client.wait_channel(channel, Status::Terminated);
    pair.agent.wait_channel(channel, Status::Terminated);
    let changes = pair.agent.log();
    let told = |line: &&str| line.contains(&channel.to_string()) && line.contains(case.reason);
    assert!(changes.lines().any(|line| told(&line)), "{name}: {}", case.reason);
    wait_for(&format!("the last cheque of {name}"), || {
        let [agent, client] =
            [&pair.agent, &pair.client].map(|node| node.channel(channel).money.expect("money"));
        let settled = agent.paid == client.paid && !client.unsent;
        let right = agent.cost == case.cost && case.paid.contains(&agent.paid);
        (settled && right && agent.paid >= agent.cost).then_some(())
    });
}

#[test]
fn time_is_sold_by_the_second_and_measured_by_the_core() {
    let good = Package::faulty("good");
    // What the modules report is far more, and of no account.
    let pair = Pair::configured(&good, AGENT, CLIENT);
    let terms = json!({
        "unitType": "seconds", "unitName": "second", "unitSize": 1, "unitPrice": 2,
        "billingType": "prepaid", "billingInterval": 2,
    });
    let channel = order(&pair, &good, &terms, 12);
    let view = pair.agent.wait_channel(channel, Status::Terminated);
    pair.client.wait_channel(channel, Status::Terminated);
    let sessions = pair.agent.sessions(channel);
    let measured: u64 = sessions.iter().map(|session| session.usage).sum();
    let span = |session: &privatix_core::SessionView| {
        session.stopped_at.expect("closed") - session.started_at
    };
    assert_eq!(measured, sessions.iter().map(span).sum::<u64>(), "{sessions:?}");
    assert_eq!(view.money.map(|money| money.cost), Some(12));
    assert!((6..=20).contains(&view.usage), "six seconds, and the next look: {}", view.usage);
    wait_for("the last cheque", || {
        let paid = pair.agent.channel(channel).money.map(|money| money.paid);
        (paid == Some(12)).then_some(())
    });
}

#[test]
fn an_agent_that_counts_too_much_is_paid_what_was_used_and_no_more() {
    let good = Package::faulty("good");
    // By the client's own measure nothing was used at all.
    let pair = Pair::configured(&good, AGENT, "[modules.good]\namount = 0\n");
    let terms = json!({
        "setupPrice": 5, "unitSize": 10, "unitPrice": 10, "maxBillingUnitLag": 4, "maxSuspendTime": 3,
    });
    let channel = order(&pair, &good, &terms, 100_000);
    let view = wait_for("the agent to suspend", || {
        let view = pair.agent.channel(channel);
        (view.status == Status::Suspended && view.usage > 0).then_some(view)
    });
    assert_eq!(view.holds, ["payment"]);
    let dispute = wait_for("the dispute at the client", || {
        pair.client.channel(channel).money?.dispute.filter(|dispute| dispute.asked > 45)
    });
    assert_eq!(dispute.bound, 5, "the setup price");
    let shown = pair.client.privatix(&["channel", "show", &channel.to_string()]);
    let shown = String::from_utf8(shown.stdout).expect("UTF-8");
    assert!(shown.contains("the agent asks for"), "{shown}");
    // Nobody gives in, so it ends.
    let view = pair.agent.wait_channel(channel, Status::Terminated);
    pair.client.wait_channel(channel, Status::Terminated);
    let money = view.money.expect("money");
    assert!(money.cost > 45, "{money:?}");
    assert_eq!(
        (money.paid, pair.client.channel(channel).money.map(|money| money.paid)),
        (5, Some(5))
    );
}
