//! The gate's table of nftables, and what the kernel says of it.

use std::collections::{BTreeSet, HashMap};
use std::fmt::Write;
use std::net::Ipv4Addr;

use serde_json::{Value, json};

use crate::agent::tally::{Passed, Traffic};
use crate::settings::Settings;

/// Networks that are only near the agent.
const PRIVATE: &str = "0.0.0.0/8, 10.0.0.0/8, 100.64.0.0/10, 127.0.0.0/8, 169.254.0.0/16, \
                       172.16.0.0/12, 192.168.0.0/16, 224.0.0.0/3";

/// The maps from clients to quotas.
pub(super) const CREDIT: &str = "credit";
pub(super) const ALARM: &str = "alarm";

/// The table without anybody served, in place of an earlier one.
///
/// A client's packets are counted after everything that drops them for its sake, and each once:
/// as they come out of the tunnel, and as they go into it. The counters are elements of sets, so
/// their cost does not grow with the number of clients.
pub(super) fn rules(settings: &Settings, table: &str) -> String {
    let Settings { device, network, .. } = settings;
    let (barred, input) = (barred(settings), input(settings));
    let barred: String = barred.iter().map(|rule| format!("    {rule}\n")).collect();
    let input: String = input.iter().map(|rule| format!("    {rule}\n")).collect();
    format!(
        "table inet {table} {{}}\n\
         delete table inet {table}\n\
         table inet {table} {{\n\
         \x20 set served {{ type ipv4_addr; }}\n\
         \x20 set up {{ type ipv4_addr; counter; }}\n\
         \x20 set down {{ type ipv4_addr; counter; }}\n\
         \x20 map credit {{ type ipv4_addr : quota; }}\n\
         \x20 map alarm {{ type ipv4_addr : quota; }}\n\
         \x20 set private {{ type ipv4_addr; flags interval; elements = {{ {PRIVATE} }}; }}\n\
         \x20 chain from_clients {{\n\
         \x20   type filter hook prerouting priority raw; policy accept;\n\
         \x20   iifname != \"{device}\" accept\n\
         \x20   meta nfproto ipv6 drop\n\
         \x20   ip saddr != @served drop\n\
         \x20   quota name ip saddr map @credit drop\n\
         \x20   ip saddr @up\n\
         \x20   quota name ip saddr map @alarm\n\
         \x20 }}\n\
         \x20 chain to_clients {{\n\
         \x20   type filter hook postrouting priority 300; policy accept;\n\
         \x20   oifname != \"{device}\" accept\n\
         \x20   meta nfproto ipv6 drop\n\
         \x20   ip daddr != @served drop\n\
         \x20   quota name ip daddr map @credit drop\n\
         \x20   ip daddr @down\n\
         \x20   quota name ip daddr map @alarm\n\
         \x20 }}\n\
         \x20 chain forward {{\n\
         \x20   type filter hook forward priority filter; policy accept;\n\
         {barred}\
         \x20   iifname \"{device}\" tcp flags syn tcp option maxseg size set rt mtu\n\
         \x20   oifname \"{device}\" tcp flags syn tcp option maxseg size set rt mtu\n\
         \x20 }}\n\
         \x20 chain input {{\n\
         \x20   type filter hook input priority filter; policy accept;\n\
         {input}\
         \x20 }}\n\
         \x20 chain postrouting {{\n\
         \x20   type nat hook postrouting priority srcnat; policy accept;\n\
         \x20   ip saddr {network} oifname != \"{device}\" masquerade\n\
         \x20 }}\n\
         }}\n"
    )
}

/// The tunnel's address on the agent's side.
fn gateway(settings: &Settings) -> Ipv4Addr {
    let network = settings.network;
    network.hosts().next().unwrap_or_else(|| network.network())
}

/// What is not forwarded for any client.
fn barred(settings: &Settings) -> Vec<String> {
    let device = &settings.device;
    let mut rules = vec![format!("iifname \"{device}\" oifname \"{device}\" drop")];
    if !settings.allow_private {
        rules.push(format!("iifname \"{device}\" ip daddr @private drop"));
    }
    rules
}

/// What clients may ask of the agent's machine itself.
fn input(settings: &Settings) -> Vec<String> {
    let (device, gateway) = (&settings.device, gateway(settings));
    let mut rules = vec![
        format!("iifname != \"{device}\" accept"),
        "ct state established,related accept".to_owned(),
        format!("ip daddr {gateway} icmp type echo-request accept"),
    ];
    if settings.announced_dns().contains(&gateway.into()) {
        rules.push(format!("ip daddr {gateway} meta l4proto {{ tcp, udp }} th dport 53 accept"));
    }
    rules.push("drop".to_owned());
    rules
}

