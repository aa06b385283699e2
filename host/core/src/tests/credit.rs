//! The credit in replies: what a party's terms and payments make of it is the domain's; here is where
//! it is said, and when.

use privatix_plugin_api::manifest::Role;
use privatix_plugin_api::message::{ClientKey, CoreRequest, SessionId, Status};
use serde_json::{Value, json};

use super::world::{World, increment, start_session, total};
use crate::CoreReply;
use privatix_domain::billing::Thresholds;
use privatix_domain::status::Hold;

/// Status and credit of an answer.
async fn credit(world: &World, request: CoreRequest) -> (Status, Option<u64>) {
    match world.call(request).await.expect("an answer") {
        CoreReply::Status(reply) => (reply.status, reply.credit),
        CoreReply::Started(started) => (started.status, started.credit),
        other => panic!("{other:?}"),
    }
}

fn prepaid(more: &Value) -> Value {
    let mut terms = json!({ "billingType": "prepaid", "unitPrice": 1, "billingInterval": 10 });
    for (name, value) in more.as_object().expect("an object") {
        terms[name] = value.clone();
    }
    terms
}

async fn pay(world: &World, channel: ClientKey, terms: &Value, paid: u64) {
    let row = &world.store.billing_some(&[channel]).await.expect("read")[0];
    let read = world.service.terms(&row.offering).await.expect("read").expect("terms");
    let mut txn = world.store.begin().await.expect("begun");
    let thresholds = Thresholds::of_agent(&read, row.deposit, paid);
    txn.billing_set(channel, paid, thresholds).await.expect("paid");
    txn.commit().await.unwrap_or_else(|error| panic!("{terms}: {error}"));
}

#[tokio::test]
async fn replies_say_what_is_left_of_what_is_paid() {
    let active = |credit| (Status::Active, Some(credit));
    let world = World::new(Role::Agent).await;
    let terms = prepaid(&json!({}));
    let channel = world.priced(Status::Active, &[], &terms, 100).await;
    pay(&world, channel, &terms, 20).await;
    let ready = CoreRequest::ServiceReady { client_key: channel };
    assert_eq!(credit(&world, ready.clone()).await, active(19));
    assert_eq!(credit(&world, start_session(channel)).await, active(19));
    let session = world.sessions(channel).await[0].id;
    assert_eq!(credit(&world, total(channel, session, 5)).await, active(14));
    // Said again, it is the same, and a payment is noticed.
    assert_eq!(credit(&world, total(channel, session, 5)).await, active(14));
    assert_eq!(credit(&world, total(channel, session, 19)).await, active(0));
    pay(&world, channel, &terms, 30).await;
    assert_eq!(credit(&world, total(channel, session, 19)).await, active(10));
    assert_eq!(credit(&world, ready).await, active(10));
    // A new session goes on where the last one ended.
    let stop = CoreRequest::StopSession { client_key: channel, session };
    assert_eq!(credit(&world, stop).await, (Status::Active, None));
    let next = world.start_session(channel).await;
    assert_eq!(credit(&world, increment(channel, next, 1, 4)).await, active(6));
    // What is closed may not be used, whatever may in its successor.
    assert_eq!(credit(&world, total(channel, session, 20)).await, active(0));
}

#[tokio::test]
async fn the_setting_bounds_it_and_a_status_without_use_allows_none() {
    for role in [Role::Agent, Role::Client] {
        let world = World::with(role, |told| told.common.max_unreported = 7).await;
        for status in Status::ALL {
            let holds: &[Hold] = if status.allows_use() { &[] } else { &[Hold::User] };
            let channel = world.priced(status, holds, &json!({}), 100).await;
            let session = world.session(channel, None).await;
            let expected = if status.allows_use() { 7 } else { 0 };
            let said = credit(&world, total(channel, session, 1)).await;
            assert_eq!(said, (status, Some(expected)), "{role:?}");
        }
    }
}

#[tokio::test]
async fn seconds_are_measured_by_the_core_and_have_no_credit() {
    let world = World::new(Role::Agent).await;
    let terms = prepaid(&json!({ "unitType": "seconds" }));
    let channel = world.priced(Status::Active, &[], &terms, 100).await;
    pay(&world, channel, &terms, 20).await;
    assert_eq!(credit(&world, start_session(channel)).await, (Status::Active, None));
    let session: SessionId = world.sessions(channel).await[0].id;
    assert_eq!(credit(&world, total(channel, session, 5)).await, (Status::Active, None));
    let ready = CoreRequest::ServiceReady { client_key: channel };
    assert_eq!(credit(&world, ready).await, (Status::Active, None));
}
