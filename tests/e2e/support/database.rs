//! The database of a host, beside the host that uses it.

use privatix_base::clock;
use privatix_domain::identity::Identity;
use privatix_domain::status::{ChannelState, Holds};
use privatix_plugin_api::message::{ClientKey, SessionId, Status};
use privatix_store::{
    ChannelRow, ChequeRow, NewSession, OfferingRow, OrderRow, OrderState, SessionRow, Store, Txn,
};
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
        let (offering, order, channel) = rows(id, product, access_template, clock::unix_now());
        self.runtime.block_on(async {
            let mut txn = self.store.begin().await.expect("begun");
            txn.offering_add(&offering).await.expect("an offering");
            txn.order_add(&order).await.expect("an order");
            txn.channel_add(&channel).await.expect("a channel");
            txn.commit().await.expect("committed");
        });
        id
    }

    /// Makes channels that are over, oldest first, a second apart, each with an offering, an order, so
    /// many sessions and a cheque. Of each kind every other one, from the first on, is withdrawn,
    /// rejected and unsent.
    pub(crate) fn history(&self, package: &Package, count: u64, sessions: u64) -> Vec<ClientKey> {
        let manifest = package.manifest();
        let product = manifest["productId"].as_str().expect("an id").parse().expect("a UUID");
        let access = manifest["templates"]["access"].as_str().expect("a hash");
        let begin = clock::unix_now() - count - 10;
        self.runtime.block_on(async {
            let (mut txn, mut ids) = (self.store.begin().await.expect("begun"), Vec::new());
            for number in 0..count {
                let (id, made_at) = (ClientKey(Uuid::new_v4()), begin + number);
                let other = number % 2 == 0;
                let (offering, mut order, mut channel) = rows(id, product, access, made_at);
                order.state = if other { OrderState::Rejected } else { OrderState::Accepted };
                order.reply = Some("{}".into());
                channel.state.status = Status::Terminated;
                txn.offering_add(&offering).await.expect("an offering");
                if other {
                    txn.offering_withdraw(&offering.hash, made_at).await.expect("withdrawn");
                }
                txn.order_add(&order).await.expect("an order");
                txn.channel_add(&channel).await.expect("a channel");
                for _ in 0..sessions {
                    let session = NewSession {
                        id: SessionId(Uuid::now_v7()),
                        channel: id,
                        client_address: None,
                        client_port: None,
                        started_at: made_at,
                        measured: false,
                    };
                    txn.session_open(&session).await.expect("a session");
                    txn.session_close(session.id, made_at).await.expect("closed");
                }
                let cheque = ChequeRow {
                    channel: id,
                    balance: 1,
                    message: json!({ "channel": id }).to_string(),
                    made_at,
                    due: other.then_some(made_at),
                    attempts: 0,
                    trouble: None,
                    away: false,
                };
                txn.cheque_put(&cheque).await.expect("a cheque");
                ids.push(id);
            }
            txn.commit().await.expect("committed");
            ids
        })
    }

    pub(crate) fn sessions(&self, channel: ClientKey) -> Vec<SessionRow> {
        self.runtime.block_on(self.store.session_list(channel)).expect("listed")
    }

    /// Whether nothing is to be done for what a channel costs.
    pub(crate) fn is_settled(&self, channel: ClientKey) -> bool {
        let rows = self.runtime.block_on(self.store.billing_some(&[channel])).expect("read");
        rows.first().expect("a channel").settled
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
        ("nonce", &Uuid::from_u128(1).to_string()),
        ("product", &product.to_string()),
        ("agentPublicKey", &Identity::from_entropy([1; 96]).public().signing.to_string()),
        ("exchange", "http://192.0.2.1"),
    ] {
        message[name] = value.into();
    }
    message
}

/// An offering, its order, and the channel that it became.
fn rows(
    id: ClientKey,
    product: Uuid,
    access_template: &str,
    now: clock::UnixSeconds,
) -> (OfferingRow, OrderRow, ChannelRow) {
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
    (offering_row, order_row, channel_row)
}
