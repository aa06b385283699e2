//! The proxy as it is sold: two real hosts, and bytes from a server through both modules.
//!
//! The floor is the same way with two plain `tokio::io::copy_bidirectional` hops in place of the
//! modules. Both carry in turns, so that whatever else the machine does meets both.

mod crowd;
mod plain;

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use privatix_core::ProductView;
use privatix_core::{ChannelView, IdentityView, OfferingView, OrderView};
use privatix_domain::present::Line;
use privatix_plugin_api::message::{ClientKey, Status};
use serde::Serialize;
use serde_json::{Value, json};

pub(crate) use self::crowd::Crowd;
use crate::Effort;
use crate::figures::Figures;
use crate::node::{Node, Package};

/// The share of the floor that has to be reached.
pub(crate) const TARGET: f64 = 0.85;

const PART: usize = 64 * 1024;
const PATIENCE: Duration = Duration::from_secs(60);

/// Everything about the proxy.
#[derive(Debug, Serialize)]
pub(crate) struct Proxy {
    pub(crate) throughput: Vec<Throughput>,
    pub(crate) crowd: Crowd,
}

/// Medians of the rounds, in bytes a second.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Throughput {
    pub(crate) connections: usize,
    pub(crate) per_second: f64,
    pub(crate) plain_per_second: f64,
}

pub(crate) fn measure(binary: &Path, library: &Path, effort: Effort) -> anyhow::Result<Proxy> {
    // Before the hosts are started, which inherit it.
    let descriptors = crowd::raise_limit()?;
    let deal = Deal::new(binary, library)?;
    let mut throughput = Vec::new();
    for connections in [1, 16] {
        throughput.push(deal.throughput(connections, effort)?);
    }
    let crowd = crowd::measure(&deal, descriptors, effort)?;
    Ok(Proxy { throughput, crowd })
}

/// Two hosts that have agreed on a proxy.
struct Deal {
    agent: Node,
    _client: Node,
    /// The agent's proxy, and what it asks for.
    proxy: SocketAddr,
    login: Vec<u8>,
    /// The client's port.
    port: SocketAddr,
}

impl Deal {
    fn new(binary: &Path, library: &Path) -> anyhow::Result<Self> {
        let package = Package::read("proxy", library, "templates")?;
        let many = "max_connections = 20000\nmax_connections_per_channel = 20000\n";
        let modules = format!("[modules.proxy]\n{many}allow_private = true\n");
        let environment =
            [("PRIVATIX_EXCHANGE__LISTEN", "127.0.0.1:0"), ("PRIVATIX_AGENT__ORDERS", "open")];
        let start = |role| Node::start(binary, role, &environment, &modules);
        let (agent, client) = (start("agent")?, start("client")?);
        for node in [&agent, &client] {
            node.receive(&package)?;
        }
        let channel = order(&agent, &client)?;
        let view = client.wait("the channel", |node| {
            let view: Option<ChannelView> = node.get(&format!("/v1/channels/{channel}"));
            Ok(view.filter(|view| view.status == Status::Active))
        })?;
        let port = view.service.get("socks5").context("a port")?.parse()?;
        let products: Vec<ProductView> = agent.get("/v1/products").context("products")?;
        let product = products.first().context("a product")?;
        let proxy = product.config["address"].as_str().context("an address")?.parse()?;
        let path = format!("/v1/channels/{channel}/access?reveal=true");
        let lines: Vec<Line> = client.get(&path).context("an access message")?;
        let password = lines.into_iter().find(|line| line.label == "Password");
        let login = login(&channel.to_string(), &password.context("a password")?.value)?;
        Ok(Self { agent, _client: client, proxy, login, port })
    }

    fn throughput(&self, connections: usize, effort: Effort) -> anyhow::Result<Throughput> {
        let source = source()?;
        let plain = plain::Hops::to(source)?;
        let size = effort.bytes / connections as u64;
        let (mut sold, mut bare) = (Vec::new(), Vec::new());
        for _ in 0..effort.rounds {
            bare.push(carry(connections, size, || connect(plain.address))?);
            sold.push(carry(connections, size, || through(self.port, source))?);
        }
        let bytes = (size * connections as u64) as f64;
        let median = |times| bytes / Figures::of(times).p50;
        Ok(Throughput { connections, per_second: median(sold), plain_per_second: median(bare) })
    }
}

