//! What an agent's module and its clients make of access messages and orders.

use std::collections::BTreeMap;

use privatix_domain::code::Code;
use privatix_plugin_api::json;
use privatix_plugin_api::manifest::Role;
use privatix_plugin_api::message::{ClientKey, Status};
use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::world::{MINE, OTHER, World, access_message, agent, identity, product_config};
use crate::{Draft, OrderAnswer};
use privatix_base::clock;
use privatix_domain::access;
use privatix_domain::order::Order;
use privatix_domain::signed::{self, Kind};
use privatix_domain::status::Hold;
use privatix_store::{OrderRow, OrderState};

#[tokio::test]
async fn a_products_config_is_replaced_as_a_whole() {
    let world = World::new(Role::Agent).await;
    let channel = world.channel(Status::Active).await;
    let bad = "BadProductConfig";
    // What is said, what is then known, and the number of the access message.
    for (pairs, said, config, external_ip, serial) in [
        (&[][..], bad, &[][..], None, 1),
        (&[("", "x")], bad, &[], None, 1),
        (&[("a", "1"), ("", "x")], bad, &[], None, 1),
        (&[("externalIP", "192.0.2.1"), ("", "x")], bad, &[], None, 1),
        (&[("a", "1"), ("b", "2")], "ok", &[("a", "1"), ("b", "2")], None, 2),
        (&[("b", "2"), ("a", "1")], "ok", &[("a", "1"), ("b", "2")], None, 2),
        (&[("c", "")], "ok", &[("c", "")], None, 3),
        (&[], bad, &[("c", "")], None, 3),
        (&[("c", ""), ("externalIP", "192.0.2.1")], "ok", &[("c", "")], Some("192.0.2.1"), 4),
        (&[("c", ""), ("externalIP", "192.0.2.2")], "ok", &[("c", "")], Some("192.0.2.2"), 5),
        (&[("externalIP", "192.0.2.2")], "ok", &[], Some("192.0.2.2"), 6),
        (&[("externalip", "192.0.2.3")], "ok", &[("externalip", "192.0.2.3")], None, 7),
    ] {
        assert_eq!(world.said(product_config(pairs)).await, said, "{pairs:?}");
        let product = world.product(MINE).await;
        let known: BTreeMap<String, String> =
            serde_json::from_str(&product.config).expect("an object of strings");
        let expected: BTreeMap<String, String> =
            config.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        assert_eq!((known, product.external_ip.as_deref()), (expected, external_ip), "{pairs:?}");
        assert_eq!(world.row(channel).await.access_serial, serial, "{pairs:?}");
    }
    assert_eq!(world.product(OTHER).await.config, "{}");
}

#[tokio::test]
async fn a_change_of_config_re_issues_the_access_of_live_channels() {
    let world = World::new(Role::Agent).await;
    let kept = Some("an envelope".to_owned());
    let mut channels = Vec::new();
    for status in Status::ALL {
        let access = kept.clone();
        let live = status != Status::Terminated;
        channels.push((world.channel_with(status, &[], |row| row.access = access).await, live));
    }
    let foreign = world
        .channel_with(Status::Active, &[], |row| {
            (row.product, row.access) = (OTHER, kept.clone());
        })
        .await;
    channels.push((foreign, false));
    for (pairs, serial) in
        [(&[("", "x")][..], 1), (&[("a", "1")], 2), (&[("a", "1")], 2), (&[("a", "2")], 3)]
    {
        world.said(product_config(pairs)).await;
        for (channel, live) in &channels {
            let row = world.row(*channel).await;
            let serial = if *live { serial } else { 1 };
            assert_eq!(row.access_serial, serial, "{pairs:?}, {}", row.state.status);
            let stale = *live && serial > 1;
            assert_eq!(row.access.is_none(), stale, "{pairs:?}, {}", row.state.status);
        }
    }
}

