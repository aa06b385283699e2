//! OpenVPN's configuration of either side. No secret of a login is in it, and no script.

use std::fmt::Write;
use std::net::IpAddr;
use std::path::Path;

use ipnet::Ipv4Net;

use crate::management::quoted;
use crate::pki::Pki;
use crate::profile::{Profile, Routes};
use crate::settings::{Protocol, Settings};

/// A peer that was silent for so many times the keep-alive interval is gone.
const SILENCES: u32 = 4;

/// How long one address of an agent is tried, in seconds.
const CONNECT_SECONDS: u32 = 8;

/// Options that a server may push; whatever else it pushes is ignored. Routes and resolvers are
/// the client's own.
const PULLED: [&str; 11] = [
    "ifconfig ",
    "route-gateway ",
    "topology ",
    "ping ",
    "ping-restart ",
    "peer-id ",
    "cipher ",
    "tun-mtu ",
    "protocol-flags ",
    "key-derivation ",
    "explicit-exit-notify",
];

/// What both sides have in common.
const COMMON: &str = "\
dev-type tun
topology subnet
disable-dco
tls-version-min 1.2
tls-groups X25519:P-256
tls-cipher TLS-ECDHE-ECDSA-WITH-AES-256-GCM-SHA384:TLS-ECDHE-ECDSA-WITH-CHACHA20-POLY1305-SHA256
management-client
management-hold
verb 3
";

/// Over UDP. What arrives while OpenVPN has no turn on the processor waits in the kernel instead of
/// being lost, which the connections inside would take for a full line; the kernel's own limit
/// (`net.core.rmem_max`) still holds. And nothing is asked for before each write. What is to be sent
/// keeps the kernel's default: a longer queue there is only a later answer.
const DATAGRAMS: &str = "rcvbuf 1048576\nfast-io\nexplicit-exit-notify 1\n";

fn path(path: &Path) -> String {
    quoted(&path.to_string_lossy())
}

/// The agent's server.
pub(crate) fn server(settings: &Settings, pki: &Pki, socket: &Path) -> String {
    let v6 = settings.listen.is_some_and(|address| address.is_ipv6());
    let (network, mask) = (settings.network.network(), settings.network.netmask());
    let alive = settings.keepalive_seconds;
    let mut text = format!(
        "# Made by the VPN module; changes are lost.\n\
         dev {device}\nport {port}\nserver {network} {mask}\n{COMMON}\
         ca {ca}\ncert {certificate}\nkey {key}\ndh none\ntls-crypt {tls_crypt}\n\
         data-ciphers AES-256-GCM:CHACHA20-POLY1305\n\
         verify-client-cert none\nduplicate-cn\n\
         management {socket} unix\nmanagement-client-auth\n\
         max-clients {max}\nping {alive}\nping-restart {gone}\n\
         push \"ping {alive}\"\npush \"ping-restart {gone}\"\n",
        device = settings.device,
        port = settings.port,
        ca = path(&pki.ca),
        certificate = path(&pki.certificate),
        key = path(&pki.key),
        tls_crypt = path(&pki.tls_crypt),
        socket = path(socket),
        max = settings.max_clients,
        gone = alive * SILENCES,
    );
    // Writing to a string does not fail.
    let _ = match settings.protocol {
        Protocol::Udp => write!(text, "proto udp{}\n{DATAGRAMS}", family(v6)),
        Protocol::Tcp => writeln!(text, "proto tcp{}-server", family(v6)),
    };
    let _ = match settings.listen {
        Some(address) => writeln!(text, "local {address}"),
        // Answers leave with the address that was asked.
        None if settings.protocol == Protocol::Udp => writeln!(text, "multihome"),
        None => Ok(()),
    };
    // For clients of others; this module's takes its routes from the access message.
    match settings.routes.as_deref() {
        None | Some([]) => text.push_str("push \"redirect-gateway def1\"\n"),
        Some(routes) => {
            for route in routes {
                let _ = writeln!(text, "push \"route {} {}\"", route.network(), route.netmask());
            }
        }
    }
    for resolver in settings.announced_dns() {
        let _ = writeln!(text, "push \"dhcp-option DNS {resolver}\"");
    }
    text
}

/// The client's end of a channel.
pub(crate) fn client(
    profile: &Profile,
    addresses: &[IpAddr],
    device: &str,
    socket: &Path,
) -> String {
    let mut text = format!(
        "# Made by the VPN module; changes are lost.\n\
         client\ndev {device}\nnobind\n{COMMON}\
         remote-cert-tls server\nverify-x509-name {name} name\n\
         data-ciphers {ciphers}\n\
         auth-user-pass\nauth-nocache\nauth-retry nointeract\n\
         management {socket} unix\nmanagement-query-passwords\n\
         persist-tun\nconnect-timeout {CONNECT_SECONDS}\ntls-timeout 1\n",
        name = profile.server_name,
        ciphers = profile.ciphers,
        socket = path(socket),
    );
    for address in addresses {
        let family = family(address.is_ipv6());
        let protocol = match profile.protocol {
            Protocol::Udp => format!("udp{family}"),
            Protocol::Tcp => format!("tcp{family}-client"),
        };
        let _ = writeln!(text, "remote {address} {} {protocol}", profile.port);
    }
    if profile.protocol == Protocol::Udp {
        text.push_str(DATAGRAMS);
    }
    for option in PULLED {
        let _ = writeln!(text, "pull-filter accept {}", quoted(option));
    }
    text.push_str("pull-filter ignore \"\"\n");
    match &profile.routes {
        Routes::Everything => text.push_str("redirect-gateway def1\n"),
        Routes::Only(networks) => networks.iter().for_each(|net| route(&mut text, net)),
    }
    let _ = write!(
        text,
        "<ca>\n{}\n</ca>\n<tls-crypt>\n{}\n</tls-crypt>\n",
        profile.ca, profile.tls_crypt
    );
    text
}

fn route(text: &mut String, network: &Ipv4Net) {
    let _ = writeln!(text, "route {} {}", network.network(), network.netmask());
}

fn family(v6: bool) -> char {
    if v6 { '6' } else { '4' }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::profile::tests::{agent, message};

    #[test]
    fn a_client_takes_its_routes_from_the_message_and_has_no_secret_in_its_file() {
        let profile = Profile::read(&message(&agent()), &Settings::default()).expect("usable");
        let addresses =
            ["192.0.2.1".parse().expect("an address"), "2001:db8::1".parse().expect("one")];
        let text = client(&profile, &addresses, "pxc0", Path::new("/run/a b.sock"));
        for line in [
            "remote 192.0.2.1 1194 udp4",
            "remote 2001:db8::1 1194 udp6",
            "verify-x509-name privatix-vpn-server name",
            "remote-cert-tls server",
            "redirect-gateway def1",
            "management \"/run/a b.sock\" unix",
            "pull-filter ignore \"\"",
        ] {
            assert!(text.lines().any(|known| known == line), "{line} in {text}");
        }
        assert!(!text.contains("secret") && !text.contains(&profile.user), "{text}");
        let net = "10.0.0.0/8".parse().expect("a network");
        let own = Settings { routes: Some(vec![net]), ..Settings::default() };
        let profile = Profile::read(&message(&agent()), &own).expect("usable");
        let text = client(&profile, &addresses, "pxc0", Path::new("/x"));
        assert!(text.contains("\nroute 10.0.0.0 255.0.0.0\n") && !text.contains("redirect"));
    }
}
