//! A real agent, and clients that exist only as keys of the test.

use std::net::SocketAddr;

use privatix_base::clock;
use privatix_core::{ChannelView, IdentityView, OfferingView};
use privatix_domain::identity::Identity;
use privatix_domain::order::{ChannelRequest, Order};
use privatix_domain::signed::{self, Kind};
use privatix_plugin_api::message::{ClientKey, Status};
use serde_json::{Value, json};
use uuid::Uuid;

use super::wire::{Answer, post};
use crate::support::trade::draft;
use crate::support::{Node, Package};

pub(super) struct Seller {
    pub(super) node: Node,
    pub(super) address: SocketAddr,
    pub(super) identity: IdentityView,
}

impl Seller {
    /// An agent that takes everybody's orders.
    pub(super) fn open() -> Self {
        Self::configured("[agent]\norders = \"open\"\n")
    }

    pub(super) fn configured(configuration: &str) -> Self {
        let node = Node::configured("agent", configuration);
        let identity: IdentityView = node.get("/v1/identity").expect("an identity");
        let url = identity.exchange.as_deref().expect("a URL");
        let address = url.strip_prefix("http://").expect("http").parse().expect("an address");
        Self { node, address, identity }
    }

    /// Publishes an offering of the teaching module.
    pub(super) fn offer(&self, supply: u64) -> String {
        let package = Package::echo();
        if self.node.module(&package.name).is_none() {
            self.node.run(&package);
        }
        let draft = draft(&package, json!({ "supply": supply }));
        let offering: OfferingView = self.node.post("/v1/offerings", &draft).expect("published");
        offering.hash
    }

    pub(super) fn order(&self, order: &Value) -> Answer {
        post(self.address, "/v1/orders", order)
    }

    /// The channel of a new order of a client.
    pub(super) fn channel(&self, offering: &str, client: &Identity) -> ClientKey {
        channel(&self.order(&order(offering, client, &json!({}))))
    }

    pub(super) fn channels(&self) -> Vec<ChannelView> {
        self.node.get("/v1/channels").expect("listed")
    }

    pub(super) fn wait(&self, channel: ClientKey, status: Status) {
        self.node.wait_channel(channel, status);
    }

    /// Asks something about a channel.
    pub(super) fn ask(&self, channel: ClientKey, what: &str, request: &Value) -> Answer {
        post(self.address, &format!("/v1/channels/{channel}/{what}"), request)
    }
}

/// A client known by a number.
pub(super) fn client(number: u8) -> Identity {
    Identity::from_entropy([number; 96])
}

/// A client's order with some members replaced before it is signed.
pub(super) fn order(offering: &str, client: &Identity, changes: &Value) -> Value {
    let keys = client.public();
    let order = Order {
        offering: offering.to_owned(),
        client_signing_key: keys.signing,
        client_sealing_key: keys.sealing,
        deposit: 0,
        nonce: Uuid::new_v4(),
        expires: clock::unix_now() + 600,
    };
    signed::sign(Kind::Order, with(&json!(order), changes), client).expect("signed")
}

/// A client's request about a channel, of now, with some members replaced before it is signed.
pub(super) fn request(kind: Kind, channel: ClientKey, client: &Identity, changes: &Value) -> Value {
    let request = ChannelRequest { channel, time: clock::unix_now(), nonce: Uuid::new_v4() };
    signed::sign(kind, with(&json!(request), changes), client).expect("signed")
}

/// A message with some members replaced; null removes one.
pub(super) fn with(message: &Value, changes: &Value) -> Value {
    let mut message = message.clone();
    let members = message.as_object_mut().expect("an object");
    for (name, value) in changes.as_object().expect("an object") {
        if value.is_null() {
            members.remove(name);
        } else {
            members.insert(name.clone(), value.clone());
        }
    }
    message
}

/// The channel of an accepted order.
pub(super) fn channel(answer: &Answer) -> ClientKey {
    assert_eq!(answer.status, 200, "{answer:?}");
    serde_json::from_value(answer.body["channel"].clone()).expect("a channel")
}
