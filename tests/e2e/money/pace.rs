//! A line that is faster than payments: it waits for them, and is never cut.

use std::fs;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, SocketAddrV4, TcpListener};
use std::path::Path;

use privatix_core::OfferingView;
use privatix_plugin_api::message::{ClientKey, Status};
use serde_json::{Value, json};

use super::deal::{MIB, order, order_of};
use crate::support::module::repository;
use crate::support::{Node, Package, Pair, socks, wait_for};

const AGENT: &str = "[agent]\norders = \"open\"\n[modules.proxy]\nallow_private = true\n";

/// The commands of `docs/two-machines.md`, word for word.
#[test]
fn offering_of_the_page_is_sold_at_full_speed() {
    let page = repository().join("docs/two-machines.md");
    let page = fs::read_to_string(page).expect("the page");
    let fields = between(&page, "`offering.json` says what is sold:\n```json\n", "```");
    let deposit: u64 = between(&page, "privatix order HASH --deposit ", "\n").parse().expect("one");

    let pair = Pair::configured(&Package::proxy(), AGENT, "");
    let file = pair.agent.home().join("offering.json");
    fs::write(&file, fields).expect("written");
    let hash = published(&pair.agent, &file);
    pair.fetch();
    let channel = order_of(&pair, &hash, deposit);
    carried_without_a_cut(&pair, channel, 300 * MIB);
}

#[test]
fn line_that_outruns_payments_waits_for_them() {
    let package = Package::proxy();
    let pair = Pair::configured(&package, AGENT, "");
    let terms = json!({ "billingType": "prepaid", "unitPrice": 10, "billingInterval": 8 });
    let channel = order(&pair, &package, &terms, 100_000);
    // More than nine advances.
    carried_without_a_cut(&pair, channel, 150 * MIB);
}

fn carried_without_a_cut(pair: &Pair, channel: ClientKey, size: u64) {
    for node in [&pair.client, &pair.agent] {
        node.wait_channel(channel, Status::Active);
    }
    assert_eq!(carry(pair, channel, size).expect("carried"), size);
    wait_for("both to have counted it, and it to be paid for", || {
        let [agent, client] = [&pair.agent, &pair.client].map(|node| node.channel(channel));
        let (agents, clients) = (agent.money?, client.money?);
        let same = agent.usage == client.usage && agent.usage >= size;
        let paid = agents.paid == clients.paid && agents.paid > agents.cost;
        (same && paid && clients.dispute.is_none()).then_some(())
    });
    for node in [&pair.agent, &pair.client] {
        let log = node.log();
        let mine = log.lines().filter(|line| line.contains(&channel.to_string()));
        let cuts: Vec<_> = mine.filter(|line| line.contains("to=suspending")).collect();
        assert!(cuts.is_empty(), "{cuts:?}");
        assert_eq!(node.channel(channel).status, Status::Active);
        assert_eq!(node.sessions(channel).len(), 1, "one session");
    }
}

/// As fast as the machine is; how many bytes came, if they ended cleanly.
fn carry(pair: &Pair, channel: ClientKey, size: u64) -> io::Result<u64> {
    let entry = pair.client.home().join(format!("modules/proxy/channels/{channel}.json"));
    let entry: Value = serde_json::from_slice(&fs::read(entry)?)?;
    let port = entry["socks5"].as_str().expect("an address").parse().expect("an address");
    let mut stream = socks::connect(port, None, source(size)).map_err(io::Error::other)?;
    let (mut all, mut part) = (0, vec![0; 1 << 18]);
    loop {
        match stream.read(&mut part)? {
            0 => return Ok(all),
            count => all += count as u64,
        }
    }
}

/// Sends so many bytes to whoever connects.
fn source(size: u64) -> SocketAddrV4 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let SocketAddr::V4(address) = listener.local_addr().expect("an address") else {
        panic!("IPv4 was asked for")
    };
    std::thread::spawn(move || {
        let (mut stream, _) = listener.accept()?;
        io::copy(&mut io::repeat(7).take(size), &mut stream)?;
        stream.flush()
    });
    address
}

fn published(agent: &Node, file: &Path) -> String {
    let file = file.to_str().expect("UTF-8");
    let output = agent.privatix(&["--json", "offering", "create", "proxy", "--fields", file]);
    assert!(output.status.success(), "{output:?}");
    let offering: OfferingView = serde_json::from_slice(&output.stdout).expect("JSON");
    offering.hash
}

fn between<'a>(text: &'a str, before: &str, after: &str) -> &'a str {
    let (_, text) = text.split_once(before).unwrap_or_else(|| panic!("{before:?} is there"));
    let (text, _) = text.split_once(after).expect("an end");
    text
}
