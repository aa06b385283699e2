//! OpenVPN's configuration of either side. No secret of a login is in it, and no script.

use std::fmt::Write;
use std::net::IpAddr;
use std::path::Path;

use crate::management::quoted;
use crate::pki::Pki;
use crate::profile::Profile;
use crate::settings::{Protocol, Settings};

/// A peer that was silent for so many times the keep-alive interval is gone.
const SILENCES: u32 = 4;

/// How long one address of an agent is tried, in seconds.
const CONNECT_SECONDS: u32 = 8;

/// Options that a server may push; whatever else it pushes is ignored. OpenVPN compares the name
/// alone, so those are left whose values can do no harm: the cipher is one of `data-ciphers`, what
/// concerns keys is known or refused, a peer id is a number in packets. The address is none of
/// OpenVPN's business here (`ifconfig-noexec`): the module checks it and sets it without its mask.
/// Routes, resolvers and times are the client's own.
const PULLED: [&str; 5] =
    ["ifconfig ", "peer-id ", "cipher ", "protocol-flags ", "key-derivation "];

/// What OpenVPN sends to its server carries this mark, and alone is let past the kill switch there.
pub(crate) const MARK: u32 = 0x7076;

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
         persist-tun\nconnect-timeout {CONNECT_SECONDS}\ntls-timeout 1\n\
         ifconfig-noexec\nroute-noexec\nmark {MARK}\nping {alive}\nping-restart {gone}\n",
        alive = profile.keepalive,
        gone = profile.keepalive * SILENCES,
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
    let _ = write!(
        text,
        "<ca>\n{}\n</ca>\n<tls-crypt>\n{}\n</tls-crypt>\n",
        profile.ca, profile.tls_crypt
    );
    text
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
            "ifconfig-noexec",
            "route-noexec",
            "mark 28790",
            "ping 5",
            "ping-restart 20",
            "management \"/run/a b.sock\" unix",
            "pull-filter ignore \"\"",
        ] {
            assert!(text.lines().any(|known| known == line), "{line} in {text}");
        }
        assert!(!text.contains("secret") && !text.contains(&profile.user), "{text}");
        // What leads into the tunnel is not OpenVPN's business.
        assert!(!text.contains("redirect") && !text.contains("\nroute "), "{text}");
    }

    /// OpenVPN takes the first filter that an option begins with.
    fn is_pulled(text: &str, option: &str) -> bool {
        let filters = text.lines().filter_map(|line| line.strip_prefix("pull-filter "));
        let mut filters = filters.filter_map(|filter| filter.split_once(' '));
        let found = filters.find(|(_, begin)| option.starts_with(begin.trim_matches('"')));
        found.is_some_and(|(action, _)| action == "accept")
    }

    #[test]
    fn pushed_options() {
        let profile = Profile::read(&message(&agent()), &Settings::default()).expect("usable");
        let addresses = ["192.0.2.1".parse().expect("an address")];
        let text = client(&profile, &addresses, "pxc0", Path::new("/x"));
        for (option, taken) in [
            ("ifconfig 10.89.0.2 255.255.0.0", true),
            ("peer-id 0", true),
            ("cipher AES-256-GCM", true),
            ("protocol-flags cc-exit tls-ekm dyn-tls-crypt", true),
            ("ifconfig-ipv6 2001:db8::2/0 2001:db8::1", false),
            ("route 0.0.0.0 128.0.0.0", false),
            ("route-ipv6 ::/0", false),
            ("redirect-gateway def1", false),
            ("redirect-private", false),
            ("route-gateway 192.168.1.1", false),
            ("route-metric 0", false),
            ("topology net30", false),
            ("ping 86400", false),
            ("ping-restart 0", false),
            ("ping-exit 1", false),
            ("inactive 1", false),
            ("tun-mtu 68", false),
            ("tun-mtu 65535", false),
            ("explicit-exit-notify 99", false),
            ("sndbuf 1", false),
            ("socket-flags TCP_NODELAY", false),
            ("dhcp-option DNS 192.0.2.66", false),
            ("dns server 0 address 192.0.2.66", false),
            ("block-outside-dns", false),
            ("block-ipv6", false),
            ("client-nat snat 1.2.3.4 255.255.255.255 5.6.7.8", false),
            ("auth-token x", false),
            ("comp-lzo yes", false),
            ("compress lzo", false),
            ("setenv PATH /tmp", false),
            ("setenv-safe A b", false),
            ("persist-key", false),
            ("script-security 2", false),
            ("up /bin/sh", false),
            ("echo x", false),
        ] {
            assert_eq!(is_pulled(&text, option), taken, "{option}");
        }
        // Whatever address comes, OpenVPN does not set it.
        assert!(text.lines().any(|line| line == "ifconfig-noexec"), "{text}");
    }
}
