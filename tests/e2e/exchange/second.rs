//! A real agent, and a client that shares no code with it: the second implementation, in Python, which
//! knows no more than docs/reference says.

use std::fs;
use std::process::Command;

use privatix_core::{ChannelView, ChequeView, OfferingView};
use privatix_domain::cheque::{Bundle, verify};
use privatix_plugin_api::message::Status;
use serde_json::{Value, json};

use super::seller::Seller;
use crate::support::Package;
use crate::support::module::repository;
use crate::support::trade::draft;

#[test]
fn client_in_python_orders_uses_pays_and_ends() {
    let seller = Seller::open();
    let package = Package::echo();
    seller.node.run(&package);
    let terms =
        json!({ "setupPrice": 100, "unitPrice": 7, "unitSize": 1024, "maxBillingUnitLag": 50 });
    let draft = draft(&package, terms);
    let _: OfferingView = seller.node.post("/v1/offerings", &draft).expect("published");
    let url = seller.identity.exchange.as_deref().expect("a URL");
    let program = repository().join("tests/reference/python/client.py");
    let output = Command::new("python3")
        .arg("-B")
        .args([program.as_os_str(), url.as_ref(), seller.identity.fingerprint.as_ref()])
        .output()
        .expect("python3 runs");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    let outcome: Value = serde_json::from_slice(&output.stdout).expect("JSON");

    // Both say the same of the same channel.
    let channels: Vec<ChannelView> = seller.channels();
    assert_eq!(channels.len(), 1, "an order that is sent twice is one channel");
    let channel = &channels[0];
    let money = channel.money.as_ref().expect("its money");
    assert_eq!(outcome["channel"], json!(channel.id));
    assert_eq!(channel.status, Status::Terminated);
    assert_eq!(outcome["usage"], channel.usage);
    assert_eq!(
        (outcome["cost"].as_u64(), outcome["paid"].as_u64()),
        (Some(money.cost), Some(money.paid))
    );
    assert!(money.paid >= 100 + 7 * 6, "{money:?}");
    let cheques: Vec<ChequeView> = seller.node.get("/v1/cheques").expect("listed");
    assert_eq!(cheques.len(), 1);
    assert_eq!(outcome["proven"], cheques[0].balance);
    // What the client would show to somebody who settles it is what the host shows.
    let bundles: Vec<Bundle> = seller.node.get("/v1/cheques/bundles").expect("listed");
    let own: Bundle = serde_json::from_value(outcome["bundle"].clone()).expect("a bundle");
    assert_eq!(bundles, [own]);
    assert_eq!(verify(&bundles[0]).expect("it proves something").balance, money.paid);
    answers_are_valid(&seller, &outcome);
}

/// What the operator's API answers is valid by its schemas.
fn answers_are_valid(seller: &Seller, outcome: &Value) {
    let get = |path: &str| -> Value { seller.node.get(path).expect(path) };
    let channel = format!("/v1/channels/{}", outcome["channel"].as_str().expect("an id"));
    let offering = get("/v1/offerings")[0]["hash"].as_str().expect("a hash").to_owned();
    for (path, schema) in [
        ("/v1/identity", "operator/identity"),
        ("/v1/modules", "operator/module"),
        ("/v1/modules/echo", "operator/module"),
        ("/v1/products", "operator/product"),
        ("/v1/templates", "operator/template"),
        ("/v1/offerings", "operator/offering"),
        (&format!("/v1/offerings/{offering}"), "operator/offering"),
        (&format!("/v1/offerings/{offering}/lines"), "operator/line"),
        ("/v1/orders", "operator/order"),
        ("/v1/channels", "operator/channel"),
        (&channel, "operator/channel"),
        (&format!("{channel}/sessions"), "operator/session"),
        ("/v1/cheques", "operator/cheque"),
        ("/v1/cheques/bundles", "exchange/cheque-bundle"),
    ] {
        let file = repository().join(format!("docs/reference/schemas/{schema}.json"));
        let file = fs::read(file).expect("a schema");
        let schema: Value = serde_json::from_slice(&file).expect("JSON");
        let schema = jsonschema::validator_for(&schema).expect("a schema");
        let answer = get(path);
        let items = answer.as_array().cloned().unwrap_or_else(|| vec![answer]);
        assert!(!items.is_empty(), "{path}");
        for item in items {
            assert!(schema.is_valid(&item), "{path}: {:?}", schema.validate(&item));
        }
    }
}
