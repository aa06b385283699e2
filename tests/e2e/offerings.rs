//! What is published and what is fetched, as the two operators type it.

use std::fs;

use privatix_core::OfferingView;
use privatix_modules::registry::State;
use privatix_plugin_api::message::Status;
use serde_json::{Value, json};

use crate::faults::said;
use crate::support::trade::draft;
use crate::support::{Node, Package, Pair, wait_for};

/// Runs a command, whose exit status has to be this, and whose answer has to have these in it.
fn check(node: &Node, arguments: &[&str], code: i32, expected: &[&str]) -> String {
    let output = node.privatix(arguments);
    let text = said(&output);
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {text}");
    for part in expected {
        assert!(text.contains(part), "{arguments:?}: {part:?} is missing in {text}");
    }
    String::from_utf8(output.stdout).expect("UTF-8")
}

fn publish(node: &Node, package: &Package) -> String {
    let offering: OfferingView = wait_for("a module to be set up", || {
        node.post("/v1/offerings", &draft(package, json!({}))).ok()
    });
    offering.hash
}

#[test]
fn of_several_modules_that_fit_the_user_chooses_one() {
    let (sold, other, foreign) =
        (Package::faulty("good"), Package::echo(), Package::wayward("none"));
    let pair = Pair::of(&other);
    for package in [&sold, &foreign] {
        pair.agent.run(package);
    }
    // The same templates, and neither has the product id of the agent's.
    for name in ["one", "two"] {
        Package::faulty(name).drop_into(&pair.client.plugins());
        pair.client.wait_state(name, State::Running);
    }
    let [sold, other, foreign] = [&sold, &other, &foreign].map(|one| publish(&pair.agent, one));
    let agent = pair.agent_identity();
    let url = agent.exchange.expect("an address");
    let fetch = |product: &[&'static str], code: i32, expected: &[&str]| {
        let arguments = ["offering", "fetch", &url, "--agent", &agent.fingerprint];
        check(&pair.client, &[&arguments[..], product].concat(), code, expected)
    };
    let product = |hash: &str| {
        let offerings: Vec<OfferingView> = pair.client.get("/v1/offerings").expect("listed");
        offerings.into_iter().find(|one| one.hash == hash).map(|one| one.product)
    };

    let listed = fetch(&[], 1, &["SeveralProducts", "one, two", "--product"]);
    assert!(listed.contains(&other) && !listed.contains(&sold), "{listed}");
    assert_eq!((product(&sold), product(&other)), (None, Some("echo".into())));

    // What the chosen module is not for is no failure, whatever else there is for it.
    let listed = fetch(&["--product", "one"], 0, &["2 more offerings were left out", "one"]);
    assert!(listed.contains(&sold) && !listed.contains(&foreign), "{listed}");
    assert_eq!((product(&sold), product(&other)), (Some("one".into()), Some("echo".into())));
    // The choice is remembered, and can be changed.
    let listed = fetch(&[], 0, &["1 more offerings were left out", "UnknownProduct"]);
    assert!(listed.contains(&sold) && listed.contains(&other), "{listed}");
    assert_eq!(product(&sold), Some("one".into()));
    fetch(&["--product", "two"], 0, &["were left out"]);
    fetch(&["--product", "echo"], 0, &["were left out"]);
    fetch(&["--product", "nobody"], 1, &["WrongProduct", "nobody"]);
    assert_eq!((product(&sold), product(&other)), (Some("two".into()), Some("echo".into())));

    let channel = pair.order(&sold);
    assert_eq!(pair.client.wait_channel(channel, Status::Active).product, "two");
    assert_eq!(pair.agent.channel(channel).product, "good");
}

#[test]
fn a_field_that_nobody_knows_is_not_sold() {
    let node = Node::agent();
    let package = Package::faulty("good");
    node.run(&package);
    let file = node.home().join("fields.json");
    let write = |changes: Value| {
        fs::write(&file, draft(&package, changes)["fields"].to_string()).expect("written");
    };
    let path = file.to_str().expect("a path");
    let create = ["offering", "create", "good", "--fields", path];
    for (written, set, field, nearest) in [
        (json!({}), "suply=3", "suply", "supply"),
        (json!({ "unitprice": 3 }), "supply=3", "unitprice", "unitPrice"),
        (json!({ "maxInactivTime": 60 }), "supply=3", "maxInactivTime", "maxInactiveTime"),
    ] {
        write(written);
        let arguments = [&create[..], &["--set", set]].concat();
        check(&node, &arguments, 1, &["UnknownField", field, nearest, "was not made"]);
    }
    assert_eq!(node.get::<Vec<Value>>("/v1/offerings").map(|all| all.len()), Some(0));
    write(json!({}));
    let hash = check(&node, &[&create[..], &["--set", "supply=3"]].concat(), 0, &[]);
    let view: Value = node.get(&format!("/v1/offerings/{}", hash.trim())).expect("published");
    assert!(view.to_string().contains("supply"), "{view}");
}
