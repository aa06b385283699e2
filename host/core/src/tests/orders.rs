//! Orders as an agent receives them: what is accepted, what was decided meanwhile, and what becomes
//! of an order that is taken back.

use std::time::Duration;

use privatix_domain::code::Code;
use privatix_plugin_api::manifest::Role;
use privatix_plugin_api::message::Status;
use serde_json::{Value, json};
use uuid::Uuid;

use super::world::{MINE, World, bill_all, identity, product_config};
use crate::{Draft, OrderAnswer, Refused};
use privatix_base::clock;
use privatix_base::config::OrderPolicy;
use privatix_domain::identity::Identity;
use privatix_domain::order::{Order, OrderCancel};
use privatix_domain::signed::{self, Kind};

/// An agent that takes everybody's orders, and one offering of it.
async fn shop(policy: OrderPolicy, terms: Value) -> (World, String) {
    let world = World::with(Role::Agent, |told| told.agent.orders = policy).await;
    let config = product_config(&[("externalIP", "192.0.2.1"), ("address", "192.0.2.1:1")]);
    world.call_as(MINE, config).await.expect("configured");
    let mut fields = json!({
        "serviceName": "test", "country": "SE", "supply": 2, "unitName": "MiB",
        "unitType": "units", "unitSize": 1, "billingType": "postpaid", "setupPrice": 0,
        "unitPrice": 0, "minUnits": 0, "billingInterval": 1, "freeUnits": 0, "additionalParams": {},
    });
    for (name, value) in terms.as_object().expect("an object") {
        fields[name] = value.clone();
    }
    let draft =
        Draft { product: "mine".into(), fields: fields.as_object().expect("an object").clone() };
    let made = world.agent().offering_create(draft).await.expect("published");
    (world, made.hash)
}

fn order(offering: &str, client: &Identity) -> Value {
    let keys = client.public();
    let order = Order {
        offering: offering.to_owned(),
        client_signing_key: keys.signing,
        client_sealing_key: keys.sealing,
        deposit: 100,
        nonce: Uuid::new_v4(),
        expires: clock::unix_now() + 600,
    };
    signed::sign(Kind::Order, order, client).expect("signed")
}

fn cancel(order: &Value, client: &Identity) -> Value {
    let cancel = OrderCancel {
        order: privatix_plugin_api::json::hash(order).expect("a hash"),
        client_signing_key: client.public().signing,
    };
    signed::sign(Kind::OrderCancel, cancel, client).expect("signed")
}

fn word(answer: Result<OrderAnswer, Refused>) -> String {
    match answer {
        Ok(OrderAnswer::Accepted(_)) => "accepted".into(),
        Ok(OrderAnswer::Waiting) => "waiting".into(),
        Err(refused) => refused.code.to_string(),
    }
}

async fn supply(world: &World, offering: &str) -> u64 {
    world.operator().offering_view(offering).await.expect("an offering").supply_left
}

#[tokio::test]
async fn an_offering_withdrawn_while_an_order_is_looked_at_accepts_nothing() {
    let (world, offering) = shop(OrderPolicy::Open, json!({})).await;
    let mut txn = world.store.begin().await.expect("begun");
    txn.offering_withdraw(&offering, clock::unix_now()).await.expect("withdrawn");
    let (agent, message) = (world.agent(), order(&offering, &identity(2)));
    let mut received = tokio::spawn(async move { agent.order_received(&message).await });
    // It has read the offering as it was, and waits for its turn to write.
    let early = tokio::time::timeout(Duration::from_millis(300), &mut received).await;
    assert!(early.is_err(), "{early:?}");
    txn.commit().await.expect("committed");
    assert_eq!(word(received.await.expect("no panic")), "OfferingWithdrawn");
    assert_eq!(supply(&world, &offering).await, 2);
}

