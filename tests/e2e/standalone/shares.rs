//! What one product's programs cannot take from the others: memory, turns, waits, connections, the log.

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Instant;

use privatix_modules::registry::State;
use serde_json::{Value, json};

use crate::support::crowd::Crowd;
use crate::support::program::{Described, Station, Wire, post, token};
use crate::support::{Database, Node, PATIENCE, wait_for};

/// What the host may grow by, in KiB, whatever a program does: its product's 16 MiB, those of
/// strangers, and what the allocator keeps.
const MOST: u64 = 64 * 1024;

/// A program of another product, which does what it should.
struct Honest {
    address: SocketAddr,
    token: String,
}

impl Honest {
    fn beside(station: &Station) -> Self {
        Described::named("other").drop_into(&station.node.plugins());
        station.node.wait_state("other", State::Running);
        let honest = Self { address: station.address, token: token(&station.node, "other") };
        honest.works();
        honest
    }

    fn works(&self) {
        let call = json!({ "jsonrpc": "2.0", "id": 1, "method": "service_configuration" });
        let (status, body) = post(self.address, Some(&self.token), &call.to_string());
        assert_eq!((status, &body["result"]["name"]), (200, &json!("other")), "{body}");
        let mut wire = Wire::connect(self.address, Some(&self.token)).expect("connected");
        wire.call("service_configuration", json!({})).expect("answered");
    }
}

/// A figure of the host's memory, in KiB.
fn memory(node: &Node, name: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", node.pid())).expect("readable");
    let line = status.lines().find(|line| line.starts_with(name)).expect("a line");
    line.split_whitespace().nth(1).expect("a number").parse().expect("a number")
}

/// Memory that is in use now; the peak is counted from here on.
fn baseline(node: &Node) -> u64 {
    fs::write(format!("/proc/{}/clear_refs", node.pid()), "5").expect("the peak is set back");
    memory(node, "VmRSS:")
}

fn grown(node: &Node, before: u64) -> u64 {
    memory(node, "VmHWM:").saturating_sub(before)
}

/// A request that is sent, and whose answer nobody reads.
fn abandoned(station: &Station, body: &str) -> TcpStream {
    let mut stream = TcpStream::connect(station.address).expect("connected");
    let head = format!(
        "POST /http HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {}\r\nContent-Length: {}\r\n\r\n",
        station.token,
        body.len()
    );
    stream.set_write_timeout(Some(PATIENCE)).expect("set");
    // It may be answered, or closed, before all of it was sent.
    let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body.as_bytes()));
    stream
}

fn call(method: &str, params: Value) -> Value {
    json!({ "jsonrpc": "2.0", "id": 1, "method": method, "params": params })
}

fn subscribed(station: &Station) -> Value {
    station.call("service_subscribe", json!({})).expect("subscribed")["subscription"].clone()
}

