//! What holds a channel's traffic: the rules of its kill switch, and its routing.
//!
//! With a kill switch, what belongs into the tunnel leaves through it or not at all: a table of
//! nftables says so, and the routing says it once more, for the time when another program has
//! removed the table. Left open are what OpenVPN sends to the agent's server, the agent's exchange,
//! DHCP, neighbour discovery and the networks that the user names. Nothing else enters the device
//! than what the user has agreed to send there.

use std::fmt::Write;
use std::net::IpAddr;

use ipnet::IpNet;
use privatix_plugin_api::message::ClientKey;

use crate::profile::{Profile, Routes};
use crate::render::MARK;
use crate::routing::{self, Family, Routing};
use crate::settings::Settings;

/// DHCP, as both programs write it, of either kind of address.
const DHCP: [(&str, &str); 2] = [
    ("udp sport 68 udp dport 67", "from all ipproto udp sport 68 dport 67 lookup main"),
    ("udp sport 546 udp dport 547", "from all ipproto udp sport 546 dport 547 lookup main"),
];

/// What holds one channel.
#[derive(Debug, Clone)]
pub(super) struct Guard {
    pub(super) table: String,
    pub(super) agent: Vec<IpAddr>,
    /// The kill switch, if there is to be one.
    pub(super) rules: Option<String>,
    pub(super) routing: Routing,
    /// Addresses that mean something else than this machine.
    pub(super) taken: Vec<IpAddr>,
    pub(super) allowed: Vec<IpNet>,
}

impl Guard {
    pub(super) fn new(
        channel: ClientKey,
        device: &str,
        profile: &Profile,
        addresses: &[IpAddr],
        exchange: Option<(Vec<IpAddr>, u16)>,
        settings: &Settings,
    ) -> Self {
        let table = format!("privatix_{device}");
        let exchange = exchange.unwrap_or_default();
        let rules = settings
            .kill_switch
            .then(|| rules(&table, device, profile, addresses, &exchange, settings));
        let routing = routing(channel, device, profile, addresses, &exchange, settings);
        let taken = [addresses, &exchange.0, &profile.dns].concat();
        let allowed = settings.allow_networks.clone();
        Self { table, agent: addresses.to_owned(), rules, routing, taken, allowed }
    }
}

fn routing(
    channel: ClientKey,
    device: &str,
    profile: &Profile,
    addresses: &[IpAddr],
    (exchange, exchange_port): &(Vec<IpAddr>, u16),
    settings: &Settings,
) -> Routing {
    let server = format!("ipproto {} dport {}", profile.protocol.as_str(), profile.port);
    let exchange_place = format!("ipproto tcp dport {exchange_port}");
    let exceptions = |v4: bool| {
        let mut rules = vec![format!("from all iif {device} lookup main")];
        let mut add = |rule| {
            if !rules.contains(&rule) {
                rules.push(rule);
            }
        };
        for address in addresses.iter().filter(|address| address.is_ipv4() == v4) {
            add(routing::to(&address.to_string(), &server));
        }
        for address in exchange.iter().filter(|address| address.is_ipv4() == v4) {
            add(routing::to(&address.to_string(), &exchange_place));
        }
        for network in &settings.allow_networks {
            if matches!(network, IpNet::V4(_)) == v4 {
                add(routing::to(&network.to_string(), ""));
            }
        }
        add(DHCP[usize::from(!v4)].1.to_owned());
        rules
    };
    let barred = |networks: &[String]| {
        if settings.kill_switch { networks.to_vec() } else { Vec::new() }
    };
    let all = ["default".to_owned()];
    let (v4, v6) = match &profile.routes {
        Routes::Everything => {
            // The tunnel carries IPv4 alone.
            let v6 =
                Family { inside: Vec::new(), barred: barred(&all), exceptions: exceptions(false) };
            (
                Family { inside: all.to_vec(), barred: barred(&all), exceptions: exceptions(true) },
                v6,
            )
        }
        Routes::Only(networks) => {
            let networks: Vec<_> = networks.iter().map(ToString::to_string).collect();
            let barred = barred(&networks);
            let exceptions = exceptions(true);
            (Family { inside: networks, barred, exceptions }, Family::default())
        }
    };
    Routing { table: routing::table(channel), device: device.to_owned(), v4, v6 }
}

fn rules(
    table: &str,
    device: &str,
    profile: &Profile,
    addresses: &[IpAddr],
    (exchange, exchange_port): &(Vec<IpAddr>, u16),
    settings: &Settings,
) -> String {
    let (mut open, mut enter) = (String::new(), String::new());
    for address in addresses {
        let (protocol, port) = (profile.protocol.as_str(), profile.port);
        // Nobody else speaks to that place past the tunnel.
        let _ = write!(open, "    meta mark {MARK}");
        accept(&mut open, *address, &format!("{protocol} dport {port}"));
    }
    for address in exchange {
        accept(&mut open, *address, &format!("tcp dport {exchange_port}"));
    }
    for network in &settings.allow_networks {
        let family = if matches!(network, IpNet::V4(_)) { "ip" } else { "ip6" };
        // Writing to a string does not fail.
        let _ = writeln!(enter, "    oifname \"{device}\" {family} daddr {network} {REJECT}");
        let _ = writeln!(open, "    {family} daddr {network} accept");
    }
    let _ = writeln!(enter, "    oifname \"{device}\" meta nfproto ipv6 {REJECT}");
    let rest = match &profile.routes {
        Routes::Everything => format!("    {REJECT}\n"),
        Routes::Only(networks) => {
            if !networks.is_empty() {
                let networks: Vec<_> = networks.iter().map(ToString::to_string).collect();
                let networks = networks.join(", ");
                let _ = writeln!(
                    enter,
                    "    oifname \"{device}\" ip daddr != {{ {networks} }} {REJECT}"
                );
            }
            networks.iter().map(|net| format!("    ip daddr {net} {REJECT}\n")).collect()
        }
    };
    let [(dhcp, _), (dhcp6, _)] = DHCP;
    format!(
        "table inet {table} {{}}\n\
         delete table inet {table}\n\
         table inet {table} {{\n\
         \x20 chain output {{\n\
         \x20   type filter hook output priority filter; policy accept;\n\
         \x20   oifname \"lo\" accept\n\
         {enter}\
         \x20   oifname \"{device}\" accept\n\
         {open}\
         \x20   {dhcp} accept\n\
         \x20   {dhcp6} accept\n\
         \x20   icmpv6 type {{ nd-neighbor-solicit, nd-neighbor-advert, nd-router-solicit, mld-listener-report, mld2-listener-report }} accept\n\
         {rest}\
         \x20 }}\n\
         \x20 chain forward {{\n\
         \x20   type filter hook forward priority filter; policy accept;\n\
         \x20   oifname \"lo\" accept\n\
         {enter}\
         \x20   oifname \"{device}\" accept\n\
         \x20   iifname \"{device}\" accept\n\
         {open}\
         {rest}\
         \x20 }}\n\
         }}\n"
    )
}