#[tokio::test]
async fn an_operator_cannot_accept_an_order_for_a_withdrawn_offering() {
    let (world, offering) = shop(OrderPolicy::Manual, json!({})).await;
    let answer = world.agent().order_received(&order(&offering, &identity(2))).await;
    assert_eq!(word(answer), "waiting");
    let waiting =
        world.operator().order_views(&Default::default()).await.expect("listed").remove(0);
    world.agent().offering_withdraw(&offering).await.expect("withdrawn");
    let refused = world.agent().order_decide(&waiting.hash, true).await.expect_err("refused");
    assert_eq!(refused.code, Code::OfferingWithdrawn);
    world.agent().order_decide(&waiting.hash, false).await.expect("rejected");
}

#[tokio::test]
async fn an_unpaid_channel_gives_its_place_back() {
    let terms = json!({"billingType": "prepaid", "unitPrice": 3, "supply": 1});
    let (world, offering) = shop(OrderPolicy::Open, terms).await;
    assert_eq!(
        word(world.agent().order_received(&order(&offering, &identity(2))).await),
        "accepted"
    );
    let next = order(&offering, &identity(3));
    assert_eq!(word(world.agent().order_received(&next).await), "SupplyExhausted");
    world.bill_all(false).await;
    assert_eq!(supply(&world, &offering).await, 0, "there is time");

    let patient = world.restarted(|told| told.agent.first_payment_timeout = Duration::ZERO);
    bill_all(&patient, false).await;
    let ended =
        patient.operator().channel_views(&Default::default()).await.expect("listed").remove(0);
    assert_eq!(ended.status, Status::Terminated);
    assert_eq!(ended.reason, "the first payment did not come in time");
    assert_eq!(supply(&world, &offering).await, 1);
    assert_eq!(word(world.agent().order_received(&next).await), "accepted");
}

#[tokio::test]
async fn a_cancelled_order_is_never_accepted_and_the_answer_stays_the_same() {
    let (world, offering) = shop(OrderPolicy::Manual, json!({})).await;
    let (me, agent, operator) = (identity(2), world.agent(), world.operator());
    let message = order(&offering, &me);
    let code = |answer: &Value| answer["code"].as_str().unwrap_or("a reply").to_owned();
    assert_eq!(word(agent.order_received(&message).await), "waiting");
    let stranger = agent.cancel_received(&cancel(&message, &identity(3))).await;
    assert_eq!(stranger.expect_err("refused").code, Code::ForeignOrder);
    let mut unsigned = cancel(&message, &me);
    unsigned["clientSigningKey"] = json!(identity(3).public().signing);
    let unsigned = agent.cancel_received(&unsigned).await;
    assert_eq!(unsigned.expect_err("refused").code, Code::BadOrderSignature);
    let waiting = operator.order_views(&Default::default()).await.expect("listed").remove(0);
    assert_eq!(waiting.state, "waiting");
    for _ in 0..2 {
        let answer = agent.cancel_received(&cancel(&message, &me)).await.expect("answered");
        assert_eq!(code(&answer), "OrderCancelled");
        assert_eq!(word(agent.order_received(&message).await), "OrderCancelled");
    }
    assert_eq!(operator.order_view(&waiting.hash).await.expect("an order").state, "cancelled");
    let late = agent.order_decide(&waiting.hash, true).await;
    assert_eq!(late.expect_err("refused").code, Code::BadStatus);

    // It comes before the order, and is not another client's to say.
    let (early, foreign) = (order(&offering, &me), order(&offering, &me));
    agent.cancel_received(&cancel(&early, &me)).await.expect("answered");
    agent.cancel_received(&cancel(&foreign, &identity(3))).await.expect("answered");
    assert_eq!(word(agent.order_received(&early).await), "OrderCancelled");
    assert_eq!(word(agent.order_received(&foreign).await), "waiting");

    // It comes too late.
    let accepted = order(&offering, &me);
    agent.order_received(&accepted).await.expect("received");
    let hash = privatix_plugin_api::json::hash(&accepted).expect("a hash");
    agent.order_decide(&hash, true).await.expect("accepted");
    let answer = agent.cancel_received(&cancel(&accepted, &me)).await.expect("answered");
    assert!(answer["channel"].is_string(), "{answer}");
}
