//! The side that sells: an OpenVPN server whose users are channels.
//!
//! Who may log in is the core's to say. What a client may send is forwarded only while its session
//! is open: the firewall's set of served addresses is the gate, and it is shut before a client is
//! told to go.

mod clients;
mod denials;
mod gate;
mod server;
mod tally;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use privatix_plugin_api::prelude::*;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::timeout;

use self::clients::Clients;
use self::gate::Gate;
use self::server::{Order, Server};
use crate::journal::Journal;
use crate::needs;
use crate::openvpn::Place;
use crate::pki::Pki;
use crate::profile::product_config;
use crate::settings::Settings;
use crate::watch::Restored;

/// How long `configure` waits for the server. One that needs longer goes on in the background.
const UP: Duration = Duration::from_secs(5);

/// How the server is, for `health` and `sessions`.
#[derive(Debug, Default)]
struct Report {
    /// Why it does not run, if it does not.
    down: Option<String>,
    /// Whether the first try to start it has come to anything.
    tried: bool,
    /// What is wrong with the gate's rules, and with its speeds.
    rules: Option<String>,
    speeds: Option<String>,
    /// What somebody else had changed.
    restored: Restored,
    /// Channels with an open session.
    served: Vec<ClientKey>,
}

/// Shared by the server, its gate and the module.
#[derive(Debug, Clone, Default)]
struct Board(watch::Sender<Report>);

impl Board {
    fn change(&self, change: impl FnOnce(&mut Report)) {
        self.0.send_modify(change);
    }

    fn read<T>(&self, read: impl FnOnce(&Report) -> T) -> T {
        read(&self.0.borrow())
    }

    /// Waits until the first try has come to anything.
    async fn tried(&self) {
        // It cannot be closed: one end is here.
        let _ = self.0.subscribe().wait_for(|report| report.tried).await;
    }
}

/// The agent's module.
pub(crate) struct Agent {
    orders: mpsc::UnboundedSender<Order>,
    board: Board,
}

impl Agent {
    /// Looks at what is needed, puts back what an earlier run left, and starts the server.
    pub(crate) async fn start(
        core: Core,
        data_dir: &Path,
        settings: Settings,
    ) -> Result<Self, Error> {
        needs::check(true).await?;
        let journal = Arc::new(Journal::open(data_dir)?);
        let (done, problem) = journal.recover(|_| false).await;
        for what in done {
            tracing::info!(what, "put back what an earlier run had left");
        }
        if let Some(problem) = problem {
            return Err(problem.into());
        }
        let pki = Pki::open(&data_dir.join("pki"))?;
        core.set_product_config(product_config(&settings, &pki)).await?;
        let board = Board::default();
        let gate = Gate::up(&settings, Arc::clone(&journal), board.clone()).await?;
        let place = Place::new(data_dir, "server");
        let (orders, inbox) = mpsc::unbounded_channel();
        board.change(|report| report.down = Some("the server is starting".into()));
        let clients = Clients::new(core, gate, board.clone());
        let server = Server::new(settings, pki, place, journal, board.clone(), clients);
        tokio::spawn(server.run(inbox));
        // A server that cannot be started is tried again, and `health` tells; so late is no error.
        let _ = timeout(UP, board.tried()).await;
        Ok(Self { orders, board })
    }

    /// Ends a channel's sessions; returns once its clients are gone.
    pub(crate) async fn stop(&self, channel: ClientKey) {
        let (done, gone) = oneshot::channel();
        if self.orders.send(Order::Cut { channel, done }).is_ok() {
            // Dropped means that the whole server is gone.
            let _ = gone.await;
        }
    }

    pub(crate) fn sessions(&self) -> Vec<ClientKey> {
        self.board.read(|report| report.served.clone())
    }

    pub(crate) fn health(&self) -> Health {
        self.board.read(|report| match &report.down {
            Some(why) => Health::Unhealthy(why.clone()),
            None => {
                let restored = report.restored.lately();
                match report.rules.as_deref().or(restored).or(report.speeds.as_deref()) {
                    Some(why) => Health::Degraded(why.to_owned()),
                    None => Health::Healthy,
                }
            }
        })
    }

    pub(crate) async fn shutdown(&self, deadline: Duration) {
        let (done, gone) = oneshot::channel();
        if self.orders.send(Order::Shutdown { deadline, done }).is_ok() {
            let _ = gone.await;
        }
    }
}
