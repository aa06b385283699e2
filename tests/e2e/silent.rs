//! Modules that do not answer: no channel is trapped by them.

use privatix_plugin_api::message::{ClientKey, Status};
use serde_json::{Value, json};

use crate::support::{Node, Package, Pair, wait_for};

const AGENT: &str = "[agent]\norders = \"open\"\nservice_endpoint_address = \"192.0.2.1\"\n";
const IMPATIENT: &str = "health_interval = 1\n[module_timeouts]\nstart = 1\nstop = 1\n\
                         [channels]\nactivation_timeout = 2\n";

/// A channel whose client has a module with a fault, given as its setting.
fn with_faulty_client(fault: &str, ready: bool) -> (Pair, ClientKey) {
    let package = Package::faulty("good");
    // It asks nothing after its first report, so that no reply tells it to stop.
    let module = format!("[modules.good]\nfault = \"{fault}\"\ntick_ms = 3600000\n");
    let client = format!("{IMPATIENT}{module}");
    let pair = Pair::configured(&package, AGENT, &client);
    let channel = pair.order(&pair.offer(&package));
    if ready {
        pair.client.wait_channel(channel, Status::Active);
    }
    (pair, channel)
}

fn command(node: &Node, channel: ClientKey, what: &str) {
    let path = format!("/v1/channels/{channel}/{what}");
    let _: Value = node.post(&path, &json!(null)).expect(what);
}

#[test]
fn a_module_that_never_stops_a_channel_does_not_keep_it_and_is_shown_as_unwell() {
    let (pair, channel) = with_faulty_client("stop-hangs", true);
    command(&pair.client, channel, "suspend");
    let view = pair.client.wait_channel(channel, Status::Suspended);
    assert!(view.reason.contains("forced"), "{view:?}");
    assert!(pair.client.sessions(channel).iter().all(|session| session.stopped_at.is_some()));
    pair.client.wait("good", "unwell", |module| {
        module.health.as_ref().is_some_and(|health| {
            health.starts_with("unhealthy: the host: ") && health.contains("were not stopped")
        })
    });
    command(&pair.client, channel, "terminate");
    pair.client.wait_channel(channel, Status::Terminated);
    pair.agent.wait_channel(channel, Status::Terminated);
}

/// It says that it is well; what the host has measured is told first.
#[test]
fn module_whose_starts_all_panic_is_unhealthy_whatever_it_says() {
    let (pair, channel) = with_faulty_client("start-panics", false);
    let view = pair.client.wait("good", "unwell", |module| {
        let health = module.health.as_deref().unwrap_or_default();
        health.starts_with("unhealthy: the host: ") && health.contains("starts failed")
    });
    let health = view.health.expect("a health");
    assert!(health.contains("the module panicked"), "{health}");
    assert!(health.ends_with("the module says: healthy"), "{health}");
    for command in ["list", "explain"] {
        let name = (command == "explain").then_some("good");
        let words: Vec<_> = ["module", command].into_iter().chain(name).collect();
        let shown = pair.client.privatix(&words);
        let shown = String::from_utf8(shown.stdout).expect("UTF-8");
        assert!(shown.contains("starts failed"), "{shown}");
    }
    command(&pair.client, channel, "terminate");
    pair.client.wait_channel(channel, Status::Terminated);
}

#[test]
fn a_module_that_never_starts_a_channel_is_asked_again_and_can_be_left() {
    let (pair, channel) = with_faulty_client("start-hangs", false);
    let view = wait_for("a hold for the fault", || {
        let view = pair.client.channel(channel);
        (view.holds == ["fault"] && view.status == Status::Suspended).then_some(view)
    });
    // It is forgiven after a while, and tried again.
    wait_for("another try", || {
        let now = pair.client.channel(channel);
        (now.status == Status::Activating && now.since >= view.since).then_some(())
    });
    command(&pair.client, channel, "terminate");
    pair.client.wait_channel(channel, Status::Terminated);
    pair.agent.wait_channel(channel, Status::Terminated);
}
