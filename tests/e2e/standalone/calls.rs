//! Our own spelling: the Service API with its own names, by both ways in.

use privatix_plugin_api::message::Status;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::support::Database;
use crate::support::program::{Described, Station};

/// What may be used of a channel without a price until a report is acknowledged: the default of
/// `channels.max_unreported`.
const CREDIT: u64 = 64 << 20;

#[test]
fn every_call_of_an_agent_good_and_bad() {
    let station = Station::new("agent");
    let other = Described::named("other");
    other.drop_into(&station.node.plugins());
    station.node.wait_state("other", privatix_modules::registry::State::Running);
    let database = Database::of(&station.node);
    let channel = station.module.channel(&database);
    let foreign = other.channel(&database);
    let mut wire = station.connect();
    let started = wire.call("service_startSession", json!({ "clientKey": channel }));
    let started = started.expect("a session");
    assert_eq!(started["status"], "active");
    assert_eq!(started["credit"], CREDIT);
    let in_use = json!({ "status": "active", "credit": CREDIT });
    let session = started["session"].clone();
    let unknown = Uuid::new_v4();
    let used = |total: u64| json!({ "clientKey": channel, "session": session, "usage": { "total": total } });
    let of = |key: &dyn std::fmt::Display| json!({ "clientKey": key.to_string() });
    // What is called, and what is answered: a result, or the name of an error.
    let rows: Vec<(&str, Value, Result<Value, &str>)> = vec![
        ("serviceReady", of(&channel), Ok(in_use.clone())),
        ("serviceReady", of(&unknown), Err("ChannelNotFound")),
        ("serviceReady", of(&foreign), Err("ChannelNotFound")),
        ("serviceReady", of(&"x"), Err("BadRequest")),
        ("serviceReady", json!({}), Err("BadRequest")),
        ("serviceReady", json!([channel]), Err("BadRequest")),
        ("serviceReady", json!({ "clientKey": channel, "call": "x" }), Err("BadRequest")),
        ("updateSession", used(100), Ok(in_use.clone())),
        ("updateSession", used(100), Ok(in_use.clone())),
        ("updateSession", used(99), Err("UsageWentBackwards")),
        (
            "updateSession",
            json!({ "clientKey": channel, "session": unknown, "usage": { "total": 1 } }),
            Err("SessionNotFound"),
        ),
        (
            "updateSession",
            json!({ "clientKey": channel, "session": session, "usage": { "totals": 1 } }),
            Err("BadRequest"),
        ),
        (
            "authClient",
            json!({ "clientKey": channel, "password": "wrong" }),
            Err("BadClientPassword"),
        ),
        ("setProductConfig", json!({ "config": { "address": "192.0.2.1:1" } }), Ok(json!({}))),
        ("setProductConfig", json!({ "config": {} }), Err("BadProductConfig")),
        ("setProductConfig", json!({ "config": { "a": 1 } }), Err("BadRequest")),
        ("getAccess", of(&channel), Err("Unsupported")),
        ("flyAway", json!({}), Err("Unsupported")),
        (
            "log",
            json!({ "level": "info", "target": "t", "message": "a word of the module's" }),
            Ok(json!({})),
        ),
        (
            "stopSession",
            json!({ "clientKey": channel, "session": session }),
            Ok(json!({ "status": "active" })),
        ),
        (
            "stopSession",
            json!({ "clientKey": channel, "session": unknown }),
            Err("SessionNotFound"),
        ),
    ];
    for (call, params, expected) in &rows {
        let method = format!("service_{call}");
        for (way, outcome) in [
            ("ws", wire.call(&method, params.clone())),
            ("http", station.call(&method, params.clone())),
        ] {
            let outcome = outcome.map_err(|refusal| refusal.name.unwrap_or_default());
            let expected = expected.clone().map_err(str::to_owned);
            assert_eq!(outcome, expected, "{call} {params} by {way}");
        }
    }
    assert_eq!(database.sessions(channel)[0].account.usage, 100);
    assert!(station.node.log().contains("a word of the module's"));
    let refusal = wire.call("service_serviceReady", of(&unknown)).expect_err("unknown");
    assert_eq!((refusal.code, refusal.message.as_str()), (1_236_225, "channel not found"));
    for method in ["", "service", "eth_call", "session_startSession"] {
        let refusal = wire.call(method, json!({})).expect_err("no such method");
        assert_eq!(refusal.code, -32601, "{method}");
    }
}

#[test]
fn without_a_token_nothing_is_answered() {
    let station = Station::new("agent");
    let channel = station.module.channel(&Database::of(&station.node));
    let mut wire = station.bare();
    for (method, params) in [
        ("service_configuration", json!({})),
        ("service_serviceReady", json!({ "clientKey": channel })),
        ("service_subscribe", json!({})),
        ("service_nothing", json!({})),
    ] {
        let refusal = wire.call(method, params).expect_err("denied");
        assert_eq!(refusal.name.as_deref(), Some("AccessDenied"), "{method}");
    }
    assert_eq!(station.node.channel(channel).status, Status::Activating);
}

#[test]
fn batches_and_calls_that_want_no_answer() {
    let station = Station::new("agent");
    let mut wire = station.connect();
    let call = |id: u64| json!({ "jsonrpc": "2.0", "id": id, "method": "service_configuration" });
    let silent = json!({ "jsonrpc": "2.0", "method": "service_configuration" });
    wire.send(&json!([call(1), silent, 7, call(2)]).to_string());
    let answers = wire.receive();
    let ids: Vec<_> = answers.as_array().expect("a batch").iter().map(|a| &a["id"]).collect();
    assert_eq!(ids, [&json!(1), &json!(null), &json!(2)]);
    assert_eq!(answers[1]["error"]["code"], -32600);
    // Neither is answered; the next answer is the next call's.
    wire.send(&silent.to_string());
    wire.send(&json!([silent, silent]).to_string());
    wire.send(&call(9).to_string());
    assert_eq!(wire.receive()["id"], 9);
    let (status, body) = station.post(Some(&station.token), &json!([silent]).to_string());
    assert_eq!((status, body), (204, Value::Null));
}
