//! What a program is told, and what follows from its answers.

use privatix_plugin_api::message::{ClientKey, Status};
use serde_json::{Value, json};

use crate::support::program::{Station, Wire};
use crate::support::{Database, Node, wait_for};

/// A program that has subscribed.
struct Program {
    wire: Wire,
    subscription: Value,
}

impl Program {
    fn of(station: &Station, serving: Value) -> Self {
        let mut wire = station.connect();
        let answer = wire.call("service_subscribe", json!({ "serving": serving }));
        let subscription = answer.expect("subscribed")["subscription"].clone();
        Self { wire, subscription }
    }

    /// The next command about a channel.
    fn told(&mut self, channel: ClientKey, command: &str) -> Value {
        let told = self.wire.told("service_command");
        assert_eq!(told["subscription"], self.subscription);
        assert_eq!((&told["clientKey"], &told["command"]), (&json!(channel), &json!(command)));
        told
    }

    fn answer(&mut self, told: &Value, answer: &str) {
        let params = json!({
            "subscription": self.subscription, "id": told["id"], "answer": answer,
            "text": "because", "service": { "port": "1080" },
        });
        assert_eq!(self.wire.call("service_acknowledge", params), Ok(json!({})));
    }
}

fn command(node: &Node, channel: ClientKey, command: &str) {
    let path = format!("/v1/channels/{channel}/{command}");
    let _: Value = node.post(&path, &json!(null)).expect(command);
}

fn started(wire: &mut Wire, channel: ClientKey) -> Value {
    let params = json!({ "clientKey": channel });
    wire.call("service_startSession", params).expect("a session")["session"].clone()
}

#[test]
fn start_and_stop_with_every_answer() {
    let station = Station::with(
        "agent",
        crate::support::program::Described::named("files"),
        "[module_timeouts]\nstop = 2\n",
    );
    let node = &station.node;
    let channel = station.module.channel(&Database::of(node));
    let mut program = Program::of(&station, json!([]));
    let start = program.told(channel, "start");
    program.answer(&start, "ready");
    node.wait_channel(channel, Status::Active);
    assert_eq!(node.channel(channel).service["port"], "1080");
    program.answer(&start, "ready");

    command(node, channel, "suspend");
    let stop = program.told(channel, "stop");
    assert_eq!(stop["reason"], "suspended");
    // What makes no sense is said, and the command still waits.
    let wrong =
        json!({ "subscription": program.subscription, "id": stop["id"], "answer": "ready" });
    let refusal = program.wire.call("service_acknowledge", wrong).expect_err("senseless");
    assert_eq!(refusal.name.as_deref(), Some("BadRequest"));
    assert_eq!(node.channel(channel).status, Status::Suspending);
    program.answer(&stop, "stopped");
    node.wait_channel(channel, Status::Suspended);

    // Later: the program says itself when it is ready.
    command(node, channel, "resume");
    let start = program.told(channel, "start");
    program.answer(&start, "later");
    assert_eq!(node.channel(channel).status, Status::Activating);
    program.wire.call("service_serviceReady", json!({ "clientKey": channel })).expect("ready");
    node.wait_channel(channel, Status::Active);

    // A stop is not over while a session is open, and not silently.
    let session = started(&mut program.wire, channel);
    command(node, channel, "suspend");
    let stop = program.told(channel, "stop");
    program.answer(&stop, "stopped");
    assert_eq!(node.channel(channel).status, Status::Suspending);
    let params = json!({ "clientKey": channel, "session": session });
    let reply = program.wire.call("service_stopSession", params).expect("stopped");
    assert_eq!(reply["status"], "suspended");

    // Failed: the channel is held for a while, with what the program said in the log.
    command(node, channel, "resume");
    let told = loop {
        let told = program.wire.told("service_command");
        if told["command"] == "start" {
            break told;
        }
        program.answer(&told, "stopped");
    };
    program.answer(&told, "failed");
    wait_for("the hold", || {
        node.channel(channel).holds.contains(&"fault".to_owned()).then_some(())
    });
    assert!(node.log().contains("because"));
    // And over.
    let stop = program.told(channel, "stop");
    program.answer(&stop, "stopped");
    node.wait_channel(channel, Status::Suspended);
    command(node, channel, "terminate");
    node.wait_channel(channel, Status::Terminated);
}

