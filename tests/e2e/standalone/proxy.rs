//! The proxy as programs of their own on both sides: the bytes and the endings of the module in a
//! library, and what is killed comes back.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use privatix_modules::registry::State;
use privatix_plugin_api::message::{ClientKey, Status};
use serde_json::{Value, json};

use crate::support::module::{libraries, repository};
use crate::support::program::{Described, Station, Trade};
use crate::support::trade::free_port;
use crate::support::{Node, Package, socks, wait_for};

const MIB: u64 = 1 << 20;

/// A program of the module, killed when it is dropped.
struct Program(Child);

impl Program {
    fn of(station: &Station) -> Self {
        let log = station.node.home().join("program.log");
        let log = fs::File::options().create(true).append(true).open(log).expect("a log");
        let mut command = Command::new(libraries().join("proxy-standalone"));
        command.arg(format!("ws://{}/ws", station.address));
        command.arg(station.node.home().join("program"));
        command.env("PRIVATIX_TOKEN", &station.token).stdin(Stdio::null()).stderr(log);
        Self(command.spawn().expect("started"))
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn module() -> Described {
    let read = |path: &str| fs::read(repository().join(path)).expect("readable");
    let manifest = read("plugins/proxy-standalone/proxy.module.json");
    Described {
        name: "proxy".into(),
        manifest: serde_json::from_slice(&manifest).expect("JSON"),
        access: read("templates/proxy.access.json"),
        offering: read("templates/proxy.offering.json"),
    }
}

#[test]
fn the_manifest_says_what_the_library_says() {
    let (library, file) = (Package::proxy().manifest(), module().manifest);
    for (field, value) in file.as_object().expect("an object") {
        assert_eq!(Some(value), library.get(field), "{field}");
    }
}

struct Deal {
    agent: Station,
    client: Station,
    programs: [Option<Program>; 2],
    channel: ClientKey,
}

impl Deal {
    fn new() -> Self {
        let agent = format!(
            "[exchange]\nlisten = \"127.0.0.1:{}\"\n[agent]\norders = \"open\"\n\
             [modules.proxy]\nallow_private = true\nreport_ms = 20\n",
            free_port()
        );
        let client = "[client]\npoll_interval = 1\n[modules.proxy]\nreport_ms = 20\n";
        let agent = Station::with("agent", module(), &agent);
        let client = Station::with("client", module(), client);
        let programs = [&agent, &client].map(|station| Some(Program::of(station)));
        let Trade { agent, client, channel, .. } = Trade::between(agent, client, json!({}));
        for node in [&agent.node, &client.node] {
            node.wait_channel(channel, Status::Active);
        }
        Self { agent, client, programs, channel }
    }

    fn port(&self) -> Option<SocketAddr> {
        self.client.node.channel(self.channel).service.get("socks5")?.parse().ok()
    }

    fn fetch(&self, source: std::net::SocketAddrV4) -> Option<()> {
        let stream = socks::connect(self.port()?, None, source).ok()?;
        socks::fetch(stream, MIB).ok()
    }

    fn usage(&self) -> [u64; 2] {
        [&self.agent, &self.client].map(|station| station.node.channel(self.channel).usage)
    }

    /// Fetches, and waits until both have counted that.
    fn fetch_and_count(&self, source: std::net::SocketAddrV4) {
        let before = self.usage();
        wait_for("bytes", || self.fetch(source));
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
}

fn log(home: &Path) -> String {
    fs::read_to_string(home.join("program.log")).unwrap_or_default()
}

#[test]
fn real_bytes_suspended_resumed_and_through_every_kill() {
    let mut deal = Deal::new();
    let source = socks::source();
    wait_for("bytes", || deal.fetch(source));
    wait_for("the same usage on both sides", || {
        let [agents, clients] = deal.usage();
        (agents == clients && agents == MIB + 8).then_some(())
    });
    for side in 0..2 {
        let node = if side == 0 { &deal.agent.node } else { &deal.client.node };
        deal.command(node, "suspend", Status::Suspended);
        assert_eq!(deal.fetch(source), None);
        deal.command(node, "resume", Status::Active);
        deal.fetch_and_count(source);
    }
    // Each host is killed, and each program.
    for side in 0..2 {
        let station = if side == 0 { &mut deal.agent } else { &mut deal.client };
        station.node.kill();
        station.node.start();
        station.node.wait_state("proxy", State::Running);
        deal.fetch_and_count(source);
        deal.programs[side] = None;
        let station = if side == 0 { &deal.agent } else { &deal.client };
        station.node.wait("proxy", "not connected", |v| {
            v.connection.is_some_and(|connection| !connection.connected)
        });
        deal.programs[side] = Some(Program::of(station));
        deal.fetch_and_count(source);
    }
    for station in [&deal.agent, &deal.client] {
        let log = log(station.node.home());
        assert!(!log.contains("panicked") && !log.contains(&station.token), "{log}");
        assert_eq!(station.node.channel(deal.channel).status, Status::Active);
    }
    deal.command(&deal.client.node, "terminate", Status::Terminated);
    deal.agent.node.wait_channel(deal.channel, Status::Terminated);
    assert_eq!(deal.fetch(source), None);
}
