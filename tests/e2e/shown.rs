//! What a client reads in `channel show` where a channel does not do what it should.

use privatix_plugin_api::message::{ClientKey, Status};
use serde_json::{Value, json};

use crate::faults::said;
use crate::support::trade::draft;
use crate::support::{Package, Pair, wait_for};

fn show(pair: &Pair, channel: ClientKey) -> String {
    said(&pair.client.privatix(&["channel", "show", &channel.to_string()]))
}

/// The line of this name.
fn line(shown: &str, name: &str) -> Option<String> {
    let of = |line: &str| Some(line.strip_prefix(name)?.strip_prefix(' ')?.trim().to_owned());
    shown.lines().find_map(of)
}

/// Waits until the line of this name has all of these in it.
fn wait_line(pair: &Pair, channel: ClientKey, name: &str, parts: &[&str]) -> String {
    wait_for(&format!("{name} with {parts:?}"), || {
        let line = line(&show(pair, channel), name)?;
        parts.iter().all(|part| line.contains(part)).then_some(line)
    })
}

#[test]
fn client_sees_why_a_start_failed_when_it_is_tried_again_and_that_it_is_over() {
    let package = Package::faulty("good");
    let mut pair = Pair::configured(&package, "[agent]\norders = \"open\"\n", "");
    let channel = pair.order(&pair.offer(&package));
    pair.client.wait_channel(channel, Status::Active);
    assert_eq!(line(&show(&pair, channel), "trouble"), None, "all is well");
    let restart = |pair: &mut Pair, fault: &str| {
        assert!(pair.client.stop().success());
        pair.client.configure(&format!("[modules.good]\nfault = \"{fault}\"\n"));
        pair.client.start();
    };

    restart(&mut pair, "start-fails");
    let words = "start failed: the module says: start was asked to fail";
    let trouble = wait_line(&pair, channel, "trouble", &[words]);
    assert!(!trouble.contains("over"), "{trouble}");
    wait_line(&pair, channel, "holds", &["fault (started again in "]);
    wait_line(&pair, channel, "status", &["suspended for "]);
    assert!(show(&pair, channel).contains("suspending+fault"), "the history has it");

    restart(&mut pair, "start-panics");
    wait_line(&pair, channel, "trouble", &["the module panicked: start was asked to panic"]);

    restart(&mut pair, "none");
    pair.client.wait_channel(channel, Status::Active);
    wait_line(&pair, channel, "trouble", &["start was asked to", ", over)"]);
    wait_line(&pair, channel, "holds", &["none"]);
}

#[test]
fn client_sees_what_its_agent_did_and_that_it_is_gone() {
    let package = Package::faulty("good");
    let mut pair = Pair::configured(&package, "[agent]\norders = \"open\"\n", "");
    let terms = json!({
        "billingType": "prepaid", "unitPrice": 1, "unitSize": 10, "minUnits": 4, "supply": 9,
    });
    let prepaid: Value = pair.agent.post("/v1/offerings", &draft(&package, terms)).expect("made");
    let free = pair.offer(&package);

    let spent = pair.order(prepaid["hash"].as_str().expect("a hash"));
    pair.client.wait_channel(spent, Status::Terminated);
    wait_line(&pair, spent, "trouble", &["ended by the agent; all of the deposit is used"]);
    wait_line(&pair, spent, "agent", &["terminated", "cost 4, paid 4"]);

    let channel = pair.order(&free);
    pair.client.wait_channel(channel, Status::Active);
    let suspend = format!("/v1/channels/{channel}/suspend");
    let _: Value = pair.agent.post(&suspend, &json!({})).expect("suspended");
    wait_line(&pair, channel, "agent", &["suspended, held for user"]);

    pair.agent.kill();
    let contact = wait_line(&pair, channel, "contact", &["was not reached", "refused"]);
    assert_eq!(contact.matches("http://").count(), 1, "the address is said once: {contact}");
}
