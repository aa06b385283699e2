//! What a client makes of an access message, and how an agent writes it.
//!
//! The message comes from another party and becomes part of a configuration that is run with
//! privileges, so each field is taken only in the one form that it may have.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr};

use ipnet::Ipv4Net;
use privatix_plugin_api::message::{AccessMessage, Password};
use serde::{Deserialize, Serialize};

use crate::management::is_credential;
use crate::pki::{self, Pki, SERVER_NAME};
use crate::settings::{Protocol, Settings, is_host};

/// What may carry data, best first. All are authenticated encryption.
pub(crate) const CIPHERS: [&str; 3] = ["AES-256-GCM", "CHACHA20-POLY1305", "AES-128-GCM"];

/// What the agent offers.
const OFFERED: &str = "AES-256-GCM:CHACHA20-POLY1305";

/// What `routes` says when it is everything.
const EVERYTHING: &str = "0.0.0.0/0";

/// Seconds without a packet after which one is sent, where an agent does not say.
const KEEPALIVE: u32 = 5;

/// The longest list that is taken.
const MAX_LIST: usize = 256;

/// All that is needed to connect.
#[derive(Clone)]
pub(crate) struct Profile {
    pub(crate) nonce: String,
    pub(crate) host: String,
    pub(crate) port: u16,
    pub(crate) protocol: Protocol,
    pub(crate) server_name: String,
    pub(crate) ca: String,
    pub(crate) tls_crypt: String,
    pub(crate) ciphers: String,
    pub(crate) dns: Vec<IpAddr>,
    pub(crate) routes: Routes,
    /// After so many seconds without a packet one is sent.
    pub(crate) keepalive: u32,
    pub(crate) user: String,
    pub(crate) password: Password,
    /// Where the core speaks to the agent.
    pub(crate) exchange: Option<(String, u16)>,
}

/// What goes through the tunnel.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum Routes {
    Everything,
    Only(Vec<Ipv4Net>),
}

impl Routes {
    /// These networks, each address once and in order; all addresses are everything.
    pub(crate) fn only(networks: impl IntoIterator<Item = Ipv4Net>) -> Self {
        let networks: Vec<_> = networks.into_iter().map(|net| net.trunc()).collect();
        let networks = Ipv4Net::aggregate(&networks);
        match &*networks {
            [all] if all.prefix_len() == 0 => Self::Everything,
            _ => Self::Only(networks),
        }
    }
}

impl fmt::Display for Routes {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Everything => out.write_str("everything"),
            Self::Only(networks) if networks.is_empty() => out.write_str("nothing"),
            Self::Only(networks) => {
                let shown: Vec<_> = networks.iter().take(8).map(ToString::to_string).collect();
                out.write_str(&shown.join(", "))?;
                match networks.len() - shown.len() {
                    0 => Ok(()),
                    more => write!(out, " and {more} more"),
                }
            }
        }
    }
}

