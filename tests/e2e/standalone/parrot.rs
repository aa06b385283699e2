//! The module of docs/standalone.md, in Python, between two hosts: real bytes, and every way in which
//! access ends.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::process::{Child, Command, Stdio};

use privatix_modules::registry::State;
use privatix_plugin_api::message::{ClientKey, Status};
use serde_json::{Value, json};

use crate::support::module::{place, repository};
use crate::support::program::{Described, Station, Trade, listening, token};
use crate::support::trade::free_port;
use crate::support::{Node, PATIENCE, wait_for};

const DIRECTORY: &str = "docs/standalone";

/// A program of the module, killed when it is dropped.
struct Program(Child);

impl Program {
    fn of(station: &Station) -> Self {
        let path = station.node.home().join("parrot.log");
        let log = std::fs::File::options().create(true).append(true).open(path).expect("a log");
        let mut command = Command::new("python3");
        command.arg(repository().join(DIRECTORY).join("parrot.py"));
        command.arg(format!("http://{}/http", station.address));
        command.env("PRIVATIX_TOKEN", &station.token).stdin(Stdio::null()).stderr(log);
        Self(command.spawn().expect("python3 runs"))
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn station(role: &str, configuration: &str) -> Station {
    let (node, address) = listening(role, configuration);
    let read = |kind: &str| {
        std::fs::read(repository().join(DIRECTORY).join(format!("parrot.{kind}.json")))
            .expect("a file of the example")
    };
    for kind in ["access", "offering", "module"] {
        place(&node.plugins(), &format!("parrot.{kind}.json"), &read(kind));
    }
    node.wait_state("parrot", State::Running);
    let module = Described {
        name: "parrot".into(),
        manifest: serde_json::from_slice(&read("module")).expect("JSON"),
        access: read("access"),
        offering: read("offering"),
    };
    let token = token(&node, "parrot");
    Station { node, module, address, token }
}

fn connected(node: &Node) {
    node.wait("parrot", "connected", |view| view.connection.is_some_and(|c| c.connected));
}

/// What a user of the client's port gets for some words.
fn spoken(client: &Node, channel: ClientKey, words: &[u8]) -> Option<Vec<u8>> {
    let address = client.channel(channel).service.get("address")?.clone();
    let mut stream = TcpStream::connect(address).ok()?;
    stream.set_read_timeout(Some(PATIENCE)).ok()?;
    stream.write_all(words).ok()?;
    // As `nc -N` does: all is said, and the answer is still to come.
    stream.shutdown(Shutdown::Write).ok()?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).ok()?;
    Some(answer).filter(|answer| answer.len() == words.len())
}

#[test]
fn a_module_in_python_sells_real_bytes() {
    // Its URL is part of its offerings, so it has to be the same after a restart.
    let listen = format!("[exchange]\nlisten = \"127.0.0.1:{}\"\n", free_port());
    let agent = station("agent", &format!("{listen}[agent]\norders = \"open\"\n"));
    let client = station("client", "[client]\npoll_interval = 1\n");
    let (selling, _buying) = (Program::of(&agent), Program::of(&client));
    connected(&agent.node);
    connected(&client.node);
    // It says where it listens, and only then there is something to sell.
    let Trade { mut agent, client, channel, .. } = Trade::between(agent, client, json!({}));
    for node in [&agent.node, &client.node] {
        node.wait_channel(channel, Status::Active);
    }
    let usage = |station: &Station| station.node.channel(channel).usage;
    let agree = |agent: &Station, client: &Station, least: u64| {
        wait_for(&format!("{least} bytes on both sides"), || {
            (usage(agent) == usage(client) && usage(agent) >= least).then_some(())
        });
    };

    let words = b"polly wants a cracker\n".repeat(50_000);
    assert_eq!(spoken(&client.node, channel, &words), Some(words.to_ascii_uppercase()));
    let sold = 2 * words.len() as u64;
    agree(&agent, &client, sold);

    let command = |node: &Node, word: &str, then: Status| {
        let _: Value =
            node.post(&format!("/v1/channels/{channel}/{word}"), &json!(null)).expect(word);
        node.wait_channel(channel, then);
    };
    command(&agent.node, "suspend", Status::Suspended);
    wait_for("no more words", || spoken(&client.node, channel, b"x").is_none().then_some(()));
    command(&agent.node, "resume", Status::Active);
    let again = |client: &Station| {
        wait_for("words again", || spoken(&client.node, channel, b"again"));
    };
    again(&client);

    // The host is killed and comes back; then the program.
    agent.node.kill();
    agent.node.start();
    connected(&agent.node);
    again(&client);
    drop(selling);
    let _selling = Program::of(&agent);
    wait_for("a new access message", || {
        (client.node.channel(channel).access_serial > 1).then_some(())
    });
    again(&client);

    command(&client.node, "terminate", Status::Terminated);
    agent.node.wait_channel(channel, Status::Terminated);
    // What a program that is killed had not reported yet is lost, and no more than that.
    let (agents, clients) = (usage(&agent), usage(&client));
    assert!(agents >= sold && clients >= agents && clients - agents < 100, "{agents} {clients}");
    let log = std::fs::read_to_string(agent.node.home().join("parrot.log")).expect("a log");
    assert!(!log.contains("Traceback"), "{log}");
}