#[tokio::test]
async fn the_address_of_the_configuration_goes_before_that_of_the_module() {
    for (configured, said, expected) in
        [(None, "192.0.2.7", "192.0.2.7"), (Some("vpn.example"), "192.0.2.7", "vpn.example")]
    {
        let world = World::with(Role::Agent, |told| {
            told.agent.service_endpoint_address = configured.map(str::to_owned);
        })
        .await;
        let config = product_config(&[("externalIP", said), ("address", "192.0.2.7:1")]);
        assert_eq!(world.said(config).await, "ok");
        let me = identity(2);
        let offering = offer(&world, json!({})).await;
        let order = order(&offering, clock::unix_now() + 60, Uuid::new_v4(), json!({}));
        let channel = accepted(&world, &order).await;
        let envelope = world.agent().access_envelope(channel).await.expect("made");
        let expect = privatix_domain::access::Expect {
            agent: world.identity.public().signing,
            order_hash: &json::hash(&order).expect("a hash"),
            channel,
            last_serial: 0,
        };
        let template = super::world::template(privatix_domain::template::TemplateKind::Access);
        let opened =
            privatix_domain::access::open(&envelope, &expect, &me, |_| Some(template.into()));
        let message = opened.expect("opened").message;
        assert_eq!(message["serviceEndpointAddress"], expected);
        assert_eq!(message["additionalParams"], json!({ "address": "192.0.2.7:1" }));
        assert_eq!(message["password"], world.password(channel).await.0);
    }
}

/// Publishes an offering; returns its hash.
async fn offer(world: &World, changes: Value) -> String {
    let mut fields = json!({
        "serviceName": "test", "country": "SE", "supply": 3, "unitName": "MiB",
        "unitType": "units", "unitSize": 1_048_576, "billingType": "postpaid", "setupPrice": 0,
        "unitPrice": 0, "billingInterval": 1, "additionalParams": {},
    });
    for (name, value) in changes.as_object().into_iter().flatten() {
        fields[name] = value.clone();
    }
    let fields: Map<String, Value> = serde_json::from_value(fields).expect("an object");
    let draft = Draft { product: "mine".into(), fields };
    world.agent().offering_create(draft).await.expect("published").hash
}

/// An order of identity 2, with some members replaced before it is signed.
fn order(offering: &str, expires: u64, nonce: Uuid, changes: Value) -> Value {
    let keys = identity(2).public();
    let order = Order {
        offering: offering.to_owned(),
        client_signing_key: keys.signing,
        client_sealing_key: keys.sealing,
        deposit: 0,
        nonce,
        expires,
    };
    let mut order = serde_json::to_value(order).expect("JSON");
    for (name, value) in changes.as_object().into_iter().flatten() {
        order[name] = value.clone();
    }
    signed::sign(Kind::Order, order, &identity(2)).expect("signed")
}

async fn accepted(world: &World, order: &Value) -> ClientKey {
    match world.agent().order_received(order).await {
        Ok(OrderAnswer::Accepted(reply)) => {
            serde_json::from_value(reply["channel"].clone()).expect("a channel")
        }
        other => panic!("{other:?}"),
    }
}

/// The answer may have been lost for longer than the order was valid, and the offering may have
/// gone meanwhile: the client still has a channel here, and has to learn of it.
#[tokio::test]
async fn an_order_that_was_answered_is_answered_alike_for_ever() {
    let world = World::new(Role::Agent).await;
    world.said(product_config(&[("externalIP", "192.0.2.7"), ("address", "192.0.2.7:1")])).await;
    let offering = offer(&world, json!({})).await;
    let (now, nonce) = (clock::unix_now(), Uuid::new_v4());
    let late = order(&offering, now - 10, nonce, json!({}));
    let refused = world.agent().order_received(&late).await.expect_err("never seen");
    assert_eq!(refused.code, Code::OrderExpired);

    let reply = json!({ "channel": Uuid::new_v4() });
    let mut txn = world.store.begin().await.expect("begun");
    txn.order_add(&OrderRow {
        hash: json::hash(&late).expect("a hash"),
        offering: offering.clone(),
        client: identity(2).public().signing.to_string(),
        nonce: nonce.to_string(),
        message: late.to_string(),
        state: OrderState::Accepted,
        held: false,
        reply: Some(reply.to_string()),
        created_at: now - 4000,
        cancelled_at: None,
    })
    .await
    .expect("kept");
    txn.commit().await.expect("committed");
    world.agent().offering_withdraw(&offering).await.expect("withdrawn");
    let again = world.agent().order_received(&late).await;
    assert_eq!(again, Ok(OrderAnswer::Accepted(reply)));
    for (changes, code) in [
        (json!({ "deposit": 1 }), "NonceUsed"),
        (json!({ "expires": now + 60 }), "NonceUsed"),
        (json!({ "nonce": Uuid::new_v4() }), "OrderExpired"),
        (json!({ "nonce": Uuid::new_v4(), "expires": now + 60 }), "OfferingWithdrawn"),
    ] {
        let other = order(&offering, now - 10, nonce, changes.clone());
        let refused = world.agent().order_received(&other).await.expect_err(code);
        assert_eq!(refused.code.code(), code, "{changes}");
    }
    assert_eq!(
        world
            .store
            .channel_page(privatix_store::Page { after: None, status: "", limit: 1000 })
            .await
            .expect("listed")
            .expect("the first page"),
        []
    );
}

