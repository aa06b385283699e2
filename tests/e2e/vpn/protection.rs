//! What strangers, agents and other programs of the machine cannot do: run up usage, open the kill
//! switch, or take the rules away for longer than a moment.

use std::net::{SocketAddr, UdpSocket};
use std::sync::atomic::AtomicBool;

use privatix_core::ChannelView;

use super::*;
use crate::support::network::FAR;

const HEALTH: &str = "health_interval = 1\n";

fn nft(namespace: &str, arguments: &[&str]) -> String {
    let output = network::program(namespace, "nft").args(arguments).output().expect("nft");
    assert!(output.status.success(), "nft {arguments:?}: {output:?}");
    String::from_utf8(output.stdout).expect("UTF-8")
}

/// The routing rules that are not the kernel's own.
fn routing(namespace: &str) -> String {
    let all = network::ip(&["-n", namespace, "rule", "show"])
        + &network::ip(&["-6", "-n", namespace, "rule", "show"]);
    let own = |line: &&str| !["0:", "32766:", "32767:"].iter().any(|own| line.starts_with(own));
    all.lines().filter(own).map(|line| format!("{line}\n")).collect()
}

/// UDP ports that programs of a namespace listen on.
fn udp_ports(namespace: &str) -> Vec<u16> {
    let read = || fs::read_to_string("/proc/thread-self/net/udp").expect("readable");
    let table = network::inside(namespace, read);
    let port = |line: &str| {
        let local = line.split_whitespace().nth(1)?;
        u16::from_str_radix(local.split_once(':')?.1, 16).ok()
    };
    table.lines().skip(1).filter_map(port).collect()
}

/// Sends so many bytes of what looks like OpenVPN's data to a port, from the far machine.
fn junk(world: &World, to: SocketAddr, bytes: usize) {
    network::inside(&world.network.far, move || {
        let socket = UdpSocket::bind("0.0.0.0:0").expect("a socket");
        let (mut sent, mut peer) = (0, 0_u32);
        let mut moments = crate::support::Moments::new(7);
        while sent < bytes {
            let mut packet = vec![0x48];
            packet.extend(&(peer % 8).to_be_bytes()[1..]);
            packet.extend((0..1200).map(|_| u8::try_from(moments.below(256)).expect("a byte")));
            // What is refused by then counts as sent.
            let _ = socket.send_to(&packet, to);
            (sent, peer) = (sent + packet.len(), peer + 1);
        }
    });
}

/// The usage of both sides, once it stays the same for longer than any count takes on its way.
fn settled(world: &World, channel: ClientKey) -> [u64; 2] {
    let mut last = (world.usage(channel), Instant::now());
    wait_for("the usage to settle", || {
        let now = world.usage(channel);
        if now != last.0 {
            last = (now, Instant::now());
        }
        (last.1.elapsed() > Duration::from_secs(4)).then_some(now)
    })
}

#[test]
fn vpn_junk_from_strangers_is_nobodys_usage() {
    let world = World::new("", "");
    let channel = world.channel();
    world.wait_through();
    world.fetch_and_count(channel, MIB);
    let sessions = [&world.agent, &world.client].map(|node| node.sessions(channel).len());
    let before = settled(&world, channel);
    junk(&world, (AGENT_OUTSIDE, 1194).into(), 10_000_000);
    junk(&world, (AGENT, 1194).into(), 10_000_000);
    let ports = udp_ports(&world.network.client);
    assert!(!ports.is_empty(), "the client's OpenVPN has a port");
    for port in ports {
        junk(&world, (CLIENT, port).into(), 10_000_000);
    }
    assert_eq!(settled(&world, channel), before, "junk was booked");
    world.fetch_and_count(channel, MIB);
    let after = [&world.agent, &world.client].map(|node| node.sessions(channel).len());
    assert_eq!(after, sessions, "the session was disturbed");
}

/// What has arrived at the far machine from the client's own address.
fn leaked(world: &World) -> u64 {
    let text = nft(&world.network.far, &["-j", "list", "counters"]);
    let all: Value = serde_json::from_str(&text).expect("JSON");
    let counters = all["nftables"].as_array().expect("a list");
    let found = counters.iter().find_map(|item| item["counter"]["packets"].as_u64());
    found.expect("a counter")
}

fn count_leaks(world: &World) {
    let rules = "table ip seen {\n counter leaks { }\n chain first {\n \
                 type filter hook prerouting priority raw;\n \
                 ip saddr 192.0.2.2 counter name leaks\n }\n}\n";
    nft(&world.network.far, &[rules]);
}