#[test]
fn one_token_cannot_have_the_host_hold_more_than_its_share() {
    let station =
        Station::with("agent", Described::named("files"), "[standalone]\nconnections = 40\n");
    let honest = Honest::beside(&station);
    let waiting = call(
        "service_commands",
        json!({
            "subscription": subscribed(&station), "waitSeconds": 50,
        }),
    );
    let zeros = format!("[{}0]", "0,".repeat(500_000));
    let many = format!(r#"{{"jsonrpc":"2.0","id":2,"method":"service_log","params":{zeros}}}"#);
    let batch = format!("[{waiting},{many}]");
    let deep = format!(r#"{{"id":1,"params":{}"#, r#"{"":"#.repeat(200_000));
    let long = call("service_log", json!({ "x": "y".repeat(1_000_000) })).to_string();
    let before = baseline(&station.node);
    for _ in 0..40 {
        for body in [&batch, &many, &deep, &long] {
            drop(abandoned(&station, body));
        }
        honest.works();
    }
    let peak = grown(&station.node, before);
    eprintln!("{peak} KiB for 160 requests");
    assert!(peak < MOST, "{peak} KiB for 160 requests");
}

/// Large messages of which the end never comes, each on a connection of its own.
#[test]
fn messages_that_never_end_wait_for_room() {
    let station =
        Station::with("agent", Described::named("files"), "[standalone]\nconnections = 200\n");
    let honest = Honest::beside(&station);
    let before = baseline(&station.node);
    let mut wires: Vec<_> = (0..150).map(|_| station.connect()).collect();
    // A text of 1 MiB, masked with zeros, of which the last byte is kept back.
    let mut frame = vec![0x81, 0xff, 0, 0, 0, 0, 0, 0x10, 0, 0, 0, 0, 0, 0];
    frame.resize(frame.len() + (1 << 20) - 1, b'x');
    let mut sent = vec![0; wires.len()];
    for _ in 0..20 {
        for (wire, sent) in wires.iter_mut().zip(&mut sent) {
            let stream = wire.stream();
            stream.set_nonblocking(true).expect("set");
            match stream.write(&frame[*sent..]) {
                Ok(more) => *sent += more,
                Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock),
            }
        }
        honest.works();
    }
    let peak = grown(&station.node, before);
    eprintln!("{peak} KiB for {} messages", wires.len());
    assert!(peak < MOST, "{peak} KiB for {} messages", wires.len());
    drop(wires);
    station
        .connect()
        .call(
            "service_log",
            json!({
                "level": "info", "target": "t", "message": "x".repeat(900_000),
            }),
        )
        .expect("there is room again");
}

#[test]
fn calls_that_nobody_waits_for_keep_nobody_waiting() {
    let station =
        Station::with("agent", Described::named("files"), "[standalone]\nconnections = 40\n");
    let honest = Honest::beside(&station);
    let channel = station.module.channel(&Database::of(&station.node));
    let body = call("service_startSession", json!({ "clientKey": channel })).to_string();
    let before = baseline(&station.node);
    for _ in 0..20 {
        for _ in 0..100 {
            drop(abandoned(&station, &body));
        }
        honest.works();
    }
    let peak = grown(&station.node, before);
    eprintln!("{peak} KiB for 2000 calls");
    assert!(peak < MOST, "{peak} KiB for 2000 calls");
    station.call("service_serviceReady", json!({ "clientKey": channel })).expect("answered");
}

#[test]
fn questions_for_commands_wait_in_a_few_places_and_for_who_is_there() {
    let station = Station::new("agent");
    let subscription = subscribed(&station);
    let ask = |seconds: u64| {
        call("service_commands", json!({ "subscription": subscription, "waitSeconds": seconds }))
    };
    let mut waiting = Vec::new();
    let refused = || {
        let (_, body) = station.post(Some(&station.token), &ask(1).to_string());
        (body["error"]["data"]["name"] == "TooManyWaiting").then_some(())
    };
    wait_for("all places to be taken", || {
        waiting.push(abandoned(&station, &ask(50).to_string()));
        refused()
    });
    assert!(waiting.len() >= 16, "{}", waiting.len());
    let (_, body) = station.post(Some(&station.token), &ask(0).to_string());
    assert_eq!(body["result"]["commands"], json!([]), "without waiting there is room: {body}");
    drop(waiting);
    wait_for("a free place", || refused().is_none().then_some(()));
    // In a batch, others' answers would wait for it.
    let batch = json!([ask(1), call("service_configuration", json!({})), ask(0)]);
    let (_, body) = station.post(Some(&station.token), &batch.to_string());
    assert_eq!(body[0]["error"]["data"]["name"], "BadRequest", "{body}");
    assert_eq!(
        (&body[1]["result"]["name"], &body[2]["result"]["commands"]),
        (&json!("files"), &json!([]))
    );
}

#[test]
fn who_has_shown_no_token_is_in_nobodys_way() {
    let station = Station::new("agent");
    let silent: Vec<_> =
        (0..2_200).map(|_| TcpStream::connect(station.address).expect("connected")).collect();
    station.connect().call("service_configuration", json!({})).expect("answered");
    station.call("service_configuration", json!({})).expect("answered");
    let mut wire = station.bare();
    let params = json!([station.module.product(), station.token, uuid::Uuid::new_v4()]);
    let refusal = wire.call("sess_serviceReady", params).expect_err("no such channel");
    assert_eq!(refusal.message, "channel not found (1236225)");
    // The oldest had to make room.
    let mut first = silent.first().expect("one");
    first.set_read_timeout(Some(PATIENCE)).expect("set");
    assert_eq!(first.read(&mut [0]).expect("closed"), 0);
}

/// They come back whenever they are closed, from many addresses, and half of them ask something.
#[test]
fn a_token_is_answered_every_time_while_a_crowd_without_one_comes_back() {
    const ADDRESSES: u8 = 48;
    const EACH: usize = 46;
    let station = Station::new("agent");
    let honest = Honest::beside(&station);
    let upgrade = "GET /ws HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                   Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n";
    let half = "POST /http HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{\"jsonrpc\":";
    let crowd = Crowd::of(station.address, ADDRESSES, EACH, &["", "POST /ht", half, upgrade]);
    let mut answers = 0;
    while crowd.opened() < 3 * usize::from(ADDRESSES) * EACH || answers < 20 {
        honest.works();
        station.call("service_configuration", json!({})).expect("answered");
        answers += 1;
    }
    eprintln!("{answers} rounds, {} connections of the crowd", crowd.opened());
}

#[test]
fn every_product_keeps_places_of_its_own() {
    let station =
        Station::with("agent", Described::named("files"), "[standalone]\nconnections = 10\n");
    let honest = Honest::beside(&station);
    let greedy: Vec<_> = (0..40)
        .map(|_| abandoned(&station, &call("service_configuration", json!({})).to_string()))
        .collect();
    honest.works();
    let mut own: Vec<_> = (0..4)
        .map(|_| Wire::connect(honest.address, Some(&honest.token)).expect("connected"))
        .collect();
    for wire in &mut own {
        wire.call("service_configuration", json!({})).expect("answered");
    }
    drop(greedy);
}

/// Neither a line of its own, nor a long one, nor without end.
#[test]
fn what_a_program_says_cannot_look_like_the_hosts_own_words() {
    let station = Station::new("agent");
    let forged = "x\n2026-11-28T02:15:03Z ERROR privatix: forged\u{2028}\r\u{1b}[2J\u{202e}";
    for message in [forged.to_owned(), "y".repeat(900_000)] {
        let event = json!({
            "level": "info", "target": forged, "message": message, "fields": { forged: forged },
        });
        station.call("service_log", event).expect("taken");
    }
    let begun = Instant::now();
    let mut wire = station.connect();
    for _ in 0..5_000 {
        let event = json!({ "level": "info", "target": "t", "message": "z".repeat(1_000) });
        wire.call("service_log", event).expect("taken");
    }
    let log = station.node.log();
    assert!(log.lines().all(|line| !line.starts_with("2026-11-28T02:15:03Z")), "{log:.3000}");
    let control = |letter: &char| letter.is_control() && *letter != '\n';
    assert_eq!(log.chars().find(control), None);
    assert!(log.lines().all(|line| line.len() < 20_000) && log.contains("bytes more)"));
    // So much at once, and 32 KiB a second beside it.
    let room = 2 * 1024 * 1024 + 32 * 1024 * begun.elapsed().as_secs() as usize;
    assert!(log.contains("logs too much") && log.len() < room, "{} of {room}", log.len());
}
