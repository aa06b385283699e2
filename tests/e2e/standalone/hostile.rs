//! What no program should do: the answer is a clear error or a clean close, the host stays as small as
//! it was, and whoever behaves notices nothing.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;

use privatix_plugin_api::message::Status;
use serde_json::{Value, json};
use tungstenite::Message;
use uuid::Uuid;

use crate::support::program::{Described, Station, exchange, post};
use crate::support::{Database, Moments, Node, PATIENCE, wait_for};

const CLOSED_UNREADABLE: [u16; 2] = [1002, 1006];

/// The host's memory in use, in KiB.
fn resident(node: &Node) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", node.pid())).expect("readable");
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("a line");
    line.split_whitespace().nth(1).expect("a number").parse().expect("a number")
}

fn works(station: &Station) {
    let mut wire = station.connect();
    wire.call("service_configuration", json!({})).expect("others are served");
}

#[test]
fn texts_that_are_no_calls() {
    let station = Station::new("agent");
    let mut wire = station.connect();
    let big = "a".repeat(60_000);
    for (text, code) in [
        ("", -32700),
        ("{", -32700),
        ("[]", -32600),
        ("null", -32600),
        (r#"{"jsonrpc":"2.0","id":1,"method":"service_configuration","params":3}"#, -32600),
        (r#"{"jsonrpc":"2.0","id":1,"method":"nothing"}"#, -32601),
        (big.as_str(), -32700),
    ] {
        wire.send(text);
        let answer = wire.receive();
        assert_eq!(answer["error"]["code"], code, "{text:.40}");
        let (status, answer) = station.post(Some(&station.token), text);
        assert_eq!((status, answer["error"]["code"].as_i64()), (200, Some(code)), "{text:.40}");
    }
    let many = vec![json!({ "jsonrpc": "2.0", "id": 1, "method": "service_configuration" }); 65];
    wire.send(&json!(many).to_string());
    assert_eq!(wire.receive()["error"]["code"], -32600);
    wire.call("service_configuration", json!({})).expect("the connection goes on");
}

#[test]
fn frames_that_are_none() {
    let station = Station::new("agent");
    let mut wire = station.connect();
    wire.send_message(Message::binary(vec![1, 2, 3]));
    assert_eq!(wire.closed(), 1003);
    for (mut wire, size) in [(station.bare(), 70_000), (station.connect(), (1 << 20) + 1)] {
        // It may be closed before all of it was sent.
        let _ = wire.try_send(Message::text("x".repeat(size)));
        assert!(CLOSED_UNREADABLE.contains(&wire.closed()), "{size}");
    }
    for bytes in [
        &[0xff; 64][..],
        // A text that is not masked; one that is not UTF-8; a frame that says that it is huge.
        &[0x81, 0x01, b'a'],
        &[0x81, 0x81, 0, 0, 0, 0, 0xff],
        &[0x81, 0xff, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0, b'a'],
        &[0x83, 0x80, 0, 0, 0, 0],
    ] {
        let mut wire = station.connect();
        wire.stream().write_all(bytes).expect("sent");
        assert!(CLOSED_UNREADABLE.contains(&wire.closed()), "{bytes:?}");
    }
    // Broken off in the middle of a frame, and in the middle of a handshake.
    let mut wire = station.connect();
    wire.stream().write_all(&[0x81, 0xfe, 0x10]).expect("sent");
    drop(wire);
    let mut half = TcpStream::connect(station.address).expect("connected");
    half.write_all(b"GET /ws HTTP/1.1\r\nUpgrade: webs").expect("sent");
    drop(half);
    works(&station);
}

#[test]
fn requests_that_are_none() {
    let station = Station::new("agent");
    let huge = "x".repeat(1 << 20);
    let rows: Vec<(String, u16)> = vec![
        ("GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".into(), 404),
        ("GET /http HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".into(), 405),
        ("GET /ws HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".into(), 400),
        ("nonsense\r\n\r\n".into(), 400),
        (format!("GET /http HTTP/1.1\r\nX: {huge}\r\n\r\n"), 431),
        (
            format!(
                "POST /http HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n{huge}",
                huge.len()
            ),
            413,
        ),
        (
            "POST /http HTTP/1.1\r\nHost: x\r\nAuthorization: Basic eA==\r\nConnection: close\r\n\
             Content-Length: 0\r\n\r\n"
                .into(),
            401,
        ),
    ];
    for (text, expected) in rows {
        let (status, _) = exchange(station.address, text.as_bytes());
        assert_eq!(status, expected, "{text:.60}");
    }
    works(&station);
}

#[test]
fn a_connection_that_is_cut_in_the_middle_of_a_call_loses_nothing() {
    let station = Station::new("agent");
    let database = Database::of(&station.node);
    let channel = station.module.channel(&database);
    let mut wire = station.connect();
    let started = wire.call("service_startSession", json!({ "clientKey": channel }));
    let session = started.expect("a session")["session"].clone();
    for total in 1..=50 {
        let usage =
            json!({ "clientKey": channel, "session": session, "usage": { "total": total } });
        let call = json!({
            "jsonrpc": "2.0", "id": 1, "method": "service_updateSession", "params": usage,
        });
        let mut wire = station.connect();
        wire.send(&call.to_string());
        drop(wire);
        // Whether it was saved is seen when it is said again, as a program would.
        let again = station.call("service_updateSession", usage).expect("taken");
        assert_eq!(again["status"], "active");
    }
    assert_eq!(database.sessions(channel)[0].account.usage, 50);
    works(&station);
}

#[test]
fn thousands_of_idle_connections_cost_little() {
    let module = Described::named("files");
    let station = Station::with("agent", module, "[standalone]\nconnections = 2100\n");
    works(&station);
    let before = resident(&station.node);
    let idle: Vec<_> = (0..2000).map(|_| station.connect()).collect();
    works(&station);
    let grown = resident(&station.node).saturating_sub(before);
    assert!(grown < 128 * 1024, "{grown} KiB for {} connections", idle.len());
    drop(idle);
    works(&station);
}

#[test]
fn beyond_the_limit_connections_wait_for_a_place() {
    let module = Described::named("files");
    let station = Station::with("agent", module, "[standalone]\nconnections = 3\n");
    let mut taken: Vec<_> = (0..3).map(|_| station.connect()).collect();
    let mut late = TcpStream::connect(station.address).expect("in the system's queue");
    late.write_all(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").expect("sent");
    for wire in &mut taken {
        wire.call("service_configuration", json!({})).expect("served");
    }
    late.set_nonblocking(true).expect("set");
    assert!(late.read(&mut [0]).is_err(), "not answered yet");
    late.set_nonblocking(false).expect("set");
    late.set_read_timeout(Some(PATIENCE)).expect("set");
    drop(taken.pop());
    let mut answer = [0; 12];
    late.read_exact(&mut answer).expect("answered in its turn");
    assert_eq!(&answer, b"HTTP/1.1 404");
}

#[test]
fn who_shows_no_token_has_to_leave() {
    let station = Station::new("agent");
    let mut silent = TcpStream::connect(station.address).expect("connected");
    let mut stranger = station.bare();
    let mut welcome = station.connect();
    let answer = station.call("service_subscribe", json!({})).expect("subscribed");
    let question = json!({
        "jsonrpc": "2.0", "id": 1, "method": "service_commands",
        "params": { "subscription": answer["subscription"], "waitSeconds": 33 },
    });
    let (address, token) = (station.address, station.token.clone());
    let asking = std::thread::spawn(move || post(address, Some(&token), &question.to_string()));
    silent.set_read_timeout(Some(2 * PATIENCE)).expect("set");
    stranger.stream().set_read_timeout(Some(2 * PATIENCE)).expect("set");
    assert_eq!(stranger.closed(), 1006);
    assert_eq!(silent.read(&mut [0]).expect("closed"), 0);
    welcome.call("service_configuration", json!({})).expect("it may stay");
    let (status, answer) = asking.join().expect("no panic");
    assert_eq!((status, &answer["result"]["commands"]), (200, &json!([])), "{answer}");
}

/// It is closed and counts as gone; what it was told is told again to who comes next.
#[test]
fn a_program_that_never_reads_is_closed_and_told_again() {
    let station = Station::with(
        "agent",
        Described::named("files"),
        "[channels]\nactivation_timeout = 600\n[module_timeouts]\nstart = 120\n",
    );
    let database = Database::of(&station.node);
    let channel = station.module.channel(&database);
    let mut deaf = station.connect();
    deaf.call("service_subscribe", json!({ "serving": [] })).expect("subscribed");
    let before = resident(&station.node);
    // Calls whose answers it does not read fill whatever is between the two.
    let call = json!({ "jsonrpc": "2.0", "id": "x".repeat(30_000), "method": "service_log" });
    let call = call.to_string();
    deaf.stream().set_write_timeout(Some(std::time::Duration::from_secs(1))).expect("set");
    while deaf.try_send(Message::text(call.clone())).is_ok() {}
    station.node.wait("files", "gone", |view| view.connection.is_some_and(|c| !c.connected));
    let grown = resident(&station.node).saturating_sub(before);
    assert!(grown < 64 * 1024, "{grown} KiB for a connection that does not read");
    let mut next = station.connect();
    let answer = next.call("service_subscribe", json!({ "serving": [] })).expect("subscribed");
    let told = next.told("service_command");
    assert_eq!(told["clientKey"], json!(channel));
    let ready = json!({
        "subscription": answer["subscription"], "id": told["id"], "answer": "ready",
    });
    next.call("service_acknowledge", ready).expect("taken");
    station.node.wait_channel(channel, Status::Active);
}

/// Calls with a few of their bytes changed, by a fixed budget: each is answered or the connection is
/// closed, and the host lives.
#[test]
fn calls_in_which_bytes_are_others() {
    let mut station = Station::new("agent");
    let channel = station.module.channel(&Database::of(&station.node));
    let calls: Vec<String> = [
        ("service_startSession", json!({ "clientKey": channel })),
        ("service_acknowledge", json!({ "subscription": "x", "id": 1, "answer": "ready" })),
        ("service_commands", json!({ "subscription": "x", "after": 0 })),
        ("service_subscribe", json!({ "serving": [channel] })),
        ("sess_startSession", json!([station.module.product(), station.token, channel, "", 0])),
        ("sess_updateSession", json!([station.module.product(), station.token, channel, 1])),
    ]
    .into_iter()
    .map(|(method, params)| {
        json!({ "jsonrpc": "2.0", "id": 1, "method": method, "params": params }).to_string()
    })
    .collect();
    let mut moments = Moments::new(7);
    let mut below = |limit: usize| usize::try_from(moments.below(limit as u64)).expect("small");
    let mut wire = station.connect();
    for _ in 0..3_000 {
        let mut text = calls[below(calls.len())].clone().into_bytes();
        for _ in 0..below(4) {
            let at = below(text.len());
            text[at] = b" \"{}[]:,0a\\u\x7f"[below(13)];
        }
        text.truncate(text.len() - below(3));
        let text = String::from_utf8(text).expect("ASCII");
        wire.send(&text);
        // One without an id is not answered; the marker is, whatever came before it.
        wire.send(r#"{"jsonrpc":"2.0","id":"marker","method":"service_configuration"}"#);
        loop {
            let answer: Value = wire.receive();
            if answer["id"] == "marker" {
                break;
            }
        }
    }
    assert!(station.node.alive());
    let log = station.node.log();
    assert!(!log.contains("panicked") && !log.contains(&station.token), "{log:.2000}");
    wait_for("the host", || station.node.get::<Value>("/v1/modules"));
}

fn is_connected(station: &Station) -> bool {
    let view = station.node.module("files").expect("known");
    view.connection.is_some_and(|connection| connection.connected)
}

fn subscribe(id: u64) -> String {
    json!({ "jsonrpc": "2.0", "id": id, "method": "service_subscribe", "params": {} }).to_string()
}

#[test]
fn a_subscription_goes_with_its_connection_also_before_it_was_answered() {
    let station = Station::new("agent");
    for _ in 0..10 {
        let mut wire = station.connect();
        wire.send(&subscribe(1));
        drop(wire);
    }
    // Whatever has come of those, none is there to be told. One that comes now is, until it goes.
    let mut wire = station.connect();
    wire.call("service_subscribe", json!({})).expect("subscribed");
    wait_for("the program", || is_connected(&station).then_some(()));
    drop(wire);
    wait_for("nobody", || (!is_connected(&station)).then_some(()));
}

#[test]
fn of_two_subscriptions_at_once_one_is_told() {
    let station = Station::new("agent");
    for _ in 0..20 {
        let mut wire = station.connect();
        for id in 1..=4 {
            wire.send(&subscribe(id));
        }
        for _ in 1..=4 {
            assert!(wire.receive()["result"]["subscription"].is_string());
        }
        // What follows from the answers has been done once a further call is answered.
        wire.call("service_configuration", json!({})).expect("answered");
        assert!(is_connected(&station));
    }
}

#[test]
fn as_many_channels_as_a_program_serves_can_be_named() {
    let station = Station::new("agent");
    let serving: Vec<Uuid> = (0..20_000).map(|_| Uuid::new_v4()).collect();
    let mut wire = station.connect();
    wire.call("service_subscribe", json!({ "serving": serving })).expect("subscribed");
    station.call("service_subscribe", json!({ "serving": serving })).expect("subscribed");
}
