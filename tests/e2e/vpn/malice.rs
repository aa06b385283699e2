//! A server that is not what the agent's module would be: a real OpenVPN with the agent's keys, which
//! pushes whatever may do harm.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use super::*;

/// What no user has asked for, in the spelling of OpenVPN's `push`.
const HARM: [&str; 24] = [
    "topology net30",
    "route-gateway 192.0.2.66",
    "redirect-gateway def1 ipv6 bypass-dhcp",
    "redirect-private def1",
    "block-ipv6",
    "route 0.0.0.0 128.0.0.0",
    "route 128.0.0.0 128.0.0.0 vpn_gateway 0",
    "route 203.0.113.0 255.255.255.0 192.0.2.66 1",
    "route 198.51.100.2 255.255.255.255 net_gateway",
    "route 192.0.2.1 255.255.255.255 vpn_gateway",
    "route-metric 1",
    "tun-ipv6",
    "ifconfig-ipv6 2001:db8:66::2/16 2001:db8:66::1",
    "route-ipv6 ::/1",
    "route-ipv6 2001:db8::/32 2001:db8:66::1 1",
    "dhcp-option DNS 192.0.2.66",
    "dhcp-option DOMAIN-SEARCH example.org",
    "dns server 0 address 192.0.2.66",
    "block-outside-dns",
    "client-nat dnat 203.0.113.1 255.255.255.255 192.0.2.66",
    "tun-mtu 68",
    "ping-restart 0",
    "inactive 3600",
    "setenv PATH /tmp",
];

/// The agent's server, in other hands.
struct Malice {
    child: Child,
    log: tempfile::NamedTempFile,
    _files: tempfile::TempDir,
}

impl Malice {
    /// Everybody may log in, and is assigned this address with this mask.
    fn new(world: &World, address: &str, mask: &str) -> Self {
        let files = tempfile::tempdir().expect("a directory");
        let pki = world.agent.home().join("modules/vpn/pki");
        let path = |name: &str| pki.join(name).display().to_string();
        let mut config = format!(
            "mode server\ntls-server\nproto udp4\nport 1194\nmultihome\ndev evil0\ndev-type tun\n\
             topology subnet\nifconfig 10.66.0.1 255.255.0.0\n\
             ca {}\ncert {}\nkey {}\ntls-crypt {}\ndh none\n\
             verify-client-cert none\nscript-security 2\nauth-user-pass-verify /bin/true via-file\n\
             keepalive 1 60\nverb 3\nexplicit-exit-notify 1\npush \"ifconfig {address} {mask}\"\n",
            path("ca.crt"),
            path("server.crt"),
            path("server.key"),
            path("tls-crypt.key"),
        );
        for option in HARM {
            let _ = writeln!(config, "push \"{option}\"");
        }
        let file = files.path().join("conf");
        fs::write(&file, config).expect("written");
        let log = tempfile::NamedTempFile::new().expect("a file");
        let mut command = network::program(&world.network.agent, "openvpn");
        command.arg("--config").arg(file).stdout(log.reopen().expect("opened"));
        let child = command.stderr(Stdio::null()).spawn().expect("started");
        let malice = Self { child, log, _files: files };
        wait_for("the malicious server", || {
            malice.said().contains("Initialization Sequence Completed").then_some(())
        });
        malice
    }

    fn said(&self) -> String {
        fs::read_to_string(self.log.path()).expect("readable")
    }
}

impl Drop for Malice {
    fn drop(&mut self) {
        // Its clients are told, and come back at once.
        signal(self.child.id(), nix::sys::signal::Signal::SIGTERM);
        let _ = self.child.wait();
        if std::thread::panicking() {
            let _ = writeln!(std::io::stderr(), "--- the malicious server\n{}", self.said());
        }
    }
}

/// Addresses, routes and rules of the client's machine, a line each.
fn state(world: &World) -> BTreeSet<String> {
    let client = &world.network.client;
    let mut all = BTreeSet::new();
    for arguments in [
        &["-o", "address", "show"][..],
        &["-4", "route", "show", "table", "all"],
        &["-6", "route", "show", "table", "all"],
        &["-4", "rule", "show"],
        &["-6", "rule", "show"],
    ] {
        let shown = network::ip(&[&["-n", client], arguments].concat());
        // The kernel makes and marks those of a link by itself.
        let own = |line: &&str| !["fe80", "ff00"].iter().any(|own| line.contains(own));
        all.extend(shown.lines().filter(own).map(|line| {
            // Neither the number of a device nor the time an address is valid.
            let line = line.split_once(": ").filter(|_| arguments[0] == "-o").map_or(line, |l| l.1);
            line.split('\\').next().unwrap_or_default().trim().to_owned()
        }));
    }
    all
}