const REJECT: &str = "reject with icmpx admin-prohibited";

fn accept(rules: &mut String, address: IpAddr, what: &str) {
    let family = if address.is_ipv4() { "ip" } else { "ip6" };
    let _ = writeln!(rules, "    {family} daddr {address} {what} accept");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::profile::tests::{agent, message};

    fn guard(settings: &Settings) -> Guard {
        let profile = Profile::read(&message(&agent()), settings).expect("usable");
        let addresses = ["192.0.2.1".parse().expect("one"), "2001:db8::1".parse().expect("one")];
        let exchange = Some((vec!["192.0.2.9".parse().expect("one")], 8480));
        let channel = ClientKey(uuid::Uuid::from_u128(0x6f1c_1f0e << 96));
        Guard::new(channel, "pvx0", &profile, &addresses, exchange, settings)
    }

    fn networks(texts: &[&str]) -> Vec<ipnet::Ipv4Net> {
        texts.iter().map(|text| text.parse().expect("a network")).collect()
    }

    #[test]
    fn everything_is_held_but_for_what_the_tunnel_needs() {
        let lan = "192.168.1.0/24".parse().expect("a network");
        // Whoever says that it is everything.
        for routes in
            [None, Some(networks(&["0.0.0.0/0"])), Some(networks(&["0.0.0.0/1", "128.0.0.0/1"]))]
        {
            let settings = Settings { allow_networks: vec![lan], routes, ..Settings::default() };
            let Guard { rules, routing, .. } = guard(&settings);
            let rules = rules.expect("a kill switch");
            let lines: Vec<_> = rules.lines().map(str::trim).collect();
            for line in [
                "meta mark 28790    ip daddr 192.0.2.1 udp dport 1194 accept",
                "meta mark 28790    ip6 daddr 2001:db8::1 udp dport 1194 accept",
                "ip daddr 192.0.2.9 tcp dport 8480 accept",
                "ip daddr 192.168.1.0/24 accept",
                "oifname \"pvx0\" ip daddr 192.168.1.0/24 reject with icmpx admin-prohibited",
                "oifname \"pvx0\" meta nfproto ipv6 reject with icmpx admin-prohibited",
                "reject with icmpx admin-prohibited",
            ] {
                // In both chains.
                assert_eq!(
                    lines.iter().filter(|known| **known == line).count(),
                    2,
                    "{line}: {rules}"
                );
            }
            assert_eq!(routing.table, 0x76f1_c1f0);
            assert_eq!(routing.v4.inside, ["default"]);
            assert_eq!(
                (&*routing.v4.barred, &*routing.v6.barred),
                (&["default".to_owned()][..], &["default".to_owned()][..])
            );
            assert!(routing.v6.inside.is_empty());
            assert_eq!(
                routing.v4.exceptions,
                [
                    "from all iif pvx0 lookup main",
                    "from all to 192.0.2.1 ipproto udp dport 1194 lookup main",
                    "from all to 192.0.2.9 ipproto tcp dport 8480 lookup main",
                    "from all to 192.168.1.0/24 lookup main",
                    "from all ipproto udp sport 68 dport 67 lookup main",
                ]
            );
        }
    }

    #[test]
    fn with_routes_only_those_are_held_and_only_those_enter() {
        let routes = networks(&["10.50.0.0/16", "10.50.1.0/24", "192.0.2.0/24"]);
        let Guard { rules, routing, .. } =
            guard(&Settings { routes: Some(routes), ..Settings::default() });
        let rules = rules.expect("a kill switch");
        assert!(
            rules.contains("    ip daddr 10.50.0.0/16 reject with icmpx admin-prohibited"),
            "{rules}"
        );
        assert!(!rules.contains("\n    reject"), "{rules}");
        let enter = "oifname \"pvx0\" ip daddr != { 10.50.0.0/16, 192.0.2.0/24 } reject";
        assert!(rules.contains(enter), "{rules}");
        assert_eq!(routing.v4.inside, ["10.50.0.0/16", "192.0.2.0/24"]);
        assert_eq!(routing.v4.barred, routing.v4.inside);
        assert_eq!(routing.v6, Family::default());
    }

    #[test]
    fn without_kill_switch_nothing_is_barred() {
        let Guard { rules, routing, .. } =
            guard(&Settings { kill_switch: false, ..Settings::default() });
        assert_eq!(rules, None);
        assert!(routing.v4.barred.is_empty() && routing.v6.barred.is_empty());
        assert_eq!(routing.v4.inside, ["default"]);
    }
}
