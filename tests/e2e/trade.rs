//! Two parties: from an offering to its last session.

use std::io::{ErrorKind, Read};
use std::net::{SocketAddr, TcpListener};
use std::time::{Duration, Instant};

use privatix_core::{IdentityView, OfferingView, OrderView};
use privatix_modules::registry::State;
use privatix_plugin_api::message::Status;
use serde_json::{Value, json};

use crate::support::gate::Gate;
use crate::support::trade::{draft, free_port};
use crate::support::{Node, Package, Pair, wait_for};

#[test]
fn an_order_becomes_a_service_that_both_sides_account_for_alike() {
    let package = Package::echo();
    let pair = Pair::of(&package);
    let channel = pair.order(&pair.offer(&package));
    for node in [&pair.client, &pair.agent] {
        node.wait_channel(channel, Status::Active);
    }
    let usage = |node: &Node| node.channel(channel).usage;
    wait_for("usage on both sides", || {
        (usage(&pair.client) > 0 && usage(&pair.client) == usage(&pair.agent)).then_some(())
    });

    let path = |what: &str| format!("/v1/channels/{channel}/{what}");
    let _: Value = pair.client.post(&path("suspend"), &json!(null)).expect("suspended");
    let view = pair.client.wait_channel(channel, Status::Suspended);
    assert_eq!(view.holds, ["user"]);
    wait_for("the end of the agent's session", || {
        pair.agent
            .sessions(channel)
            .iter()
            .all(|session| session.stopped_at.is_some())
            .then_some(())
    });
    let again = pair.client.post::<Value>(&path("suspend"), &json!(null)).expect_err("senseless");
    assert!(again.to_string().contains("BadStatus"), "{again}");

    let _: Value = pair.client.post(&path("resume"), &json!(null)).expect("resumed");
    pair.client.wait_channel(channel, Status::Active);
    let _: Value = pair.client.post(&path("terminate"), &json!(null)).expect("terminated");
    for node in [&pair.client, &pair.agent] {
        let view = node.wait_channel(channel, Status::Terminated);
        assert!(
            node.sessions(channel).iter().all(|session| session.stopped_at.is_some()),
            "{view:?}"
        );
    }
    assert_eq!(usage(&pair.client), usage(&pair.agent));
    let offering: OfferingView =
        pair.agent.get(&format!("/v1/offerings/{}", view.offering)).expect("the offering");
    assert_eq!(offering.supply_left, 3, "a terminated channel gives its supply back");
}

#[test]
fn a_client_that_was_away_catches_up() {
    let package = Package::echo();
    let mut pair = Pair::of(&package);
    let offering = pair.offer(&package);
    let channel = pair.order(&offering);
    pair.client.wait_channel(channel, Status::Active);
    pair.client.stop();
    // Meanwhile the agent's module comes back with another port, so access is made anew.
    pair.agent.kill();
    pair.agent.start();
    pair.client.start();
    wait_for("a newer access message", || {
        (pair.client.channel(channel).access_serial >= 2).then_some(())
    });
    wait_for("the service through it", || {
        pair.agent
            .sessions(channel)
            .iter()
            .any(|session| session.stopped_at.is_none())
            .then_some(())
    });
    // And the agent ends it while the client is away.
    pair.client.stop();
    let path = format!("/v1/channels/{channel}/terminate");
    let _: Value = pair.agent.post(&path, &json!(null)).expect("terminated");
    pair.agent.wait_channel(channel, Status::Terminated);
    pair.client.start();
    let view = pair.client.wait_channel(channel, Status::Terminated);
    assert!(view.reason.contains("agent") || view.reason.contains("stopped"), "{view:?}");
}

#[test]
fn an_order_waits_for_an_agent_that_is_away() {
    let package = Package::echo();
    let mut pair = Pair::of(&package);
    let offering = pair.offer(&package);
    pair.agent.stop();
    let order = json!({ "offering": offering, "deposit": null, "hold": true });
    let order: OrderView = pair.client.post("/v1/orders", &order).expect("ordered");
    assert_eq!(order.state, "waiting");
    pair.agent.start();
    let channel = pair.accepted(&order);
    let view = pair.client.wait_channel(channel, Status::Suspended);
    assert_eq!(view.holds, ["user"], "ordered with a hold");
}

