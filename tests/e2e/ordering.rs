//! `privatix order` as a person and a program meet it: what is shown while it waits, what is on
//! standard output, and how waiting ends.

use std::io::{BufRead, BufReader, Read};
use std::process::{Output, Stdio};

use nix::sys::signal::Signal;
use privatix_core::{Obstacle, OrderView};
use privatix_plugin_api::message::Status;
use serde_json::{Value, json};

use crate::support::node::signal;
use crate::support::{Package, Pair, wait_for};

fn texts(output: &Output) -> (i32, String, String) {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("UTF-8");
    let code = output.status.code().expect("an exit status");
    (code, text(&output.stdout), text(&output.stderr))
}

/// Whether all of these are in the text, in this order.
fn check_order(text: &str, parts: &[&str]) {
    let mut rest = text;
    for part in parts {
        let at = rest.find(part).unwrap_or_else(|| panic!("{part:?} is missing in {text}"));
        rest = &rest[at + part.len()..];
    }
}

fn order(pair: &Pair, arguments: &[&str]) -> (i32, String, String) {
    texts(&pair.client.privatix(&[&["order"], arguments].concat()))
}

#[test]
fn each_step_is_shown_and_the_channel_is_the_answer() {
    let package = Package::echo();
    let pair = Pair::of(&package);
    let offering = pair.offer(&package);
    let (code, out, err) = order(&pair, &[&offering]);
    assert_eq!(code, 0, "{err}");
    check_order(&err, &[" made", "accepted it", "access message received", "active"]);
    assert!(!err.contains('\u{1b}'), "lines, where nothing can move: {err:?}");
    let channel = out.trim_end().parse().expect("a channel and nothing else");
    pair.client.wait_channel(channel, Status::Active);
    // A program reads JSON and nothing else.
    let (code, out, err) = order(&pair, &[&offering, "--json", "--hold"]);
    assert_eq!((code, err.as_str()), (0, ""));
    let view: OrderView = serde_json::from_str(&out).expect("JSON");
    assert_eq!(view.state, "accepted");
    // A channel on hold is not waited for.
    let (code, out, err) = order(&pair, &[&offering, "--hold", "--wait", "600"]);
    assert_eq!(code, 0, "{err}");
    assert!(err.contains(&format!("privatix channel resume {}", out.trim_end())), "{err}");
}

#[test]
fn why_an_agent_is_not_reached_is_shown_and_the_order_goes_on() {
    let package = Package::echo();
    let mut pair = Pair::of(&package);
    let offering = pair.offer(&package);
    pair.agent.stop();
    let (code, out, err) = order(&pair, &[&offering, "--wait", "2"]);
    assert_eq!((code, out.as_str()), (1, ""), "{err}");
    check_order(
        &err,
        &["was not reached", "has not accepted the order within 2 s", "privatix order show "],
    );
    let (code, hash, err) = order(&pair, &[&offering, "--no-wait"]);
    assert_eq!((code, err.as_str()), (0, ""));
    let hash = hash.trim_end();
    let view = wait_for("a word on what keeps it", || {
        let view: OrderView = pair.client.get(&format!("/v1/orders/{hash}"))?;
        view.progress.is_some().then_some(view)
    });
    assert_eq!(view.progress.expect("a word").obstacle, Obstacle::Unreached);
    let (code, out, _) = order(&pair, &["show", &hash[..12]]);
    assert_eq!(code, 0);
    check_order(&out, &[hash, "waiting: ", "was not reached"]);
    pair.agent.start();
    let channel = pair.accepted(&pair.client.get(&format!("/v1/orders/{hash}")).expect("known"));
    let (_, out, _) = order(&pair, &["show", hash]);
    check_order(&out, &["accepted", &channel.to_string()]);
}

#[test]
fn the_agents_operator_is_waited_for_and_an_interruption_ends_only_the_waiting() {
    let package = Package::echo();
    let pair = Pair::configured(&package, "[agent]\norders = \"manual\"\n", "");
    let offering = pair.offer(&package);
    let mut command = pair.client.command(&["order", &offering, "--wait", "600"]);
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let mut child = child.expect("started");
    let mut err = BufReader::new(child.stderr.take().expect("piped"));
    let mut said = String::new();
    while !said.contains("waiting for the agent's operator") {
        assert!(err.read_line(&mut said).expect("read") > 0, "{said}");
    }
    signal(child.id(), Signal::SIGINT);
    err.read_to_string(&mut said).expect("read");
    assert_eq!(child.wait().expect("ended").code(), Some(1), "{said}");
    check_order(&said, &["interrupted. The host keeps trying", "privatix order show "]);
    let orders: Vec<OrderView> = pair.agent.get("/v1/orders").expect("listed");
    let path = format!("/v1/orders/{}/reject", orders[0].hash);
    let _: Value = pair.agent.post(&path, &json!(null)).expect("rejected");
    wait_for("the refusal", || {
        let (_, out, _) = order(&pair, &["show", &orders[0].hash]);
        out.contains("(OrderRejected)").then_some(())
    });
}

#[test]
fn a_refusal_says_why() {
    let package = Package::echo();
    let pair = Pair::configured(&package, "[agent]\norders = \"allowlist\"\n", "");
    let offering = pair.offer(&package);
    let (code, out, err) = order(&pair, &[&offering]);
    assert_eq!((code, out.as_str()), (1, ""), "{err}");
    assert!(err.contains("the agent refused the order"), "{err}");
    assert!(err.contains("(ClientNotAllowed)"), "{err}");
    let (code, out, err) = order(&pair, &[&offering, "--json"]);
    let view: OrderView = serde_json::from_str(&out).expect("JSON");
    assert_eq!((code, view.state.as_str()), (1, "rejected"), "{err}");
    assert_eq!(view.refusal.expect("a reason").code.code(), "ClientNotAllowed");
    let (code, _, err) = order(&pair, &[&offering, "--no-wait", "--wait", "3"]);
    assert_eq!(code, 2, "{err}");
}