/// What is there beyond what was, without the rules of the kill switch; nothing may have gone.
fn beyond(before: &BTreeSet<String>, now: &BTreeSet<String>) -> Vec<String> {
    let gone: Vec<_> = before.difference(now).collect();
    assert!(gone.is_empty(), "taken away: {gone:?}");
    let more = now.difference(before);
    more.filter(|line| !line.starts_with("520")).cloned().collect()
}

fn service(world: &World, channel: ClientKey, name: &str) -> String {
    world.client.channel(channel).service.get(name).cloned().unwrap_or_default()
}

/// Waits until the client is connected with an address.
fn wait_address(world: &World, channel: ClientKey, address: &str) {
    wait_for("the client to be in the malicious server's tunnel", || {
        (service(world, channel, "address") == address).then_some(())
    });
}

/// How routes of the channel are shown, with its table.
fn shown(channel: ClientKey, network: &str) -> [String; 2] {
    let table = 0x7000_0000 | (channel.0.as_u128() >> 100);
    [
        format!("{network} dev {} table {table} scope link metric 10", device(channel)),
        format!("unreachable {network} table {table} metric 20000"),
    ]
}

/// What an accepted address adds.
fn own(channel: ClientKey, address: &str) -> [String; 2] {
    let device = device(channel);
    [
        format!("{device}    inet {address}/32 scope global {device}"),
        format!("local {address} dev {device} table local proto kernel scope host src {address}"),
    ]
}

fn sorted<const N: usize>(lines: [&String; N]) -> Vec<String> {
    let mut lines = lines.map(String::clone).to_vec();
    lines.sort();
    lines
}

#[test]
fn vpn_malicious_server_adds_nothing_to_routes_addresses_and_resolvers() {
    let settings =
        "[modules.vpn]\nroutes = [\"10.50.0.0/16\"]\nallow_networks = [\"10.77.0.0/24\"]\n";
    let mut world = World::new("", settings);
    let client = world.network.client.clone();
    network::ip(&["-n", &client, "address", "add", "192.168.5.1/24", "dev", "eth0"]);
    let before = state(&world);
    let channel = world.channel();
    let [inside, barred] = shown(channel, "10.50.0.0/16");
    world.agent.kill();
    {
        // An address that may be, with half of the Internet as its network.
        let _malice = Malice::new(&world, "10.89.7.7", "128.0.0.0");
        wait_address(&world, channel, "10.89.7.7");
        let [address, local] = own(channel, "10.89.7.7");
        let expected = sorted([&inside, &barred, &address, &local]);
        assert_eq!(beyond(&before, &state(&world)), expected);
        assert_eq!(world.network.resolvers(), RESOLVERS);
        // What is not in the tunnel goes where it went.
        assert_eq!(world.network.fetch(1).expect("fetched"), CLIENT);
    }
    for (address, mask, why) in [
        ("192.0.0.2", "128.0.0.0", "no private address"),
        ("10.77.0.130", "255.255.255.128", "10.77.0.0/24 of `allow_networks`"),
        ("192.168.5.77", "255.255.255.0", "192.168.5.0/24 of the device eth0"),
        ("198.51.100.2", "255.255.255.255", "no private address"),
    ] {
        let _malice = Malice::new(&world, address, mask);
        wait_for("the channel to say why", || {
            let problem = service(&world, channel, "problem");
            (problem.contains(address) && problem.contains(why)).then_some(())
        });
        // It comes again, and nothing of it stays.
        let more = beyond(&before, &state(&world));
        assert_eq!(more, std::slice::from_ref(&barred), "{address} {mask}");
        assert_eq!(service(&world, channel, "address"), "");
        assert_eq!(world.network.resolvers(), RESOLVERS);
        assert_eq!(world.network.fetch(1).expect("fetched"), CLIENT);
    }
    world.command(&world.client, channel, "terminate", Status::Terminated);
    wait_for("all of it to be gone", || (state(&world) == before).then_some(()));
}

#[test]
fn vpn_malicious_server_opens_no_way_past_the_tunnel() {
    let mut world = World::new("", "");
    let before = state(&world);
    let channel = world.channel();
    world.wait_through();
    world.agent.kill();
    let _malice = Malice::new(&world, "10.89.7.7", "0.0.0.0");
    wait_address(&world, channel, "10.89.7.7");
    let ([inside, barred], [address, local]) =
        (shown(channel, "default"), own(channel, "10.89.7.7"));
    // The IPv6 routes of the kill switch say "unreachable" alone.
    let more = beyond(&before, &state(&world));
    let more: Vec<_> = more
        .into_iter()
        .filter(|line| !(line.starts_with("unreachable default dev lo") && line.contains("20000")))
        .collect();
    assert_eq!(more, sorted([&inside, &barred, &address, &local]));
    let resolvers = world.network.resolvers();
    assert!(resolvers.contains("9.9.9.9") && !resolvers.contains("192.0.2.66"), "{resolvers}");
    // That server forwards nothing, and neither a pushed exception nor anything else leads past it.
    let leak = world.network.fetch(1);
    assert!(leak.is_err(), "{leak:?}");
}