#[test]
fn whose_orders_are_accepted_is_the_agents_choice() {
    let package = Package::echo();
    let refused = Pair::configured(&package, "[agent]\norders = \"allowlist\"\n", "");
    let order = json!({ "offering": refused.offer(&package), "deposit": null, "hold": false });
    let order: OrderView = refused.client.post("/v1/orders", &order).expect("made");
    wait_for("a refusal", || {
        let order: OrderView = refused.client.get(&format!("/v1/orders/{}", order.hash))?;
        (order.state == "rejected").then_some(())
    });
    drop(refused);

    let manual = Pair::configured(&package, "[agent]\norders = \"manual\"\n", "");
    let offering = manual.offer(&package);
    let order = |decision: &str| {
        let order = json!({ "offering": offering, "deposit": null, "hold": false });
        let order: OrderView = manual.client.post("/v1/orders", &order).expect("made");
        wait_for("the order at the agent", || {
            manual.agent.get::<OrderView>(&format!("/v1/orders/{}", order.hash))
        });
        let path = format!("/v1/orders/{}/{decision}", order.hash);
        let _: Value = manual.agent.post(&path, &json!(null)).expect("decided");
        let again = manual.agent.post::<Value>(&path, &json!(null)).expect_err("decided before");
        assert!(again.to_string().contains("BadStatus"), "{again}");
        order
    };
    manual.client.wait_channel(manual.accepted(&order("accept")), Status::Active);
    let rejected = order("reject");
    wait_for("a refusal", || {
        let order: OrderView = manual.client.get(&format!("/v1/orders/{}", rejected.hash))?;
        (order.state == "rejected").then_some(())
    });
}

#[test]
fn what_an_agent_may_not_offer() {
    let package = Package::echo();
    let pair = Pair::of(&package);
    for (changes, code) in [
        (json!({ "billingInterval": 0 }), "BadBillingInterval"),
        (json!({ "maxBillingUnitLag": 1 }), "BadBillingUnitLag"),
        (json!({ "country": "Sweden" }), "BadCountry"),
        (json!({ "exchange": "http://elsewhere" }), "FieldNotYours"),
        (json!({ "supply": "many" }), "MalformedOffering"),
    ] {
        let draft = draft(&package, changes.clone());
        let error = pair.agent.post::<Value>("/v1/offerings", &draft).expect_err(code);
        assert!(error.to_string().contains(code), "{changes}: {error}");
    }
    let mut unknown = draft(&package, json!({}));
    unknown["product"] = "nothing".into();
    let error = pair.agent.post::<Value>("/v1/offerings", &unknown).expect_err("unknown");
    assert!(error.to_string().contains("NotFound"), "{error}");
    // A module that has not said how it is reached: nobody could use what is sold.
    let silent = Package::faulty("good");
    let mut access: Value = serde_json::from_slice(&silent.access).expect("JSON");
    access["schema"]["properties"]["additionalParams"]["minProperties"] = 1.into();
    let silent = silent.with_access(&access.to_string());
    pair.agent.run(&silent);
    let error = pair.agent.post::<Value>("/v1/offerings", &draft(&silent, json!({})));
    let error = error.expect_err("not ready");
    assert!(error.to_string().contains("ProductNotReady"), "{error}");
}

#[test]
fn only_offerings_of_the_agent_that_was_asked_for_are_kept() {
    let package = Package::echo();
    let pair = Pair::of(&package);
    let _: OfferingView =
        pair.agent.post("/v1/offerings", &draft(&package, json!({}))).expect("published");
    let url = pair.agent_identity().exchange;
    let fetch = json!({ "url": url, "agent": "0".repeat(64) });
    let fetched: Value = pair.client.post("/v1/offerings/fetch", &fetch).expect("fetched");
    assert_eq!(fetched["refused"][0]["code"], "ForeignAgent");
    assert_eq!(pair.client.get::<Vec<OfferingView>>("/v1/offerings").expect("listed"), []);
    let look: Value =
        pair.client.post("/v1/offerings/fetch", &json!({ "url": url })).expect("seen");
    assert_eq!(look["agents"], json!([pair.agent_identity().fingerprint]));
    assert_eq!(pair.client.get::<Vec<OfferingView>>("/v1/offerings").expect("listed"), []);
}

