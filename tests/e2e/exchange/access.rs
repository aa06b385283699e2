//! Access messages: for whom they are, and how they follow what the module says.

use std::sync::Arc;

use privatix_core::OrderView;
use privatix_domain::access::{Expect, open};
use privatix_domain::identity::{Identity, PublicKey};
use privatix_domain::signed::Kind;
use privatix_domain::template::{Template, TemplateKind};
use privatix_exchange::identity;
use privatix_plugin_api::message::{ClientKey, Status};
use serde_json::{Value, json};

use super::seller::{client, request};
use super::wire::post;
use crate::support::{Package, Pair, wait_for};

/// The envelope of a channel as its agent sends it to whoever can sign for the client.
fn envelope(pair: &Pair, channel: ClientKey, me: &Identity) -> Value {
    let url = pair.agent_identity().exchange.expect("a URL");
    let address = url.strip_prefix("http://").expect("http").parse().expect("an address");
    let message = request(Kind::AccessRequest, channel, me, &json!({}));
    let answer = post(address, &format!("/v1/channels/{channel}/access"), &message);
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.body
}

#[test]
fn an_envelope_opens_for_its_client_alone_and_rises_with_the_config() {
    let package = Package::echo();
    let mut pair = Pair::of(&package);
    let offering = pair.offer(&package);
    let channel = pair.order(&offering);
    pair.client.wait_channel(channel, Status::Active);
    let me = identity::read(&pair.client.home().join(identity::FILE_NAME)).expect("an identity");
    let orders: Vec<OrderView> = pair.client.get("/v1/orders").expect("listed");
    let agent: PublicKey = pair.agent_identity().signing_key.parse().expect("a key");
    let template = Template::parse(TemplateKind::Access, &package.access).expect("a template");
    let template = Arc::new(template);
    let opened = |envelope: &Value, last_serial, by: &Identity| {
        let expect = Expect { agent, order_hash: &orders[0].hash, channel, last_serial };
        open(envelope, &expect, by, |_| Some(Arc::clone(&template)))
            .map_err(|error| error.code().code())
    };
    let first = envelope(&pair, channel, &me);
    let message = opened(&first, 0, &me).expect("opened").message;
    assert_eq!(message["username"], channel.to_string());
    assert_eq!(opened(&first, 0, &client(9)), Err("AccessNotOpened"));
    assert!(!first.to_string().contains(message["password"].as_str().expect("a password")));
    assert_eq!(envelope(&pair, channel, &me), first, "made once");

    // The module comes back with another port, which it tells the core.
    pair.agent.kill();
    pair.agent.start();
    let serial = |envelope: &Value| envelope["serial"].as_u64().expect("a number");
    let second = wait_for("a newer access message", || {
        Some(envelope(&pair, channel, &me)).filter(|newer| serial(newer) > serial(&first))
    });
    let newer = opened(&second, serial(&first), &me).expect("opened").message;
    assert_ne!(newer["additionalParams"], message["additionalParams"]);
    assert_ne!(newer["nonce"], message["nonce"]);
    assert_eq!(newer["password"], message["password"]);
    assert_eq!(opened(&first, serial(&second), &me), Err("StaleAccess"));
}
