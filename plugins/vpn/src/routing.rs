//! A channel's routing on the client: a table of its own, and rules that lead to it.
//!
//! What belongs into the tunnel is looked up in the table. There the way into the tunnel goes with
//! its device; what is left then says "unreachable". So nothing takes another way while the tunnel
//! is down, nor while nobody's firewall stands: a flush of nftables does not touch rules of routing.
//! Exceptions stand before: what OpenVPN itself sends, DHCP, and the networks that the user names.

use std::fmt::Write;
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;

use privatix_plugin_api::message::ClientKey;
use serde::{Deserialize, Serialize};

use crate::run::{self, RunError};

/// Where the rules are among all of the machine's, before those of the main table.
const EXCEPTIONS: u32 = 5200;
const INTO: u32 = 5201;

/// The way through the device goes before the barrier.
const OPEN: u32 = 10;
const BARRED: u32 = 20_000;

/// The rules and routes of one channel.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Routing {
    pub(crate) table: u32,
    pub(crate) device: String,
    pub(crate) v4: Family,
    pub(crate) v6: Family,
}

/// Those of one kind of address.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Family {
    /// What is looked up in the main table all the same, as `ip rule` writes it.
    pub(crate) exceptions: Vec<String>,
    /// What goes through the device while it is there: networks, or `default`.
    pub(crate) inside: Vec<String>,
    /// What goes nowhere else.
    pub(crate) barred: Vec<String>,
}

/// The number of a channel's table: nobody else's, as good as certainly.
pub(crate) fn table(channel: ClientKey) -> u32 {
    let [a, b, c, d, ..] = *channel.0.as_bytes();
    0x7000_0000 | (u32::from_be_bytes([a, b, c, d]) >> 4)
}

/// A rule for an address or network, as `ip rule` writes it.
pub(crate) fn to(place: &str, what: &str) -> String {
    let place = place.strip_suffix("/32").or(place.strip_suffix("/128")).unwrap_or(place);
    let what = if what.is_empty() { String::new() } else { format!(" {what}") };
    format!("from all to {place}{what} lookup main")
}

impl Family {
    /// Whether anything is looked up in the channel's table.
    fn leads_in(&self) -> bool {
        !self.inside.is_empty() || !self.barred.is_empty()
    }

    /// All rules with their places.
    fn rules(&self, table: u32) -> Vec<(u32, String)> {
        if !self.leads_in() {
            return Vec::new();
        }
        let exceptions = self.exceptions.iter().map(|rule| (EXCEPTIONS, rule.clone()));
        exceptions.chain([(INTO, format!("from all lookup {table}"))]).collect()
    }
}