#[test]
fn an_agent_may_offer_more_than_fits_into_an_answer() {
    const MANY: usize = 105;
    let package = Package::echo();
    let pair = Pair::of(&package);
    for _ in 0..MANY {
        let draft = draft(&package, json!({}));
        let _: OfferingView = pair.agent.post("/v1/offerings", &draft).expect("published");
    }
    pair.fetch();
    let known: Vec<OfferingView> = pair.client.get("/v1/offerings").expect("listed");
    assert_eq!(known.len(), MANY);
    let large = draft(&package, json!({ "serviceName": "x".repeat(70_000) }));
    let error = pair.agent.post::<Value>("/v1/offerings", &large).expect_err("too large");
    assert!(error.to_string().contains("TooLarge"), "{error}");
}

#[test]
fn the_supply_ends() {
    let package = Package::faulty("good");
    // The fixture needs no parameters, so its product is ready once it has an address.
    let agent = "[agent]\norders = \"open\"\nservice_endpoint_address = \"192.0.2.1\"\n";
    let pair = Pair::configured(&package, agent, "");
    let draft = draft(&package, json!({ "supply": 1, "additionalParams": {} }));
    let offering: Result<OfferingView, _> = pair.agent.post("/v1/offerings", &draft);
    let Ok(offering) = offering else {
        panic!("{offering:?}");
    };
    pair.fetch();
    let first = pair.order(&offering.hash);
    let order = json!({ "offering": offering.hash, "deposit": null, "hold": false });
    let second: OrderView = pair.client.post("/v1/orders", &order).expect("made");
    pair.agent.wait_channel(first, Status::Active);
    let path = format!("/v1/channels/{first}/terminate");
    let _: Value = pair.agent.post(&path, &json!(null)).expect("terminated");
    pair.agent.wait_channel(first, Status::Terminated);
    // What was refused for a passing reason is asked again.
    let channel = pair.accepted(&second);
    pair.agent.wait_channel(channel, Status::Active);
}

/// Each agent is visited on its own: one that takes connections and answers nothing is waited for,
/// but not by what is to be done elsewhere.
#[test]
fn an_agent_that_answers_nothing_holds_up_no_other() {
    let package = Package::echo();
    let pair = Pair::of(&package);
    let good = pair.offer(&package);
    let here = SocketAddr::from(([127, 0, 0, 1], free_port()));
    let mut other = Node::stopped("agent", &format!("[exchange]\nlisten = \"{here}\"\n"));
    package.drop_into(&other.plugins());
    other.start();
    other.wait_state(&package.name, State::Running);
    let bad: OfferingView =
        other.post("/v1/offerings", &draft(&package, json!({}))).expect("published");
    let agent: IdentityView = other.get("/v1/identity").expect("an identity");
    let fetch = json!({ "url": agent.exchange, "agent": agent.fingerprint });
    let _: Value = pair.client.post("/v1/offerings/fetch", &fetch).expect("fetched");
    other.stop();

    let silent = TcpListener::bind(here).expect("a listener");
    let order = json!({ "offering": bad.hash, "deposit": null, "hold": false });
    let _: OrderView = pair.client.post("/v1/orders", &order).expect("ordered");
    let (mut waiting, _) = silent.accept().expect("the client comes");
    let channel = pair.order(&good);
    pair.client.wait_channel(channel, Status::Active);
    waiting.set_nonblocking(true).expect("set");
    let mut request = [0; 65_536];
    let end = loop {
        match waiting.read(&mut request) {
            Ok(0) => break None,
            Ok(_) => {}
            Err(error) => break Some(error.kind()),
        }
    };
    assert_eq!(end, Some(ErrorKind::WouldBlock), "the client is still waiting there");
}

/// Its channel is over here, and there it is not yet: it is asked at every turn, and not as fast as
/// it answers.
#[test]
fn an_agent_that_takes_its_time_to_end_a_channel_is_not_pressed() {
    let package = Package::faulty("good");
    let here = SocketAddr::from(([127, 0, 0, 1], free_port()));
    let behind = SocketAddr::from(([127, 0, 0, 1], free_port()));
    let agent = format!(
        "[agent]\norders = \"open\"\nservice_endpoint_address = \"192.0.2.1\"\n\
         [modules.good]\nfault = \"stop-hangs\"\ntick_ms = 3600000\n\
         [exchange]\nurl = \"http://{here}\"\nlisten = \"{behind}\"\n"
    );
    let gate = Gate::between(here, behind, "/v1/channels/");
    let pair = Pair::configured(&package, &agent, "");
    let channel = pair.order(&pair.offer(&package));
    for node in [&pair.client, &pair.agent] {
        node.wait_channel(channel, Status::Active);
    }
    let path = format!("/v1/channels/{channel}/terminate");
    let _: Value = pair.client.post(&path, &json!(null)).expect("terminated");
    pair.agent.wait_channel(channel, Status::Terminating);
    let (before, began) = (gate.asked(), Instant::now());
    wait_for("some more questions", || (gate.asked() >= before + 4).then_some(()));
    // Once a second, as it is configured.
    assert!(began.elapsed() >= Duration::from_secs(2), "{:?}", began.elapsed());
    let view = pair.agent.channel(channel);
    assert_eq!(view.status, Status::Terminating, "it takes longer than that");
}