#[tokio::test]
async fn a_node_that_has_moved_makes_its_access_messages_anew() {
    let world = World::new(Role::Agent).await;
    let live = world.channel(Status::Active).await;
    let over = world.channel(Status::Terminated).await;
    for (exchange, endpoint, serial) in [
        // The first run has nothing to compare with.
        ("http://192.0.2.1", None, 1),
        ("http://192.0.2.1", None, 1),
        ("http://192.0.2.2", None, 2),
        ("http://192.0.2.2", Some("vpn.example"), 3),
        ("http://192.0.2.2", Some("vpn.example"), 3),
    ] {
        let again = world.restarted(|told| {
            told.agent.exchange = exchange.into();
            told.agent.service_endpoint_address = endpoint.map(str::to_owned);
        });
        agent(&again).settings_noted().await.expect("noted");
        assert_eq!(world.row(live).await.access_serial, serial, "{exchange} {endpoint:?}");
        assert_eq!(world.row(over).await.access_serial, 1);
    }
}

/// An agent's envelope for a client's channel.
async fn envelope(world: &World, channel: ClientKey, serial: u64) -> Value {
    let row = world.row(channel).await;
    let mut message = json!(access_message(channel));
    message["templateHash"] = row.access_template.clone().into();
    message["nonce"] = serial.to_string().into();
    let binding = access::Binding {
        order_hash: row.order_hash.clone(),
        channel,
        template_hash: row.access_template.clone(),
        serial,
    };
    let to = identity(1).public().sealing;
    let rng = &mut rand_core::UnwrapErr(getrandom::SysRng);
    access::seal(&message, &binding, &to, &identity(2), rng).expect("sealed")
}

/// As after an agent came back on another address: the first start with the old one has failed.
#[tokio::test]
async fn new_access_message_lifts_the_rest_after_a_failed_start_at_once() {
    for (status, holds, before, after, told) in [
        (Status::Suspended, &[Hold::Fault][..], "suspended+fault", "activating", "start"),
        (Status::Suspending, &[Hold::Fault], "suspending+fault", "suspending", "-"),
        (
            Status::Suspended,
            &[Hold::Fault, Hold::User],
            "suspended+user,fault",
            "suspended+user",
            "-",
        ),
        (Status::Suspended, &[Hold::User], "suspended+user", "suspended+user", "-"),
        (Status::Active, &[], "active", "active", "start"),
    ] {
        let world = World::new(Role::Client).await;
        let channel = world.priced(status, holds, &json!({}), 0).await;
        assert_eq!(world.state(channel).await, before);
        let first = envelope(&world, channel, 2).await;
        world.client().access_received(channel, &first).await.expect("taken");
        assert_eq!((world.state(channel).await.as_str(), world.told(channel).await), (after, told));
        // The same once more is no news.
        let rested = world.row(channel).await;
        world.client().access_received(channel, &first).await.expect("taken");
        assert_eq!(world.row(channel).await, rested);
    }
}
