//! A man in the middle: between a real agent and a real client, he passes on what he likes and how
//! he likes.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

use privatix_core::{ChannelView, IdentityView, OfferingView, OrderView};
use privatix_domain::identity::Identity;
use privatix_domain::signed::{self, Kind};
use privatix_plugin_api::message::{ClientKey, Status};
use serde_json::{Value, json};
use uuid::Uuid;

use super::seller::{client, order, with};
use super::wire::ask;
use crate::support::trade::{draft, free_port};
use crate::support::{Package, Pair, wait_for};

/// What he does with the agent's answer.
enum Act {
    /// Sends another message instead.
    Say(Value),
    /// The same, as a refusal.
    Refuse(Value),
    /// Sends other bytes, and these after them for as long as somebody reads.
    Send(&'static str, &'static [u8]),
}

/// Decides by the path and the agent's answer; passes it on where nothing is decided.
type Twist = Box<dyn Fn(&str, &Value) -> Option<Act> + Send>;

struct Middle {
    twist: Arc<Mutex<Twist>>,
}

impl Middle {
    /// Listens here, and asks there.
    fn between(here: SocketAddr, there: SocketAddr) -> Self {
        let twist: Arc<Mutex<Twist>> = Arc::new(Mutex::new(Box::new(|_, _| None)));
        let listener = TcpListener::bind(here).expect("a listener");
        let shared = Arc::clone(&twist);
        // It ends with the test's process.
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let twist = Arc::clone(&shared);
                // A client that goes away is none of his concern.
                thread::spawn(move || pass(stream, there, &twist));
            }
        });
        Self { twist }
    }

    fn act(&self, twist: impl Fn(&str, &Value) -> Option<Act> + Send + 'static) {
        *self.twist.lock().expect("no panic") = Box::new(twist);
    }

    fn be_honest(&self) {
        self.act(|_, _| None);
    }
}

/// One request and what becomes of its answer.
fn pass(mut stream: TcpStream, there: SocketAddr, twist: &Mutex<Twist>) -> Option<()> {
    let (method, path, body) = read_request(&mut stream)?;
    let answer = ask(there, &method, &path, &body);
    let act = (twist.lock().ok()?)(&path, &answer.body);
    let say = |status: u16, body: &Value| {
        let body = body.to_string();
        format!(
            "HTTP/1.1 {status} X\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
            body.len()
        )
    };
    match act {
        None => stream.write_all(say(answer.status, &answer.body).as_bytes()).ok(),
        Some(Act::Say(body)) => stream.write_all(say(200, &body).as_bytes()).ok(),
        Some(Act::Refuse(body)) => stream.write_all(say(403, &body).as_bytes()).ok(),
        Some(Act::Send(head, more)) => {
            stream.write_all(head.as_bytes()).ok()?;
            while !more.is_empty() {
                stream.write_all(more).ok()?;
            }
            Some(())
        }
    }
}

fn read_request(stream: &mut TcpStream) -> Option<(String, String, Vec<u8>)> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).ok()?;
        head.push(byte[0]);
    }
    let head = String::from_utf8(head).ok()?;
    let mut words = head.split(' ');
    let (method, path) = (words.next()?.to_owned(), words.next()?.to_owned());
    let length = head.to_lowercase();
    let length = length.split("content-length: ").nth(1).and_then(|rest| rest.split('\r').next());
    let mut body = vec![0; length.map_or(Some(0), |length| length.parse().ok())?];
    stream.read_exact(&mut body).ok()?;
    Some((method, path, body))
}

/// A redirect to where something would be counted, and bodies without an end.
const AWAY: &str = "HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:9/\r\nContent-Length: 0\r\n\
                    Connection: close\r\n\r\n";
const ENDLESS: &str = "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n";
const SPACES: &[u8] = &[b' '; 64 * 1024];
const NOISE: &str = "\0\0\0\0\r\n\r\n";
const EMPTY: &str = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";

/// Two hosts, and what is between them.
struct Street {
    pair: Pair,
    middle: Middle,
    agent: IdentityView,
    offering: String,
}