#[test]
fn vpn_flush_of_the_firewall_opens_nothing_and_is_mended() {
    let world = World::new(HEALTH, HEALTH);
    let channel = world.channel();
    world.wait_through();
    count_leaks(&world);
    let sessions = world.client.sessions(channel).len();
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        // Somebody who tries to get out all the time, by every kind of packet.
        scope.spawn(|| {
            let socket = network::inside(&world.network.client, || UdpSocket::bind("0.0.0.0:0"));
            let socket = socket.expect("a socket");
            while !over.load(Ordering::SeqCst) {
                let _ = socket.send_to(b"in the clear?", (FAR, 9999));
                std::thread::sleep(Duration::from_millis(1));
            }
        });
        let flushed = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            for _ in 0..3 {
                for namespace in [&world.network.client, &world.network.agent] {
                    nft(namespace, &["flush", "ruleset"]);
                    wait_for("the rules to be back", || {
                        tables(namespace).contains("privatix_").then_some(())
                    });
                }
            }
            for node in [&world.client, &world.agent] {
                node.wait("vpn", "degraded", |view| {
                    view.health.as_ref().is_some_and(|health| health.contains("another program"))
                });
            }
            // By all rules, and with all who are served.
            world.wait_through();
            world.fetch_and_count(channel, 4 * MIB);
            for node in [&world.client, &world.agent] {
                node.wait("vpn", "healthy", |view| {
                    view.health.as_ref().is_none_or(|health| !health.contains("another program"))
                });
            }
        }));
        over.store(true, Ordering::SeqCst);
        if let Err(panic) = flushed {
            std::panic::resume_unwind(panic);
        }
    });
    assert_eq!(leaked(&world), 0, "packets left in the clear");
    assert_eq!(world.client.sessions(channel).len(), sessions, "the session was disturbed");
    // Rules of routing are put back as well.
    let before = routing(&world.network.client);
    network::ip(&["-n", &world.network.client, "rule", "del", "priority", "5201"]);
    wait_for("the rule to be back", || {
        let mut now: Vec<_> = before.lines().map(str::to_owned).collect();
        let again = routing(&world.network.client);
        now.retain(|line| !again.contains(line));
        now.is_empty().then_some(())
    });
    world.wait_through();
    world.command(&world.client, channel, "terminate", Status::Terminated);
    wait_for("nothing to be left", || {
        (tables(&world.network.client).is_empty() && routing(&world.network.client).is_empty())
            .then_some(())
    });
}

/// A counter of the far machine.
fn counter(world: &World, name: &str) -> u64 {
    let text = nft(&world.network.far, &["-j", "list", "counter", "ip", "seen", name]);
    let all: Value = serde_json::from_str(&text).expect("JSON");
    let counters = all["nftables"].as_array().expect("a list");
    let found = counters.iter().find_map(|item| item["counter"]["packets"].as_u64());
    found.expect("a counter")
}

#[test]
fn vpn_flush_of_the_agents_firewall_opens_neither_networks_nor_services() {
    let world = World::new(HEALTH, HEALTH);
    let channel = world.channel();
    world.wait_through();
    let Network { agent, client, far } = &world.network;
    // A private network behind the agent, and a service on its machine.
    network::ip(&["-n", agent, "address", "add", "10.200.0.1/24", "dev", "out"]);
    network::ip(&["-n", far, "address", "add", "10.200.0.2/24", "dev", "eth0"]);
    let rules = "table ip seen {\n counter private { }\n counter inner { }\n counter through { }\n \
                 chain first {\n type filter hook prerouting priority raw;\n \
                 ip daddr 10.200.0.2 counter name private\n \
                 ip saddr 10.89.0.0/16 counter name inner\n \
                 ip saddr 198.51.100.1 udp dport 9999 counter name through\n }\n}\n";
    nft(far, &[rules]);
    let service = network::inside(agent, || UdpSocket::bind("0.0.0.0:4444")).expect("a port");
    service.set_nonblocking(true).expect("set");
    let heard = || service.recv(&mut [0; 64]).is_ok();
    let socket = network::inside(client, || UdpSocket::bind("0.0.0.0:0")).expect("a socket");
    // So many packets go into the tunnel to each of them.
    let knock = || {
        let before = world.carried(channel)[0];
        wait_for("packets in the tunnel", || {
            for to in ["10.200.0.2:9999", "198.51.100.1:4444", "10.89.0.1:4444"] {
                let _ = socket.send_to(b"is anybody there?", to);
            }
            let _ = socket.send_to(b"is anybody there?", (FAR, 9999));
            (world.carried(channel)[0] > before + 20_000).then_some(())
        });
    };
    let nothing_came = |when: &str| {
        for name in ["private", "inner"] {
            assert_eq!(counter(&world, name), 0, "{name} {when}");
        }
        assert!(!heard(), "a service of the agent's machine was reached {when}");
    };
    knock();
    assert!(counter(&world, "through") > 0, "what may pass does");
    nothing_came("while the gate stands");
    // A host that is stopped restores nothing: what holds now is the second line alone.
    let host = world.agent.pid();
    signal(host, nix::sys::signal::Signal::SIGSTOP);
    nft(agent, &["flush", "ruleset"]);
    let passed = counter(&world, "through");
    knock();
    nothing_came("while it is flushed");
    assert_eq!(counter(&world, "through"), passed, "nothing passes without being counted");
    signal(host, nix::sys::signal::Signal::SIGCONT);
    world.wait_through();
    // Its process is started again when somebody has ended it.
    let holders = || processes_in(agent, "nft");
    let old = wait_for("the process of the barrier", || holders().first().copied());
    signal(old, nix::sys::signal::Signal::SIGKILL);
    wait_for("another one", || {
        let stands = tables(agent).contains("privatix_privatix0_barrier");
        (stands && holders().iter().any(|new| *new != old)).then_some(())
    });
    world.wait_through();
    knock();
    nothing_came("after all of it");
}