/// The barrier's table, as commands for one process that owns it. The tunnel's own address is also
/// one of this machine, which may speak to itself.
pub(super) fn barrier(settings: &Settings, table: &str) -> String {
    let Settings { device, network, .. } = settings;
    let mut script = format!(
        "add table inet {table} {{ flags owner; }}\n\
         add set inet {table} private \
         {{ type ipv4_addr; flags interval; elements = {{ {PRIVATE} }}; }}\n"
    );
    let v6 = vec![format!("iifname \"{device}\" meta nfproto ipv6 drop")];
    let gateway = gateway(settings);
    let untranslated =
        vec![format!("oifname != \"{device}\" ip saddr {network} ip saddr != {gateway} drop")];
    for (chain, hook, priority, rules) in [
        ("from_clients", "prerouting", "raw", v6),
        ("forward", "forward", "filter", barred(settings)),
        ("input", "input", "filter", input(settings)),
        ("outward", "postrouting", "300", untranslated),
    ] {
        // Writing to a string does not fail.
        let _ = writeln!(
            script,
            "add chain inet {table} {chain} \
             {{ type filter hook {hook} priority {priority}; policy accept; }}"
        );
        for rule in rules {
            let _ = writeln!(script, "add rule inet {table} {chain} {rule}");
        }
    }
    script
}

/// The name of a client's quota, or of the one that says early that it is being used up: the kernel
/// tells by netlink when either is.
fn name(map: &str, address: Ipv4Addr) -> String {
    format!("{map}_{}", u32::from(address))
}

/// Lets a client through.
pub(super) fn open(script: &mut String, table: &str, address: Ipv4Addr) {
    // Writing to a string does not fail.
    let _ = writeln!(
        script,
        "add element inet {table} up {{ {address} }}\n\
         add element inet {table} down {{ {address} }}\n\
         add element inet {table} served {{ {address} }}"
    );
}

/// A client's first limit: no more than this goes through.
pub(super) fn limit(script: &mut String, table: &str, address: Ipv4Addr, map: &str, bytes: u64) {
    let name = name(map, address);
    let _ = writeln!(
        script,
        "add quota inet {table} {name} {{ over {bytes} bytes }}\n\
         add element inet {table} {map} {{ {address} : \"{name}\" }}"
    );
}

/// Another limit for what the same quota has counted.
pub(super) fn extend(script: &mut String, table: &str, address: Ipv4Addr, bytes: u64) {
    let name = name(CREDIT, address);
    let _ = writeln!(script, "add quota inet {table} {name} {{ over {bytes} bytes }}");
}

/// Takes a limit away.
pub(super) fn free(script: &mut String, table: &str, address: Ipv4Addr, map: &str) {
    let name = name(map, address);
    let _ = writeln!(
        script,
        "delete element inet {table} {map} {{ {address} : \"{name}\" }}\n\
         delete quota inet {table} {name}"
    );
}

/// Shuts a client out; its counters stay.
pub(super) fn shut(script: &mut String, table: &str, address: Ipv4Addr) {
    let _ = writeln!(script, "delete element inet {table} served {{ {address} }}");
}

/// Takes the counters away that were read for the last time.
pub(super) fn forget(script: &mut String, table: &str, address: Ipv4Addr, limited: bool) {
    if limited {
        free(script, table, address, CREDIT);
        free(script, table, address, ALARM);
    }
    let _ = writeln!(
        script,
        "delete element inet {table} up {{ {address} }}\n\
         delete element inet {table} down {{ {address} }}"
    );
}

/// The table as the kernel has it.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Listing {
    /// All that does not change with clients.
    pub(super) skeleton: String,
    pub(super) served: BTreeSet<Ipv4Addr>,
    pub(super) passed: HashMap<Ipv4Addr, Passed>,
    /// Clients whose credit is used up.
    pub(super) depleted: BTreeSet<Ipv4Addr>,
    /// Clients who have used so much that they are to be looked at.
    pub(super) alarmed: BTreeSet<Ipv4Addr>,
}