impl Street {
    fn new() -> Self {
        let package = Package::echo();
        let here = SocketAddr::from(([127, 0, 0, 1], free_port()));
        let configuration = format!(
            "[agent]\norders = \"open\"\nmax_channels_per_client = 99\n\
             [exchange]\nurl = \"http://{here}\"\n"
        );
        let pair =
            Pair::configured(&package, &configuration, "[log]\nlevel = \"privatix=debug\"\n");
        let middle = Middle::between(here, listener_of(&pair));
        let agent = pair.agent_identity();
        let draft = draft(&package, json!({ "supply": 99 }));
        let offering: OfferingView = pair.agent.post("/v1/offerings", &draft).expect("published");
        Self { pair, middle, agent, offering: offering.hash }
    }

    fn order(&self) -> OrderView {
        let order = json!({ "offering": self.offering, "deposit": null, "hold": false });
        self.pair.client.post("/v1/orders", &order).expect("made")
    }

    fn channels(&self) -> Vec<ChannelView> {
        self.pair.client.get("/v1/channels").expect("listed")
    }

    /// Waits for a line of the client's log that has all of these in it.
    fn wait_log(&self, words: &[&str]) {
        wait_for(&format!("{words:?} in the client's log"), || {
            let log = self.pair.client.log();
            log.lines().any(|line| words.iter().all(|word| line.contains(word))).then_some(())
        });
    }
}

/// Where the agent really listens, which is not where it says.
fn listener_of(pair: &Pair) -> SocketAddr {
    let path = pair.agent.home().join("privatix.toml");
    let text = std::fs::read_to_string(path).expect("readable");
    let table: toml::Table = text.parse().expect("TOML");
    table["exchange"]["listen"].as_str().expect("an address").parse().expect("an address")
}

/// A message signed anew by somebody, with some members replaced.
fn signed_by(who: &Identity, kind: Kind, message: &Value, changes: &Value) -> Value {
    let unsigned = with(&with(message, &json!({ "signature": null })), changes);
    signed::sign(kind, unsigned, who).expect("signed")
}

#[test]
fn offerings_that_were_touched_are_not_kept() {
    let street = Street::new();
    let client_node = &street.pair.client;
    let fetch = json!({ "url": street.agent.exchange, "agent": street.agent.fingerprint });
    let thief = || client(66);
    let says = |message: Value| Some(Act::Say(json!({ "offerings": [message] })));
    let own = json!({ "agentPublicKey": thief().public().signing });
    let twists: [(&str, Twist); 13] = [
        (
            "BadOfferingSignature",
            Box::new(move |_, a| says(with(&a["offerings"][0], &json!({ "serviceName": "free" })))),
        ),
        (
            "BadOfferingSignature",
            Box::new(move |_, a| says(with(&a["offerings"][0], &json!({ "signature": null })))),
        ),
        // The agent's key on it, and his signature.
        (
            "BadOfferingSignature",
            Box::new(move |_, a| {
                let offering = &a["offerings"][0];
                says(signed_by(&thief(), Kind::Offering, offering, &json!({})))
            }),
        ),
        // His key on it, and his signature.
        (
            "ForeignAgent",
            Box::new(move |_, a| {
                says(signed_by(&thief(), Kind::Offering, &a["offerings"][0], &own))
            }),
        ),
        ("BadOffering", Box::new(move |_, _| says(json!({})))),
        ("BadOffering", Box::new(move |_, _| says(json!("an offering")))),
        ("NotFetched", Box::new(|_, _| Some(Act::Say(json!({ "offerings": {} }))))),
        // Pages without an end, and one that leads elsewhere.
        (
            "do not go on",
            Box::new(|_, _| Some(Act::Say(json!({ "offerings": [], "next": "0".repeat(64) })))),
        ),
        (
            "is no hash",
            Box::new(|_, _| Some(Act::Say(json!({ "offerings": [], "next": "@elsewhere/" })))),
        ),
        ("NotFetched", Box::new(|_, _| Some(Act::Send(AWAY, b"")))),
        ("NotFetched", Box::new(|_, _| Some(Act::Send(ENDLESS, SPACES)))),
        ("NotFetched", Box::new(|_, _| Some(Act::Send(NOISE, b"")))),
        ("NotFetched", Box::new(|_, _| Some(Act::Send(EMPTY, b"")))),
    ];
    for (number, (expected, twist)) in twists.into_iter().enumerate() {
        street.middle.act(twist);
        let code = match client_node.post::<Value>("/v1/offerings/fetch", &fetch) {
            Ok(fetched) => {
                assert_eq!(fetched["offerings"], json!([]), "{number}");
                fetched["refused"][0]["code"].as_str().expect("a code").to_owned()
            }
            Err(error) => error.to_string(),
        };
        assert!(code.contains(expected), "{number}: {code} is not {expected}");
        assert_eq!(client_node.get::<Vec<OfferingView>>("/v1/offerings").expect("listed"), []);
    }
    street.middle.be_honest();
    street.pair.fetch();
}

