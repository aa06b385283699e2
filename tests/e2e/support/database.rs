//! A node's database, opened beside the host that uses it: to make what only other nodes could
//! ask for, and to see what was kept. Nothing the host wrote is altered here.

use privatix_host::clock;
use privatix_host::domain::status::{ChannelState, Holds};
use privatix_host::store::{ChannelRow, SessionRow, Store};
use privatix_plugin_api::message::{ClientKey, Status};
use uuid::Uuid;

use super::{Node, Package, wait_for};

/// See the module's documentation.
pub(crate) struct Database {
    runtime: tokio::runtime::Runtime,
    store: Store,
}

impl Database {
    pub(crate) fn of(node: &Node) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let store = runtime.block_on(Store::open(&node.home().join("state.db"))).expect("opened");
        Self { runtime, store }
    }

    /// Makes a channel that waits to be started.
    pub(crate) fn channel(&self, package: &Package) -> ClientKey {
        let id = ClientKey(Uuid::new_v4());
        let manifest = package.manifest();
        let now = clock::unix_now();
        let row = ChannelRow {
            id,
            product: manifest["productId"].as_str().unwrap().parse().unwrap(),
            access_template: manifest["templates"]["access"].as_str().unwrap().to_owned(),
            state: ChannelState { status: Status::Activating, holds: Holds::NONE },
            reason: "made by the test".into(),
            since: now,
            created_at: now,
        };
        self.runtime.block_on(async {
            let mut txn = self.store.begin().await.expect("begun");
            txn.channel_add(&row).await.expect("made");
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
