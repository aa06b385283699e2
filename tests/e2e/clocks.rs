//! Clocks that are wrong, or set while a host runs.

use privatix_plugin_api::message::Status;
use serde_json::{Value, json};

use crate::faults::said;
use crate::support::trade::draft;
use crate::support::{Misfortune, Node, Package, Pair, wait_for};

/// Minutes more than the two that are allowed.
const TEN_MINUTES: i64 = 600;

const DAY: i64 = 86_400;

const OPEN: &str = "[agent]\norders = \"open\"\n";

/// A pair whose agent, and client, suffer from these.
fn pair(agent: &Misfortune, client: &Misfortune, module: &str) -> (Package, Pair) {
    let package = Package::faulty("good");
    let mut pair = Pair::configured(&package, &format!("{OPEN}{module}"), module);
    for (node, misfortune) in [(&mut pair.agent, agent), (&mut pair.client, client)] {
        restart(node, misfortune);
    }
    (package, pair)
}

fn restart(node: &mut Node, misfortune: &Misfortune) {
    assert!(node.stop().success());
    node.start_with(|command| misfortune.befalls(command));
    node.wait_state("good", privatix_modules::registry::State::Running);
}

fn publish(pair: &Pair, package: &Package, changes: Value) -> String {
    let offering: Value = pair.agent.post("/v1/offerings", &draft(package, changes)).expect("made");
    offering["hash"].as_str().expect("a hash").to_owned()
}

#[test]
fn fetch_from_an_agent_with_a_wrong_clock_says_how_wrong_it_is() {
    let (wrong, right) = (Misfortune::new(), Misfortune::new());
    let (package, mut pair) = pair(&wrong, &right, "");
    let hash = publish(&pair, &package, json!({}));
    let agent = pair.agent_identity();
    let url = agent.exchange.expect("an address");
    let fetch = ["offering", "fetch", &url, "--agent", &agent.fingerprint];
    for (ahead, expected) in [(TEN_MINUTES, "ahead of"), (-TEN_MINUTES, "behind")] {
        // Set while it runs, and wrong from its start on.
        for again in [false, true] {
            wrong.set_clock_ahead(ahead);
            if again {
                restart(&mut pair.agent, &wrong);
            }
            let output = pair.client.privatix(&fetch);
            let text = said(&output);
            assert_eq!(output.status.code(), Some(1), "{text}");
            for part in ["ClocksDiffer", "the agent's clock is ", expected, "timedatectl"] {
                assert!(text.contains(part), "{part:?} is missing in {text}");
            }
            assert!(text.contains("10 min") || text.contains("9 min 5"), "{text}");
            let known: Vec<Value> = pair.client.get("/v1/offerings").expect("listed");
            assert!(known.is_empty(), "nothing can be ordered that comes to nothing: {known:?}");
        }
    }
    wrong.set_clock_ahead(0);
    let output = pair.client.privatix(&fetch);
    assert!(said(&output).contains(&hash[..16]), "{}", said(&output));
}

#[test]
fn clocks_that_drift_apart_are_named_where_the_user_looks_and_forgotten_once_they_agree() {
    let (wrong, right) = (Misfortune::new(), Misfortune::new());
    let (package, pair) = pair(&wrong, &right, "");
    let hash = publish(&pair, &package, json!({ "supply": 9 }));
    pair.fetch();
    let live = pair.order(&hash);
    pair.client.wait_channel(live, Status::Active);
    for (ahead, expected) in [(TEN_MINUTES, "ahead of"), (-TEN_MINUTES, "behind")] {
        wrong.set_clock_ahead(ahead);
        // What was ordered in the meantime, and what was used before.
        let new = pair.order(&hash);
        let shown = [live, new].map(|id| id.to_string());
        let look = |id: &String| said(&pair.client.privatix(&["channel", "show", id]));
        for id in &shown {
            wait_for(&format!("{id} to name the clocks"), || {
                let text = look(id);
                let named = text.contains("the agent's clock is ") && text.contains(expected);
                named.then_some(())
            });
        }
        assert_eq!(pair.client.channel(new).status, Status::Pending);
        wrong.set_clock_ahead(0);
        pair.client.wait_channel(new, Status::Active);
        for id in &shown {
            wait_for("the clocks to be forgotten", || {
                (!look(id).contains("the agent's clock is ")).then_some(())
            });
        }
    }
}

/// Nobody uses what the module of these tests serves.
const IDLE: &str = "[modules.good]\ntick_ms = 3600000\n";

#[test]
fn a_clock_that_jumps_forward_ends_no_channel_now_or_after_a_restart() {
    let (agent, client) = (Misfortune::new(), Misfortune::new());
    let (package, mut pair) = pair(&agent, &client, IDLE);
    let limits = json!({ "maxInactiveTime": 3600, "maxSuspendTime": 3600, "supply": 9 });
    let long = publish(&pair, &package, limits);
    let short = publish(&pair, &package, json!({ "maxInactiveTime": 1, "supply": 9 }));
    pair.fetch();
    let (used, rests) = (pair.order(&long), pair.order(&long));
    for channel in [used, rests] {
        pair.agent.wait_channel(channel, Status::Active);
        pair.client.wait_channel(channel, Status::Active);
    }
    let suspend = format!("/v1/channels/{rests}/suspend");
    let _: Value = pair.agent.post(&suspend, &json!({})).expect("suspended");
    pair.agent.wait_channel(rests, Status::Suspended);

    for (day, again) in [(1, false), (2, true), (3, false)] {
        agent.set_clock_ahead(day * DAY);
        client.set_clock_ahead(day * DAY);
        if again {
            restart(&mut pair.agent, &agent);
            restart(&mut pair.client, &client);
        }
        // What is ended after a second shows that all were looked at since.
        let ends = pair.order(&short);
        pair.agent.wait_channel(ends, Status::Terminated);
        pair.client.wait_channel(ends, Status::Terminated);
        for node in [&pair.agent, &pair.client] {
            node.wait_channel(used, Status::Active);
            let view = node.channel(rests);
            assert!(!matches!(view.status, Status::Terminating | Status::Terminated), "{view:?}");
        }
        pair.agent.wait_channel(rests, Status::Suspended);
    }
}
