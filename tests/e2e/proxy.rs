//! A real service between two hosts: bytes through the proxy modules of both, what each side counts
//! of them, and every way in which access ends.

use std::fs;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, SocketAddrV4};
use std::thread::JoinHandle;

use privatix_core::ProductView;
use privatix_domain::present::Line;
use privatix_plugin_api::message::{ClientKey, Status};
use serde_json::{Value, json};

use crate::support::socks::{self, NoWay};
use crate::support::{Node, Package, Pair, wait_for};

const MIB: u64 = 1 << 20;

/// Two hosts that have agreed on a proxy, and somewhere to go with it.
struct Deal {
    pair: Pair,
    channel: ClientKey,
    source: SocketAddrV4,
}

impl Deal {
    fn new() -> Self {
        let package = Package::proxy();
        let agent = "[agent]\norders = \"open\"\n\
                     [modules.proxy]\nallow_private = true\nreport_ms = 20\n";
        let pair = Pair::configured(&package, agent, "[modules.proxy]\nreport_ms = 20\n");
        let channel = pair.order(&pair.offer(&package));
        for node in [&pair.client, &pair.agent] {
            node.wait_channel(channel, Status::Active);
        }
        Self { pair, channel, source: socks::source() }
    }

    /// Where the client's module says that it listens.
    fn port(&self) -> io::Result<SocketAddr> {
        let entry = format!("modules/proxy/channels/{}.json", self.channel);
        let entry = fs::read(self.pair.client.home().join(entry))?;
        let entry: Value = serde_json::from_slice(&entry).expect("JSON");
        Ok(entry["socks5"].as_str().expect("an address").parse().expect("an address"))
    }

    /// Fetches through both modules.
    fn fetch(&self, size: u64) -> Result<(), NoWay> {
        let stream = socks::connect(self.port()?, None, self.source)?;
        Ok(socks::fetch(stream, size)?)
    }

    /// A transfer that goes on until it is cut, which is never a clean end; returns what was got until
    /// then.
    fn endless(&self) -> JoinHandle<u64> {
        let port = self.port().expect("a port");
        let mut stream = socks::connect(port, None, self.source).expect("connected");
        stream.write_all(&u64::MAX.to_be_bytes()).expect("asked");
        std::thread::spawn(move || {
            let (mut all, mut part) = (0, vec![0; 1 << 16]);
            loop {
                match stream.read(&mut part) {
                    Ok(0) => panic!("a clean end after {all} bytes"),
                    Ok(count) => all += count as u64,
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                        panic!("neither bytes nor an end")
                    }
                    Err(error) => {
                        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset, "{error}");
                        return all;
                    }
                }
            }
        })
    }

    fn usage(&self) -> [u64; 2] {
        [&self.pair.agent, &self.pair.client].map(|node| node.channel(self.channel).usage)
    }

    /// Waits until both have counted the same, and at least so much.
    fn agree(&self, least: u64) -> u64 {
        wait_for(&format!("the same usage on both sides, at least {least}"), || {
            let [agents, clients] = self.usage();
            (agents == clients && agents >= least).then_some(agents)
        })
    }

    /// Waits until both have counted more than before.
    fn grows(&self) {
        let before = self.usage();
        wait_for("usage to grow on both sides", || {
            let now = self.usage();
            (now[0] > before[0] && now[1] > before[1]).then_some(())
        });
    }

    /// Fetches, and waits until both have counted that.
    fn fetch_and_count(&self) {
        let before = self.usage();
        self.fetch(MIB).expect("fetched");
        wait_for("what was fetched on both sides", || {
            let now = self.usage();
            (now[0] >= before[0] + MIB && now[1] >= before[1] + MIB).then_some(())
        });
    }

    fn command(&self, node: &Node, command: &str, then: Status) {
        let path = format!("/v1/channels/{}/{command}", self.channel);
        let _: Value = node.post(&path, &json!(null)).expect(command);
        node.wait_channel(self.channel, then);
    }

    /// The agent's proxy and the password there.
    fn credentials(&self) -> (SocketAddr, String) {
        let products: Vec<ProductView> = self.pair.agent.get("/v1/products").expect("listed");
        let address = products[0].config["address"].as_str().expect("an address");
        let path = format!("/v1/channels/{}/access?reveal=true", self.channel);
        let lines: Vec<Line> = self.pair.client.get(&path).expect("an access message");
        let password = lines.into_iter().find(|line| line.label == "Password");
        (address.parse().expect("an address"), password.expect("a password").value)
    }
}

#[test]
fn both_sides_count_what_a_plain_program_fetches() {
    let deal = Deal::new();
    deal.fetch(4 * MIB).expect("fetched");
    let first = deal.agree(4 * MIB);
    deal.fetch(MIB).expect("fetched");
    // The request counts as well: eight bytes each time.
    assert_eq!((first, deal.agree(5 * MIB)), (4 * MIB + 8, 5 * MIB + 16));
}

#[test]
fn a_suspended_channel_carries_nothing() {
    let deal = Deal::new();
    for node in [&deal.pair.client, &deal.pair.agent] {
        let transfer = deal.endless();
        deal.grows();
        deal.command(node, "suspend", Status::Suspended);
        let got = transfer.join().expect("cut");
        assert!(got > 0);
        let usage = || node.channel(deal.channel).usage;
        let until_then = usage();
        let through = deal.fetch(1);
        assert!(through.is_err(), "{through:?}");
        assert_eq!(usage(), until_then);
        deal.command(node, "resume", Status::Active);
        wait_for("bytes again", || deal.fetch(MIB).ok());
        deal.fetch_and_count();
    }
}

#[test]
fn a_killed_agent_comes_back_and_the_service_with_it() {
    let mut deal = Deal::new();
    let transfer = deal.endless();
    deal.grows();
    let mut known = deal.usage();
    deal.pair.agent.kill();
    transfer.join().expect("cut");
    deal.pair.agent.start();
    wait_for("bytes again", || {
        let now = deal.usage();
        assert!(now[0] >= known[0] && now[1] >= known[1], "{now:?} after {known:?}");
        known = now;
        deal.fetch(MIB).ok()
    });
    deal.fetch_and_count();
    assert_eq!(deal.pair.agent.channel(deal.channel).status, Status::Active);
    assert_eq!(deal.pair.client.channel(deal.channel).status, Status::Active);
}

#[test]
fn credentials_are_good_for_as_long_as_the_channel() {
    let deal = Deal::new();
    let (proxy, password) = deal.credentials();
    let user = deal.channel.to_string();
    let enter = |user: &str, password: &str| {
        let stream = socks::connect(proxy, Some((user, password)), deal.source)?;
        Ok::<_, NoWay>(socks::fetch(stream, 1)?)
    };
    enter(&user, &password).expect("the right ones");
    let other = ClientKey(uuid::Uuid::new_v4()).to_string();
    for (user, password) in [(&*user, "wrong"), (&other, &password), ("nobody", &password)] {
        let outcome = enter(user, password);
        assert!(matches!(outcome, Err(NoWay::Denied)), "{user} {password}: {outcome:?}");
    }
    let port = deal.port().expect("a port");
    deal.command(&deal.pair.client, "terminate", Status::Terminated);
    deal.pair.agent.wait_channel(deal.channel, Status::Terminated);
    let outcome = enter(&user, &password);
    assert!(matches!(outcome, Err(NoWay::Denied)), "{outcome:?}");
    let through = socks::connect(port, None, deal.source);
    assert!(matches!(through, Err(NoWay::Io(_))), "{through:?}");
    assert!(deal.port().is_err(), "the port is forgotten");
}