const ORDERS: &str = "/v1/orders";

/// Acts on the answers to orders alone.
fn on_orders(act: impl Fn(&Value) -> Act + Send + 'static) -> Twist {
    Box::new(move |path, answer| (path == ORDERS).then(|| act(answer)))
}

/// Acts on the answers to requests for access messages alone.
fn on_access(act: impl Fn(&Value) -> Act + Send + 'static) -> Twist {
    Box::new(move |path, answer| path.ends_with("/access").then(|| act(answer)))
}

#[test]
fn replies_to_orders_that_were_touched_make_no_channel() {
    let street = Street::new();
    street.pair.fetch();
    let other = json!({ "channel": Uuid::new_v4() });
    let elsewhere = json!({ "order": "0".repeat(64) });
    let own = |a: &Value, changes: &Value| signed_by(&client(66), Kind::OrderReply, a, changes);
    let bad = "BadReplySignature";
    let twists = [
        (bad, on_orders(move |a| Act::Say(with(a, &other)))),
        (bad, on_orders(move |a| Act::Say(own(a, &json!({}))))),
        (bad, on_orders(move |a| Act::Say(own(a, &elsewhere)))),
        ("MalformedReply", on_orders(|_| Act::Say(json!({})))),
        ("302", on_orders(|_| Act::Send(AWAY, b""))),
        ("more than", on_orders(|_| Act::Send(ENDLESS, SPACES))),
        ("was not reached", on_orders(|_| Act::Send(NOISE, b""))),
        ("cannot be used", on_orders(|_| Act::Send(EMPTY, b""))),
    ];
    let mut made = Vec::new();
    for (expected, twist) in twists {
        street.middle.act(twist);
        let order = street.order();
        street.wait_log(&[&order.hash, expected]);
        assert_eq!(street.channels(), [], "{expected}");
        made.push(order);
    }
    for order in &made {
        let view: OrderView =
            street.pair.client.get(&format!("/v1/orders/{}", order.hash)).expect("the order");
        assert_eq!((view.state.as_str(), view.channel), ("waiting", None));
    }
    // The agent's own reply, but to the first order.
    let first = Arc::new(Mutex::new(None));
    let kept = Arc::clone(&first);
    street.middle.act(on_orders(move |answer| {
        let mut first = kept.lock().expect("no panic");
        Act::Say(first.get_or_insert_with(|| answer.clone()).clone())
    }));
    let one = street.order();
    street.pair.accepted(&one);
    let two = street.order();
    street.wait_log(&[&two.hash, "ForeignReply"]);
    assert!(street.channels().len() <= 1 + made.len());
    // The agent has made a channel of it long ago, and says so as soon as he lets it.
    street.middle.be_honest();
    let channel = street.pair.accepted(&two);
    street.pair.client.wait_channel(channel, Status::Active);
}