/// A field of an access message that cannot be used.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("the access message has no usable {0}")]
pub(crate) struct ProfileError(&'static str);

impl Profile {
    /// Reads a message; the client's own settings go before what the agent says.
    pub(crate) fn read(access: &AccessMessage, settings: &Settings) -> Result<Self, ProfileError> {
        let params = &access.additional_params;
        let get =
            |name: &'static str| params.get(name).map(String::as_str).ok_or(ProfileError(name));
        let host = access.service_endpoint_address.trim();
        let host = Some(host)
            .filter(|host| is_host(host))
            .ok_or(ProfileError("serviceEndpointAddress"))?;
        let port =
            get("port")?.parse().ok().filter(|port| *port > 0).ok_or(ProfileError("port"))?;
        let protocol = match get("protocol")? {
            "udp" => Protocol::Udp,
            "tcp" => Protocol::Tcp,
            _ => return Err(ProfileError("protocol")),
        };
        let checked = |name, is: fn(&str) -> bool| {
            let text = get(name)?;
            if is(text) { Ok(text.trim().to_owned()) } else { Err(ProfileError(name)) }
        };
        Ok(Self {
            nonce: access.nonce.clone(),
            host: host.to_owned(),
            port,
            protocol,
            server_name: checked("serverName", |name| is_host(name) && name.len() <= 64)?,
            ca: checked("ca", pki::is_certificate)?,
            tls_crypt: checked("tlsCrypt", pki::is_static_key)?,
            ciphers: ciphers(get("cipher")?)?,
            dns: match &settings.dns {
                Some(own) => own.clone(),
                None => resolvers(list(params.get("dns"), "dns")?, settings)?,
            },
            routes: match &settings.routes {
                Some(own) => Routes::only(own.iter().copied()),
                None => routes(params.get("routes"))?,
            },
            keepalive: match params.get("keepalive") {
                None => KEEPALIVE,
                Some(text) => text
                    .parse()
                    .ok()
                    .filter(|seconds| (1..=600).contains(seconds))
                    .ok_or(ProfileError("keepalive"))?,
            },
            user: access.username.to_string(),
            password: Some(access.password.clone())
                .filter(|password| is_credential(&password.0))
                .ok_or(ProfileError("password"))?,
            exchange: exchange(&access.payment_receiver_address),
        })
    }
}

fn ciphers(text: &str) -> Result<String, ProfileError> {
    let known: Vec<_> = text.split(':').filter(|cipher| CIPHERS.contains(cipher)).collect();
    // What is not known is left out; what is not modern is never used.
    if known.is_empty() { Err(ProfileError("cipher")) } else { Ok(known.join(":")) }
}

fn list<T: std::str::FromStr>(
    text: Option<&String>,
    name: &'static str,
) -> Result<Vec<T>, ProfileError> {
    let items = text.map(String::as_str).unwrap_or_default().split(',');
    let items = items.map(str::trim).filter(|item| !item.is_empty());
    // A part of a list would be another list.
    if items.clone().nth(MAX_LIST).is_some() {
        return Err(ProfileError(name));
    }
    items.map(|item| item.parse().map_err(|_| ProfileError(name))).collect()
}

fn routes(text: Option<&String>) -> Result<Routes, ProfileError> {
    let networks: Vec<Ipv4Net> = list(text, "routes")?;
    // A message without routes means everything: whoever buys a VPN expects no less.
    if networks.is_empty() {
        return Ok(Routes::Everything);
    }
    Ok(Routes::only(networks))
}

/// The agent's resolvers, as far as the tunnel can carry what they are asked. One that is not
/// reached through the tunnel would learn what is none of its business.
fn resolvers(found: Vec<IpAddr>, settings: &Settings) -> Result<Vec<IpAddr>, ProfileError> {
    let found: Vec<_> = found.into_iter().filter(IpAddr::is_ipv4).collect();
    let outside = |address: &IpAddr| {
        !is_host_address(*address)
            || settings.allow_networks.iter().any(|network| network.contains(address))
    };
    if found.iter().any(outside) { Err(ProfileError("dns")) } else { Ok(found) }
}

/// Whether an address can be that of another machine.
pub(crate) fn is_host_address(address: IpAddr) -> bool {
    let known = match address {
        IpAddr::V4(address) => {
            address.octets()[0] == 0 || address.is_link_local() || address == Ipv4Addr::BROADCAST
        }
        IpAddr::V6(_) => false,
    };
    !(known || address.is_unspecified() || address.is_loopback() || address.is_multicast())
}

/// Host and port of a URL.
fn exchange(url: &str) -> Option<(String, u16)> {
    let (rest, port) = match url.strip_prefix("http://") {
        Some(rest) => (rest, 80),
        None => (url.strip_prefix("https://")?, 443),
    };
    let place = rest.split(['/', '?', '#']).next()?;
    let (host, port) = match place.rsplit_once(':') {
        Some((host, text)) if !text.contains(']') => (host, text.parse().ok()?),
        _ => (place, port),
    };
    let host = host.trim_start_matches('[').trim_end_matches(']');
    is_host(host).then(|| (host.to_owned(), port))
}

/// What every access message is to say.
pub(crate) fn product_config(settings: &Settings, pki: &Pki) -> BTreeMap<String, String> {
    let joined = |items: Vec<String>| items.join(",");
    let dns = settings.announced_dns().iter().map(ToString::to_string).collect();
    let routes = match settings.routes.as_deref() {
        None | Some([]) => EVERYTHING.to_owned(),
        Some(routes) => joined(routes.iter().map(ToString::to_string).collect()),
    };
    let mut config: BTreeMap<String, String> = [
        ("ca", pki.ca_text.clone()),
        ("tlsCrypt", pki.tls_crypt_text.clone()),
        ("serverName", SERVER_NAME.to_owned()),
        ("protocol", settings.protocol.as_str().to_owned()),
        ("port", settings.port.to_string()),
        ("cipher", OFFERED.to_owned()),
        ("dns", joined(dns)),
        ("routes", routes),
        ("keepalive", settings.keepalive_seconds.to_string()),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .into();
    if let Some(host) = &settings.external_ip {
        // `externalIP` is the core's word for the service endpoint address.
        config.insert("externalIP".to_owned(), host.clone());
    }
    config
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A message as the core would make it from what an agent sets.
    pub(crate) fn message(settings: &Settings) -> AccessMessage {
        let home = tempfile::tempdir().expect("a directory");
        let pki = Pki::open(home.path()).expect("made");
        let mut params = product_config(settings, &pki);
        let host = params.remove("externalIP").unwrap_or_default();
        let message = serde_json::json!({
            "templateHash": "x", "nonce": "n", "password": "secret",
            "username": "6f1c1f0e-3b5c-4c5e-8f7a-0c1d2e3f4a5b",
            "paymentReceiverAddress": "http://192.0.2.1:8480/v1/payments",
            "serviceEndpointAddress": host, "additionalParams": params,
        });
        serde_json::from_value(message).expect("a message")
    }

    pub(crate) fn agent() -> Settings {
        Settings { external_ip: Some("192.0.2.1".into()), ..Settings::default() }
    }

    #[test]
    fn what_the_agent_says_the_client_reads() {
        let profile = Profile::read(&message(&agent()), &Settings::default()).expect("usable");
        assert_eq!((profile.host.as_str(), profile.port), ("192.0.2.1", 1194));
        assert_eq!(profile.routes, Routes::Everything);
        assert_eq!(profile.ciphers, OFFERED);
        assert_eq!(profile.dns.len(), 2);
        assert_eq!(profile.exchange, Some(("192.0.2.1".to_owned(), 8480)));
        let net: Ipv4Net = "10.0.0.0/8".parse().expect("a network");
        let routed = Settings { routes: Some(vec![net]), ..agent() };
        let profile = Profile::read(&message(&routed), &Settings::default()).expect("usable");
        assert_eq!(profile.routes, Routes::Only(vec![net]));
        let own = Settings { routes: Some(vec![]), dns: Some(vec![]), ..Settings::default() };
        let profile = Profile::read(&message(&routed), &own).expect("usable");
        assert_eq!((profile.routes, profile.dns), (Routes::Only(vec![]), vec![]));
    }

    #[test]
    fn nothing_of_a_message_can_be_more_than_it_should() {
        for (field, value) in [
            ("port", "0"),
            ("port", "1194\nup /bin/sh"),
            ("protocol", "udp\nup x"),
            ("serverName", "x name\nup y"),
            ("ca", "-----BEGIN CERTIFICATE-----\n</ca>\nup x"),
            ("tlsCrypt", "x"),
            ("cipher", "BF-CBC:none"),
            ("dns", "1.1.1.1\nup x"),
            ("routes", "10.0.0.0/8 10.0.0.1"),
            ("keepalive", "0"),
            ("keepalive", "86400"),
            ("keepalive", "5\nup x"),
            // Queries that would leave past the tunnel, or never.
            ("dns", "127.0.0.1"),
            ("dns", "9.9.9.9,0.0.0.0"),
            ("dns", "224.0.0.251"),
        ] {
            let mut message = message(&agent());
            message.additional_params.insert(field.to_owned(), value.to_owned());
            let error = Profile::read(&message, &Settings::default()).err();
            assert_eq!(error, Some(ProfileError(field)), "{value}");
        }
        for field in ["port", "protocol", "serverName", "ca", "tlsCrypt", "cipher"] {
            let mut message = message(&agent());
            message.additional_params.remove(field);
            let error = Profile::read(&message, &Settings::default()).err();
            assert_eq!(error, Some(ProfileError(field)));
        }
        let mut message = message(&agent());
        message.service_endpoint_address = "host\nup x".to_owned();
        assert!(Profile::read(&message, &Settings::default()).is_err());
        // What would be cut, or become a command of its own.
        for password in
            [String::new(), "x".repeat(128), format!("{} signal SIGHUP #", "x".repeat(1008))]
        {
            let mut message = self::message(&agent());
            message.password = Password(password);
            let error = Profile::read(&message, &Settings::default()).err();
            assert_eq!(error, Some(ProfileError("password")));
        }
    }

    #[test]
    fn lists_are_taken_whole_or_not_at_all() {
        let settings = Settings::default();
        let mut message = message(&agent());
        let networks = (0..300).map(|n| format!("10.{}.{}.0/24", n / 256, n % 256));
        let networks: Vec<_> = networks.collect();
        message.additional_params.insert("routes".to_owned(), networks.join(","));
        assert_eq!(Profile::read(&message, &settings).err(), Some(ProfileError("routes")));
        message.additional_params.insert("routes".to_owned(), networks[..256].join(","));
        assert!(Profile::read(&message, &settings).is_ok());
    }

    #[test]
    fn resolver_in_a_network_outside_the_tunnel_is_refused() {
        let lan = "192.168.1.0/24".parse().expect("a network");
        let settings = Settings { allow_networks: vec![lan], ..Settings::default() };
        let mut message = message(&agent());
        for (dns, expected) in
            [("192.168.1.1", None), ("192.168.2.1", Some(1)), ("9.9.9.9,2620:fe::fe", Some(1))]
        {
            message.additional_params.insert("dns".to_owned(), dns.to_owned());
            let profile = Profile::read(&message, &settings);
            assert_eq!(profile.ok().map(|profile| profile.dns.len()), expected, "{dns}");
        }
    }

    #[test]
    fn all_addresses_are_everything_whoever_says_it() {
        for text in ["0.0.0.0/0", "0.0.0.0/1,128.0.0.0/1", "10.0.0.0/8,0.0.0.0/0"] {
            let networks: Vec<Ipv4Net> =
                text.split(',').map(|net| net.parse().expect("a network")).collect();
            let own = Settings { routes: Some(networks), ..Settings::default() };
            let profile = Profile::read(&message(&agent()), &own).expect("usable");
            assert_eq!(profile.routes, Routes::Everything, "{text}");
            let mut message = message(&agent());
            message.additional_params.insert("routes".to_owned(), text.to_owned());
            let profile = Profile::read(&message, &Settings::default()).expect("usable");
            assert_eq!(profile.routes, Routes::Everything, "{text}");
        }
    }

    #[test]
    fn where_the_core_speaks_to_the_agent() {
        for (url, expected) in [
            ("http://a.example/v1", Some(("a.example", 80))),
            ("https://a.example", Some(("a.example", 443))),
            ("http://192.0.2.1:8480/v1/payments", Some(("192.0.2.1", 8480))),
            ("http://[2001:db8::1]:8480/", Some(("2001:db8::1", 8480))),
            ("http://[2001:db8::1]/", Some(("2001:db8::1", 80))),
            ("ftp://a.example", None),
            ("http://a b", None),
        ] {
            let found = exchange(url);
            assert_eq!(
                found.as_ref().map(|(host, port)| (host.as_str(), *port)),
                expected,
                "{url}"
            );
        }
    }
}