#[test]
fn who_comes_back_is_told_again_and_what_it_does_not_serve_is_closed() {
    let mut station = Station::new("agent");
    let database = Database::of(&station.node);
    let channels = [(); 3].map(|()| station.module.channel(&database));
    let [kept, lost, ended] = channels;
    let mut program = Program::of(&station, json!([]));
    for _ in channels {
        let told = program.wire.told("service_command");
        program.answer(&told, "ready");
    }
    for channel in channels {
        station.node.wait_channel(channel, Status::Active);
        started(&mut program.wire, channel);
    }
    drop(program);
    station.node.wait("files", "not connected", |v| v.connection.is_some_and(|c| !c.connected));
    // Without it, starts wait, and stops are counted until they are forced.
    command(&station.node, ended, "suspend");

    let stranger = ClientKey(uuid::Uuid::new_v4());
    let mut program = Program::of(&station, json!([kept, ended, stranger]));
    let mut told = std::collections::BTreeMap::<String, Vec<Value>>::new();
    let complete = |told: &std::collections::BTreeMap<String, Vec<Value>>| {
        let has = |channel: ClientKey, word: &str| {
            let all = told.get(&channel.to_string());
            all.is_some_and(|all| all.iter().any(|command| command["command"] == word))
        };
        has(kept, "start") && has(lost, "start") && has(ended, "stop") && has(stranger, "stop")
    };
    while !complete(&told) {
        let command = program.wire.told("service_command");
        program.answer(&command, if command["command"] == "start" { "ready" } else { "stopped" });
        let key = command["clientKey"].as_str().expect("a key").to_owned();
        told.entry(key).or_default().push(command);
    }
    assert_eq!(told[&stranger.to_string()][0]["reason"], "terminated");
    let open = |channel| database.sessions(channel)[0].stopped_at.is_none();
    assert_eq!((open(kept), open(lost), open(ended)), (true, false, true));

    // A host that is killed and comes back tells all of it again, too.
    station.node.kill();
    assert_eq!(program.wire.closed(), 1006);
    station.node.start();
    station.node.wait_state("files", privatix_modules::registry::State::Running);
    let mut program = Program::of(&station, json!([kept, lost]));
    let mut again = Vec::new();
    while again.len() < 2 {
        let command = program.wire.told("service_command");
        if command["command"] == "start" {
            again.push(command["clientKey"].clone());
        }
    }
    assert!(again.contains(&json!(kept)) && again.contains(&json!(lost)), "{again:?}");
    assert!(open(kept), "what it serves goes on");
}

#[test]
fn the_last_to_subscribe_is_told() {
    let station = Station::new("agent");
    let database = Database::of(&station.node);
    let mut first = Program::of(&station, json!([]));
    let mut second = Program::of(&station, json!([]));
    assert_eq!(first.wire.closed(), 4002);
    let channel = station.module.channel(&database);
    // Made behind the host's back: nothing is told until it is looked for.
    command(&station.node, channel, "suspend");
    let told = second.told(channel, "stop");
    second.answer(&told, "stopped");
    station.node.wait_channel(channel, Status::Suspended);
    // The same connection may subscribe anew, and leave.
    let again = second.wire.call("service_subscribe", json!({})).expect("subscribed");
    second.subscription = again["subscription"].clone();
    command(&station.node, channel, "resume");
    let told = second.told(channel, "start");
    second.answer(&told, "ready");
    station.node.wait_channel(channel, Status::Active);
    let leave = json!({ "subscription": second.subscription });
    second.wire.call("service_unsubscribe", leave.clone()).expect("left");
    let refusal = second.wire.call("service_unsubscribe", leave).expect_err("left before");
    assert_eq!(refusal.name.as_deref(), Some("SubscriptionNotFound"));
    station.node.wait("files", "not connected", |v| v.connection.is_some_and(|c| !c.connected));
    second.wire.call("service_configuration", json!({})).expect("still answered");
}

#[test]
fn by_http_alone_commands_are_asked_for() {
    let station = Station::new("agent");
    let channel = station.module.channel(&Database::of(&station.node));
    let ask = |subscription: &Value, after: u64, wait: u64| {
        let params = json!({ "subscription": subscription, "after": after, "waitSeconds": wait });
        station.call("service_commands", params)
    };
    let answer = station.call("service_subscribe", json!({ "serving": [] })).expect("subscribed");
    let subscription = answer["subscription"].clone();
    let commands = ask(&subscription, 0, 20).expect("answered")["commands"].clone();
    assert_eq!(commands[0]["command"], "start", "{commands}");
    // Told again until it is answered, but not to who has seen it.
    assert_eq!(ask(&subscription, 0, 0).expect("answered")["commands"], commands);
    assert_eq!(ask(&subscription, 1, 0).expect("answered")["commands"], json!([]));
    let ready = json!({ "subscription": subscription, "id": 1, "answer": "ready" });
    station.call("service_acknowledge", ready).expect("taken");
    station.node.wait_channel(channel, Status::Active);
    assert_eq!(ask(&subscription, 0, 0).expect("answered")["commands"], json!([]));
    // A question that waits is answered as soon as there is something.
    command(&station.node, channel, "suspend");
    let commands = ask(&subscription, 1, 50).expect("answered")["commands"].clone();
    assert_eq!(commands[0]["command"], "stop", "{commands}");
    // One that has been replaced is over.
    let next = station.call("service_subscribe", json!({})).expect("subscribed");
    for over in [&subscription, &json!("nonsense")] {
        let refusal = ask(over, 0, 0).expect_err("over");
        assert_eq!(refusal.name.as_deref(), Some("SubscriptionNotFound"));
    }
    ask(&next["subscription"], 0, 0).expect("answered");
}