fn with_user_hold(world: &World, channel: ClientKey) -> ChannelView {
    wait_for("the hold of the user", || {
        let view = world.client.channel(channel);
        let held = view.status == Status::Suspended && view.holds.contains(&"user".to_owned());
        held.then_some(view)
    })
}

#[test]
fn vpn_narrower_routes_wait_for_the_users_agreement() {
    let mut world = World::new("", "");
    let channel = world.channel();
    world.wait_through();
    count_leaks(&world);
    let narrow = |world: &mut World, routes: &str| {
        world.agent.stop();
        world.agent.configure(&format!("[modules.vpn]\nroutes = [\"{routes}\"]\n"));
        world.agent.start();
    };
    narrow(&mut world, "203.0.113.0/24");
    let view = with_user_hold(&world, channel);
    assert!(view.service["question"].contains("203.0.113.0/24"), "{:?}", view.service);
    // The guard stands as it was, also after a crash.
    assert!(world.network.fetch(1).is_err(), "a way past the tunnel");
    world.client.kill();
    world.client.start();
    world.client.wait_state("vpn", privatix_modules::registry::State::Running);
    with_user_hold(&world, channel);
    assert!(world.network.fetch(1).is_err(), "a way past the tunnel");
    assert_eq!(leaked(&world), 0, "packets left in the clear");
    // The user agrees: then it is as the agent wants it.
    world.command(&world.client, channel, "resume", Status::Active);
    wait_for("the way past the tunnel", || {
        world.network.fetch(1).ok().filter(|seen| *seen == CLIENT)
    });
    assert!(routing(&world.network.client).contains("5201:"));
    // Another change is another question; whoever terminates the channel has the plain network back.
    narrow(&mut world, "198.51.100.0/24");
    with_user_hold(&world, channel);
    assert_eq!(world.network.fetch(1).expect("fetched"), CLIENT);
    world.command(&world.client, channel, "terminate", Status::Terminated);
    wait_for("the guard to be lifted", || {
        (tables(&world.network.client).is_empty() && routing(&world.network.client).is_empty())
            .then_some(())
    });
}

#[test]
fn vpn_own_routes_of_everything_cover_ipv6_and_resolvers() {
    let world = World::new(
        "[modules.vpn]\nroutes = [\"203.0.113.0/24\"]\n",
        "[modules.vpn]\nroutes = [\"0.0.0.0/0\"]\n",
    );
    let channel = world.channel();
    world.wait_through();
    assert!(world.network.resolvers().contains("9.9.9.9"), "{}", world.network.resolvers());
    let six = network::program(&world.network.client, "ip")
        .args(["-6", "route", "get", "2001:db8::9"])
        .output()
        .expect("ip");
    // "No route to host" is a route that says so; "network is unreachable" would be none.
    let said = String::from_utf8_lossy(&six.stderr).into_owned();
    assert!(!six.status.success() && said.contains("No route to host"), "{six:?}");
    let view = world.client.channel(channel);
    assert_eq!(view.service.get("ipv6").map(String::as_str), Some("blocked"));
}

#[test]
fn vpn_that_never_connects_says_where_and_what_came() {
    let world = World::new(HEALTH, HEALTH);
    let rules = "table inet filtered {\n chain before {\n \
                 type filter hook prerouting priority raw;\n udp dport 1194 drop\n }\n}\n";
    nft(&world.network.agent, &[rules]);
    let channel = world.order(&world.offer(&json!({})));
    let view = world.client.wait("vpn", "a diagnosis", |view| {
        view.health.as_ref().is_some_and(|health| health.contains("nothing was received"))
    });
    let health = view.health.expect("a health");
    for part in ["192.0.2.1", "UDP port 1194", &channel.to_string()] {
        assert!(health.contains(part), "{health}");
    }
    let view = world.client.channel(channel);
    assert!(view.service["problem"].contains("nothing was received"), "{:?}", view.service);
    nft(&world.network.agent, &["delete", "table", "inet", "filtered"]);
    world.wait_active(channel);
    world.wait_through();
}
