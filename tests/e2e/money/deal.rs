//! Two hosts that have agreed on a price, with a gate between them.

use std::fs;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, SocketAddrV4, TcpStream};

use privatix_core::{IdentityView, MoneyView, OfferingView, OrderView};
use privatix_plugin_api::message::{ClientKey, Status};
use serde_json::{Value, json};

use crate::support::gate::Gate;
use crate::support::socks::{self, NoWay};
use crate::support::trade::{draft, free_port};
use crate::support::{Node, Package, Pair, wait_for};

pub(super) const MIB: u64 = 1 << 20;

/// Ten for each MiB, an interval of one, in advance or with a lag of two.
pub(super) const PREPAID: &str = "prepaid";
pub(super) const POSTPAID: &str = "postpaid";

pub(super) struct Deal {
    pub(super) pair: Pair,
    pub(super) channel: ClientKey,
    pub(super) gate: Gate,
    source: SocketAddrV4,
}

impl Deal {
    /// Of the proxy: real bytes.
    pub(super) fn proxy(billing: &str) -> Self {
        let agent = "[modules.proxy]\nallow_private = true\nreport_ms = 20\n";
        let terms = json!({ "billingType": billing, "unitPrice": 10 });
        Self::of(&Package::proxy(), agent, "[modules.proxy]\nreport_ms = 20\n", &terms, 1000)
    }

    /// Of any module; usage of the well-behaved fixture grows by itself.
    pub(super) fn of(
        package: &Package,
        agent: &str,
        client: &str,
        terms: &Value,
        deposit: u64,
    ) -> Self {
        let here = SocketAddr::from(([127, 0, 0, 1], free_port()));
        let behind = SocketAddr::from(([127, 0, 0, 1], free_port()));
        let agent = format!(
            "[agent]\norders = \"open\"\nservice_endpoint_address = \"127.0.0.1\"\n\
             [exchange]\nurl = \"http://{here}\"\nlisten = \"{behind}\"\n{agent}"
        );
        let gate = Gate::between(here, behind, "/v1/payments");
        let pair = Pair::configured(package, &agent, client);
        let channel = order(&pair, package, terms, deposit);
        let deal = Self { pair, channel, gate, source: socks::source() };
        for node in [&deal.pair.client, &deal.pair.agent] {
            node.wait_channel(deal.channel, Status::Active);
        }
        deal
    }

    pub(super) fn agent_money(&self) -> MoneyView {
        self.pair.agent.channel(self.channel).money.expect("money")
    }

    pub(super) fn client_money(&self) -> MoneyView {
        self.pair.client.channel(self.channel).money.expect("money")
    }

    pub(super) fn command(&self, node: &Node, command: &str, then: Status) {
        let path = format!("/v1/channels/{}/{command}", self.channel);
        let _: Value = node.post(&path, &json!(null)).expect(command);
        node.wait_channel(self.channel, then);
    }

    /// Waits until all that the client owes is signed, sent and acknowledged.
    pub(super) fn settled(&self) {
        wait_for("both ledgers to agree", || {
            let (agent, client) = (self.agent_money(), self.client_money());
            let said = client.agent?;
            let same = agent.paid == client.paid && said.paid == agent.paid;
            (same && said.cost == agent.cost && !client.unsent).then_some(())
        });
    }

    /// Waits until both have counted the same, and at least so much.
    pub(super) fn agree(&self, least: u64) -> u64 {
        wait_for("the same usage on both sides", || {
            let [agents, clients] =
                [&self.pair.agent, &self.pair.client].map(|node| node.channel(self.channel).usage);
            (agents == clients && agents >= least).then_some(agents)
        })
    }

    /// Fetches through both modules.
    pub(super) fn fetch(&self, size: u64) -> Result<(), NoWay> {
        Ok(socks::fetch(self.connect()?, size)?)
    }

    /// A connection through both modules, over which any number of bytes may be asked for.
    pub(super) fn connect(&self) -> Result<TcpStream, NoWay> {
        self.connect_to(self.source)
    }

    /// A connection through both modules.
    pub(super) fn connect_to(&self, to: SocketAddrV4) -> Result<TcpStream, NoWay> {
        let entry = format!("modules/proxy/channels/{}.json", self.channel);
        let entry = fs::read(self.pair.client.home().join(entry))?;
        let entry: Value = serde_json::from_slice(&entry).expect("JSON");
        let port = entry["socks5"].as_str().expect("an address").parse().expect("an address");
        socks::connect(port, None, to)
    }
}

/// Publishes an offering with these terms, has the client fetch it and order.
pub(super) fn order(pair: &Pair, package: &Package, terms: &Value, deposit: u64) -> ClientKey {
    let offering: OfferingView =
        pair.agent.post("/v1/offerings", &draft(package, terms.clone())).expect("published");
    let agent: IdentityView = pair.agent_identity();
    let fetch = json!({ "url": agent.exchange, "agent": agent.fingerprint });
    let _: Value = pair.client.post("/v1/offerings/fetch", &fetch).expect("fetched");
    order_of(pair, &offering.hash, deposit)
}

/// Has the client order what it has fetched.
pub(super) fn order_of(pair: &Pair, offering: &str, deposit: u64) -> ClientKey {
    let order = json!({ "offering": offering, "deposit": deposit, "hold": false });
    let order: OrderView = pair.client.post("/v1/orders", &order).expect("ordered");
    pair.accepted(&order)
}

/// A download of as many bytes as there are, in parts that a test asks for.
pub(super) struct Download(pub(super) TcpStream);

impl Download {
    pub(super) fn begin(deal: &Deal) -> Self {
        let mut stream = deal.connect().expect("connected");
        stream.write_all(&u64::MAX.to_be_bytes()).expect("asked");
        Self(stream)
    }

    /// Reads so many bytes, or fails where the connection was cut.
    pub(super) fn read(&mut self, size: u64) -> io::Result<()> {
        let mut part = vec![0; usize::try_from(size).expect("small")];
        self.0.read_exact(&mut part)
    }
}
