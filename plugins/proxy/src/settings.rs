//! `[modules.proxy]`; `proxy.config.json` says what each setting means and may be.
//!
//! What a schema cannot say is checked here: what a role needs of an address.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::Duration;

use privatix_plugin_api::message::ClientKey;
use serde::{Deserialize, Deserializer};

#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Settings {
    pub(crate) listen: String,
    pub(crate) address: Option<String>,
    pub(crate) allow_private: bool,
    pub(crate) port: Option<u16>,
    pub(crate) ports: HashMap<ClientKey, u16>,
    pub(crate) max_connections: usize,
    pub(crate) max_connections_per_channel: usize,
    #[serde(rename = "handshake_seconds", deserialize_with = "seconds")]
    pub(crate) handshake: Duration,
    #[serde(rename = "connect_seconds", deserialize_with = "seconds")]
    pub(crate) connect: Duration,
    #[serde(rename = "tunnel_idle_seconds", deserialize_with = "seconds")]
    pub(crate) tunnel_idle: Duration,
    #[serde(rename = "idle_seconds", deserialize_with = "seconds")]
    pub(crate) idle: Duration,
    #[serde(rename = "report_ms", deserialize_with = "milliseconds")]
    pub(crate) report: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            listen: "127.0.0.1:0".to_owned(),
            address: None,
            allow_private: false,
            port: None,
            ports: HashMap::new(),
            max_connections: 10_000,
            max_connections_per_channel: 1000,
            handshake: Duration::from_secs(10),
            connect: Duration::from_secs(10),
            tunnel_idle: Duration::from_secs(300),
            idle: Duration::from_secs(60),
            report: Duration::from_secs(1),
        }
    }
}

/// A setting that makes no sense.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub(crate) enum SettingsError {
    #[error(
        "listening on all addresses ({0}), clients have to be told which to connect to: \
         set `address` to a host and port"
    )]
    NoAddress(SocketAddr),
    #[error(
        "`address` is {0:?}; it has to be a host and a port above 0, as in \"example.org:1080\""
    )]
    BadAddress(String),
    #[error("`listen` is {0:?}; for a client it has to be an IP address and a port")]
    BadListen(String),
    #[error(
        "`listen` is {0}, which others can reach; the client's port asks for no password, so it \
         has to be a loopback address"
    )]
    NotLoopback(SocketAddr),
}

impl Settings {
    /// Agent: what clients are told, where it listens on `own`.
    pub(crate) fn announced(&self, own: SocketAddr) -> Result<String, SettingsError> {
        let Some(address) = &self.address else {
            let all = own.ip().is_unspecified();
            return if all { Err(SettingsError::NoAddress(own)) } else { Ok(own.to_string()) };
        };
        match host_and_port(address) {
            Some(_) => Ok(address.clone()),
            None => Err(SettingsError::BadAddress(address.clone())),
        }
    }

    /// Client: where the ports are.
    pub(crate) fn loopback(&self) -> Result<SocketAddr, SettingsError> {
        let listen: SocketAddr =
            self.listen.parse().map_err(|_| SettingsError::BadListen(self.listen.clone()))?;
        if listen.ip().is_loopback() { Ok(listen) } else { Err(SettingsError::NotLoopback(listen)) }
    }

    /// Client: where the port of a channel is to be; port 0 if it may be any.
    pub(crate) fn local(&self, channel: ClientKey) -> Result<SocketAddr, SettingsError> {
        let mut listen = self.loopback()?;
        if let Some(port) = self.ports.get(&channel).copied().or(self.port) {
            listen.set_port(port);
        }
        Ok(listen)
    }
}

/// The parts of an address that can be connected to.
pub(crate) fn host_and_port(address: &str) -> Option<(&str, u16)> {
    let (host, port) = address.rsplit_once(':')?;
    let host = match host.strip_prefix('[') {
        Some(rest) => rest.strip_suffix(']')?,
        None if host.contains(':') => return None,
        None => host,
    };
    let port = port.parse().ok().filter(|port| *port > 0)?;
    Some((host, port)).filter(|(host, _)| !host.is_empty())
}

fn seconds<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    u64::deserialize(deserializer).map(Duration::from_secs)
}

fn milliseconds<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    u64::deserialize(deserializer).map(|ms| Duration::from_millis(ms.max(1)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "6f1c1f0e-3b5c-4c5e-8f7a-0c1d2e3f4a5b";

    #[test]
    fn addresses() {
        for (address, parts) in [
            ("127.0.0.1:7", Some(("127.0.0.1", 7))),
            ("[::1]:7", Some(("::1", 7))),
            ("proxy.example:1080", Some(("proxy.example", 1080))),
            ("proxy.example", None),
            ("proxy.example:0", None),
            ("proxy.example:65536", None),
            ("proxy.example:", None),
            (":1080", None),
            ("::1:7", None),
            ("[::1:7", None),
            ("[]:7", None),
        ] {
            assert_eq!(host_and_port(address), parts, "{address}");
        }
    }

    #[test]
    fn what_clients_are_told() {
        let check = |own: &str, address: Option<&str>, expected: Result<&str, &str>| {
            let settings = Settings { address: address.map(str::to_owned), ..Settings::default() };
            let told = settings.announced(own.parse().expect("an address"));
            let told = told.map_err(|error| error.to_string());
            match expected {
                Ok(expected) => assert_eq!(told.as_deref(), Ok(expected)),
                Err(part) => assert!(told.expect_err("refused").contains(part)),
            }
        };
        check("192.0.2.1:1080", None, Ok("192.0.2.1:1080"));
        check("0.0.0.0:1080", Some("proxy.example:1080"), Ok("proxy.example:1080"));
        check("0.0.0.0:1080", None, Err("set `address`"));
        check("[::]:1080", None, Err("set `address`"));
        check("0.0.0.0:1080", Some("proxy.example"), Err("above 0"));
    }

    #[test]
    fn where_a_client_listens() {
        let check = |toml: serde_json::Value, expected: Result<&str, &str>| {
            let settings: Settings = serde_json::from_value(toml).expect("settings");
            let local = settings.local(KEY.parse().expect("a UUID"));
            let local = local.map(|a| a.to_string()).map_err(|error| error.to_string());
            match expected {
                Ok(expected) => assert_eq!(local.as_deref(), Ok(expected)),
                Err(part) => assert!(local.expect_err("refused").contains(part)),
            }
        };
        check(serde_json::json!({}), Ok("127.0.0.1:0"));
        check(serde_json::json!({"listen": "[::1]:0"}), Ok("[::1]:0"));
        check(serde_json::json!({"listen": "127.0.0.1:9"}), Ok("127.0.0.1:9"));
        check(serde_json::json!({"port": 7}), Ok("127.0.0.1:7"));
        check(serde_json::json!({"port": 7, "ports": {KEY: 8}}), Ok("127.0.0.1:8"));
        check(serde_json::json!({"listen": "0.0.0.0:0"}), Err("loopback"));
        check(serde_json::json!({"listen": "localhost:0"}), Err("IP address"));
    }
}
