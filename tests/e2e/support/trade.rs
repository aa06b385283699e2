//! Two hosts that trade with each other.

use privatix_core::{IdentityView, OfferingView, OrderView};
use privatix_plugin_api::message::ClientKey;
use serde_json::{Value, json};

use super::{Node, Package, wait_for};

pub(crate) struct Pair {
    pub(crate) agent: Node,
    pub(crate) client: Node,
}

impl Pair {
    /// An agent that takes everybody's orders, and a client; both run the module.
    pub(crate) fn of(package: &Package) -> Self {
        Self::configured(package, "[agent]\norders = \"open\"\n", "")
    }

    pub(crate) fn configured(package: &Package, agent: &str, client: &str) -> Self {
        // The agent's URL is part of its offerings, so it has to be the same after a restart.
        let listen = format!("[exchange]\nlisten = \"127.0.0.1:{}\"\n", free_port());
        let mut pair =
            Self { agent: Node::stopped("agent", &listen), client: Node::stopped("client", "") };
        pair.agent.configure(agent);
        pair.client.configure("[client]\npoll_interval = 1\n");
        pair.client.configure(client);
        for node in [&mut pair.agent, &mut pair.client] {
            package.drop_into(&node.plugins());
            node.start();
            node.wait_state(&package.name, privatix_modules::registry::State::Running);
        }
        pair
    }

    pub(crate) fn agent_identity(&self) -> IdentityView {
        self.agent.get("/v1/identity").expect("an identity")
    }

    /// Publishes an offering and has the client fetch it.
    pub(crate) fn offer(&self, package: &Package) -> String {
        let draft = draft(package, json!({}));
        let offering: OfferingView = self.agent.post("/v1/offerings", &draft).expect("published");
        self.fetch();
        offering.hash
    }

    pub(crate) fn fetch(&self) {
        let agent = self.agent_identity();
        let fetch = json!({ "url": agent.exchange, "agent": agent.fingerprint });
        let _: Value = self.client.post("/v1/offerings/fetch", &fetch).expect("fetched");
    }

    /// Orders and waits for the channel.
    pub(crate) fn order(&self, offering: &str) -> ClientKey {
        let order = json!({ "offering": offering, "deposit": null, "hold": false });
        let order: OrderView = self.client.post("/v1/orders", &order).expect("ordered");
        self.accepted(&order)
    }

    pub(crate) fn accepted(&self, order: &OrderView) -> ClientKey {
        wait_for("the agent's answer", || {
            let order: OrderView = self.client.get(&format!("/v1/orders/{}", order.hash))?;
            order.channel
        })
    }
}

/// An offering that costs nothing, with some fields changed.
pub(crate) fn draft(package: &Package, changes: Value) -> Value {
    draft_of(&package.name, changes)
}

/// The same, of a product by its name.
pub(crate) fn draft_of(product: &str, changes: Value) -> Value {
    let mut fields = json!({
        "serviceName": "test", "country": "SE", "supply": 3, "unitName": "MiB",
        "unitType": "units", "unitSize": 1_048_576, "billingType": "postpaid", "setupPrice": 0,
        "unitPrice": 0, "minUnits": 0, "billingInterval": 1, "maxBillingUnitLag": 2,
        "freeUnits": 0, "additionalParams": {},
    });
    for (name, value) in changes.as_object().expect("an object") {
        fields[name] = value.clone();
    }
    json!({ "product": product, "fields": fields })
}

pub(crate) fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.local_addr().expect("an address").port()
}
