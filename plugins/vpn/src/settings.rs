//! `[modules.vpn]`; `vpn.config.json` says what each setting means and may be.
//!
//! What a schema cannot say is checked here: addresses, networks, and what a role needs of them.

use std::net::{IpAddr, Ipv4Addr};

use ipnet::{IpNet, Ipv4Net};
use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Settings {
    pub(crate) external_ip: Option<String>,
    pub(crate) listen: Option<IpAddr>,
    pub(crate) port: u16,
    pub(crate) protocol: Protocol,
    pub(crate) network: Ipv4Net,
    pub(crate) device: String,
    pub(crate) max_clients: u32,
    pub(crate) allow_private: bool,
    pub(crate) capacity_kbit: u64,
    pub(crate) keepalive_seconds: u32,
    pub(crate) dns: Option<Vec<IpAddr>>,
    pub(crate) routes: Option<Vec<Ipv4Net>>,
    pub(crate) set_dns: bool,
    pub(crate) kill_switch: bool,
    pub(crate) allow_networks: Vec<IpNet>,
}

/// What carries the tunnel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Protocol {
    Udp,
    Tcp,
}

impl Protocol {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Udp => "udp",
            Self::Tcp => "tcp",
        }
    }
}

/// Quad9, which logs nobody; an agent may name others.
const RESOLVERS: [IpAddr; 2] =
    [IpAddr::V4(Ipv4Addr::new(9, 9, 9, 9)), IpAddr::V4(Ipv4Addr::new(149, 112, 112, 112))];

impl Default for Settings {
    fn default() -> Self {
        Self {
            external_ip: None,
            listen: None,
            port: 1194,
            protocol: Protocol::Udp,
            network: Ipv4Net::new_assert(Ipv4Addr::new(10, 89, 0, 0), 16),
            device: "privatix0".to_owned(),
            max_clients: 1000,
            allow_private: false,
            capacity_kbit: 10_000_000,
            keepalive_seconds: 5,
            dns: None,
            routes: None,
            set_dns: true,
            kill_switch: true,
            allow_networks: Vec::new(),
        }
    }
}

/// A setting that makes no sense.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SettingsError {
    #[error("a setting of [modules.vpn]")]
    Form(#[from] serde_path_to_error::Error<serde_json::Error>),
    #[error("`{key}` is {found}; it has to be the first address of a network, as in {}", .found.trunc())]
    HostBits { key: &'static str, found: IpNet },
    #[error("`network` is {0}; it has to be between /16 and /29")]
    Size(Ipv4Net),
    #[error("`external_ip` is {0:?}; it has to be an IP address or a host name")]
    ExternalIp(String),
}

impl Settings {
    pub(crate) fn read(config: serde_json::Value) -> Result<Self, SettingsError> {
        let settings: Self = serde_path_to_error::deserialize(config)?;
        if !(16..=29).contains(&settings.network.prefix_len()) {
            return Err(SettingsError::Size(settings.network));
        }
        let routes = settings.routes.iter().flatten().map(|net| ("routes", IpNet::V4(*net)));
        let allowed = settings.allow_networks.iter().map(|net| ("allow_networks", *net));
        let network = [("network", IpNet::V4(settings.network))];
        for (key, found) in network.into_iter().chain(routes).chain(allowed) {
            if found.trunc() != found {
                return Err(SettingsError::HostBits { key, found });
            }
        }
        if let Some(host) = settings.external_ip.as_ref().filter(|host| !is_host(host)) {
            return Err(SettingsError::ExternalIp(host.clone()));
        }
        Ok(settings)
    }

    /// Agent: the resolvers that clients are told.
    pub(crate) fn announced_dns(&self) -> Vec<IpAddr> {
        self.dns.clone().unwrap_or_else(|| RESOLVERS.to_vec())
    }
}

/// An IP address or a host name, and nothing that could mean more to a program that reads it.
pub(crate) fn is_host(text: &str) -> bool {
    let label = |label: &str| {
        let known = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
        !label.is_empty() && !label.starts_with('-') && label.bytes().all(known)
    };
    text.parse::<IpAddr>().is_ok() || (text.len() <= 253 && text.split('.').all(label))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_taken_and_what_is_not() {
        for (config, expected) in [
            (json!({}), None),
            (json!({"network": "10.1.0.0/24", "routes": ["10.0.0.0/8"], "dns": ["1.1.1.1"]}), None),
            (json!({"allow_networks": ["192.168.1.0/24", "fd00::/8"]}), None),
            (json!({"external_ip": "vpn.example.org"}), None),
            (json!({"external_ip": "2001:db8::1"}), None),
            (json!({"network": "10.1.0.0/8"}), Some("between /16 and /29")),
            (json!({"network": "10.1.0.1/24"}), Some("10.1.0.0/24")),
            (json!({"network": "ten"}), Some("network")),
            (json!({"routes": ["10.0.0.1/8"]}), Some("`routes`")),
            (json!({"dns": ["dns.example"]}), Some("dns[0]")),
            (json!({"listen": "eth0"}), Some("listen")),
            (json!({"external_ip": "a b"}), Some("`external_ip`")),
            (json!({"external_ip": "-x"}), Some("`external_ip`")),
            (json!({"protocol": "icmp"}), Some("protocol")),
        ] {
            let outcome = Settings::read(config.clone());
            match (outcome, expected) {
                (Ok(_), None) => {}
                (Err(error), Some(part)) => {
                    let text = match &error {
                        SettingsError::Form(inner) => format!("{error}: {inner}"),
                        error => error.to_string(),
                    };
                    assert!(text.contains(part), "{config}: {text}");
                }
                (outcome, _) => panic!("{config}: {outcome:?}"),
            }
        }
    }
}
