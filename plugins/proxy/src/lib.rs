//! A SOCKS5 proxy sold by the byte: a real service without any privilege.
//!
//! The agent's side (`agent`) is a proxy whose users are channels; the client's (`client`)
//! gives each channel a local port that leads through it. Both move bytes through `tunnel` and
//! account for them in `session`: one session per channel, and a way to cut it. Only TCP is
//! carried. Nothing is process-wide, and nothing outside the process happens before `configure`.

#![deny(unsafe_code)]

mod accept;
mod agent;
mod client;
mod destination;
mod dial;
mod exercise;
mod near;
mod policy;
mod ports;
#[allow(unsafe_code)]
mod queue;
mod session;
mod settings;
#[cfg(test)]
mod tests;
mod tunnel;

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::sync::OnceLock;
use std::time::Duration;

use privatix_plugin_api::prelude::*;
use serde_json::Value;

use self::agent::Agent;
use self::client::Client;
use self::session::Sessions;
use self::settings::Settings;

/// What a SOCKS5 reply says where the address is of no use to whoever asked.
const UNSPECIFIED: SocketAddr = SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 0));

/// A command came before `configure`.
#[derive(Debug, thiserror::Error)]
#[error("the module is not configured")]
struct NotConfigured;

/// The module.
pub struct Proxy {
    core: Core,
    host: HostInfo,
    side: OnceLock<Side>,
}

enum Side {
    Agent(Agent),
    Client(Client),
}

impl Proxy {
    fn side(&self) -> Result<&Side, NotConfigured> {
        self.side.get().ok_or(NotConfigured)
    }
}

impl Side {
    fn sessions(&self) -> &Sessions {
        match self {
            Self::Agent(agent) => agent.sessions(),
            Self::Client(client) => client.sessions(),
        }
    }
}

impl ServiceModule for Proxy {
    async fn create(core: Core, host: HostInfo) -> Result<Self, Error> {
        Ok(Self { core, host, side: OnceLock::new() })
    }

    async fn configure(&self, config: Value) -> Result<(), Error> {
        let settings: Settings = serde_json::from_value(config)?;
        let core = self.core.clone();
        let side = match self.host.role {
            Role::Agent => Side::Agent(Agent::start(core, &settings).await?),
            Role::Client => {
                settings.loopback()?;
                Side::Client(Client::new(core, &self.host.data_dir, settings))
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
            Side::Agent(agent) => agent.sessions().end(channel).await,
            Side::Client(client) => client.stop(channel, reason).await,
        }
        Ok(())
    }

    async fn sessions(&self) -> Result<Vec<ClientKey>, Error> {
        Ok(self.side()?.sessions().served())
    }

    async fn describe(&self, channel: ClientKey) -> Result<BTreeMap<String, String>, Error> {
        let address = match self.side()? {
            Side::Agent(_) => None,
            Side::Client(client) => client.address(channel),
        };
        let port = address.map(|address| ("socks5".to_owned(), address.to_string()));
        Ok(port.into_iter().collect())
    }

    async fn exercise(&self, channel: ClientKey, amount: u64) -> Result<u64, Error> {
        let Side::Client(client) = self.side()? else { return Err(Unsupported.into()) };
        let port = client.address(channel).ok_or("the channel has no port")?;
        exercise::carry(port, amount).await
    }

    async fn health(&self) -> Health {
        match self.side() {
            Ok(Side::Agent(agent)) => agent.health(),
            Ok(Side::Client(client)) => client.health(),
            Err(error) => Health::Unhealthy(error.to_string()),
        }
    }

    async fn shutdown(&self, _deadline: Duration) -> Result<(), Error> {
        match self.side.get() {
            Some(Side::Agent(agent)) => agent.shutdown().await,
            Some(Side::Client(client)) => client.shutdown().await,
            None => {}
        }
        Ok(())
    }
}

export_module!(Proxy);
