//! The kill switch: what belongs into the tunnel leaves through it or not at all.
//!
//! A table of nftables for each channel, made before the tunnel and taken away after it. It stays
//! when the host is killed. Left open are the agent's server and exchange, DHCP, neighbour
//! discovery and the networks that the user names.

use std::fmt::Write;
use std::net::IpAddr;

use ipnet::IpNet;
use privatix_plugin_api::message::ClientKey;

use crate::journal::{Entry, Journal, JournalError};
use crate::profile::{Profile, Routes};
use crate::run;
use crate::settings::Settings;

/// The rules of one channel.
pub(super) struct Guard {
    table: String,
    agent: Vec<IpAddr>,
    rules: String,
}

impl Guard {
    pub(super) fn new(
        device: &str,
        profile: &Profile,
        addresses: &[IpAddr],
        exchange: Option<(Vec<IpAddr>, u16)>,
        settings: &Settings,
    ) -> Self {
        let mut open = String::new();
        for address in addresses {
            let protocol = profile.protocol.as_str();
            accept(&mut open, *address, &format!("{protocol} dport {}", profile.port));
        }
        let (exchange, port) = exchange.unwrap_or_default();
        for address in exchange {
            accept(&mut open, address, &format!("tcp dport {port}"));
        }
        for network in &settings.allow_networks {
            let family = if matches!(network, IpNet::V4(_)) { "ip" } else { "ip6" };
            // Writing to a string does not fail.
            let _ = writeln!(open, "    {family} daddr {network} accept");
        }
        let rest = match &profile.routes {
            Routes::Everything => "    reject with icmpx admin-prohibited\n".to_owned(),
            Routes::Only(networks) => networks
                .iter()
                .map(|net| format!("    ip daddr {net} reject with icmpx admin-prohibited\n"))
                .collect(),
        };
        let table = format!("privatix_{device}");
        let rules = format!(
            "table inet {table} {{}}\n\
             delete table inet {table}\n\
             table inet {table} {{\n\
             \x20 chain output {{\n\
             \x20   type filter hook output priority filter; policy accept;\n\
             \x20   oifname {{ \"lo\", \"{device}\" }} accept\n\
             {open}\
             \x20   udp sport 68 udp dport 67 accept\n\
             \x20   udp sport 546 udp dport 547 accept\n\
             \x20   icmpv6 type {{ nd-neighbor-solicit, nd-neighbor-advert, nd-router-solicit, mld-listener-report, mld2-listener-report }} accept\n\
             {rest}\
             \x20 }}\n\
             \x20 chain forward {{\n\
             \x20   type filter hook forward priority filter; policy accept;\n\
             \x20   oifname {{ \"lo\", \"{device}\" }} accept\n\
             \x20   iifname \"{device}\" accept\n\
             {open}\
             {rest}\
             \x20 }}\n\
             }}\n"
        );
        Self { table, agent: addresses.to_owned(), rules }
    }

    /// Raises it, in place of an earlier one of the channel.
    pub(super) async fn up(
        &self,
        channel: ClientKey,
        journal: &Journal,
    ) -> Result<(), JournalError> {
        let (name, agent) = (self.table.clone(), self.agent.clone());
        journal.note(Entry::Table { name, kill_switch: Some(channel), agent })?;
        Ok(run::nft(&self.rules).await?)
    }
}

fn accept(rules: &mut String, address: IpAddr, what: &str) {
    let family = if address.is_ipv4() { "ip" } else { "ip6" };
    let _ = writeln!(rules, "    {family} daddr {address} {what} accept");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::profile::tests::{agent, message};

    fn rules(settings: &Settings) -> String {
        let profile = Profile::read(&message(&agent()), settings).expect("usable");
        let addresses = ["192.0.2.1".parse().expect("one"), "2001:db8::1".parse().expect("one")];
        let exchange = Some((vec!["192.0.2.9".parse().expect("one")], 8480));
        Guard::new("pvx0", &profile, &addresses, exchange, settings).rules
    }

    #[test]
    fn everything_is_held_but_for_what_the_tunnel_needs() {
        let lan = "192.168.1.0/24".parse().expect("a network");
        let text = rules(&Settings { allow_networks: vec![lan], ..Settings::default() });
        for line in [
            "ip daddr 192.0.2.1 udp dport 1194 accept",
            "ip6 daddr 2001:db8::1 udp dport 1194 accept",
            "ip daddr 192.0.2.9 tcp dport 8480 accept",
            "ip daddr 192.168.1.0/24 accept",
            "reject with icmpx admin-prohibited",
        ] {
            // In both chains.
            assert_eq!(text.lines().filter(|known| known.trim() == line).count(), 2, "{text}");
        }
    }

    #[test]
    fn with_routes_only_those_are_held() {
        let net = "10.0.0.0/8".parse().expect("a network");
        let text = rules(&Settings { routes: Some(vec![net]), ..Settings::default() });
        assert!(text.contains("ip daddr 10.0.0.0/8 reject with icmpx admin-prohibited"), "{text}");
        assert!(!text.contains("\n    reject"), "{text}");
    }
}
