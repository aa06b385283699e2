//! The database of a node, beside the host that uses it.

use privatix_host::clock;
use privatix_host::domain::identity::Identity;
use privatix_host::domain::status::{ChannelState, Holds};
use privatix_host::store::{ChannelRow, OfferingRow, OrderRow, OrderState, SessionRow, Store, Txn};
use privatix_plugin_api::message::{ClientKey, Status};
use serde_json::{Value, json};
use tokio::runtime::Runtime;
use uuid::Uuid;

use super::trade::draft_of;
use super::{Node, Package, wait_for};

pub(crate) struct Database {
    runtime: Runtime,
    store: Store,
}

impl Database {
    pub(crate) fn of(node: &Node) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.expect("a runtime");
        let store = runtime.block_on(Store::open(&node.home().join("state.db"))).expect("opened");
        Self { runtime, store }
    }

    /// Keeps everybody else from writing.
    pub(crate) fn lock(&self) -> Txn {
        self.runtime.block_on(self.store.begin()).expect("a lock")
    }

    /// Lets others write again.
    pub(crate) fn unlock(&self, lock: Txn) {
        self.runtime.block_on(lock.commit()).expect("unlocked");
    }

    /// Makes a channel that waits to be started, without another party.
    pub(crate) fn channel(&self, package: &Package) -> ClientKey {
        let manifest = package.manifest();
        let product = manifest["productId"].as_str().expect("an id").parse().expect("a UUID");
        let access = manifest["templates"]["access"].as_str().expect("a hash");
        self.channel_of(product, access)
    }

    /// The same, of a product with this access template.
    pub(crate) fn channel_of(&self, product: Uuid, access_template: &str) -> ClientKey {
        let id = ClientKey(Uuid::new_v4());
        let now = clock::unix_now();
        let (order_hash, offering) = (format!("order {id}"), format!("offering {id}"));
        let offering_row = OfferingRow {
            hash: offering.clone(),
            product,
            agent: "agent".into(),
            message: offering_message(product, access_template).to_string(),
            supply_left: 0,
            made_at: now,
            withdrawn_at: None,
        };
        let order_row = OrderRow {
            hash: order_hash.clone(),
            offering: offering.clone(),
            client: "client".into(),
            nonce: id.to_string(),
            message: "{}".into(),
            state: OrderState::Accepted,
            held: false,
            reply: None,
            created_at: now,
            cancelled_at: None,
        };
        let channel_row = ChannelRow {
            id,
            product,
            order_hash,
            offering,
            peer: "client".into(),
            peer_sealing: None,
            deposit: 0,
            access_template: access_template.to_owned(),
            access_serial: 1,
            access: None,
            state: ChannelState { status: Status::Activating, holds: Holds::NONE },
            reason: "made by the test".into(),
            since: now,
            created_at: now,
            activate_by: None,
            fault_until: None,
            fault_count: 0,
        };
        self.runtime.block_on(async {
            let mut txn = self.store.begin().await.expect("begun");
            txn.offering_add(&offering_row).await.expect("an offering");
            txn.order_add(&order_row).await.expect("an order");
            txn.channel_add(&channel_row).await.expect("a channel");
            txn.commit().await.expect("committed");
        });
        id
    }

    pub(crate) fn sessions(&self, channel: ClientKey) -> Vec<SessionRow> {
        self.runtime.block_on(self.store.session_list(channel)).expect("listed")
    }

    /// Waits until a channel's newest session is open and was used a few times.
    pub(crate) fn wait_used(&self, channel: ClientKey) -> SessionRow {
        wait_for("an open session with usage", || {
            let newest = self.sessions(channel).pop()?;
            (newest.stopped_at.is_none() && newest.account.usage > 3).then_some(newest)
        })
    }
}

/// What an agent could have signed.
fn offering_message(product: Uuid, access_template: &str) -> Value {
    let mut message = draft_of("", json!({}))["fields"].take();
    let none = "0".repeat(64);
    for (name, value) in [
        ("templateHash", none.as_str()),
        ("accessTemplateHash", access_template),
        ("nonce", "made by the test"),
        ("product", &product.to_string()),
        ("agentPublicKey", &Identity::from_entropy([1; 96]).public().signing.to_string()),
        ("exchange", "http://192.0.2.1"),
    ] {
        message[name] = value.into();
    }
    message
}
