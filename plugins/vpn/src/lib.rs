//! A VPN sold by the byte: OpenVPN on both sides, started, watched and stopped by the module.
//!
//! The agent's side (`agent`) is a server whose users are channels; the client's (`client`) keeps a
//! tunnel for each channel. Both speak to OpenVPN through its management interface (`openvpn`,
//! `management`), count what passes in `session`, and write down in the `journal` whatever they
//! change on the machine. No script is ever run by OpenVPN. Nothing is process-wide, and nothing
//! outside the process happens before `configure`.

mod agent;
mod client;
mod journal;
mod management;
mod needs;
mod openvpn;
mod pause;
mod pki;
mod profile;
mod render;
mod routing;
mod run;
mod session;
mod settings;
#[cfg(test)]
mod stand_in;
mod watch;

use std::sync::OnceLock;
use std::time::Duration;

use privatix_plugin_api::prelude::*;
use serde_json::Value;

use self::agent::Agent;
use self::client::Client;
use self::journal::Journal;
use self::settings::Settings;

/// With these letters begins the name of each network device of a client's channel.
const DEVICES: &str = "pvx";

/// A command came before `configure`.
#[derive(Debug, thiserror::Error)]
#[error("the module is not configured")]
struct NotConfigured;

/// The module.
struct Vpn {
    core: Core,
    host: HostInfo,
    side: OnceLock<Side>,
}

enum Side {
    Agent(Agent),
    Client(Box<Client>),
}

impl Vpn {
    fn side(&self) -> Result<&Side, NotConfigured> {
        self.side.get().ok_or(NotConfigured)
    }
}

impl ServiceModule for Vpn {
    async fn create(core: Core, host: HostInfo) -> Result<Self, Error> {
        Ok(Self { core, host, side: OnceLock::new() })
    }

    async fn configure(&self, config: Value) -> Result<(), Error> {
        let settings = Settings::read(config)?;
        let (core, data_dir) = (self.core.clone(), &self.host.data_dir);
        let side = match self.host.role {
            Role::Agent => Side::Agent(Agent::start(core, data_dir, settings).await?),
            Role::Client => {
                Side::Client(Box::new(Client::start_up(core, data_dir, settings).await?))
            }
        };
        self.side.get_or_init(|| side);
        Ok(())
    }

    async fn start(&self, channel: ClientKey) -> Result<Started, Error> {
        match self.side()? {
            // It listens already, and the core decides who may log in.
            Side::Agent(_) => Ok(Started::Ready),
            Side::Client(client) => client.start(channel).await,
        }
    }

    async fn stop(&self, channel: ClientKey, reason: StopReason) -> Result<(), Error> {
        match self.side()? {
            Side::Agent(agent) => agent.stop(channel).await,
            Side::Client(client) => client.stop(channel, reason).await?,
        }
        Ok(())
    }

    async fn sessions(&self) -> Result<Vec<ClientKey>, Error> {
        match self.side()? {
            Side::Agent(agent) => Ok(agent.sessions()),
            Side::Client(client) => client.sessions().await,
        }
    }

    async fn describe(&self, channel: ClientKey) -> Result<BTreeMap<String, String>, Error> {
        match self.side()? {
            Side::Agent(_) => Ok(BTreeMap::new()),
            Side::Client(client) => Ok(client.describe(channel).await),
        }
    }

    async fn health(&self) -> Health {
        match self.side() {
            Ok(Side::Agent(agent)) => agent.health(),
            Ok(Side::Client(client)) => client.health().await,
            Err(error) => Health::Unhealthy(error.to_string()),
        }
    }

    async fn cleanup(&self) -> Result<Option<Vec<String>>, Error> {
        let (done, problem) = Journal::open(&self.host.data_dir)?.recover(|_| false).await;
        for what in &done {
            tracing::info!(what, "cleaned up");
        }
        problem.map_or(Ok(Some(done)), |problem| Err(problem.into()))
    }

    async fn hand_over(&self) -> Result<(), Error> {
        if let Some(Side::Client(client)) = self.side.get() {
            client.hand_over();
        }
        Ok(())
    }

    async fn shutdown(&self, deadline: Duration) -> Result<(), Error> {
        match self.side.get() {
            Some(Side::Agent(agent)) => agent.shutdown(deadline).await,
            Some(Side::Client(client)) => client.shutdown().await?,
            None => {}
        }
        Ok(())
    }
}

/// An error with its causes.
fn full(error: &(dyn std::error::Error + 'static)) -> String {
    std::iter::successors(error.source(), |cause| cause.source())
        .fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}

export_module!(Vpn);