impl Routing {
    fn families(&self) -> [(&'static str, &Family); 2] {
        [("-4", &self.v4), ("-6", &self.v6)]
    }

    /// Makes what is missing of it, and then takes away what only an earlier one had.
    pub(crate) async fn raise(&self, before: Option<&Self>) -> Result<(), RunError> {
        for (flag, family) in self.families() {
            let earlier = before.map(|before| match flag {
                "-4" => &before.v4,
                _ => &before.v6,
            });
            if !is_spoken(flag) || !(family.leads_in() || earlier.is_some_and(Family::leads_in)) {
                continue;
            }
            let mut script = String::new();
            // Writing to a string does not fail.
            for network in &family.barred {
                let _ = writeln!(
                    script,
                    "route replace unreachable {network} metric {BARRED} table {}",
                    self.table
                );
            }
            let known = rules_of(flag).await?;
            let wanted = family.rules(self.table);
            for (place, rule) in &wanted {
                if !known.contains(&(*place, rule.clone())) {
                    let _ = writeln!(script, "rule add {rule} priority {place}");
                }
            }
            batch(flag, &script, false).await?;
            let Some(earlier) = earlier else { continue };
            let mut stale = String::new();
            for (place, rule) in earlier.rules(self.table) {
                if !wanted.contains(&(place, rule.clone())) {
                    let _ = writeln!(stale, "rule del {rule} priority {place}");
                }
            }
            for network in earlier.barred.iter().filter(|one| !family.barred.contains(one)) {
                let _ = writeln!(
                    stale,
                    "route del unreachable {network} metric {BARRED} table {}",
                    self.table
                );
            }
            for network in earlier.inside.iter().filter(|one| !family.inside.contains(one)) {
                let _ = writeln!(
                    stale,
                    "route del {network} dev {} metric {OPEN} table {}",
                    self.device, self.table
                );
            }
            // Some of it may be gone already.
            let _ = batch(flag, &stale, true).await;
        }
        Ok(())
    }

    /// Gives the device its address, alone, and leads into it what belongs there. Nothing of this
    /// is what a server has pushed, but for the address.
    pub(crate) async fn link(&self, address: Ipv4Addr) -> Result<(), RunError> {
        let device = &self.device;
        let script = format!(
            "address flush dev {device}\n\
             address add {address}/32 dev {device}\n\
             link set dev {device} addrgenmode none\n\
             link set dev {device} mtu 1500 up\n"
        );
        batch("-4", &script, false).await?;
        self.lead_in().await
    }

    /// Leads into the device what belongs there.
    pub(crate) async fn lead_in(&self) -> Result<(), RunError> {
        let Self { table, device, .. } = self;
        let routes = self.v4.inside.iter();
        let script: String = routes
            .map(|network| {
                format!("route replace {network} dev {device} metric {OPEN} table {table}\n")
            })
            .collect();
        batch("-4", &script, false).await
    }

    /// Whether all of it is there.
    pub(crate) async fn stands(&self, linked: bool) -> Result<bool, RunError> {
        for (flag, family) in self.families() {
            if !is_spoken(flag) || !family.leads_in() {
                continue;
            }
            let known = rules_of(flag).await?;
            if !family.rules(self.table).iter().all(|rule| known.contains(rule)) {
                return Ok(false);
            }
            // There is no table without routes.
            let table = self.table.to_string();
            let shown = run::run("ip", &[flag, "route", "show", "table", &table]).await;
            let shown = shown.unwrap_or_default();
            let has = |kind: &str, network: &str, rest: &str| {
                let network = network.strip_suffix("/32").unwrap_or(network);
                let begin = format!("{kind}{network} {rest}");
                shown.lines().any(|line| line.starts_with(&begin))
            };
            let barred = family.barred.iter().all(|network| has("unreachable ", network, ""));
            let through = format!("dev {}", self.device);
            let open = family.inside.iter().all(|network| has("", network, &through));
            if !barred || (linked && !open) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Takes it away. What is gone already is no error.
    pub(crate) async fn lower(&self) -> Result<(), RunError> {
        for (flag, family) in self.families() {
            if !is_spoken(flag) || !family.leads_in() {
                continue;
            }
            let mut script = String::new();
            for (place, rule) in family.rules(self.table).into_iter().rev() {
                let _ = writeln!(script, "rule del {rule} priority {place}");
            }
            let _ = writeln!(script, "route flush table {}", self.table);
            if batch(flag, &script, true).await.is_ok() {
                continue;
            }
            // Some of it was gone already; what matters must not be left.
            let into = (INTO, format!("from all lookup {}", self.table));
            if rules_of(flag).await?.contains(&into) {
                // It says why.
                batch(flag, &format!("rule del {} priority {INTO}\n", into.1), false).await?;
            }
        }
        Ok(())
    }
}

/// Whether the kernel speaks this kind of address at all.
fn is_spoken(flag: &str) -> bool {
    flag == "-4" || Path::new("/proc/sys/net/ipv6").exists()
}

async fn rules_of(flag: &str) -> Result<Vec<(u32, String)>, RunError> {
    let shown = run::run("ip", &[flag, "rule", "show"]).await?;
    Ok(shown.lines().filter_map(rule).collect())
}

/// A line of `ip rule show`.
fn rule(line: &str) -> Option<(u32, String)> {
    let (place, rule) = line.split_once(':')?;
    let rule = rule.trim().replace(" [detached]", "");
    Some((place.parse().ok()?, rule))
}

async fn batch(flag: &str, script: &str, force: bool) -> Result<(), RunError> {
    if script.is_empty() {
        return Ok(());
    }
    let arguments: &[&str] =
        if force { &["-force", flag, "-batch", "-"] } else { &[flag, "-batch", "-"] };
    run::run_with("ip", arguments, script).await.map(drop)
}

/// Why an address that the agent has assigned is not taken.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("the agent has assigned the address {address}, which {why}; it is not taken")]
pub(crate) struct BadAddress {
    address: Ipv4Addr,
    why: String,
}

/// Whether an address may be this machine's in the tunnel: a private one, that nothing else here
/// means.
///
/// # Errors
/// [`BadAddress`].
pub(crate) fn check_address(
    address: Ipv4Addr,
    allowed: &[ipnet::IpNet],
    taken: &[IpAddr],
    local: &[(String, ipnet::Ipv4Net)],
) -> Result<(), BadAddress> {
    let [a, b, ..] = address.octets();
    let carrier = a == 100 && (64..128).contains(&b);
    let refuse = |why: String| Err(BadAddress { address, why });
    if !(address.is_private() || carrier) {
        return refuse("is no private address".to_owned());
    }
    if let Some(network) = allowed.iter().find(|network| network.contains(&IpAddr::V4(address))) {
        return refuse(format!("is in {network} of `allow_networks`"));
    }
    if taken.contains(&IpAddr::V4(address)) {
        return refuse("is a server's or a resolver's".to_owned());
    }
    if let Some((device, network)) = local.iter().find(|(_, network)| network.contains(&address)) {
        return refuse(format!("is in {network} of the device {device}"));
    }
    Ok(())
}

/// The networks of this machine's devices, but for those of this module's tunnels. Where the agent's
/// server is on this machine too, its device is one of the tunnel's two ends, and left out likewise.
pub(crate) async fn local_networks(
    server_is_here: bool,
) -> Result<Vec<(String, ipnet::Ipv4Net)>, RunError> {
    let shown = run::run("ip", &["-4", "-d", "-j", "address", "show"]).await?;
    Ok(networks(&shown, server_is_here))
}

fn networks(shown: &str, without_tunnels: bool) -> Vec<(String, ipnet::Ipv4Net)> {
    let links: serde_json::Value = serde_json::from_str(shown).unwrap_or_default();
    let mut found = Vec::new();
    for link in links.as_array().into_iter().flatten() {
        let name = link["ifname"].as_str().unwrap_or_default();
        let tunnel = without_tunnels && link["linkinfo"]["info_kind"] == "tun";
        if tunnel || name.starts_with(super::DEVICES) {
            continue;
        }
        for info in link["addr_info"].as_array().into_iter().flatten() {
            let address = info["local"].as_str().and_then(|text| text.parse().ok());
            let length = info["prefixlen"].as_u64().and_then(|length| u8::try_from(length).ok());
            let network = address
                .zip(length)
                .and_then(|(address, length)| ipnet::Ipv4Net::new(address, length).ok());
            found.extend(network.map(|network| (name.to_owned(), network.trunc())));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_are_read_as_they_are_written() {
        for (line, expected) in [
            ("0:\tfrom all lookup local", Some((0, "from all lookup local"))),
            (
                "5200:\tfrom all iif pvx0 [detached] lookup main",
                Some((5200, "from all iif pvx0 lookup main")),
            ),
            ("", None),
            ("x: y", None),
        ] {
            let expected = expected.map(|(place, rule): (u32, &str)| (place, rule.to_owned()));
            assert_eq!(rule(line), expected, "{line}");
        }
        assert_eq!(
            to("192.0.2.1/32", "ipproto udp dport 1"),
            "from all to 192.0.2.1 ipproto udp dport 1 lookup main"
        );
        assert_eq!(to("10.0.0.0/8", ""), "from all to 10.0.0.0/8 lookup main");
    }

    #[test]
    fn assigned_addresses() {
        let allowed = ["10.77.0.0/24".parse().expect("a network")];
        let taken = ["10.1.1.1".parse().expect("an address")];
        let shown = r#"[{"ifname": "eth0", "addr_info": [{"local": "192.168.1.7", "prefixlen": 24}]},
                        {"ifname": "pvx0", "addr_info": [{"local": "10.89.0.2", "prefixlen": 32}]},
                        {"ifname": "privatix0", "linkinfo": {"info_kind": "tun"},
                         "addr_info": [{"local": "10.90.0.1", "prefixlen": 16}]}]"#;
        assert_eq!(networks(shown, true).len(), 1, "the server's own end is no network to keep");
        let local = networks(shown, false);
        for (address, why) in [
            ("10.89.0.2", None),
            ("172.16.0.9", None),
            ("100.64.1.1", None),
            // Half of the Internet goes with its mask; and no site becomes this machine.
            ("192.0.0.2", Some("no private address")),
            ("8.8.8.8", Some("no private address")),
            ("127.0.0.1", Some("no private address")),
            ("0.0.0.0", Some("no private address")),
            ("224.0.0.1", Some("no private address")),
            ("169.254.1.1", Some("no private address")),
            ("10.77.0.130", Some("10.77.0.0/24 of `allow_networks`")),
            ("10.1.1.1", Some("a server's or a resolver's")),
            ("192.168.1.1", Some("192.168.1.0/24 of the device eth0")),
            ("10.90.0.2", Some("10.90.0.0/16 of the device privatix0")),
        ] {
            let address = address.parse().expect("an address");
            match (check_address(address, &allowed, &taken, &local), why) {
                (Ok(()), None) => {}
                (Err(error), Some(why)) => assert!(error.to_string().contains(why), "{error}"),
                (outcome, _) => panic!("{address}: {outcome:?}"),
            }
        }
    }
}