#[test]
fn an_order_that_waits_for_the_operator_can_be_cancelled() {
    let package = Package::echo();
    let pair = Pair::configured(&package, "[agent]\norders = \"manual\"\n", "");
    let offering = pair.offer(&package);
    let order = json!({ "offering": offering, "deposit": null, "hold": false });
    let order: OrderView = pair.client.post("/v1/orders", &order).expect("ordered");
    let of = |node: &Node| node.get::<OrderView>(&format!("/v1/orders/{}", order.hash));
    wait_for("the order at the agent", || of(&pair.agent));
    for _ in 0..2 {
        let output = pair.client.privatix(&["order", "cancel", &order.hash]);
        let shown = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && shown.contains("cancelled"), "{output:?}");
    }
    assert_eq!(of(&pair.agent).expect("an order").state, "cancelled");
    let late = pair.agent.privatix(&["order", "accept", &order.hash]);
    assert_eq!(late.status.code(), Some(1), "{late:?}");
    let channels: Vec<Value> = pair.client.get("/v1/channels").expect("listed");
    assert_eq!(channels, Vec::<Value>::new());
}

#[test]
fn an_order_goes_nowhere_but_to_where_the_offering_came_from() {
    let (package, here) = (Package::echo(), free_port());
    let elsewhere = TcpListener::bind("127.0.0.1:0").expect("a listener");
    let url = format!("http://{}/admin", elsewhere.local_addr().expect("an address"));
    let agent = format!(
        "[agent]\norders = \"open\"\n[exchange]\nlisten = \"127.0.0.1:{here}\"\nurl = \"{url}\"\n"
    );
    let pair = Pair::configured(&package, &agent, "");
    let draft = draft(&package, json!({}));
    let _: OfferingView = pair.agent.post("/v1/offerings", &draft).expect("published");
    let agent = pair.agent_identity().fingerprint;
    let url = format!("http://127.0.0.1:{here}");
    let output = pair.client.privatix(&["offering", "fetch", &url, "--agent", &agent]);
    let why = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.code() == Some(1) && why.contains("ForeignExchange"), "{output:?}");
    assert_eq!(pair.client.get::<Vec<Value>>("/v1/offerings").map(|all| all.len()), Some(0));
    elsewhere.set_nonblocking(true).expect("set");
    let called = elsewhere.accept().expect_err("nobody calls");
    assert_eq!(called.kind(), ErrorKind::WouldBlock);
}

#[test]
fn what_there_is_no_module_for_is_left_out_with_a_note() {
    let package = Package::echo();
    let pair = Pair::of(&package);
    let other = Package::wayward("none");
    pair.agent.run(&other);
    pair.offer(&package);
    let draft = draft(&other, json!({}));
    let made = wait_for("the other module to be set up", || {
        pair.agent.post::<OfferingView>("/v1/offerings", &draft).ok()
    });
    let identity = pair.agent_identity();
    let url = identity.exchange.expect("a URL");
    let fetch = ["offering", "fetch", &url, "--agent", &identity.fingerprint];
    let output = pair.client.privatix(&fetch);
    let note = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && note.contains("1 more offerings"), "{output:?}");
    assert!(!String::from_utf8_lossy(&output.stdout).contains(&made.hash), "{output:?}");
    // With nothing else there, it is a refusal.
    let only = pair.agent.get::<Vec<OfferingView>>("/v1/offerings").expect("listed");
    let mine = only.iter().find(|one| one.hash != made.hash).expect("the other one");
    let output = pair.agent.privatix(&["offering", "withdraw", &mine.hash]);
    assert!(output.status.success(), "{output:?}");
    let output = pair.client.privatix(&fetch);
    let why = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.code() == Some(1) && why.contains("UnknownProduct"), "{output:?}");
}