/// Publishes, fetches and orders what costs nothing; the channel.
fn order(agent: &Node, client: &Node) -> anyhow::Result<ClientKey> {
    let draft = json!({ "product": "proxy", "fields": {
        "serviceName": "bench", "country": "SE", "supply": 3, "unitName": "MiB",
        "unitType": "units", "unitSize": 1_048_576, "billingType": "prepaid", "setupPrice": 0,
        "unitPrice": 0, "minUnits": 0, "billingInterval": 1, "freeUnits": 0,
        "additionalParams": {},
    }});
    let offering: OfferingView = agent.post("/v1/offerings", &draft)?;
    let identity: IdentityView = agent.get("/v1/identity").context("an identity")?;
    let fetch = json!({ "url": identity.exchange, "agent": identity.fingerprint });
    let _: Value = client.post("/v1/offerings/fetch", &fetch)?;
    let order = json!({ "offering": offering.hash, "deposit": null, "hold": false });
    let order: OrderView = client.post("/v1/orders", &order)?;
    client.wait("the agent's answer", |node| {
        let order: Option<OrderView> = node.get(&format!("/v1/orders/{}", order.hash));
        Ok(order.and_then(|order| order.channel))
    })
}

/// The seconds that so many connections at once take for so many bytes each, from the first byte
/// that is asked for to the last.
fn carry(
    connections: usize,
    size: u64,
    open: impl Fn() -> anyhow::Result<TcpStream>,
) -> anyhow::Result<f64> {
    let streams = (0..connections).map(|_| open()).collect::<anyhow::Result<Vec<_>>>()?;
    let begun = Instant::now();
    std::thread::scope(|scope| {
        let fetched: Vec<_> =
            streams.into_iter().map(|stream| scope.spawn(move || fetch(stream, size))).collect();
        for fetched in fetched {
            match fetched.join() {
                Ok(got) => ensure!(got? == size, "not all bytes came"),
                Err(_) => bail!("a thread failed"),
            }
        }
        Ok(begun.elapsed().as_secs_f64())
    })
}

fn fetch(mut stream: TcpStream, size: u64) -> io::Result<u64> {
    stream.write_all(&size.to_be_bytes())?;
    let (mut got, mut part) = (0, vec![0; PART]);
    loop {
        match stream.read(&mut part)? {
            0 => return Ok(got),
            count => got += count as u64,
        }
    }
}

/// A server that sends as many bytes as it is asked for, in eight bytes; it ends with the process.
fn source() -> anyhow::Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            // A program that hangs up has had enough.
            std::thread::spawn(move || pour(stream));
        }
    });
    Ok(address)
}

fn pour(mut stream: TcpStream) -> io::Result<()> {
    let mut size = [0; 8];
    stream.read_exact(&mut size)?;
    let (mut left, part) = (u64::from_be_bytes(size), vec![7; PART]);
    while left > 0 {
        let count = PART.min(usize::try_from(left).unwrap_or(PART));
        stream.write_all(&part[..count])?;
        left -= count as u64;
    }
    Ok(())
}

fn connect(to: SocketAddr) -> anyhow::Result<TcpStream> {
    let stream = TcpStream::connect(to)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    Ok(stream)
}

/// A connection through the client's port.
fn through(port: SocketAddr, to: SocketAddr) -> anyhow::Result<TcpStream> {
    let mut stream = connect(port)?;
    stream.write_all(&[5, 1, 0])?;
    stream.read_exact(&mut [0; 2])?;
    stream.write_all(&request(to)?)?;
    let mut answer = [0; 10];
    stream.read_exact(&mut answer)?;
    ensure!(answer[1] == 0, "SOCKS code {}", answer[1]);
    Ok(stream)
}

/// SOCKS5's request to connect.
fn request(to: SocketAddr) -> anyhow::Result<Vec<u8>> {
    let SocketAddr::V4(to) = to else { bail!("{to} is not IPv4") };
    Ok([&[5, 1, 0, 1][..], &to.ip().octets(), &to.port().to_be_bytes()].concat())
}

/// RFC 1929.
fn login(user: &str, password: &str) -> anyhow::Result<Vec<u8>> {
    let mut bytes = vec![1];
    for text in [user, password] {
        bytes.push(u8::try_from(text.len())?);
        bytes.extend(text.bytes());
    }
    Ok(bytes)
}