impl Listing {
    /// Reads what `nft -j list table` has written; `None` if it is not that.
    pub(super) fn read(text: &str) -> Option<Self> {
        let all: Value = serde_json::from_str(text).ok()?;
        let (mut listing, mut skeleton) = (Self::default(), Vec::new());
        for item in all["nftables"].as_array()? {
            let Some((kind, value)) = item.as_object().and_then(|item| item.iter().next()) else {
                continue;
            };
            let mut value = value.clone();
            match (kind.as_str(), value["name"].as_str()) {
                ("metainfo", _) => continue,
                ("quota", name) => {
                    let used_up = value["used"].as_u64() >= value["bytes"].as_u64();
                    let of = |map: &str| {
                        let number = name?.strip_prefix(map)?.strip_prefix('_')?.parse().ok()?;
                        Some(Ipv4Addr::from_bits(number)).filter(|_| used_up)
                    };
                    listing.depleted.extend(of(CREDIT));
                    listing.alarmed.extend(of(ALARM));
                    continue;
                }
                ("set", Some("served")) => {
                    listing.served = elements(&value).filter_map(address).collect();
                }
                ("set", Some("up")) => {
                    for (address, traffic) in elements(&value).filter_map(counter) {
                        listing.passed.entry(address).or_default().up = traffic;
                    }
                }
                ("set", Some("down")) => {
                    for (address, traffic) in elements(&value).filter_map(counter) {
                        listing.passed.entry(address).or_default().down = traffic;
                    }
                }
                _ => {}
            }
            if let Some(fields) = value.as_object_mut() {
                fields.remove("handle");
                if fields.get("name") != Some(&json!("private")) {
                    fields.remove("elem");
                }
            }
            skeleton.push(format!("{kind} {value}"));
        }
        listing.skeleton = skeleton.join("\n");
        Some(listing)
    }
}

fn elements(set: &Value) -> impl Iterator<Item = &Value> {
    set["elem"].as_array().into_iter().flatten()
}

fn address(value: &Value) -> Option<Ipv4Addr> {
    value.as_str()?.parse().ok()
}

fn counter(value: &Value) -> Option<(Ipv4Addr, Traffic)> {
    let (value, counter) = (&value["elem"]["val"], &value["elem"]["counter"]);
    let number = |name: &str| counter[name].as_u64();
    Some((address(value)?, Traffic { bytes: number("bytes")?, packets: number("packets")? }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listing_has_counters_and_a_skeleton_that_clients_do_not_change() {
        let listing = |elements: &str, handle: u32, rest: &str| {
            let text = format!(
                "{{\"nftables\": [{{\"metainfo\": {{\"version\": \"1.0.6\"}}}}, \
                 {{\"table\": {{\"family\": \"inet\", \"name\": \"t\", \"handle\": {handle}}}}}, \
                 {{\"set\": {{\"name\": \"served\", \"handle\": {handle}{served}}}}}, \
                 {{\"set\": {{\"name\": \"up\", \"handle\": 4{elements}}}}}, \
                 {{\"set\": {{\"name\": \"down\"{elements}}}}}{rest}]}}",
                served = if elements.is_empty() { "" } else { ", \"elem\": [\"10.89.0.2\"]" },
            );
            Listing::read(&text).expect("a listing")
        };
        let quota = ", {\"quota\": {\"name\": \"credit_173604866\", \"bytes\": 9, \"used\": 9}}";
        let element = ", \"elem\": [{\"elem\": {\"val\": \"10.89.0.2\", \
                       \"counter\": {\"packets\": 2, \"bytes\": 300}}}]";
        let rule = ", {\"rule\": {\"chain\": \"forward\", \"expr\": [{\"drop\": null}]}}";
        let alarm = ", {\"quota\": {\"name\": \"alarm_173604866\", \"bytes\": 4, \"used\": 3}}";
        let served = listing(element, 7, &format!("{rule}{quota}{alarm}"));
        let empty = listing("", 1, rule);
        let address: Ipv4Addr = "10.89.0.2".parse().expect("an address");
        let traffic = Traffic { bytes: 300, packets: 2 };
        assert_eq!(served.passed[&address], Passed { up: traffic, down: traffic });
        assert!(served.served.contains(&address) && empty.served.is_empty());
        assert!(served.depleted.contains(&address) && empty.depleted.is_empty());
        assert!(served.alarmed.is_empty());
        let alarm = alarm.replace("\"used\": 3", "\"used\": 4");
        assert!(listing(element, 7, &alarm).alarmed.contains(&address));
        assert_eq!(empty.skeleton, served.skeleton);
        // A rule that is gone makes another.
        assert_ne!(empty.skeleton, listing("", 1, "").skeleton);
        assert_eq!(Listing::read("no JSON"), None);
        assert_eq!(Listing::read("{}"), None);
    }
}