#[test]
fn only_the_agents_own_refusal_makes_a_client_give_up() {
    let street = Street::new();
    street.pair.fetch();
    let refused = json!({ "code": "OrderRejected", "text": "no" });
    // The agent's own word, but on an order of somebody else.
    let late = json!({ "expires": 1 });
    let foreign = order(&street.offering, &client(5), &late);
    let foreign = ask(listener_of(&street.pair), "POST", ORDERS, foreign.to_string().as_bytes());
    assert_eq!(foreign.word(), "400 OrderExpired");
    let (unsigned, by_thief, other_kind) = (refused.clone(), refused.clone(), refused);
    let twists = [
        ("MalformedRefusal", on_orders(move |_| Act::Refuse(unsigned.clone()))),
        (
            "BadRefusalSignature",
            on_orders(move |a| {
                let refusal = with(a, &by_thief);
                Act::Refuse(signed_by(&client(66), Kind::OrderRefusal, &refusal, &json!({})))
            }),
        ),
        // What the agent has signed, as if it were a refusal.
        ("BadRefusalSignature", on_orders(move |a| Act::Refuse(with(a, &other_kind)))),
        ("ForeignRefusal", on_orders(move |_| Act::Refuse(foreign.body.clone()))),
    ];
    let mut made = Vec::new();
    for (expected, twist) in twists {
        street.middle.act(twist);
        let order = street.order();
        street.wait_log(&[&order.hash, "not refused for good", expected]);
        let view: OrderView =
            street.pair.client.get(&format!("/v1/orders/{}", order.hash)).expect("the order");
        assert_eq!(view.state, "waiting", "{expected}");
        made.push(order);
    }
    street.middle.be_honest();
    for order in &made {
        street.pair.accepted(order);
    }
    // The agent means it, and whoever passes it on does not change that.
    let path = format!("/v1/offerings/{}/withdraw", street.offering);
    let _: Value = street.pair.agent.post(&path, &json!(null)).expect("withdrawn");
    let order = street.order();
    let refusal = wait_for("a refusal", || {
        let order: OrderView = street.pair.client.get(&format!("/v1/orders/{}", order.hash))?;
        (order.state == "rejected").then_some(order.refusal)
    });
    assert_eq!(refusal.expect("a reason").code.code(), "OfferingWithdrawn");
}

#[test]
fn access_messages_that_were_touched_are_not_kept() {
    let street = Street::new();
    street.pair.fetch();
    // An envelope of another channel, as he has recorded it.
    let recorded = Arc::new(Mutex::new(Value::Null));
    let record = Arc::clone(&recorded);
    street.middle.act(move |path, answer| {
        if path.ends_with("/access") {
            *record.lock().expect("no panic") = answer.clone();
        }
        None
    });
    let good = street.pair.accepted(&street.order());
    street.pair.client.wait_channel(good, Status::Active);
    let replayed = recorded.lock().expect("no panic").clone();
    assert_eq!(replayed["channel"], good.to_string());
    let for_mine = replayed.clone();
    let bad = "BadAccessSignature";
    let twists: [(&str, Twist); 8] = [
        ("ForeignAccess", on_access(move |_| Act::Say(replayed.clone()))),
        (bad, on_access(move |a| Act::Say(with(&for_mine, &json!({ "channel": a["channel"] }))))),
        (bad, on_access(|a| Act::Say(with(a, &json!({ "serial": 9 }))))),
        (bad, on_access(|a| Act::Say(signed_by(&client(66), Kind::Access, a, &json!({}))))),
        ("MalformedAccess", on_access(|_| Act::Say(json!({})))),
        ("302", on_access(|_| Act::Send(AWAY, b""))),
        ("more than", on_access(|_| Act::Send(ENDLESS, SPACES))),
        // Of the account, from which the client would learn that all is over.
        (
            "BadAccountSignature",
            Box::new(move |p, a| {
                p.ends_with("/account")
                    .then(|| Act::Say(with(a, &json!({ "status": "terminated" }))))
            }),
        ),
    ];
    let mut channels: Vec<ClientKey> = Vec::new();
    for (expected, twist) in twists {
        street.middle.act(twist);
        let channel = street.pair.accepted(&street.order());
        street.wait_log(&[&channel.to_string(), expected]);
        let view = street.pair.client.channel(channel);
        assert_eq!((view.status, view.access_serial), (Status::Pending, 0), "{expected}");
        channels.push(channel);
    }
    street.middle.be_honest();
    let last = channels.pop().expect("a channel");
    street.pair.client.wait_channel(last, Status::Active);
    assert_eq!(street.pair.client.channel(good).status, Status::Active);
}
